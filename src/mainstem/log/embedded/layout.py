"""The directory of an embedded log: its file names, its meta file, its settings."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from google_crc32c import value as crc32c

from mainstem.host.disk import Disk
from mainstem.log.errors import LogCorruptError, LogFormatError
from mainstem.log.frame import FORMAT_VERSION, KNOWN_FEATURES

META_NAME = "log.meta"
"""The file that says what the directory is."""

LOCK_NAME = "lock"
"""The file whose lock the owner holds; never read or written."""

SET_ASIDE_NAME = "set-aside"
"""The directory of unfinished writes that were found and copied."""

NEW_SUFFIX = ".new"
"""What a file's name ends with until it is complete."""

_SEGMENT = re.compile(r"(\d{10})\.wal")
_KIB, _MIB = 1 << 10, 1 << 20


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and limits of an embedded log.

    Attributes:
        first_segment_bytes: Size of the first segment; each further one is twice as large, up to ``segment_max_bytes``.
        segment_max_bytes: Size of a full-grown segment.
        reserve_bytes: Space of each segment that only appends with ``use_reserve`` may fill when no new one can be had.
        pending_max_bytes: Appenders wait when more than this is waiting for the disk.
        commit_max_bytes: One frame takes waiting calls up to this size (and at least one call).
        append_max_bytes: Most bytes of one call, over values, keys and headers.
        append_max_records: Most records of one call.
        inline_sync_max_s: A sync that takes longer is not done on the event loop again, until the disk is fast again.
        alone_after_commits: After so many commits of one call each in a row, a lone call is written in its caller's own
            turn, without waiting for others to join it.
        dedup_window_calls: How many of the latest calls with a ``dedup_id`` are remembered.
        cache_bytes: Decoded commits that are kept in memory for readers.
        full_retry_s: After a failed allocation, how long appends are refused before it is tried again.
    """

    first_segment_bytes: int = 4 * _MIB
    segment_max_bytes: int = 64 * _MIB
    reserve_bytes: int = 256 * _KIB
    pending_max_bytes: int = 64 * _MIB
    commit_max_bytes: int = 8 * _MIB
    append_max_bytes: int = 16 * _MIB
    append_max_records: int = 65_536
    inline_sync_max_s: float = 0.002
    alone_after_commits: int = 8
    dedup_window_calls: int = 65_536
    cache_bytes: int = 16 * _MIB
    full_retry_s: float = 1.0

    def segment_bytes(self, number: int) -> int:
        """Return the planned size of a segment, by its number from 1."""
        return min(self.segment_max_bytes, self.first_segment_bytes << min(number - 1, 40))


class LogMeta(msgspec.Struct, frozen=True):
    """What the directory is: written once, when the log is created."""

    format: int
    features: int
    log_id: str
    created_ns: int


def segment_name(number: int) -> str:
    """Return a segment's file name, by its number from 1: ``0000000001.wal``."""
    return f"{number:010d}.wal"


def segment_numbers(names: list[str]) -> list[int]:
    """Return the numbers of the segments among a directory's names, in order."""
    return sorted(int(match[1]) for name in names if (match := _SEGMENT.fullmatch(name)))


def check_segment_numbers(directory: Path, numbers: list[int]) -> None:
    """Refuse a directory in which a segment is missing.

    Raises:
        LogCorruptError: The numbers are not 1, 2, 3, … without a gap.
    """
    for expected, number in enumerate(numbers, start=1):
        if number != expected:
            raise LogCorruptError(
                f"{directory / segment_name(expected)} is missing ({segment_name(number)} is there). "
                "Nothing was changed.",
                try_command=f"mainstem log verify {directory}",
            )
    if not numbers:
        raise LogCorruptError(
            f"{directory / segment_name(1)} is missing: {META_NAME} says that there is a log. Nothing was changed.",
            try_command=f"mainstem log verify {directory}",
        )


def encode_meta(meta: LogMeta) -> bytes:
    """Return the meta file's bytes: a line of JSON, and a line with its CRC-32C."""
    line = msgspec.json.encode(meta)
    return line + b"\n%08x\n" % crc32c(line)


def read_meta(disk: Disk, directory: Path) -> LogMeta | None:
    """Return the directory's meta file, or ``None`` where there is none.

    Raises:
        LogCorruptError: It is damaged.
        LogFormatError: It was written by a version that this code does not know.
    """
    path = directory / META_NAME
    if not disk.exists(path):
        return None
    file = disk.open(path)
    try:
        data = file.read_at(0, 4096)
    finally:
        file.close()
    line, _, checksum = data.partition(b"\n")
    meta = _decode_meta(line) if checksum == b"%08x\n" % crc32c(line) else None
    if meta is None:
        raise LogCorruptError(
            f"{path} fails its checksum. Nothing was changed.", try_command=f"mainstem log verify {directory}"
        )
    if meta.format != FORMAT_VERSION or meta.features & ~KNOWN_FEATURES:
        raise LogFormatError(
            f"{path}: the log has format {meta.format} and feature bits {meta.features:#06x}; this mainstem reads "
            f"format {FORMAT_VERSION} and bits {KNOWN_FEATURES:#06x}. Nothing was changed.",
            try_command="pip install --upgrade mainstem",
        )
    return meta


def _decode_meta(line: bytes) -> LogMeta | None:
    try:
        return msgspec.json.decode(line, type=LogMeta)
    except msgspec.MsgspecError:
        return None  # intact bytes of another shape: the caller reports it
