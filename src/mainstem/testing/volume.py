"""The medium behind a simulated disk: what programs see, what is durable, what a power cut may leave. In memory, pure.

Model. A file has two contents: the **cached** one, which every program sees, and the **durable** one. A write
changes the cache and leaves a pending write of whole 512-byte sectors. A sync makes pending writes durable. At a
power cut each sector of a file keeps, independently of all others, any one of the versions that it had since its
last sync; so does the file's size. A failed sync leaves its sectors *clean but not durable*, as Linux does:
programs go on seeing them, a later sync does not write them, and whether they reached the medium shows only after
the power cut.

Names obey the same rule: creating, renaming and removing are pending until the directory is synced, and a power cut
keeps any subset of them. One rename is atomic. (Journaling file systems keep a prefix; a program that is right for
any subset is right for them too. See Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

SECTOR_BYTES = 512
"""What a disk writes wholly or not at all."""

Chooser = Callable[[int], int]
"""Chooses what a power cut keeps: given ``n`` versions, the durable one first, returns the index of what remains."""


def keep_none(_count: int) -> int:
    """Choose the durable version: nothing unsynced survives the power cut."""
    return 0


def keep_all(count: int) -> int:
    """Choose the newest version: everything survives the power cut."""
    return count - 1


def keep_some(seed: int | str) -> Chooser:
    """Return a chooser that keeps an arbitrary subset, the same one for the same seed.

    How likely a version is to survive differs from seed to seed, so that nearly nothing, nearly everything, and a good
    mixture all occur.
    """
    source = random.Random(f"power cut {seed}")
    share = source.choice((0.02, 0.3, 0.5, 0.8, 0.98))

    def choose(count: int) -> int:
        if source.random() >= share:
            return 0
        return count - 1 if source.random() < 0.8 else source.randrange(count)

    return choose


class Inode:
    """A file's contents, cached and durable.

    Attributes:
        cached: What programs see.
        durable: What is certain to survive a power cut.
        failed_syncs: How many syncs failed so far; each open handle is told once of those after its opening.
    """

    def __init__(self, durable: bytes = b"") -> None:
        self.cached = bytearray(durable)
        self.durable = bytearray(durable)
        self.failed_syncs = 0
        self._pending: list[tuple[int, bytes]] = []
        self._pending_sizes: list[int] = []
        self._settled = (0, 0)
        self._abandoned: dict[int, list[bytes]] = {}
        self._abandoned_sizes: list[int] = []

    @property
    def allocated_bytes(self) -> int:
        """Space on the medium: the size, rounded up to sectors."""
        return -(-len(self.cached) // SECTOR_BYTES) * SECTOR_BYTES

    @property
    def dirty(self) -> bool:
        """Whether a sync would have anything to do."""
        return bool(self._pending or self._pending_sizes)

    def write(self, offset: int, data: bytes) -> None:
        """Change the cache, and note the whole sectors that it touches as pending."""
        if not data:
            return
        end = offset + len(data)
        if end > len(self.cached):
            self.cached.extend(bytes(end - len(self.cached)))
            self._pending_sizes.append(end)
        self.cached[offset:end] = data
        begin = offset // SECTOR_BYTES * SECTOR_BYTES
        sectors_end = -(-end // SECTOR_BYTES) * SECTOR_BYTES
        sectors = bytes(self.cached[begin:sectors_end])
        self._pending.append((begin, sectors + bytes(sectors_end - begin - len(sectors))))

    def truncate(self, size_bytes: int) -> None:
        """Change the size; what is cut off reads as zeros if the file grows again."""
        old = len(self.cached)
        if size_bytes > old:
            self.cached.extend(bytes(size_bytes - old))
        else:
            del self.cached[size_bytes:]
            begin = size_bytes // SECTOR_BYTES * SECTOR_BYTES
            if old > begin:
                kept = bytes(self.cached[begin:])
                room = -(-old // SECTOR_BYTES) * SECTOR_BYTES - begin
                self._pending.append((begin, kept + bytes(room - len(kept))))
        self._pending_sizes.append(size_bytes)

    def sync_point(self) -> tuple[int, int]:
        """Return what a sync that begins now will cover, for :meth:`sync`."""
        return self._settled[0] + len(self._pending), self._settled[1] + len(self._pending_sizes)

    def sync(self, point: tuple[int, int]) -> None:
        """Make durable what was pending at ``point``, and was not settled by another sync meanwhile."""
        writes, sizes = (max(0, end - settled) for end, settled in zip(point, self._settled, strict=True))
        if sizes or (writes and self._abandoned_sizes):
            size = self._pending_sizes[sizes - 1] if sizes else len(self.cached)
            del self.durable[size:]
            self.durable.extend(bytes(size - len(self.durable)))
            self._abandoned_sizes.clear()
        for offset, data in self._pending[:writes]:
            room = data[: max(0, len(self.durable) - offset)]
            self.durable[offset : offset + len(room)] = room
            if self._abandoned:
                for sector in range(offset // SECTOR_BYTES, (offset + len(data)) // SECTOR_BYTES):
                    self._abandoned.pop(sector, None)
        self._drop(writes, sizes)

    def _drop(self, writes: int, sizes: int) -> None:
        self._settled = (self._settled[0] + writes, self._settled[1] + sizes)
        del self._pending[:writes]
        del self._pending_sizes[:sizes]

    def abandon(self) -> None:
        """Mark everything pending as clean without making it durable: what a failed sync does."""
        self.failed_syncs += 1
        for sector, data in self._pending_sectors():
            self._abandoned.setdefault(sector, []).append(data)
        self._abandoned_sizes.extend(self._pending_sizes)
        self._drop(len(self._pending), len(self._pending_sizes))

    def _pending_sectors(self) -> Iterator[tuple[int, bytes]]:
        for offset, data in self._pending:
            for at in range(0, len(data), SECTOR_BYTES):
                yield (offset + at) // SECTOR_BYTES, data[at : at + SECTOR_BYTES]

    def after_power_cut(self, choose: Chooser) -> bytes:
        """Return the content that a power cut leaves; ``choose`` is asked for the size and for each unsynced sector."""
        sizes = [len(self.durable), *self._abandoned_sizes, *self._pending_sizes]
        size = sizes[choose(len(sizes))] if len(sizes) > 1 else sizes[0]
        left = bytearray(self.durable[:size])
        left.extend(bytes(size - len(left)))
        versions = {sector: list(data) for sector, data in self._abandoned.items()}
        for sector, data in self._pending_sectors():
            versions.setdefault(sector, []).append(data)
        for sector, newer in sorted(versions.items()):
            chosen = choose(len(newer) + 1)
            begin = sector * SECTOR_BYTES
            if chosen and begin < size:
                end = min(size, begin + SECTOR_BYTES)
                left[begin:end] = newer[chosen - 1][: end - begin]
        return bytes(left)

    def damage(self, offset: int, data: bytes) -> None:
        """Change the medium itself: cache and durable content alike, at once."""
        for content in (self.cached, self.durable):
            if offset + len(data) > len(content):
                content.extend(bytes(offset + len(data) - len(content)))
            content[offset : offset + len(data)] = data


class DirectoryNode:
    """A directory; what is in it stands in its volume's table of names."""


Node = Inode | DirectoryNode
_NameChange = tuple[tuple[PurePosixPath, Node | None], ...]
"""What one operation did to names: each path with its new node, ``None`` where it is gone. Atomic."""


class Volume:
    """All files and names of one simulated medium, with the locks that processes hold on it."""

    def __init__(self) -> None:
        root: dict[PurePosixPath, Node] = {PurePosixPath("/"): DirectoryNode()}
        self.names = dict(root)
        self.capacity_bytes: int | None = None
        self.locks: dict[Inode, int] = {}
        self._durable_names = root
        self._pending_names: list[_NameChange] = []
        self._open_inodes: dict[Inode, int] = {}
        self._next_pid = 1000

    def new_pid(self) -> int:
        """Return the id of a new simulated process."""
        self._next_pid += 1
        return self._next_pid

    def change_names(self, *changes: tuple[PurePosixPath, Node | None]) -> None:
        """Change names as one atomic operation, pending until the directory is synced."""
        _apply(self.names, changes)
        self._pending_names.append(changes)

    def sync_names(self, directory: PurePosixPath) -> None:
        """Make durable every pending operation on names of one directory, and what these build upon."""
        wanted: list[_NameChange] = []
        paths: set[PurePosixPath] = set()
        for changes in reversed(self._pending_names):
            if any(path.parent == directory or path in paths for path, _node in changes):
                wanted.append(changes)
                paths.update(path for path, _node in changes)
        for changes in reversed(wanted):
            _apply(self._durable_names, changes)
            self._pending_names.remove(changes)

    def used_bytes(self) -> int:
        """Return the space that all files take, removed ones that are still open included."""
        inodes = {node for node in self.names.values() if isinstance(node, Inode)}
        return sum(inode.allocated_bytes for inode in inodes | self._open_inodes.keys())

    def opened(self, inode: Inode) -> None:
        """Count one more handle of a file."""
        self._open_inodes[inode] = self._open_inodes.get(inode, 0) + 1

    def closed(self, inode: Inode) -> None:
        """Count one handle less."""
        count = self._open_inodes.pop(inode) - 1
        if count:
            self._open_inodes[inode] = count

    def after_power_cut(self, choose: Chooser) -> Volume:
        """Return a new volume with what a power cut now would leave; this one is unchanged."""
        names = dict(self._durable_names)
        for changes in self._pending_names:
            if choose(2):
                _apply(names, changes)
        left = Volume()
        left.capacity_bytes = self.capacity_bytes
        made: dict[Node, Node] = {}
        for path in sorted(names):
            if path.parent != path and path.parent not in left.names:
                continue  # its directory's own name did not survive
            node = names[path]
            if node not in made:
                made[node] = Inode(node.after_power_cut(choose)) if isinstance(node, Inode) else DirectoryNode()
            left.names[path] = made[node]
        left._durable_names = dict(left.names)
        return left

    def place(self, path: PurePosixPath, node: Node | None) -> None:
        """Set or remove a name on the medium itself, durable at once: damage, not an operation of a program."""
        _apply(self.names, ((path, node),))
        _apply(self._durable_names, ((path, node),))


def _apply(names: dict[PurePosixPath, Node], changes: _NameChange) -> None:
    for path, node in changes:
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node
