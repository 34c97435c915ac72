"""The system's disk: the same face and the same answers as the simulated one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.host.disk import Disk, SystemDisk
from mainstem.host.lock import LockHeldError
from mainstem.testing import SimulatedDisk


class WatchedDisk(SystemDisk):
    """A disk that remembers which directories were synced."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_directory(self, path: Path) -> None:
        """Note the path, and sync."""
        self.synced.append(path)
        super().sync_directory(path)


@pytest.fixture(params=[SystemDisk, SimulatedDisk])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """Each kind of disk, with the test's directory on it."""
    made: Disk = request.param()
    made.make_directory(tmp_path)
    return made


def test_files(disk: Disk, tmp_path: Path) -> None:
    """Bytes are written at an offset from many buffers, read back, cut off and counted; the end reads short."""
    file = disk.create(tmp_path / "a")
    assert file.write_at(0, [b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
    assert file.write_at(8, [b"%d" % (number % 10) for number in range(1000)]) == 1000
    file.sync()
    assert file.read_at(0, 10) == b"abcdef\0\x0001"
    assert file.size() == 1008
    file.truncate(7)
    assert file.read_at(4, 100) == b"ef\0"
    assert file.read_at(7, 100) == b""
    file.close()
    file.close()
    reading = disk.open(tmp_path / "a")
    with pytest.raises(OSError, match="Bad file descriptor"):
        reading.write_at(0, [b"x"])
    reading.close()


@pytest.mark.parametrize("count", [3, 5000], ids=["few", "many"])
@pytest.mark.parametrize("size_bytes", [4, 10_000], ids=["small", "large"])
def test_a_short_write_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size_bytes: int
) -> None:
    """What the system takes of a write is not all of it: the rest follows behind it, until all is there."""
    pwrite, pwritev = os.pwrite, os.pwritev
    took: list[int] = []

    def short_pwrite(descriptor: int, data: Any, offset: int) -> int:
        took.append(pwrite(descriptor, memoryview(data)[: max(1, len(data) // 3)], offset))
        return took[-1]

    def short_pwritev(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        took.append(pwritev(descriptor, [memoryview(buffers[0])[:3]], offset))
        return took[-1]

    monkeypatch.setattr(os, "pwrite", short_pwrite)
    monkeypatch.setattr(os, "pwritev", short_pwritev)
    buffers = [bytes([index % 251]) * (size_bytes + index % 7) for index in range(count)]
    whole = b"".join(buffers)
    file = SystemDisk().create(tmp_path / "a")
    assert file.write_at(5, buffers) == len(whole)
    assert file.read_at(0, len(whole) + 10) == bytes(5) + whole
    assert len(took) > 1
    file.close()


def test_zeros(disk: Disk, tmp_path: Path) -> None:
    """A file is filled with exactly as many zeros as were asked for."""
    file = disk.create(tmp_path / "zeros")
    disk.write_zeros(file, (1 << 20) + 5)
    assert file.size() == (1 << 20) + 5
    assert not file.read_at(0, 1 << 21).strip(b"\0")
    file.close()


def test_reserved_space(disk: Disk, tmp_path: Path) -> None:
    """Space that is reserved has the size that was asked for, reads as zeros, and can be written."""
    file = disk.create(tmp_path / "reserved")
    disk.reserve(file, (1 << 20) + 5)
    assert file.size() == (1 << 20) + 5
    assert not file.read_at(0, 1 << 21).strip(b"\0")
    file.write_at(1 << 19, [b"here"])
    assert file.read_at(1 << 19, 4) == b"here" and file.size() == (1 << 20) + 5
    file.close()


def test_names(disk: Disk, tmp_path: Path) -> None:
    """Names are created once, listed in order, renamed over others and removed."""
    for name in ("b", "a"):
        disk.create(tmp_path / name).close()
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "a")
    assert disk.list_directory(tmp_path) == ["a", "b"]
    disk.rename(tmp_path / "b", tmp_path / "a")
    disk.sync_directory(tmp_path)
    assert disk.list_directory(tmp_path) == ["a"]
    disk.remove(tmp_path / "a")
    assert not disk.exists(tmp_path / "a")
    assert disk.list_directory(tmp_path / "none") == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda disk, path: disk.open(path / "none"),
        lambda disk, path: disk.remove(path / "none"),
        lambda disk, path: disk.rename(path / "none", path / "a"),
        lambda disk, path: disk.create(path / "none" / "a"),
        lambda disk, path: disk.sync_directory(path / "none"),
    ],
    ids=["open", "remove", "rename", "create", "sync_directory"],
)
def test_what_is_missing(disk: Disk, tmp_path: Path, wrong: Callable[[Disk, Path], object]) -> None:
    """What is not there is answered with the system's error."""
    with pytest.raises(FileNotFoundError):
        wrong(disk, tmp_path)


def test_lock(disk: Disk, tmp_path: Path) -> None:
    """A lock excludes a second taker until it is released."""
    lock = disk.lock(tmp_path / "lock")
    with pytest.raises(LockHeldError):
        disk.lock(tmp_path / "lock")
    lock.release()
    disk.lock(tmp_path / "lock").release()


def test_directories_are_durable(tmp_path: Path) -> None:
    """Each new directory is synced into its parent, from the top; so is one that was there, whoever made it."""
    disk = WatchedDisk()
    disk.make_directory(tmp_path / "a" / "b")
    assert disk.synced == [tmp_path.parent, tmp_path, tmp_path / "a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    disk.synced.clear()
    disk.make_directory(tmp_path / "a" / "b")
    assert disk.synced == [tmp_path / "a"]


def test_existing_directory_in_an_unreadable_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory whose parent may not be read is used as it is."""
    disk = SystemDisk()
    (tmp_path / "a").mkdir()

    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(disk, "sync_directory", refuse)
    disk.make_directory(tmp_path / "a")
