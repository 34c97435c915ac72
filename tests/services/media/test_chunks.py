"""Files of the work directory are durable under their final names."""

from __future__ import annotations

import errno
import os
import random
import stat
import types
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mainstem.host.errors import ProcessNotStartedError
from mainstem.log import LogFullError
from mainstem.services.media import chunks as chunks_module
from mainstem.services.media import work
from mainstem.services.media.errors import EncodeError, NoRoomError, PackageError
from tests.services.media.pipeline import encoder_for
from tests.support import run


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


def test_a_full_disk_is_no_fault_of_the_source(tmp_path: Path) -> None:
    """Whatever its exit code, an ffmpeg that had no room left is an error of its own."""
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho 'av_interleaved_write_frame(): No space left on device' >&2\n")
    program.chmod(0o755)
    encoder = encoder_for(tmp_path / "source.mp4", tmp_path)
    with pytest.raises(NoRoomError):
        run(chunks_module._run(msgspec.structs.replace(encoder, ffmpeg=program), [], tmp_path, None))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EMFILE, "too many files"),
        ProcessNotStartedError("ffmpeg", "no more processes"),
        NoRoomError("full"),
        LogFullError("full"),
    ],
)
def test_a_shortage_is_waited_out(error: Exception) -> None:
    """For minutes a step is tried again after a shortage; after another error three times, as ever."""
    waited_s, attempt, source = 0.0, 1, random.Random(7)
    while work._RETRY.retries(error, attempt):
        waited_s += work._RETRY.delay_s(attempt, source)
        attempt += 1
    assert attempt == 12 and waited_s > 180 and work.is_shortage(error)
    assert work._RETRY.retries(EncodeError("x"), 2) and not work._RETRY.retries(EncodeError("x"), 3)
    assert not work._RETRY.retries(OSError(errno.EIO, "x"), 3) and not work._RETRY.retries(PackageError("x"), 1)
    assert isinstance(work._RETRY, work.WorkRetry)
