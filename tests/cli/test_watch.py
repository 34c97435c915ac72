"""Noticing changed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstem.cli import watch
from mainstem.cli.watch import changed_files, take_snapshot


def test_changes_are_noticed(tmp_path: Path) -> None:
    """Added, changed and removed Python files are named; others are not looked at."""
    (tmp_path / "app.py").write_text("a = 1")
    (tmp_path / "old.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    before = take_snapshot(tmp_path)
    (tmp_path / "app.py").write_text("a = 10")
    (tmp_path / "old.py").unlink()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "new.py").write_text("")
    (tmp_path / "notes.txt").write_text("more")
    changed = changed_files(before, take_snapshot(tmp_path))
    assert changed == [str(tmp_path / name) for name in ("app.py", "old.py", "part/new.py")]
    assert changed_files(before, before) == []


def test_what_is_not_source_is_left_out(tmp_path: Path) -> None:
    """Hidden directories, caches, packages of others and virtual environments are not watched."""
    for name in (".git", "__pycache__", "node_modules", "env/lib"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.py").write_text("")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    assert take_snapshot(tmp_path) == {}
    assert take_snapshot(tmp_path / "missing") == {}


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more directories are opened once the limit of files is reached."""
    monkeypatch.setattr(watch, "FILES_MAX", 1)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.py").write_text("")
    assert len(take_snapshot(tmp_path)) == 1
