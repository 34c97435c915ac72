"""What dies at a chosen operation, as by ``kill -9``, or by a power cut that takes back what was not synced."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mainstem.host.blobs import BlobStore
from mainstem.host.disk import Buffer, File, SystemDisk
from mainstem.log import Append, EmbeddedLog

DIED = 99
"""Exit code of a process whose fuse blew."""


class Fuse:
    """Counts operations, and ends the process at one of them.

    Args:
        die_at: Number of the operation, from 1; 0 for never.
        power_cut: Whether bytes and names that were not synced are lost with the process.
    """

    def __init__(self, die_at: int, *, power_cut: bool) -> None:
        self.die_at = die_at
        self.power_cut = power_cut
        self.steps: list[str] = []
        self.synced_sizes: dict[Path, int] = {}
        self.new_names: set[Path] = set()

    def step(self, name: str) -> None:
        """Take note of a moment at which the process may die."""
        self.steps.append(name)
        if len(self.steps) == self.die_at:
            if self.power_cut:
                self._lose_unsynced()
            os._exit(DIED)

    def _lose_unsynced(self) -> None:
        for path, size_bytes in self.synced_sizes.items():
            if path.exists() and path.stat().st_size > size_bytes:
                os.truncate(path, size_bytes)
        for path in self.new_names:
            path.unlink(missing_ok=True)


class FusedFile:
    """A file whose every write and sync can be the last."""

    def __init__(self, fuse: Fuse, path: Path, file: File) -> None:
        self._fuse = fuse
        self._path = path
        self._file = file
        fuse.synced_sizes.setdefault(path, file.size())

    def read_at(self, offset: int, size: int) -> bytes:
        """Read."""
        return self._file.read_at(offset, size)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Write one half, then the other."""
        data = b"".join(buffers)
        half = len(data) // 2
        self._fuse.step("write: before")
        self._file.write_at(offset, [data[:half]])
        self._fuse.step("write: half")
        self._file.write_at(offset + half, [data[half:]])
        self._fuse.step("write: after")
        return len(data)

    def sync(self) -> None:
        """Sync."""
        self._fuse.step("sync: before")
        self._file.sync()
        self._fuse.synced_sizes[self._path] = self._file.size()
        self._fuse.step("sync: after")

    def truncate(self, size: int) -> None:
        """Truncate."""
        self._fuse.step("truncate: before")
        self._file.truncate(size)
        self._fuse.synced_sizes[self._path] = min(size, self._fuse.synced_sizes[self._path])
        self._fuse.step("truncate: after")

    def size(self) -> int:
        """Return the size."""
        return self._file.size()

    def close(self) -> None:
        """Close."""
        self._file.close()


class FusedDisk(SystemDisk):
    """A disk whose every change can be the last."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse

    def open(self, path: Path, *, write: bool = False) -> FusedFile:  # type: ignore[override]
        """Open."""
        return FusedFile(self._fuse, path, super().open(path, write=write))

    def create(self, path: Path) -> FusedFile:  # type: ignore[override]
        """Create; the name can be lost until the directory is synced."""
        file = super().create(path)
        self._fuse.new_names.add(path)
        self._fuse.step("create: after")
        return FusedFile(self._fuse, path, file)

    def remove(self, path: Path) -> None:
        """Remove."""
        self._fuse.step("remove: before")
        super().remove(path)
        self._fuse.step("remove: after")

    def sync_directory(self, path: Path) -> None:
        """Sync the names of a directory."""
        self._fuse.step("sync names: before")
        super().sync_directory(path)
        self._fuse.new_names = {name for name in self._fuse.new_names if name.parent != path}
        self._fuse.step("sync names: after")


class FusedBlobs(BlobStore):
    """A blob store that can die around what it does."""

    def __init__(self, directory: Path, fuse: Fuse) -> None:
        super().__init__(directory)
        self._fuse = fuse

    async def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Put, which syncs the file."""
        self._fuse.step("put blob: before")
        found = await super().put_file(path, sha256=sha256)
        self._fuse.synced_sizes[path] = self.size_bytes(found)
        self._fuse.step("put blob: after")
        return found

    async def detach(self, path: Path, size_bytes: int) -> bool:
        """Detach."""
        self._fuse.step("detach: before")
        done = await super().detach(path, size_bytes)
        if done:
            self._fuse.synced_sizes[path] = size_bytes
        self._fuse.step("detach: after")
        return done


def fuse_log(log: EmbeddedLog, fuse: Fuse) -> None:
    """Let a log die before and after each commit. What it has acknowledged is synced: no power cut takes it back."""
    append_many = log.append_many

    async def fused(
        appends: Sequence[Append], *, dedup_id: str | None = None, use_reserve: bool = False
    ) -> tuple[int, ...]:
        fuse.step("commit: before")
        positions = await append_many(appends, dedup_id=dedup_id, use_reserve=use_reserve)
        fuse.step("commit: after")
        return positions

    log.append_many = fused  # type: ignore[method-assign]
