"""Large immutable payloads, each in a file that is named by the SHA-256 of its bytes.

``<directory>/ab/cdef…`` holds the blob whose hash is ``abcdef…``. A name appears only once the bytes behind it are
durable, so whatever a blob's path names is whole. Nothing here is ever written to in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import Self

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import new_id
from mainstem.host.disk import SystemDisk, SystemFile
from mainstem.host.errors import BlobChangedError, BlobNotFoundError

_logger = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIECE_BYTES = 1 << 20
_UNFINISHED = "unfinished"
_UNFINISHED_KEPT_S = 24 * 3600
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES)
"""Why a hard link may be impossible where a copy is not: another file system, one without links, too many of them."""


def check_sha256(value: str) -> str:
    """Return ``value`` if it is a blob's name: 64 lower-case hexadecimal digits. Strangers' names come through here.

    Raises:
        InvalidArgumentError: It is not.
    """
    if not _SHA256.fullmatch(value):
        raise InvalidArgumentError(f"{value[:80]!r} is not a SHA-256: expected 64 lower-case hexadecimal digits.")
    return value


class BlobStore:
    """The blobs of one directory, which is created with the first of them.

    Every put is durable on return and idempotent. A blob that is there already is read before it is trusted: one with
    other bytes than it must have was damaged from outside; it is replaced, and the program's log says so.

    Args:
        directory: Where the blobs are, such as ``data/blobs``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._disk = SystemDisk()
        self._swept = False

    def __repr__(self) -> str:
        return f"<BlobStore {self._directory}>"

    async def put_file(self, path: Path, *, sha256: str | None = None) -> str:
        """Put a file's bytes into the store, and return their SHA-256.

        The file becomes the store's: it shares its bytes with the blob by a hard link where the file system can, so
        nobody may write to it any more (removing its name is fine). Otherwise it is copied.

        Args:
            path: The file.
            sha256: Its hash, where the caller has just computed it; otherwise the file is read once more.

        Raises:
            BlobChangedError: The file changed meanwhile; nothing was put.
            OSError: The disk failed or is full.
        """
        if sha256 is not None:
            check_sha256(sha256)
        return await asyncio.to_thread(self._put_file, path, sha256)

    async def put_bytes(self, data: bytes) -> str:
        """Put bytes into the store, and return their SHA-256.

        Raises:
            OSError: The disk failed or is full.
        """
        return await asyncio.to_thread(self._put_bytes, data)

    def path(self, sha256: str) -> Path:
        """Return the file of a blob, for reading only.

        Raises:
            InvalidArgumentError: ``sha256`` is not 64 hexadecimal digits.
            BlobNotFoundError: There is no such blob.
        """
        path = self._place(check_sha256(sha256))
        if not path.is_file():
            raise BlobNotFoundError(self._directory, sha256)
        return path

    def exists(self, sha256: str) -> bool:
        """Tell whether a blob is there.

        Raises:
            InvalidArgumentError: ``sha256`` is not 64 hexadecimal digits.
        """
        return self._place(check_sha256(sha256)).is_file()

    def size_bytes(self, sha256: str) -> int:
        """Return a blob's size in bytes.

        Raises:
            InvalidArgumentError: ``sha256`` is not 64 hexadecimal digits.
            BlobNotFoundError: There is no such blob.
        """
        try:
            return self._place(check_sha256(sha256)).stat().st_size
        except FileNotFoundError:
            raise BlobNotFoundError(self._directory, sha256) from None

    async def remove(self, sha256: str) -> None:
        """Remove a blob; return once that is durable. Idempotent. Who has its file open may read on.

        Raises:
            InvalidArgumentError: ``sha256`` is not 64 hexadecimal digits.
        """
        await asyncio.to_thread(self._remove, check_sha256(sha256))

    async def detach(self, path: Path, size_bytes: int) -> bool:
        """Make sure that a file shares its bytes with no blob, so that it can be written to; tell whether it did.

        A file that was put and then is to be changed after all gets a new inode with the first ``size_bytes`` bytes,
        durable on return. A file without another link is left as it is.

        Raises:
            OSError: The disk failed or is full.
        """
        return await asyncio.to_thread(self._detach, path, size_bytes)

    # ---- in a thread

    def _place(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256[2:]

    def _put_file(self, path: Path, sha256: str | None) -> str:
        size_bytes = path.stat().st_size
        if sha256 is None:
            sha256 = _hash_file(path)
        target = self._place(sha256)
        if self._is_there(target, size_bytes, sha256):
            return sha256
        _sync_file(path)
        try:
            os.link(path, target)
        except FileExistsError:
            if not self._is_there(target, size_bytes, sha256):
                self._copy_into_place(path, target, sha256)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._copy_into_place(path, target, sha256)
        self._disk.sync_directory(target.parent)
        return sha256

    def _put_bytes(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._place(sha256)
        if self._is_there(target, len(data), sha256):
            return sha256
        with _Unfinished(self._disk, self._unfinished()) as unfinished:
            unfinished.file.write_at(0, [data])
            unfinished.become(target)
        return sha256

    def _is_there(self, target: Path, size_bytes: int, sha256: str) -> bool:
        """Tell whether a blob is in place and durable; take a damaged one away."""
        self._disk.make_directory(target.parent)
        try:
            found_bytes = target.stat().st_size
        except FileNotFoundError:
            return False
        if found_bytes != size_bytes:
            _logger.error("%s: a blob of %d bytes has %d; it is replaced", target, size_bytes, found_bytes)
            self._disk.remove(target)
            return False
        if _hash_file(target) != sha256:
            _logger.error("%s: a blob has other bytes than those of its name; it is replaced", target)
            self._disk.remove(target)
            return False
        # Whoever put it may have died before the syncs.
        _sync_file(target)
        self._disk.sync_directory(target.parent)
        return True

    def _copy_into_place(self, path: Path, target: Path, sha256: str) -> None:
        with _Unfinished(self._disk, self._unfinished()) as unfinished:
            copied = _copy(path, unfinished.file)
            if copied != sha256:
                raise BlobChangedError(
                    f"{path}: its bytes were expected to have the SHA-256 {sha256}, those copied have {copied}. The "
                    "file changed meanwhile; no blob was made."
                )
            unfinished.become(target)

    def _detach(self, path: Path, size_bytes: int) -> bool:
        if path.stat().st_nlink == 1:
            return False
        with _Unfinished(self._disk, self._unfinished()) as unfinished:
            _copy(path, unfinished.file, size_bytes)
            unfinished.become(path)
        return True

    def _remove(self, sha256: str) -> None:
        target = self._place(sha256)
        with contextlib.suppress(FileNotFoundError):  # idempotent: somebody removed it before
            self._disk.remove(target)
            self._disk.sync_directory(target.parent)

    def _unfinished(self) -> Path:
        """Return the directory of copies under way, without those that a process left when it died."""
        directory = self._directory / _UNFINISHED
        self._disk.make_directory(directory)
        if not self._swept:
            self._swept = True
            before_s = time.time() - _UNFINISHED_KEPT_S
            for name in self._disk.list_directory(directory):
                with contextlib.suppress(FileNotFoundError):  # its own process finished it just now
                    if (directory / name).stat().st_mtime < before_s:
                        self._disk.remove(directory / name)
        return directory


class _Unfinished:
    """A file under a name of its own until it is whole and durable; gone if it never gets there."""

    def __init__(self, disk: SystemDisk, directory: Path) -> None:
        self._disk = disk
        self._path = directory / new_id()
        self.file: SystemFile = disk.create(self._path)
        self._became = False

    def __enter__(self) -> Self:
        return self

    def become(self, target: Path) -> None:
        """Sync the bytes, then move them under ``target``, replacing what is there; durable on return."""
        self.file.sync()
        self._disk.rename(self._path, target)
        self._became = True
        self._disk.sync_directory(target.parent)

    def __exit__(self, *_exception: object) -> None:
        self.file.close()
        if not self._became:
            self._disk.remove(self._path)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(path: Path, target: SystemFile, size_bytes: int | None = None) -> str:
    """Copy a file, or its first ``size_bytes`` bytes; return the SHA-256 of what was copied."""
    hasher = hashlib.sha256()
    offset = 0
    with path.open("rb") as source:
        while piece := source.read(_PIECE_BYTES if size_bytes is None else min(_PIECE_BYTES, size_bytes - offset)):
            hasher.update(piece)
            target.write_at(offset, [piece])
            offset += len(piece)
    return hasher.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
