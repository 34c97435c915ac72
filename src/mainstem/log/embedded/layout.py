"""The directory of an embedded log: its file names, its meta file, its settings."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TypeVar

import msgspec
from google_crc32c import value as crc32c

from mainstem.host.disk import Disk
from mainstem.log.contract import Traits
from mainstem.log.errors import LogCorruptError, LogFormatError
from mainstem.log.frame import FORMAT_VERSION, KNOWN_FEATURES

META_NAME = "log.meta"
"""The file that says what the directory is."""

MANIFEST_NAME = "manifest"
"""The file that says which segment files are the log's."""

SET_ASIDE_NAME = "set-aside"
"""The directory of unfinished writes that were found and copied."""

NEW_SUFFIX = ".new"
"""What a file's name ends with until it is complete."""

_SEGMENT = re.compile(r"(\d{10})-(\d{6,})\.wal")
_SOCKET = re.compile(r"epoch\.(\d{6,})\.sock")
_EPOCH = re.compile(r"epoch\.(\d{6,})")
T = TypeVar("T", bound=msgspec.Struct)

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

    @property
    def traits(self) -> Traits:
        """What the embedded engine can do under these settings."""
        return Traits(
            name="embedded",
            conditional_append=True,
            atomic_streams=True,
            max_batch_records=self.append_max_records,
            max_batch_bytes=self.append_max_bytes,
            dedup_window_calls=self.dedup_window_calls,
            dedup_window_s=0.0,
        )


class LogMeta(msgspec.Struct, frozen=True):
    """What the directory is: written once, when the log is created."""

    format: int
    features: int
    log_id: str
    created_ns: int


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A line of segment files that one owner after the other went on writing, each after an orderly close.

    Attributes:
        first_segment: Number of its first segment.
        epoch: Epoch of the owner who began it; part of its files' names.
    """

    first_segment: int
    epoch: int


class Hole(msgspec.Struct, frozen=True):
    """A part of the log that a repair found unreadable: whoever reads goes from its beginning to its end in one step.

    Attributes:
        begin_segment: Segment of its beginning.
        begin_offset: Offset there: the end of the last sound frame before it; 0 where the segment has none.
        end_segment: Segment of the sound frame behind it.
        end_offset: Offset of that frame.
        first_position: Position that would have been next at its beginning.
        next_position: Position that is next behind it. What lies between is gone, and is never given again.
        chain: What the frame behind it says of the one before it.
    """

    begin_segment: int
    begin_offset: int
    end_segment: int
    end_offset: int
    first_position: int
    next_position: int
    chain: int

    @property
    def leaves_segment(self) -> bool:
        """Whether its end is in a later segment."""
        return self.end_segment > self.begin_segment


class Manifest(msgspec.Struct, frozen=True):
    """Which files are the log's: of each segment, the file of the latest line that has reached it.

    An owner who takes the log over from one that did not close it begins a line of its own, with a copy of the
    segment that was being written. So it never writes to a file that the other, should it still live, writes to; and
    whatever the other adds to its own files is not the log's any more.

    Attributes:
        lines: In the order of their first segments.
        holes: What repairs found unreadable, in the order of the log.
    """

    lines: tuple[Line, ...]
    holes: tuple[Hole, ...] = ()

    def line_of(self, segment: int) -> Line:
        """Return the line that a segment belongs to."""
        return next(line for line in reversed(self.lines) if line.first_segment <= segment)

    def segment_name(self, segment: int) -> str:
        """Return the name of a segment's file."""
        return segment_name(segment, self.line_of(segment).epoch)

    def with_line(self, line: Line) -> Manifest:
        """Return the manifest after another line was begun; lines that it covers whole are gone."""
        kept = tuple(one for one in self.lines if one.first_segment < line.first_segment)
        return Manifest((*kept, line), self.holes)

    def segments(self, names: list[str]) -> list[int]:
        """Return the numbers of the log's segments among a directory's names, in order; none that is all hole."""
        found = (parse_segment_name(name) for name in names)
        return sorted(
            number
            for number, epoch in filter(None, found)
            if epoch == self.line_of(number).epoch and not self.skips(number)
        )

    def skips(self, segment: int) -> bool:
        """Tell whether a segment lies wholly within a hole."""
        return any(
            (hole.begin_segment, hole.begin_offset) <= (segment, 0) < (hole.end_segment, 0) for hole in self.holes
        )

    def hole_into(self, segment: int) -> Hole | None:
        """Return the hole behind which a segment's first readable frame stands, if there is one."""
        return next(
            (
                hole
                for hole in self.holes
                if hole.end_segment == segment and (hole.begin_segment, hole.begin_offset) <= (segment, 0)
            ),
            None,
        )

    def holes_from(self, segment: int) -> tuple[Hole, ...]:
        """Return the holes that begin behind a frame of a segment."""
        return tuple(hole for hole in self.holes if hole.begin_segment == segment and hole.begin_offset)

    def following(self, segment: int) -> tuple[int, bool]:
        """Return the segment that is to be read behind another, and whether it is certain to exist."""
        away = next((hole.end_segment for hole in self.holes_from(segment) if hole.leaves_segment), None)
        return (segment + 1, False) if away is None else (away, True)


def segment_name(number: int, epoch: int) -> str:
    """Return a segment's file name: ``0000000001-000001.wal`` for the first one, of the line that epoch 1 began."""
    return f"{number:010d}-{epoch:06d}.wal"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Return number and epoch in a segment's file name; ``None`` where it is none."""
    match = _SEGMENT.fullmatch(name)
    return (int(match[1]), int(match[2])) if match and int(match[1]) else None


def epoch_name(epoch: int) -> str:
    """Return the name of the file whose existence deposes all earlier owners, and whose lock its owner holds."""
    return f"epoch.{epoch:06d}"


def socket_name(epoch: int) -> str:
    """Return the name of the socket at which an epoch's owner serves those who are attached."""
    return f"epoch.{epoch:06d}.sock"


def sockets(names: list[str]) -> list[int]:
    """Return the epochs among a directory's names that have a socket, in order."""
    return sorted(int(match[1]) for name in names if (match := _SOCKET.fullmatch(name)))


def epochs(names: list[str]) -> list[int]:
    """Return the epochs among a directory's names, in order."""
    return sorted(int(match[1]) for name in names if (match := _EPOCH.fullmatch(name)))


def check_segment_numbers(directory: Path, numbers: list[int], manifest: Manifest) -> None:
    """Refuse a directory in which a segment is missing that no hole covers.

    Raises:
        LogCorruptError: The numbers are not 1, 2, 3, … without a gap, at least up to the last line's first.
    """
    needed = max(manifest.lines[-1].first_segment, numbers[-1] if numbers else 1)
    for number in range(1, needed + 1):
        if number not in numbers and not manifest.skips(number):
            raise LogCorruptError(
                f"{directory / manifest.segment_name(number)} is missing. Nothing was changed.",
                try_command=f"mainstem log verify {directory}",
            )


def encode_checked(value: msgspec.Struct) -> bytes:
    """Return a small file's bytes: a line of JSON, and a line with its CRC-32C."""
    line = msgspec.json.encode(value)
    return line + b"\n%08x\n" % crc32c(line)


def _read_checked(disk: Disk, path: Path, kind: type[T]) -> T | None:
    """Return what :func:`encode_checked` wrote, or ``None`` where there is no such file.

    Raises:
        LogCorruptError: It is damaged.
    """
    if not disk.exists(path):
        return None
    line, _, checksum = read_file(disk, path).partition(b"\n")
    if checksum == b"%08x\n" % crc32c(line):
        with contextlib.suppress(msgspec.MsgspecError):  # intact bytes of another shape: as useless as damaged ones
            return msgspec.json.decode(line, type=kind)
    raise LogCorruptError(
        f"{path} fails its checksum. Nothing was changed.", try_command=f"mainstem log verify {path.parent}"
    )


def write_checked(disk: Disk, path: Path, value: msgspec.Struct) -> None:
    """Put a small file in its place, whole and durable."""
    write_file(disk, path, encode_checked(value))


def read_file(disk: Disk, path: Path) -> bytes:
    """Return all of a file's bytes."""
    file = disk.open(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def write_file(disk: Disk, path: Path, data: bytes) -> None:
    """Put a file in its place, whole and durable: a crash leaves it as it was, or as it is to be."""
    temporary = path.with_name(path.name + NEW_SUFFIX)
    if disk.exists(temporary):
        disk.remove(temporary)
    file = disk.create(temporary)
    try:
        file.write_at(0, [data])
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, path)
    disk.sync_directory(path.parent)


def set_aside(disk: Disk, directory: Path, name: str, data: bytes) -> Path:
    """Keep a durable copy of bytes that the log gives up; return its path.

    It is to be named by its content, so that a crash in here and a second try make the same copy.
    """
    aside = directory / SET_ASIDE_NAME
    disk.make_directory(aside)
    target = aside / name
    if not disk.exists(target):
        write_file(disk, target, data)
    return target


def read_manifest(disk: Disk, directory: Path) -> Manifest:
    """Return which files are the log's.

    Raises:
        LogCorruptError: The manifest is missing or damaged.
    """
    path = directory / MANIFEST_NAME
    manifest = _read_checked(disk, path, Manifest)
    if manifest is None or not manifest.lines or manifest.lines[0].first_segment != 1:
        raise LogCorruptError(
            f"{path} is missing, or does not say where the log begins. Nothing was changed.",
            try_command=f"mainstem log verify {directory}",
        )
    return manifest


def read_meta(disk: Disk, directory: Path) -> LogMeta | None:
    """Return the directory's meta file, or ``None`` where there is none.

    Raises:
        LogCorruptError: It is damaged.
        LogFormatError: It was written by a version that this code does not know.
    """
    path = directory / META_NAME
    meta = _read_checked(disk, path, LogMeta)
    if meta is not None and (meta.format != FORMAT_VERSION or meta.features & ~KNOWN_FEATURES):
        raise LogFormatError(
            f"{path}: the log has format {meta.format} and feature bits {meta.features:#06x}; this mainstem reads "
            f"format {FORMAT_VERSION} and bits {KNOWN_FEATURES:#06x}. Nothing was changed.",
            try_command="pip install --upgrade mainstem",
        )
    return meta
