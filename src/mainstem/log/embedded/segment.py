"""A segment that is being written: creating, adding frames, closing. Blocking; called from one thread at a time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainstem.host.clock import Clock
from mainstem.host.disk import Disk, File
from mainstem.log.embedded.layout import NEW_SUFFIX
from mainstem.log.frame import HEADER_BYTES, SEGMENT_START, FrameHeader, build_frame


class OpenSegment:
    """The segment that appends go to.

    Attributes:
        file: The open file.
        number: Its number, from 1.
        size_bytes: Its allocated size.
        head: The last frame that was written.
        end_offset: Offset behind it.
    """

    __slots__ = ("end_offset", "file", "head", "number", "size_bytes")

    def __init__(self, file: File, number: int, size_bytes: int, head: FrameHeader) -> None:
        self.file = file
        self.number = number
        self.size_bytes = size_bytes
        self.advance(head)

    def advance(self, head: FrameHeader) -> None:
        """Take in that a frame was written and is durable."""
        self.head = head
        self.end_offset = head.end_offset

    @property
    def room_bytes(self) -> int:
        """Space for further frames, with one end mark's kept back."""
        return self.size_bytes - HEADER_BYTES - self.end_offset

    def next_frame(
        self, kind: int, body: bytes, first_position: int, record_count: int, time_ns: int
    ) -> tuple[FrameHeader, list[bytes]]:
        """Return the frame that goes behind the last one; once it is durable, :meth:`advance` takes it in."""
        return build_frame(
            kind,
            body,
            log_id=self.head.log_id,
            segment=self.number,
            offset=self.end_offset,
            first_position=first_position,
            record_count=record_count,
            time_ns=time_ns,
            chain=self.head.checksum,
        )


def allocate(disk: Disk, directory: Path, name: str, size_bytes: int, *, at_once: bool = False) -> File:
    """Create ``<name>.new``, filled with written zeros and synced. This is where a full disk is met.

    With ``at_once`` its space is only reserved: for whoever must not let others wait.

    Raises:
        OSError: ENOSPC or EDQUOT when there is no room; the unfinished file is gone then.
    """
    path = directory / (name + NEW_SUFFIX)
    if disk.exists(path):
        disk.remove(path)
    file = disk.create(path)
    try:
        (disk.reserve if at_once else disk.write_zeros)(file, size_bytes)
        file.sync()
    except BaseException:
        file.close()
        disk.remove(path)
        raise
    return file


def publish(disk: Disk, directory: Path, name: str) -> None:
    """Give a complete file its durable name."""
    disk.rename(directory / (name + NEW_SUFFIX), directory / name)
    disk.sync_directory(directory)


def begin(
    disk: Disk,
    clock: Clock,
    directory: Path,
    name: str,
    file: File,
    *,
    number: int,
    size_bytes: int,
    log_id: int,
    chain: int,
    next_position: int,
) -> OpenSegment:
    """Write an allocated segment's first frame, sync it, and give the file its durable name."""
    body = msgspec.json.encode({"size_bytes": size_bytes})
    header, buffers = build_frame(
        SEGMENT_START,
        body,
        log_id=log_id,
        segment=number,
        offset=0,
        first_position=next_position,
        record_count=0,
        time_ns=clock.time_ns(),
        chain=chain,
    )
    file.write_at(0, buffers)
    file.sync()
    publish(disk, directory, name)
    return OpenSegment(file, number, size_bytes, header)


def create_segment(
    disk: Disk,
    clock: Clock,
    directory: Path,
    name: str,
    *,
    number: int,
    size_bytes: int,
    log_id: int,
    chain: int,
    next_position: int,
) -> OpenSegment:
    """Allocate a segment and begin it."""
    file = allocate(disk, directory, name, size_bytes)
    try:
        return begin(
            disk,
            clock,
            directory,
            name,
            file,
            number=number,
            size_bytes=size_bytes,
            log_id=log_id,
            chain=chain,
            next_position=next_position,
        )
    except BaseException:
        file.close()
        raise


def write_end_mark(segment: OpenSegment, kind: int, time_ns: int) -> None:
    """Write and sync an end mark behind the last frame."""
    header, buffers = segment.next_frame(kind, b"", segment.head.next_position, 0, time_ns)
    segment.file.write_at(header.offset, buffers)
    segment.file.sync()
    segment.advance(header)
