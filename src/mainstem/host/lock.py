"""A lock that dies with its process: a POSIX record lock on a file that is opened once.

POSIX record locks belong to a process: closing *any* descriptor of the file lets go of the lock, and a second lock by
the same process succeeds. So the file is opened once, never read, and a table of this process refuses the second
taker. ``flock`` would not do: a forked child keeps it alive after its parent was killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from pathlib import Path

_FLOCK = struct.Struct("hhqqi4x")
"""``struct flock`` of Linux on 64 bits: type, whence, start, length, pid."""

_held: set[tuple[int, int]] = set()
_held_guard = threading.Lock()


class LockHeldError(Exception):
    """The lock is held.

    Attributes:
        owner_pid: The holder's process id; 0 when it let go meanwhile.
    """

    def __init__(self, owner_pid: int) -> None:
        super().__init__(f"held by process {owner_pid}")
        self.owner_pid = owner_pid


class RecordLock:
    """The lock of one file, held from construction to :meth:`release` or the end of the process.

    Args:
        path: The file, which is created where there is none.
        new: Whether it must not be there yet.

    Raises:
        LockHeldError: It is held, by another process or by this one.
        FileExistsError: It was to be new, and is there.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self._pid = os.getpid()
        with _held_guard:
            self._identity = self._refuse_second_taker(path)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if new else 0)
            self._descriptor = os.open(path, flags, 0o600)
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner_pid = self._owner_pid()
                os.close(self._descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise LockHeldError(owner_pid) from None
                raise
            status = os.fstat(self._descriptor)
            self._identity = (status.st_dev, status.st_ino)
            _held.add(self._identity)

    def _refuse_second_taker(self, path: Path) -> tuple[int, int]:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return (0, 0)  # nobody can hold what does not exist yet
        identity = (status.st_dev, status.st_ino)
        if identity in _held:
            raise LockHeldError(self._pid)
        return identity

    def _owner_pid(self) -> int:
        return _holder_pid(self._descriptor)

    def release(self) -> None:
        """Let go. In a forked child this does nothing: the lock was never the child's."""
        if self._descriptor < 0 or os.getpid() != self._pid:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with _held_guard:
            _held.discard(self._identity)
            os.close(descriptor)


def lock_owner_pid(path: Path) -> int:
    """Return the id of the process that holds the lock of a file, without taking it; 0 when nobody does."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0
    with _held_guard:
        if (status.st_dev, status.st_ino) in _held:
            return os.getpid()  # asking the system would open and close the file, and closing would let go of our lock
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return _holder_pid(descriptor)
        finally:
            os.close(descriptor)


def _holder_pid(descriptor: int) -> int:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    kind, _whence, _start, _length, pid = _FLOCK.unpack(answer)
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def _forget_in_child() -> None:
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
