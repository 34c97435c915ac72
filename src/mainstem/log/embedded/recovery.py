"""Opening a directory: verify every frame, set a torn tail aside, make durable what will be served.

Order matters. Nothing on disk changes before every segment was found sound. What is cut off was copied and synced
before. And the last valid frame is written once more and synced before anyone may read it: it could have come from
the page cache of a process that died before its sync, and a power cut would take it back after it had been shown.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from google_crc32c import value as crc32c

from mainstem.host.clock import Clock
from mainstem.host.disk import Disk, File
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import (
    META_NAME,
    NEW_SUFFIX,
    SET_ASIDE_NAME,
    LogMeta,
    LogSettings,
    check_segment_numbers,
    encode_meta,
    read_meta,
    segment_name,
    segment_numbers,
)
from mainstem.log.embedded.scan import Frame, SegmentPlace, SegmentScan, scan_segment
from mainstem.log.embedded.segment import OpenSegment, create_segment, write_end_mark
from mainstem.log.errors import LogCorruptError
from mainstem.log.frame import COMMIT, FORMAT_VERSION, HEADER_BYTES, ROLLED_END, Commit, FrameHeader, build_frame


class TornTail(msgspec.Struct, frozen=True):
    """An unfinished write that was found at the end of the log, copied aside and cut off.

    Attributes:
        segment: Path of the segment.
        offset: Where it began, in bytes.
        size_bytes: How long it was.
        copy: Path of the copy.
    """

    segment: str
    offset: int
    size_bytes: int
    copy: str


class Recovered(msgspec.Struct):
    """What opening found.

    Attributes:
        log_id: The log's id.
        index: The index of all commits.
        active: The segment that appends go to.
        closed_bytes: Size of all segments before it.
        torn: The unfinished write that was set aside, if there was one.
    """

    log_id: int
    index: LogIndex
    active: OpenSegment
    closed_bytes: int
    torn: TornTail | None


class ScannedSegment(msgspec.Struct):
    """A segment that was read, and what stands in it."""

    place: SegmentPlace
    scan: SegmentScan
    size_bytes: int


def recover(disk: Disk, clock: Clock, directory: Path, settings: LogSettings) -> Recovered:
    """Open the log in a directory whose lock is held, creating it where there is none.

    Raises:
        LogCorruptError: Acknowledged bytes are damaged or missing; nothing was changed.
        LogFormatError: Another version wrote it; nothing was changed.
        OSError: The disk failed; opening again starts over.
    """
    meta = read_meta(disk, directory)
    if meta is None:
        refuse_headless_log(disk, directory)
        meta = _create(disk, clock, directory, settings)
    log_id = int(meta.log_id, 16)
    index = LogIndex(settings.dedup_window_calls)
    last, before_empty, closed_bytes = _scan_all(disk, directory, log_id, index)
    for name in disk.list_directory(directory):
        if name.endswith(NEW_SUFFIX):
            disk.remove(directory / name)
    path = directory / segment_name(last.place.number)
    file = disk.open(path, write=True)
    torn = _set_torn_tail_aside(disk, directory, file, last) if last.scan.torn else None
    _write_again(file, last.scan.frames[-1])
    disk.sync_directory(directory)
    if before_empty is not None:
        _finish_roll(disk, clock, directory, before_empty)
    active = OpenSegment(file, last.place.number, last.size_bytes, last.scan.frames[-1].header)
    return Recovered(log_id, index, active, closed_bytes, torn)


def refuse_headless_log(disk: Disk, directory: Path) -> None:
    """Refuse a directory that has segments with records, but no meta file.

    Raises:
        LogCorruptError: It is such a directory. (Creation writes the meta file last, so one lone segment without a
            commit is a creation that was interrupted.)
    """
    numbers = segment_numbers(disk.list_directory(directory))
    if not numbers:
        return
    path = directory / segment_name(numbers[0])
    file = disk.open(path)
    try:
        data = file.read_at(0, file.size())
    finally:
        file.close()
    if numbers == [1] and data.count(COMMIT_MARK) == 0:
        return
    raise LogCorruptError(
        f"{directory / META_NAME} is missing, but {path} holds records. Nothing was changed.",
        try_command=f"mainstem log verify {directory}",
    )


COMMIT_MARK = b"MSF1" + bytes([FORMAT_VERSION, COMMIT])
"""How the header of every commit begins."""


def _create(disk: Disk, clock: Clock, directory: Path, settings: LogSettings) -> LogMeta:
    for name in disk.list_directory(directory):
        if segment_numbers([name]) or name.endswith(NEW_SUFFIX):
            disk.remove(directory / name)
    log_id = int.from_bytes(os.urandom(8), "big")
    segment = create_segment(
        disk, clock, directory, number=1, size_bytes=settings.segment_bytes(1), log_id=log_id, chain=0, next_position=1
    )
    segment.file.close()
    meta = LogMeta(FORMAT_VERSION, 0, f"{log_id:016x}", clock.time_ns())
    temporary = directory / (META_NAME + NEW_SUFFIX)
    file = disk.create(temporary)
    try:
        file.write_at(0, [encode_meta(meta)])
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, directory / META_NAME)
    disk.sync_directory(directory)
    return meta


def _scan_all(
    disk: Disk, directory: Path, log_id: int, index: LogIndex
) -> tuple[ScannedSegment, ScannedSegment | None, int]:
    """Verify every segment, filling the index; changes nothing.

    Returns:
        The last segment, the one before it if the last has no record yet, and the size of all before the last.
    """
    numbers = segment_numbers(disk.list_directory(directory))
    check_segment_numbers(directory, numbers)
    before: ScannedSegment | None = None
    last = read_segment(disk, place_after(directory, log_id, 1, None))
    _add_commits(index, last.scan)
    closed_bytes = 0
    for number in numbers[1:]:
        before, last = last, read_segment(disk, place_after(directory, log_id, number, last.scan.frames[-1].header))
        check_closed(before, last, is_last=number == numbers[-1])
        _add_commits(index, last.scan)
        closed_bytes += before.size_bytes
    if last.scan.rolled:
        raise LogCorruptError(
            f"{directory / segment_name(last.place.number + 1)} is missing: {last.place.path} says that the log goes "
            "on in it. Nothing was changed.",
            try_command=f"mainstem log verify {directory}",
        )
    return last, None if last.scan.has_commits else before, closed_bytes


def _add_commits(index: LogIndex, scan: SegmentScan) -> None:
    for frame in scan.frames:
        if frame.header.kind == COMMIT:
            commit = Commit(frame.header, frame.body)
            index.add(frame.header, commit.names, commit.stream_of_record, commit.calls)


def check_closed(before: ScannedSegment, after: ScannedSegment, *, is_last: bool) -> None:
    """Refuse a segment that was not closed as it must be, given the one after it.

    A roll writes the old segment's end mark last, so as long as the new segment has no record, that mark may be
    missing, stand in the page cache only, or be torn. It cannot be a commit that is torn: the new segment's first
    frame, which chains to the last commit, was found to fit.

    Raises:
        LogCorruptError: Frames of it are damaged or lost.
    """
    scan, path = before.scan, before.place.path
    unfinished_roll = is_last and not after.scan.has_commits
    torn_bytes = scan.torn_end_offset - scan.end_offset
    if torn_bytes and not (unfinished_roll and not scan.rolled and torn_bytes <= HEADER_BYTES):
        raise LogCorruptError(
            f"{path} byte {scan.end_offset}: what stands here is damaged, and {segment_name(after.place.number)} shows "
            "that the segment was complete. Nothing was changed.",
            try_command=f"mainstem log verify {Path(path).parent}",
        )
    if not scan.rolled and not unfinished_roll:
        raise LogCorruptError(
            f"{path} byte {scan.end_offset}: its end mark is missing, though records follow in a later segment: its "
            "last frames are lost. Nothing was changed.",
            try_command=f"mainstem log verify {Path(path).parent}",
        )


def place_after(directory: Path, log_id: int, number: int, previous: FrameHeader | None) -> SegmentPlace:
    """Return what segment ``number`` must say of itself, given the last frame before it.

    A rolled end mark is not part of the chain: it is written after the next segment was begun.
    """
    path = str(directory / segment_name(number))
    if previous is None:
        return SegmentPlace(path, log_id, number, 0, 1)
    chain = previous.chain if previous.kind == ROLLED_END else previous.checksum
    return SegmentPlace(path, log_id, number, chain, previous.next_position)


def read_segment(disk: Disk, place: SegmentPlace) -> ScannedSegment:
    """Read and scan one segment; errors as :func:`~mainstem.log.embedded.scan.scan_segment`."""
    file = disk.open(Path(place.path))
    try:
        size_bytes = file.size()
        data = file.read_at(0, size_bytes)
    finally:
        file.close()
    return ScannedSegment(place, scan_segment(data, place), size_bytes)


def _set_torn_tail_aside(disk: Disk, directory: Path, file: File, last: ScannedSegment) -> TornTail:
    """Copy what is behind the last valid frame, sync the copy, then zero it in place: the segment keeps its size."""
    offset, size = last.scan.end_offset, last.scan.torn_end_offset - last.scan.end_offset
    data = file.read_at(offset, size)
    aside = directory / SET_ASIDE_NAME
    disk.make_directory(aside)
    # Named by content, so that a crash in here and a second recovery make the same copy.
    target = aside / f"{segment_name(last.place.number)}-{offset}-{crc32c(data):08x}.torn"
    if not disk.exists(target):
        temporary = aside / (target.name + NEW_SUFFIX)
        if disk.exists(temporary):
            disk.remove(temporary)
        copy = disk.create(temporary)
        try:
            copy.write_at(0, [data])
            copy.sync()
        finally:
            copy.close()
        disk.rename(temporary, target)
        disk.sync_directory(aside)
    file.write_at(offset, [bytes(len(data))])
    file.sync()
    return TornTail(last.place.path, offset, len(data), str(target))


def _write_again(file: File, frame: Frame) -> None:
    header = frame.header
    _same, buffers = build_frame(
        header.kind,
        frame.body,
        log_id=header.log_id,
        segment=header.segment,
        offset=header.offset,
        first_position=header.first_position,
        record_count=header.record_count,
        time_ns=header.time_ns,
        chain=header.chain,
    )
    file.write_at(header.offset, buffers)
    file.sync()


def _finish_roll(disk: Disk, clock: Clock, directory: Path, before_empty: ScannedSegment) -> None:
    """Make durable the end mark of the segment before an empty last one: the roll died before it did that."""
    place, scan = before_empty.place, before_empty.scan
    file = disk.open(directory / segment_name(place.number), write=True)
    try:
        if scan.rolled:
            _write_again(file, scan.frames[-1])
        else:
            segment = OpenSegment(file, place.number, before_empty.size_bytes, scan.frames[-1].header)
            write_end_mark(segment, ROLLED_END, clock.time_ns())
    finally:
        file.close()
