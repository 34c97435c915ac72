"""The file of an unfinished upload: ``<data>/services/uploads/<id>.part``. The recorded offset rules, the file follows.

All methods of :class:`PartFile` block; they are called in a thread, one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path

from mainstem.host.blobs import BlobStore
from mainstem.host.disk import Buffer, Disk, File

PART_SUFFIX = ".part"

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors that say that the disk, or the account's share of it, is full."""


class BytesLostError(Exception):
    """A part file is shorter than what was recorded as durable: it was damaged from outside."""


class Hashing:
    """The SHA-256 of an upload's bytes so far, as long as this process has seen them all.

    It runs ahead of what is recorded, so it remembers its state at the recorded offset: discarded bytes are taken back.
    """

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._offset = 0
        self._marked = self._hasher.copy()
        self._marked_offset = 0

    def update(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Take in the bytes at ``offset``, unless others before them were missed."""
        if offset != self._offset:
            return
        for buffer in buffers:
            self._hasher.update(buffer)
            self._offset += len(buffer)

    def mark(self, offset: int) -> None:
        """Remember the state at ``offset``, which is recorded now."""
        if offset == self._offset:
            self._marked, self._marked_offset = self._hasher.copy(), offset

    def resume(self, offset: int) -> None:
        """Go back to the recorded ``offset``, if that is what was remembered."""
        if offset == self._marked_offset:
            self._hasher, self._offset = self._marked.copy(), offset
        elif offset != self._offset:
            self._offset = -1  # never equal to an offset again: the file is read once more in the end

    def digest(self, size_bytes: int) -> str | None:
        """Return the hash in hexadecimal digits if it covers exactly ``size_bytes`` bytes, else ``None``."""
        return self._hasher.hexdigest() if self._offset == size_bytes else None


class PartFile:
    """The open file of one unfinished upload. Made by :meth:`PartFiles.open`."""

    def __init__(self, disk: Disk, path: Path, file: File, hashing: Hashing, *, is_new: bool) -> None:
        self.path = path
        self.hashing = hashing
        self._disk = disk
        self._file = file
        self._is_new = is_new
        self._failure: OSError | None = None

    def __repr__(self) -> str:
        return f"<PartFile {self.path}>"

    def write(self, offset: int, buffers: Sequence[Buffer], *, sync: bool) -> None:
        """Write buffers at ``offset``; with ``sync`` return once all bytes of the file are durable."""
        self._file.write_at(offset, buffers)
        self.hashing.update(offset, buffers)
        if sync:
            self.sync()

    def sync(self) -> None:
        """Return once all bytes, and the file's name, are durable.

        After a sync that failed, for whatever reason, every later one fails with the same error: the system may have
        marked the bytes as clean, and a second sync would then succeed with nothing written (see ``host/disk.py``).

        Raises:
            OSError: The disk failed or is full, now or before. What came since the last good sync must be sent again.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._file.sync()
            if self._is_new:
                self._disk.sync_directory(self.path.parent)
                self._is_new = False
        except OSError as error:
            self._failure = error
            raise

    def close(self, cut_to: int | None) -> None:
        """Close the file, where ``cut_to`` is given without the bytes behind it."""
        try:
            if cut_to is not None and self._file.size() > cut_to:
                self._file.truncate(cut_to)
        finally:
            self._file.close()


class PartFiles:
    """The directory of unfinished uploads.

    Args:
        directory: It exists.
        disk: The file system.
        blobs: Where finished ones go; it tells whether a part file shares its bytes with a blob.
    """

    def __init__(self, directory: Path, disk: Disk, blobs: BlobStore) -> None:
        self._directory = directory
        self._disk = disk
        self._blobs = blobs

    def path(self, upload_id: str) -> Path:
        """Return the file of an upload; ``upload_id`` is one of ours, never a stranger's word."""
        return self._directory / (upload_id + PART_SUFFIX)

    async def detach(self, upload_id: str, offset: int) -> None:
        """Let the file share its bytes with no blob: a process may have died between the link and the commit.

        Raises:
            OSError: The disk failed or is full.
        """
        with contextlib.suppress(FileNotFoundError):  # no byte has come yet
            await self._blobs.detach(self.path(upload_id), offset)

    def open(self, upload_id: str, offset: int, hashing: Hashing) -> PartFile:
        """Open a file to be written to from the recorded ``offset`` on; what is behind it is cut off.

        Raises:
            BytesLostError: The file is shorter than that.
            OSError: The disk failed or is full.
        """
        path = self.path(upload_id)
        is_new = offset == 0 and not self._disk.exists(path)
        if not is_new and not self._disk.exists(path):
            raise BytesLostError(f"{path} is missing, expected {offset} bytes")
        file = self._disk.create(path) if is_new else self._disk.open(path, write=True)
        try:
            found = file.size()
            if found < offset:
                raise BytesLostError(f"{path} has {found} bytes, expected {offset}")
            if found > offset:
                file.truncate(offset)
        except BaseException:
            file.close()
            raise
        hashing.resume(offset)
        # The name of a file that was found may not be durable yet: whoever made it may have died before that.
        return PartFile(self._disk, path, file, hashing, is_new=is_new or offset == 0)

    def size_bytes(self, upload_id: str) -> int:
        """Return the size of an upload's file; 0 when there is none."""
        path = self.path(upload_id)
        if not self._disk.exists(path):
            return 0
        file = self._disk.open(path)
        try:
            return file.size()
        finally:
            file.close()

    def remove(self, upload_id: str) -> None:
        """Remove an upload's file. Idempotent, not durable: what a power cut brings back goes at the next start."""
        with contextlib.suppress(FileNotFoundError):  # removed before, or no byte ever came
            self._disk.remove(self.path(upload_id))

    def remove_others(self, keep: frozenset[str]) -> int:
        """Remove the files of all uploads but those in ``keep``; return how many there were."""
        found = [name for name in self._disk.list_directory(self._directory) if name.endswith(PART_SUFFIX)]
        others = [name for name in found if name.removesuffix(PART_SUFFIX) not in keep]
        for name in others:
            self._disk.remove(self._directory / name)
        return len(others)
