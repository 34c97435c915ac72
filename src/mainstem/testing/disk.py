"""A disk in memory that fails as real ones do: power cuts, EIO, full disks, slow syncs, damaged bytes.

:class:`SimulatedDisk` has the face of :class:`mainstem.host.disk.Disk`, so whatever writes through that face can be
tested against every kind of failure in milliseconds. What is held to be durable is written in
:mod:`mainstem.testing.volume`.

::

    disk = SimulatedDisk()
    log = await open_log(Path("/data"), disk=disk)
    await log.append("orders.created", [Record(b"1")])      # acknowledged
    after = disk.crash(keep_some(seed=7))                   # the power fails; any subset of what was not synced is gone
    log = await open_log(Path("/data"), disk=after)         # the record is there
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from mainstem.host.disk import Buffer, File
from mainstem.host.lock import LockHeldError
from mainstem.testing.volume import Chooser, DirectoryNode, Inode, Volume, keep_all

OperationKind = Literal[
    "read",
    "write",
    "sync",
    "truncate",
    "open",
    "create",
    "rename",
    "remove",
    "sync_directory",
    "make_directory",
    "lock",
]
"""What a program asks of a disk."""

_CHANGING: frozenset[str] = frozenset(
    {"write", "sync", "truncate", "create", "rename", "remove", "sync_directory", "make_directory", "lock"}
)
_ZEROS = bytes(1 << 20)


class DiskOperation(msgspec.Struct, frozen=True):
    """One operation that was begun, in the order of their beginnings.

    Attributes:
        kind: What it was.
        path: The file or directory, as it was named when it was opened.
        offset: Where in the file, in bytes; 0 where it does not apply.
        size_bytes: How many bytes, or the new size of a truncation.
    """

    kind: OperationKind
    path: str
    offset: int = 0
    size_bytes: int = 0


class PowerCutError(OSError):
    """The simulated power is off, or the simulated process is dead: nothing reaches the disk any more."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the simulated power is off")


class _Fault(msgspec.Struct):
    kind: OperationKind
    countdown: int
    times: int | None
    error: int
    after_bytes: int
    path: str


class SimulatedFile:
    """An open file of a :class:`SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, path: PurePosixPath, inode: Inode, writable: bool) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._writable = writable
        self._closed = False
        self._told_failures = inode.failed_syncs
        disk._volume.opened(inode)
        disk._handles.add(self)

    def __repr__(self) -> str:
        return f"<SimulatedFile {self._path} {'closed' if self._closed else 'open'}, {len(self._inode.cached)} bytes>"

    def _check_open(self, *, writing: bool = False) -> None:
        if self._closed or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes of the cached content at ``offset``."""
        with self._disk._guard:
            self._check_open()
            self._disk._begin("read", self._path, offset, size)
            return bytes(self._inode.cached[offset : offset + size])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Write to the cache. Where the disk is full or a fault was set, a part may be written before the error."""
        data = b"".join(buffers)
        with self._disk._guard:
            self._check_open(writing=True)
            self._disk._write(self._path, self._inode, offset, data)
        return len(data)

    def sync(self) -> None:
        """Make durable what was written before this call began; meanwhile ``on_sync`` is called, with no lock held."""
        with self._disk._guard:
            self._check_open()
            point = self._inode.sync_point()
            fault = self._disk._note("sync", self._path)
            if fault is not None:
                self._inode.abandon()
                self._told_failures = self._inode.failed_syncs
                raise OSError(fault.error, os.strerror(fault.error), str(self._path))
            self._check_failures()
        if self._disk.on_sync is not None:
            self._disk.on_sync(Path(self._path))
        with self._disk._guard:
            self._disk._check_power()
            self._check_failures()
            self._inode.sync(point)

    def _check_failures(self) -> None:
        """Raise EIO once for failed syncs since the last look, by whomever, as Linux does for each open file."""
        if self._told_failures != self._inode.failed_syncs:
            self._told_failures = self._inode.failed_syncs
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._path))

    def truncate(self, size: int) -> None:
        """Set the file's size; pending until a sync."""
        with self._disk._guard:
            self._check_open(writing=True)
            self._disk._begin("truncate", self._path, 0, size)
            self._inode.truncate(size)

    def size(self) -> int:
        """Return the file's size."""
        with self._disk._guard:
            self._check_open()
            return len(self._inode.cached)

    def close(self) -> None:
        """Close the handle; idempotent. Nothing becomes durable by it."""
        with self._disk._guard:
            if not self._closed:
                self._closed = True
                self._disk._handles.discard(self)
                self._disk._volume.closed(self._inode)


class SimulatedLock:
    """A held lock of a :class:`SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    def release(self) -> None:
        """Let go of it; idempotent."""
        with self._disk._guard:
            if self._disk._volume.locks.get(self._inode) == self._disk.pid:
                del self._disk._volume.locks[self._inode]


class SimulatedDisk:
    """A disk in memory, as one simulated process sees it. Safe to use from several threads.

    Attributes:
        pid: The simulated process's id; what a refused lock names.
        operations: Every operation that was begun, the failed ones included.
        on_sync: Called with the path during each file's sync, to let time pass: by ``time.sleep``, or by advancing a
            simulated clock.
    """

    def __init__(self, *, capacity_bytes: int | None = None, on_sync: Callable[[Path], None] | None = None) -> None:
        self._attach(Volume(), threading.RLock())
        self._volume.capacity_bytes = capacity_bytes
        self.on_sync = on_sync

    def _attach(self, volume: Volume, guard: threading.RLock) -> None:
        self._volume = volume
        self._guard = guard
        self._handles: set[SimulatedFile] = set()
        self._faults: list[_Fault] = []
        self._changes_left: int | None = None
        self._alive = True
        self.pid = volume.new_pid()
        self.operations: list[DiskOperation] = []
        self.on_sync = None

    @classmethod
    def _of(cls, volume: Volume, guard: threading.RLock) -> SimulatedDisk:
        disk = cls.__new__(cls)
        disk._attach(volume, guard)
        return disk

    # -- the face of a disk --------------------------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Create a directory and its missing parents, and sync each parent; also that of one that is there."""
        with self._guard:
            place = _absolute(path)
            node = self._volume.names.get(place)
            if isinstance(node, DirectoryNode):
                self.sync_directory(Path(place.parent))
                return
            if node is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            self.make_directory(Path(place.parent))
            self._begin("make_directory", place)
            self._volume.change_names((place, DirectoryNode()))
            self.sync_directory(Path(place.parent))

    def list_directory(self, path: Path) -> list[str]:
        """Return the sorted names in a directory; empty when there is none."""
        with self._guard:
            self._check_power()
            place = _absolute(path)
            return sorted(name.name for name in self._volume.names if name.parent == place and name != place)

    def exists(self, path: Path) -> bool:
        """Tell whether a path names anything."""
        with self._guard:
            self._check_power()
            return _absolute(path) in self._volume.names

    def open(self, path: Path, *, write: bool = False) -> SimulatedFile:
        """Open an existing file."""
        with self._guard:
            place = _absolute(path)
            self._begin("open", place)
            return SimulatedFile(self, place, self._inode(place), write)

    def create(self, path: Path) -> SimulatedFile:
        """Create a file that must not exist; its name is pending until its directory is synced."""
        with self._guard:
            place = _absolute(path)
            self._begin("create", place)
            if place in self._volume.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            return SimulatedFile(self, place, self._new_inode(place), writable=True)

    def _new_inode(self, place: PurePosixPath) -> Inode:
        if not isinstance(self._volume.names.get(place.parent), DirectoryNode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        inode = Inode()
        self._volume.change_names((place, inode))
        return inode

    def write_zeros(self, file: File, size: int) -> None:
        """Fill an empty file with zeros."""
        for offset in range(0, size, len(_ZEROS)):
            file.write_at(offset, [_ZEROS[: size - offset]])

    def reserve(self, file: File, size: int) -> None:
        """Fill an empty file with zeros, as a file system does that knows no better way."""
        self.write_zeros(file, size)

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing the target; pending until the directories are synced."""
        with self._guard:
            old, new = _absolute(source), _absolute(target)
            self._begin("rename", new)
            inode = self._inode(old)
            if not isinstance(self._volume.names.get(new.parent), DirectoryNode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target))
            if isinstance(self._volume.names.get(new), DirectoryNode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            if old != new:
                self._volume.change_names((old, None), (new, inode))

    def remove(self, path: Path) -> None:
        """Remove a file's name; pending until its directory is synced."""
        with self._guard:
            place = _absolute(path)
            self._begin("remove", place)
            self._inode(place)
            self._volume.change_names((place, None))

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        with self._guard:
            place = _absolute(path)
            self._begin("sync_directory", place)
            if not isinstance(self._volume.names.get(place), DirectoryNode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            self._volume.sync_names(place)

    def lock(self, path: Path, *, new: bool = False) -> SimulatedLock:
        """Take a file's lock, creating the file where missing.

        Raises:
            LockHeldError: It is held, by another simulated process or by this one.
            FileExistsError: It was to be new, and is there.
        """
        with self._guard:
            place = _absolute(path)
            self._begin("lock", place)
            if new and place in self._volume.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            inode = self._inode(place) if place in self._volume.names else self._new_inode(place)
            if inode in self._volume.locks:
                raise LockHeldError(self._volume.locks[inode])
            self._volume.locks[inode] = self.pid
            return SimulatedLock(self, inode)

    def lock_owner(self, path: Path) -> int:
        """Return the simulated process that holds a file's lock; 0 when none does."""
        with self._guard:
            self._check_power()
            inode = self._volume.names.get(_absolute(path))
            return self._volume.locks.get(inode, 0) if isinstance(inode, Inode) else 0

    # -- faults --------------------------------------------------------------------------------------------------------

    @property
    def capacity_bytes(self) -> int | None:
        """Size of the medium; a write that would need more fails with ENOSPC after what fits. ``None`` for no limit."""
        return self._volume.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, value: int | None) -> None:
        self._volume.capacity_bytes = value

    def used_bytes(self) -> int:
        """Return the space taken by all files, in bytes."""
        with self._guard:
            return self._volume.used_bytes()

    def fail(
        self,
        kind: OperationKind,
        nth: int = 1,
        error: int = errno.EIO,
        *,
        after_bytes: int = 0,
        times: int | None = 1,
        path: str = "",
    ) -> None:
        """Let an operation of this process fail.

        Args:
            kind: Which operations are counted.
            nth: The one that fails first, counted from now, from 1.
            error: The ``errno`` of the ``OSError``.
            after_bytes: For a write: how much reaches the cache before the error.
            times: How many in a row fail; ``None`` for all from then on.
            path: Count only operations on paths that end with this.
        """
        with self._guard:
            self._faults.append(_Fault(kind, nth, times, error, after_bytes, path))

    def heal(self) -> None:
        """Forget all faults that were set; those that happened stay happened."""
        with self._guard:
            self._faults.clear()

    def cut_power_after(self, changes: int) -> None:
        """Let ``changes`` more operations that change anything happen; then all fail with :class:`PowerCutError`.

        With :meth:`crash` this shows a program a power cut between any two of its system calls.
        """
        with self._guard:
            self._changes_left = changes

    def cut_power(self) -> None:
        """Let every further operation fail, also the sync that is going on where this is called from ``on_sync``."""
        with self._guard:
            self._alive = False

    @property
    def power_is_cut(self) -> bool:
        """Whether an operation has met the power cut that was ordered, or the process is dead."""
        return not self._alive

    def _check_power(self) -> None:
        if not self._alive:
            raise PowerCutError

    def _begin(self, kind: OperationKind, path: PurePosixPath, offset: int = 0, size_bytes: int = 0) -> None:
        fault = self._note(kind, path, offset, size_bytes)
        if fault is not None:
            raise OSError(fault.error, os.strerror(fault.error), str(path))

    def _note(self, kind: OperationKind, path: PurePosixPath, offset: int = 0, size_bytes: int = 0) -> _Fault | None:
        self._check_power()
        if kind in _CHANGING and self._changes_left is not None:
            if self._changes_left <= 0:
                self._alive = False
                raise PowerCutError
            self._changes_left -= 1
        self.operations.append(DiskOperation(kind, str(path), offset, size_bytes))
        return self._due_fault(kind, path)

    def _due_fault(self, kind: OperationKind, path: PurePosixPath) -> _Fault | None:
        due = None
        for fault in list(self._faults):
            if fault.kind != kind or not str(path).endswith(fault.path):
                continue
            fault.countdown -= 1
            if fault.countdown > 0 or due is not None:
                continue
            due = fault
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
        return due

    def _write(self, path: PurePosixPath, inode: Inode, offset: int, data: bytes) -> None:
        fault = self._note("write", path, offset, len(data))
        if fault is not None:
            inode.write(offset, data[: fault.after_bytes])
            raise OSError(fault.error, os.strerror(fault.error), str(path))
        capacity = self._volume.capacity_bytes
        if capacity is not None and offset + len(data) > inode.allocated_bytes:
            fits = max(0, capacity - self._volume.used_bytes()) + inode.allocated_bytes - offset
            if len(data) > fits:
                inode.write(offset, data[: max(0, fits)])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        inode.write(offset, data)

    def _inode(self, place: PurePosixPath) -> Inode:
        node = self._volume.names.get(place)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        if not isinstance(node, Inode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
        return node

    # -- ends of the world ---------------------------------------------------------------------------------------------

    def crash(self, choose: Chooser) -> SimulatedDisk:
        """Return the disk as a new process finds it after a power cut at this moment.

        ``choose`` is asked for every unsynced operation on a name (1 keeps it), every unsynced size and sector; see
        :func:`~mainstem.testing.volume.keep_none`, :func:`~mainstem.testing.volume.keep_all` and
        :func:`~mainstem.testing.volume.keep_some`. This disk is not changed, so one run can be cut in many ways.
        """
        with self._guard:
            return self._of(self._volume.after_power_cut(choose), threading.RLock())

    def copy(self) -> SimulatedDisk:
        """Return an independent disk with the same contents, all durable: a starting point for damage."""
        return self.crash(keep_all)

    def kill(self) -> SimulatedDisk:
        """Kill the process but not the machine (``kill -9``); return the disk as the next process finds it.

        What was written stays visible and unsynced. Locks are free. Every further operation of this process fails.
        """
        with self._guard:
            self._alive = False
            for handle in list(self._handles):
                handle.close()
            for inode in [inode for inode, pid in self._volume.locks.items() if pid == self.pid]:
                del self._volume.locks[inode]
            return self._of(self._volume, self._guard)

    def another_process(self) -> SimulatedDisk:
        """Return the same medium as another process sees it, alive at the same time: same contents, its own faults."""
        with self._guard:
            return self._of(self._volume, self._guard)

    # -- damage: to the medium itself, durable at once, past faults and locks ------------------------------------------

    def files(self) -> dict[str, bytes]:
        """Return the visible content of every file, by path."""
        with self._guard:
            names = self._volume.names
            inodes = ((path, names[path]) for path in sorted(names))
            return {str(path): bytes(node.cached) for path, node in inodes if isinstance(node, Inode)}

    def contents(self, path: Path) -> bytes:
        """Return the visible content of a file."""
        with self._guard:
            return bytes(self._inode(_absolute(path)).cached)

    def put(self, path: Path, data: bytes) -> None:
        """Set a file's whole content, creating it where missing."""
        with self._guard:
            self._volume.place(_absolute(path), Inode(data))

    def overwrite(self, path: Path, offset: int, data: bytes) -> None:
        """Change bytes of a file, extending it where needed."""
        with self._guard:
            self._inode(_absolute(path)).damage(offset, data)

    def flip_bit(self, path: Path, offset: int, bit: int = 0) -> None:
        """Flip one bit (0 to 7) of the byte at ``offset``."""
        self.overwrite(path, offset, bytes([self.contents(path)[offset] ^ (1 << bit)]))

    def zero(self, path: Path, offset: int, size_bytes: int = 512) -> None:
        """Set a range to zeros, up to the end of the file."""
        self.overwrite(path, offset, bytes(len(self.contents(path)[offset : offset + size_bytes])))

    def cut(self, path: Path, size_bytes: int) -> None:
        """Truncate a file."""
        self.put(path, self.contents(path)[:size_bytes])

    def drop(self, path: Path) -> None:
        """Remove a file."""
        with self._guard:
            self._inode(_absolute(path))
            self._volume.place(_absolute(path), None)

    def swap(self, one: Path, other: Path) -> None:
        """Exchange the contents of two files."""
        first, second = self.contents(one), self.contents(other)
        self.put(one, second)
        self.put(other, first)

    def duplicate(self, source: Path, target: Path) -> None:
        """Copy a file over another name."""
        self.put(target, self.contents(source))


def _absolute(path: Path) -> PurePosixPath:
    return PurePosixPath("/") / path
