"""The wheel is all that a user needs: in a clean environment with nothing else it runs the README's application."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from scripts.browser_files import FILES
from tests.docs.document import Session
from tests.support import ROOT

BUILD_TIMEOUT_S = 120.0


def run(command: list[str]) -> str:
    """Run a command that has to succeed, and return what it printed."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def versions(directory: Path) -> Path:
    """Write the locked versions as constraints, without hashes (the wheel has none), and return the file."""
    locked = (ROOT / "requirements" / "run.lock").read_text("utf-8")
    path = directory / "constraints.txt"
    path.write_text("\n".join(re.findall(r"^[\w.-]+==[^\\\n]+", locked, re.MULTILINE)), "utf-8")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as ``make wheel`` builds it."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", str(directory), str(ROOT)])
    (built,) = directory.glob("*.whl")
    return built


def test_it_holds_what_belongs_in_it(wheel: Path) -> None:
    """Code, types marker, licence and the browser code of others are in it; tests are not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {"mainstem/__init__.py", "mainstem/py.typed"} <= set(names)
    assert {f"mainstem/web/static/vendor/{name}" for name in FILES} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith("mainstem") for name in names)


@pytest.mark.serial
def test_the_readme_works_with_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """In an environment that holds the wheel and what it asks for, the README's application runs and is looked at."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    # Versions as locked, packages as the wheel names them: the lock file brings nothing in that the wheel forgot.
    run([python, "-m", "pip", "install", "--quiet", "--constraint", str(versions(tmp_path)), str(wheel)])
    run([python, "-m", "pip", "check"])
    (tmp_path / "work").mkdir()
    with Session(tmp_path / "work", programs=environment / "bin") as session:
        session.run_page((ROOT / "README.md").read_text("utf-8"))
        session.wait_for(["mainstem", "tail", "orders.fulfilled", "--no-follow", "--json"], "charge-7")
