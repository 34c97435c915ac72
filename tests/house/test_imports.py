"""The import contracts hold, and fail on an upward import, on siblings that meet and on a room without a place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of a source tree."""
    return subprocess.run(
        [str(LINT_IMPORTS), "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the library and its contracts, which may be broken."""
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    return tmp_path


def test_the_tree_keeps_the_contracts() -> None:
    """No import of the library breaks a contract."""
    answer = lint(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_an_upward_import_is_refused(copy: Path) -> None:
    """The floor below may not import from the one above, not even inside a function."""
    sample = copy / "src/mainstem/base/sample.py"
    sample.write_text("def look() -> None:\n    import mainstem.log.contract\n", "utf-8")
    answer = lint(copy)
    assert answer.returncode == 1
    assert "mainstem.base.sample -> mainstem.log.contract" in answer.stdout


def test_a_room_without_a_place_is_refused(copy: Path) -> None:
    """A new package below ``mainstem`` has to be put into the layers."""
    (copy / "src/mainstem/attic").mkdir()
    (copy / "src/mainstem/attic/__init__.py").write_text("", "utf-8")
    answer = lint(copy)
    assert answer.returncode == 1
    assert "mainstem.attic" in answer.stdout


def test_services_that_meet_are_refused(copy: Path) -> None:
    """One service may not import another; what they share is the contract above them."""
    (copy / "src/mainstem/services/media/sample.py").write_text("import mainstem.services.uploads\n", "utf-8")
    answer = lint(copy)
    assert answer.returncode == 1
    assert "mainstem.services.media is not allowed to import mainstem.services.uploads" in answer.stdout


def test_importing_what_is_for_tests_is_refused(copy: Path) -> None:
    """The library does not import ``mainstem.testing``, not even the room above it."""
    (copy / "src/mainstem/cli/sample.py").write_text("import mainstem.testing\n", "utf-8")
    assert lint(copy).returncode == 1
