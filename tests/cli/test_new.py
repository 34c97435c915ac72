"""``mainstem new``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mainstem.cli import new
from mainstem.cli.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from mainstem.cli.new import TEMPLATES, write_application
from tests.cli.conftest import Invoke

ROOT = Path(__file__).parents[2]


def test_it_writes_a_whole_application(invoke: Invoke, tmp_path: Path) -> None:
    """All files are there, with the application's name where it belongs, and the next commands are printed."""
    result = invoke("new", tmp_path / "deep" / "shop")
    assert result.code == EXIT_OK
    assert sorted(path.name for path in (tmp_path / "deep" / "shop").iterdir()) == sorted(TEMPLATES)
    assert (tmp_path / "deep" / "shop" / "README.md").read_text().startswith("# shop\n")
    assert "mainstem dev app.py" in result.out


def test_json(invoke: Invoke, tmp_path: Path) -> None:
    """With ``--json`` the files are listed in one document."""
    assert invoke("new", tmp_path / "shop", "--json").json["files"] == list(TEMPLATES)


def test_an_existing_directory_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    """What exists is left as it is, be it an empty directory or a dangling link."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("shop", "link"):
        assert invoke("new", tmp_path / name).code == EXIT_FAILED
    assert list((tmp_path / "shop").iterdir()) == []


@pytest.mark.parametrize("name", ["Shop", "1shop", "sh op", "x" * 65])
def test_names_that_no_package_can_have(invoke: Invoke, tmp_path: Path, name: str) -> None:
    """A name that cannot be a package's is a usage error, and nothing is written."""
    assert invoke("new", tmp_path / name).code == EXIT_USAGE
    assert list(tmp_path.iterdir()) == []


def test_half_an_application_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file cannot be written, nothing stays behind."""
    monkeypatch.setattr(new, "TEMPLATES", {"app.py": "app.py.tmpl", "more": "missing.tmpl"})
    with pytest.raises(FileNotFoundError):
        write_application(tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_left_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was killed midway leaves its unfinished directory, and the next one writes the application."""

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        patch.setattr(Path, "rename", lambda _self, _target: killed(_self))
        with pytest.raises(KeyboardInterrupt):
            write_application(tmp_path / "shop")
    assert len(list(tmp_path.iterdir())) == 1
    assert write_application(tmp_path / "shop") == list(TEMPLATES)


def test_the_example_is_what_new_writes(tmp_path: Path) -> None:
    """``examples/hello/app.py`` is the application of ``mainstem new``, to the byte."""
    write_application(tmp_path / "hello")
    assert (tmp_path / "hello" / "app.py").read_text() == (ROOT / "examples" / "hello" / "app.py").read_text()


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """The new application passes its own tests, with warnings as errors, and leaves nothing in its directory."""
    write_application(tmp_path / "shop")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path / "shop", capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert not (tmp_path / "shop" / "data").exists()
