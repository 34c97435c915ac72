"""Files of the work directory are durable under their final names."""

from __future__ import annotations

import os
import stat
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from mainstem.services.media import chunks as chunks_module


def order_of_keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep a file; return what was asked of the disk, in order."""
    work = tmp_path / "work"
    work.mkdir()
    source = tmp_path / "v0.mp4"
    source.write_bytes(b"frames")
    asked: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        asked.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def noted_rename(old: Path, new: Path) -> None:
        asked.append("rename")
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(os, "rename", noted_rename)
        [kept] = chunks_module._keep(work, [(source, "chunk.mp4")])
    assert (work / kept.name).read_bytes() == b"frames" and kept.size_bytes == 6
    return asked


def test_bytes_before_name_before_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept file is synced before it gets its name, and the directory after."""
    assert order_of_keeping(tmp_path, monkeypatch) == ["sync file", "rename", "sync directory"]


def leave_out(monkeypatch: pytest.MonkeyPatch, is_left_out: Callable[[int], bool]) -> None:
    """Let the code under test sync nothing of a kind."""

    def fsync(descriptor: int) -> None:
        if not is_left_out(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)

    monkeypatch.setattr(chunks_module, "os", types.SimpleNamespace(**{**vars(os), "fsync": fsync}))


@pytest.mark.parametrize("is_left_out", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "directory"])
def test_a_missing_sync_is_noticed(
    is_left_out: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code without one of the syncs does not keep the order, and the check sees it."""
    leave_out(monkeypatch, is_left_out)
    with pytest.raises(AssertionError):
        test_bytes_before_name_before_directory(tmp_path, monkeypatch)
