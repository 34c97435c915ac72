"""Opening a directory: verify every frame, claim the next epoch, and take over what the owner before left.

Order matters. Nothing on disk changes before every segment was found sound. Then the next epoch is claimed, and
durable: from here on no earlier owner, should it still live, can acknowledge anything. Only what was synced before
that is acknowledged, so what is read now holds all of it.

An owner that closed the log is gone for good, and the next one goes on in its files. One that did not may still live,
stopped or lost in a slow write, so its files are never written to: the segment that it was writing is copied, as far
as it is valid, into a file of the new owner's, synced, and named in the manifest. So nothing is served that a power
cut could take back, whatever stood in the page cache only. An unfinished write is copied aside first.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import msgspec
from google_crc32c import value as crc32c

from mainstem.host.clock import Clock
from mainstem.host.disk import Disk, File, Lock
from mainstem.host.lock import LockHeldError
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import (
    MANIFEST_NAME,
    META_NAME,
    NEW_SUFFIX,
    Line,
    LogMeta,
    LogSettings,
    Manifest,
    epoch_name,
    epochs,
    parse_segment_name,
    read_file,
    read_manifest,
    read_meta,
    segment_name,
    set_aside,
    socket_name,
    sockets,
    write_checked,
)
from mainstem.log.embedded.segment import OpenSegment, allocate, create_segment, publish
from mainstem.log.embedded.walk import Segment, walk
from mainstem.log.errors import LogCorruptError, LogFullError, LogInUseError
from mainstem.log.frame import COMMIT, FORMAT_VERSION, Commit, build_frame

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What the system says when the disk is full."""

_COPY_BYTES = 1 << 20
_SCANS_BESIDE = 5


class TornTail(msgspec.Struct, frozen=True):
    """An unfinished write that was found at the end of the log, and copied aside.

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
        epoch: The epoch that was claimed.
        lock: Its lock.
        manifest: Which files are the log's.
        index: The index of all commits.
        active: The segment that appends go to.
        closed_bytes: Size of all segments before it.
        torn: The unfinished write that was set aside, if there was one.
    """

    log_id: int
    epoch: int
    lock: Lock
    manifest: Manifest
    index: LogIndex
    active: OpenSegment
    closed_bytes: int
    torn: TornTail | None


def recover(
    disk: Disk, clock: Clock, directory: Path, settings: LogSettings, *, depose: int = 0, claim_first: bool = False
) -> Recovered:
    """Open the log in a directory as its owner, creating it where there is none.

    With ``depose`` also from the owner of that epoch, should it still live: for one that does not answer any more.
    With ``claim_first`` it is claimed before it is read, so that of many who try only one reads it: for those who have
    used it until just now, and so know that it is sound.

    Raises:
        LogInUseError: Another process owns it, or was faster.
        LogCorruptError: Acknowledged bytes are damaged or missing; nothing of the log was changed.
        LogFormatError: Another version wrote it; nothing was changed.
        LogFullError: There is no room for the files of a new owner; nothing is lost.
        OSError: The disk failed; opening again starts over.
    """
    epoch = latest_epoch(disk, directory)
    owner = disk.lock_owner(directory / epoch_name(epoch))
    if owner and epoch != depose:
        raise LogInUseError(str(directory), owner)
    index = LogIndex(settings.dedup_window_calls)
    # Whoever is gone writes no more, so it can be looked at before anything is changed. One that lives must be kept
    # from acknowledging first.
    try:
        left = None if owner or claim_first else _scan(disk, directory, index)
    except (LogCorruptError, FileNotFoundError):
        if latest_epoch(disk, directory) != epoch:
            raise LogInUseError(str(directory), 0) from None  # no damage: another one took it over in mid scan
        raise
    lock = claim(disk, directory, epoch + 1)
    try:
        if owner or claim_first:
            left, index = _scan_beside(disk, directory, settings)
        elif left is None:
            _create(disk, clock, directory, settings, epoch + 1)
            left = _scan(disk, directory, index)
        if left is None:
            raise LogInUseError(str(directory), owner)  # it is just creating the log
        taken = _take_over(disk, directory, left, epoch + 1, in_place=not owner)
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise LogFullError(
                f"{directory}: the disk has no room for the files that opening needs ({error}). Nothing is lost; "
                "reading goes on.",
                try_command=f"df -h {directory}",
            ) from error
        raise
    return Recovered(left.log_id, epoch + 1, lock, taken.manifest, index, taken.active, taken.closed_bytes, taken.torn)


def latest_epoch(disk: Disk, directory: Path) -> int:
    """Return the latest epoch that was claimed in a directory; 0 when none was."""
    return (epochs(disk.list_directory(directory)) or [0])[-1]


def claim(disk: Disk, directory: Path, epoch: int) -> Lock:
    """Depose all owners of earlier epochs; of several who try, one succeeds.

    Raises:
        LogInUseError: Another one did.
    """
    path = directory / epoch_name(epoch)
    try:
        lock = disk.lock(path, new=True)
    except (FileExistsError, LockHeldError):
        raise LogInUseError(str(directory), disk.lock_owner(path)) from None
    try:
        disk.sync_directory(directory)
        # Owners remove the files of epochs before their own, so the name may have been free for others' being done.
        if (latest := latest_epoch(disk, directory)) != epoch:
            raise LogInUseError(str(directory), disk.lock_owner(directory / epoch_name(latest)))
    except BaseException:
        lock.release()
        raise
    return lock


def refuse_headless_log(disk: Disk, directory: Path) -> None:
    """Refuse a directory that has segments with records, but no meta file.

    Raises:
        LogCorruptError: It is such a directory. (Creation writes the meta file last, so one lone segment without a
            commit is a creation that was interrupted.)
    """
    names = [name for name in disk.list_directory(directory) if parse_segment_name(name)]
    for name in names:
        path = directory / name
        data = read_file(disk, path)
        if (len(names) > 1 and not name.startswith(segment_name(1, 1)[:10])) or data.count(_COMMIT_MARK):
            raise LogCorruptError(
                f"{directory / META_NAME} is missing, but {path} holds records. Nothing was changed.",
                try_command=f"mainstem log verify {directory}",
            )


_COMMIT_MARK = b"MSF1" + bytes([FORMAT_VERSION, COMMIT])


def _create(disk: Disk, clock: Clock, directory: Path, settings: LogSettings, epoch: int) -> None:
    for name in disk.list_directory(directory):
        if parse_segment_name(name) or name.endswith(NEW_SUFFIX) or name == MANIFEST_NAME:
            disk.remove(directory / name)
    log_id = int.from_bytes(os.urandom(8), "big")
    name, size_bytes = segment_name(1, epoch), settings.segment_bytes(1)
    segment = create_segment(
        disk, clock, directory, name, number=1, size_bytes=size_bytes, log_id=log_id, chain=0, next_position=1
    )
    segment.file.close()
    write_checked(disk, directory / MANIFEST_NAME, Manifest((Line(1, epoch),)))
    meta = LogMeta(FORMAT_VERSION, 0, f"{log_id:016x}", clock.time_ns())
    write_checked(disk, directory / META_NAME, meta)


class _Left(msgspec.Struct):
    """What the owner before left: all of it found sound."""

    log_id: int
    manifest: Manifest
    segments: list[Segment]
    """The last one, and the one before it where there is one."""
    closed_bytes: int
    """Size of the segments before those."""


def _scan(disk: Disk, directory: Path, index: LogIndex) -> _Left | None:
    """Verify every segment, filling the index; changes nothing. ``None`` where there is no log."""
    meta = read_meta(disk, directory)
    if meta is None:
        refuse_headless_log(disk, directory)
        return None
    left = _Left(int(meta.log_id, 16), read_manifest(disk, directory), [], 0)
    for segment in walk(disk, directory, left.log_id, left.manifest):
        if len(left.segments) == 2:
            left.closed_bytes += left.segments.pop(0).size_bytes
        left.segments.append(segment)
        for frame in segment.scan.frames:
            if frame.header.kind == COMMIT:
                commit = Commit(frame.header, frame.body)
                index.add(frame.header, commit.names, commit.stream_of_record, commit.calls)
    return left


def _scan_beside(disk: Disk, directory: Path, settings: LogSettings) -> tuple[_Left | None, LogIndex]:
    """Scan beside an owner that was deposed and may still write: one frame at most, and it may begin a segment.

    A frame that was written between two reads looks like damage, so that is looked at once more.
    """
    for _attempt in range(_SCANS_BESIDE - 1):
        index = LogIndex(settings.dedup_window_calls)
        with contextlib.suppress(LogCorruptError):  # the last attempt tells
            return _scan(disk, directory, index), index
    index = LogIndex(settings.dedup_window_calls)
    return _scan(disk, directory, index), index


class _Taken(msgspec.Struct):
    manifest: Manifest
    active: OpenSegment
    closed_bytes: int
    torn: TornTail | None


def _take_over(disk: Disk, directory: Path, left: _Left, epoch: int, *, in_place: bool) -> _Taken:
    """Make what was left this owner's: with a copy of its own, or in place where the owner before closed it."""
    last = left.segments[-1]
    torn = _set_torn_tail_aside(disk, directory, last) if last.scan.torn else None
    source = _last_complete(left)
    closed_bytes = left.closed_bytes + sum(
        one.size_bytes for one in left.segments if one.place.number < source.place.number
    )
    manifest = left.manifest
    alone = _is_alone(disk, directory, epoch)
    if alone:
        _remove_unfinished(disk, directory)
    # In place only with all epochs before gone: as long as one is there, readers take the line's last frame for one
    # that a deposed owner may have written in vain; and one who lives looks for the epoch behind its own.
    if source.scan.clean and in_place and alone:
        file = disk.open(Path(source.place.path), write=True)
        _write_end_mark_again(file, source)
        if source is not last:
            # The segment that a roll had begun chains to the end as it was; nobody may go on to it from another one.
            disk.remove(Path(last.place.path))
            disk.sync_directory(directory)
    else:
        line = Line(source.place.number, epoch)
        file = _copy(disk, directory, source, segment_name(line.first_segment, epoch))
        manifest = manifest.with_line(line)
        write_checked(disk, directory / MANIFEST_NAME, manifest)
    if alone:
        _remove_leftovers(disk, directory, manifest, epoch)
    active = OpenSegment(file, source.place.number, source.size_bytes, source.scan.last_frame.header)
    return _Taken(manifest, active, closed_bytes, torn)


def _last_complete(left: _Left) -> Segment:
    """Return the segment in which the log goes on: the roll to a last one without a record is done once more.

    Its predecessor's end mark may be missing, torn, or stand in the page cache only.
    """
    *before, last = left.segments
    return last if last.scan.has_commits or last.scan.clean or not before else before[0]


def _is_alone(disk: Disk, directory: Path, epoch: int) -> bool:
    """Tell whether no earlier owner lives, who would miss what is removed."""
    earlier = (one for one in epochs(disk.list_directory(directory)) if one < epoch)
    return not any(disk.lock_owner(directory / epoch_name(one)) for one in earlier)


def _copy(disk: Disk, directory: Path, source: Segment, name: str) -> File:
    """Copy a segment as far as it is valid, without the mark of a roll, into a new file; return that, durable."""
    end_offset = source.scan.last_frame.header.end_offset
    file = allocate(disk, directory, name, source.size_bytes, at_once=True)
    try:
        old = disk.open(Path(source.place.path))
        try:
            for offset in range(0, end_offset, _COPY_BYTES):
                file.write_at(offset, [old.read_at(offset, min(_COPY_BYTES, end_offset - offset))])
        finally:
            old.close()
        file.sync()
        publish(disk, directory, name)
    except BaseException:
        file.close()
        raise
    return file


def _write_end_mark_again(file: File, segment: Segment) -> None:
    """Make an orderly end durable: it may stand in the page cache only."""
    header = segment.scan.last_frame.header
    _same, buffers = build_frame(
        header.kind,
        b"",
        log_id=header.log_id,
        segment=header.segment,
        offset=header.offset,
        first_position=header.first_position,
        record_count=0,
        time_ns=header.time_ns,
        chain=header.chain,
    )
    file.write_at(header.offset, buffers)
    file.sync()


def _set_torn_tail_aside(disk: Disk, directory: Path, last: Segment) -> TornTail:
    """Copy what is behind the last valid frame, and sync the copy."""
    offset, size = last.scan.end_offset, last.scan.torn_end_offset - last.scan.end_offset
    path = Path(last.place.path)
    file = disk.open(path)
    try:
        data = file.read_at(offset, size)
    finally:
        file.close()
    target = set_aside(disk, directory, f"{path.name}-{offset}-{crc32c(data):08x}.torn", data)
    return TornTail(last.place.path, offset, len(data), str(target))


def _remove_unfinished(disk: Disk, directory: Path) -> None:
    """Remove files that were never completed, among them a next segment that was prepared."""
    for name in disk.list_directory(directory):
        if name.endswith(NEW_SUFFIX):
            disk.remove(directory / name)


def _remove_leftovers(disk: Disk, directory: Path, manifest: Manifest, epoch: int) -> None:
    """Remove files that are not the log's any more."""
    names = disk.list_directory(directory)
    current = {manifest.segment_name(number) for number in manifest.segments(names)}
    for name in names:
        if parse_segment_name(name) and name not in current:
            disk.remove(directory / name)
    for one in epochs(names):
        if one < epoch:
            disk.remove(directory / epoch_name(one))
    for one in sockets(names):
        if one < epoch:
            disk.remove(directory / socket_name(one))
