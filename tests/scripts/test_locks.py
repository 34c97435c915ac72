"""The lock files bring what was tested: each archive by its hash, none by an address."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from scripts.lock import LOCKS, compile_command
from tests.support import ROOT

_ADDRESS = re.compile(r"https?://|--(?:extra-)?index-url|--find-links")


@pytest.mark.parametrize("name", LOCKS)
def test_python_packages_are_locked_by_hash(name: str) -> None:
    """Each requirement has one version and at least one hash, and no line has an address."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
    assert not _ADDRESS.search(text)
    requirements = re.findall(r"^(?:[a-z0-9].*\n)(?: +.*\n)*", text, re.MULTILINE)
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9-]+==[\w.]+ ", requirement), requirement
        assert "--hash=sha256:" in requirement


def test_browser_code_is_locked_by_hash() -> None:
    """Each npm package has an exact version and an integrity hash, and no address."""
    lock = json.loads((ROOT / "package-lock.json").read_text("utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
    wanted = json.loads((ROOT / "package.json").read_text("utf-8"))
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert packages[f"node_modules/{name}"]["version"] == version


def test_what_runs_is_what_is_tested() -> None:
    """Every version in the other lock files is the one that the tests have."""

    def versions(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.lock").read_text("utf-8")
        return set(re.findall(r"^[a-z0-9-]+==[\w.]+", text, re.MULTILINE))

    assert versions("run") < versions("dev")
    assert versions("node") < versions("dev")


def test_every_dependency_is_locked() -> None:
    """What pyproject.toml asks for is in the lock files: nobody forgot ``make lock``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["media"]]
    for group, entries in project["dependency-groups"].items():
        wanted += [entry for entry in entries if isinstance(entry, str) and group != "clips"]
    text = (ROOT / "requirements" / "dev.lock").read_text("utf-8")
    for requirement in wanted:
        name = re.split(r"[ <>=!~\[;]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}==", text, re.MULTILINE), f"{name}: run make lock"


def test_locks_are_compiled_without_addresses() -> None:
    """The command that writes a lock file asks for hashes, for all platforms, and for no addresses."""
    command = compile_command("dev", upgrade=True)
    assert {"--universal", "--generate-hashes", "--no-emit-index-url", "--upgrade"} <= set(command)
    assert "--upgrade" not in compile_command("run", upgrade=False)
