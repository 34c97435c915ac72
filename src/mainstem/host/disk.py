"""The file system, as far as the log needs it: a narrow face, so that a simulated disk can stand in.

Nothing here retries or hides an error. An ``OSError`` from :meth:`File.write_at` or :meth:`File.sync` leaves the
file's durable content unknown; whoever owns the file must stop using it (after EIO, Linux marks the pages clean, and
a second sync "succeeds" with the data lost: Rebello et al., "Can Applications Recover from fsync Failures?", USENIX
ATC 2020).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mainstem.host.lock import RecordLock, lock_owner_pid

Buffer = bytes | bytearray | memoryview

_ZEROS = bytes(1 << 20)
_WRITEV_MAX = 512
_JOINED_MAX_BYTES = 16 << 10


class File(Protocol):
    """An open file."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer only at the end of the file."""
        ...

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Write all buffers one after the other at ``offset``; return their number. Not durable before a sync."""
        ...

    def sync(self) -> None:
        """Return once all data written to this file is durable (``fdatasync``, and the size with it)."""
        ...

    def truncate(self, size: int) -> None:
        """Set the file's size in bytes."""
        ...

    def size(self) -> int:
        """Return the file's size in bytes."""
        ...

    def close(self) -> None:
        """Close the file; idempotent, never durable by itself."""
        ...


class Lock(Protocol):
    """An exclusive lock that is held."""

    def release(self) -> None:
        """Let go of it; idempotent. The process's end does the same."""
        ...


class Disk(Protocol):
    """Directories and names. Paths are absolute, or relative to the working directory."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents where missing (mode 0700), each durable in its parent."""
        ...

    def list_directory(self, path: Path) -> list[str]:
        """Return the sorted names in a directory; empty when there is no such directory."""
        ...

    def exists(self, path: Path) -> bool:
        """Tell whether a path names anything."""
        ...

    def open(self, path: Path, *, write: bool = False) -> File:
        """Open an existing file for reading, or for both."""
        ...

    def create(self, path: Path) -> File:
        """Create a file that must not exist (mode 0600), open for both.

        Its name is not durable before :meth:`sync_directory`.
        """
        ...

    def write_zeros(self, file: File, size: int) -> None:
        """Fill an empty file with ``size`` zero bytes, written, so that later overwrites need no allocation."""
        ...

    def reserve(self, file: File, size: int) -> None:
        """Give an empty file ``size`` bytes of space that read as zeros: at once, where the file system can.

        Overwriting them later costs more than overwriting written zeros does, once for each.
        """
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing the target. Not durable before :meth:`sync_directory`."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file's name."""
        ...

    def sync_directory(self, path: Path) -> None:
        """Return once the names in a directory are durable."""
        ...

    def lock(self, path: Path, *, new: bool = False) -> Lock:
        """Take the exclusive lock that a file stands for, creating the file where missing; never waits.

        Args:
            path: The file. Its name is not durable before :meth:`sync_directory`.
            new: Whether the file must not be there yet: of several who try, one creates it.

        Raises:
            LockHeldError: Another process, or this one, holds it.
            FileExistsError: It was to be new, and is there.
        """
        ...

    def lock_owner(self, path: Path) -> int:
        """Return the id of the process that holds a file's lock; 0 when nobody does."""
        ...


class SystemFile:
    """A file of the operating system, by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size and (data := os.pread(self._descriptor, size - got, offset + got)):
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Write all buffers at ``offset``, going on after a short write."""
        total = sum(map(len, buffers))
        if total <= _JOINED_MAX_BYTES:
            written = os.pwrite(self._descriptor, b"".join(buffers), offset)
        elif len(buffers) <= _WRITEV_MAX:
            written = os.pwritev(self._descriptor, buffers, offset)
        else:
            written = 0
        if written == total:
            return total
        rest = memoryview(b"".join(buffers))[written:]
        while rest:
            count = os.pwrite(self._descriptor, rest, offset + written)
            written += count
            rest = rest[count:]
        return total

    def sync(self) -> None:
        """Sync the file's data (``fdatasync``)."""
        os.fdatasync(self._descriptor)

    def reserve(self, size: int) -> None:
        """Allocate so many bytes, which read as zeros."""
        os.posix_fallocate(self._descriptor, 0, size)

    def truncate(self, size: int) -> None:
        """Set the file's size."""
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        """Return the file's size."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the descriptor once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class SystemDisk:
    """The operating system's file system."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its missing parents, and sync each parent.

        Where the directory exists, its parent is synced all the same: whoever made it may have died before that.
        """
        if path.is_dir():
            # Another account made a directory whose parent we may not read, and answers for it.
            with contextlib.suppress(PermissionError):  # so there is nothing of ours to sync
                self.sync_directory(path.parent)
            return
        if path.parent != path:
            self.make_directory(path.parent)
        with contextlib.suppress(FileExistsError):  # somebody was faster
            path.mkdir(mode=0o700)
        self.sync_directory(path.parent)

    def list_directory(self, path: Path) -> list[str]:
        """Return the sorted names in a directory."""
        return sorted(os.listdir(path)) if path.is_dir() else []

    def exists(self, path: Path) -> bool:
        """Tell whether a path names anything."""
        return os.access(path, os.F_OK)

    def open(self, path: Path, *, write: bool = False) -> SystemFile:
        """Open an existing file; it is not inherited by child processes."""
        return SystemFile(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))

    def create(self, path: Path) -> SystemFile:
        """Create a file that must not exist."""
        return SystemFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def write_zeros(self, file: File, size: int) -> None:
        """Fill an empty file with zeros."""
        for offset in range(0, size, len(_ZEROS)):
            file.write_at(offset, [_ZEROS[: size - offset]])

    def reserve(self, file: File, size: int) -> None:
        """Allocate space (``posix_fallocate``)."""
        if isinstance(file, SystemFile):
            file.reserve(size)
        else:
            self.write_zeros(file, size)

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file's name."""
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        """Sync a directory."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path, *, new: bool = False) -> RecordLock:
        """Take a POSIX record lock."""
        return RecordLock(path, new=new)

    def lock_owner(self, path: Path) -> int:
        """Return the holder of a POSIX record lock."""
        return lock_owner_pid(path)
