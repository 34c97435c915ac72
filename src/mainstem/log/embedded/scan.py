"""Reading one segment's frames, and telling a torn tail from damage. Pure: bytes in, verdict out.

Frame n+1 is written only after frame n's sync returned. So whatever stands behind a bad frame proves that the bad
frame was acknowledged: that is damage, and nobody may cut it off. Only a bad frame with nothing behind it, in the last
segment, can be a write that never finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from google_crc32c import value as crc32c

from mainstem.log.embedded.layout import Hole
from mainstem.log.errors import LogCorruptError, LogFormatError
from mainstem.log.frame import (
    ALIGNMENT,
    CLEAN_END,
    COMMIT,
    FORMAT_VERSION,
    HEADER_BYTES,
    KNOWN_FEATURES,
    MAGIC,
    ROLLED_END,
    SEGMENT_START,
    FrameHeader,
    parse_header,
)

_ZERO_BLOCK = bytes(1 << 16)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A valid frame of a segment, with its body."""

    header: FrameHeader
    body: bytes


class SegmentPlace(msgspec.Struct, frozen=True):
    """Where a segment stands in its log: what its frames must say of themselves.

    Attributes:
        path: The file's name, for messages.
        log_id: The log's id.
        number: The segment's number.
        chain: Header checksum of the last frame before the segment.
        next_position: Position of the first record that the segment may hold.
        begin_offset: Where its first readable frame stands: 0, or the end of a hole.
        holes: The holes that begin behind a frame of it.
    """

    path: str
    log_id: int
    number: int
    chain: int
    next_position: int
    begin_offset: int = 0
    holes: tuple[Hole, ...] = ()

    def hole_at(self, offset: int) -> Hole | None:
        """Return the hole that begins at an offset of the segment, if there is one."""
        return next((hole for hole in self.holes if hole.begin_offset == offset), None)


class SegmentScan(msgspec.Struct):
    """What a segment holds.

    Attributes:
        frames: Its valid frames, in order.
        end_offset: Offset behind the last valid frame.
        torn_end_offset: End of an unfinished write that begins at ``end_offset``; equals it when there is none.
        left_by_hole: Whether a hole that leads to a later segment begins at ``end_offset``.
    """

    frames: list[Frame]
    end_offset: int
    torn_end_offset: int
    left_by_hole: bool = False

    @property
    def torn(self) -> bool:
        """Whether an unfinished write follows the last valid frame."""
        return self.torn_end_offset > self.end_offset

    @property
    def rolled(self) -> bool:
        """Whether the segment was closed for ever."""
        return bool(self.frames) and self.frames[-1].header.kind == ROLLED_END

    @property
    def clean(self) -> bool:
        """Whether the log was closed in good order behind its last record."""
        return bool(self.frames) and self.frames[-1].header.kind == CLEAN_END and not self.torn

    @property
    def last_frame(self) -> Frame:
        """The last frame that further ones chain to: a roll's mark is not."""
        return self.frames[-2] if self.rolled else self.frames[-1]

    @property
    def has_commits(self) -> bool:
        """Whether it holds any record."""
        return any(frame.header.kind == COMMIT for frame in self.frames)


def scan_segment(data: bytes, place: SegmentPlace) -> SegmentScan:
    """Return the valid frames of a segment, given all of its bytes.

    Whether a torn tail is acceptable (only in the last segment) is the caller's to decide.

    Raises:
        LogCorruptError: A frame is bad, and something behind it shows that it was acknowledged.
        LogFormatError: A valid frame has a version or feature that this code does not know.
    """
    frames = list(iterate_frames(data, place, place.begin_offset))
    check_start(frames, len(data), place)
    end_offset = frames[-1].header.end_offset
    if place.hole_at(end_offset) is not None:
        return SegmentScan(frames, end_offset, end_offset, left_by_hole=True)
    return SegmentScan(frames, end_offset, last_nonzero(data, end_offset))


def iterate_frames(data: bytes, place: SegmentPlace, offset: int = 0) -> Iterator[Frame]:
    """Yield valid frames from ``offset`` on, up to the first place that holds none; errors as :func:`scan_segment`.

    ``place.chain`` and ``place.next_position`` are those at ``offset``. Holes are stepped over.
    """
    chain, position = place.chain, place.next_position
    while True:
        if (hole := place.hole_at(offset)) is not None:
            if hole.leaves_segment:
                return
            offset, chain, position = hole.end_offset, hole.chain, hole.next_position
        if offset + HEADER_BYTES > len(data):
            break
        header = parse_header(memoryview(data)[offset : offset + HEADER_BYTES])
        fault = _header_fault(header, place, offset)
        if header is not None and fault == "":
            check_format(header, place)
            if header.chain != chain or header.first_position != position:
                _corrupt(
                    place, offset, position, "it does not follow the frame before it: something between them is missing"
                )
            body = data[offset + HEADER_BYTES : offset + HEADER_BYTES + header.body_bytes]
            computed = crc32c(body)
            if len(body) == header.body_bytes and computed == header.body_checksum:
                yield Frame(header, body)
                offset, chain, position = header.end_offset, header.checksum, header.next_position
                if header.kind == ROLLED_END and place.hole_at(offset) is None:
                    break
                continue
            fault = f"its body fails its checksum (stored {header.body_checksum:08x}, computed {computed:08x})"
            # A frame that would end outside the file has a wrong length: what it seems to cover proves as much as the
            # rest.
            inside = header.end_offset <= len(data)
            behind = header.end_offset if inside else offset + ALIGNMENT
            if inside and (used := last_nonzero(data, behind)) > behind:
                # The frame is where its header says, so whatever stands behind it was written after its sync.
                _corrupt(
                    place, offset, position, f"{fault}, and bytes behind it up to {used} show that it was acknowledged"
                )
        else:
            behind = offset + ALIGNMENT
        proof = _later_frame(data, place, behind)
        if proof is not None:
            _corrupt(
                place, offset, position, f"{fault}, and a later frame at byte {proof} shows that it was acknowledged"
            )
        return
    rest = last_nonzero(data, offset)
    if rest > offset and _later_frame(data, place, offset) is not None:
        _corrupt(place, offset, position, "a frame stands behind the end of the segment")


def check_start(frames: Sequence[Frame], size_bytes: int, place: SegmentPlace) -> None:
    """Refuse a segment without a sound first frame, or shorter than that frame says.

    A segment is allocated, begun and synced before it gets its name, so no crash leaves it without its first frame or
    shortens it: somebody did, and acknowledged records may be lost.

    Raises:
        LogCorruptError: It is such a segment.
    """
    begun = bool(frames) and (frames[0].header.kind == SEGMENT_START) == (place.begin_offset == 0)
    if not begun:
        raise LogCorruptError(
            f"{place.path} byte {place.begin_offset}: the segment's first frame is damaged or is not of this place "
            f"(expected segment {place.number} of log {place.log_id:016x}). Nothing was changed.",
            try_command=f"mainstem log verify {Path(place.path).parent}",
        )
    if place.begin_offset or place.hole_at(frames[-1].header.end_offset) is not None:
        return  # a repair has settled what is known of its beginning, or of its end
    declared = declared_size(frames[0].body)
    if size_bytes < declared:
        raise LogCorruptError(
            f"{place.path} byte {size_bytes}: the file ends here, expected {declared} bytes: it was cut off, and "
            "acknowledged records may have stood there. Nothing was changed. Restore the file from a copy.",
            try_command=f"mainstem log verify {Path(place.path).parent}",
        )


class _SegmentStart(msgspec.Struct, frozen=True):
    size_bytes: int


def declared_size(start_body: bytes) -> int:
    """Return the size of the file that a segment's first frame states."""
    return msgspec.json.decode(start_body, type=_SegmentStart).size_bytes


def sound_frames(data: bytes, place: SegmentPlace) -> Iterator[Frame]:
    """Yield every frame that names this very place and whose checksums hold, whatever stands between them.

    Raises:
        LogFormatError: A sound header has a version or feature that this code does not know.
    """
    offset = 0
    while (found := _later_frame(data, place, offset)) is not None:
        header = parse_header(memoryview(data)[found : found + HEADER_BYTES])
        assert header is not None  # it was just found
        check_format(header, place)
        body = data[found + HEADER_BYTES : found + HEADER_BYTES + header.body_bytes]
        if len(body) == header.body_bytes and crc32c(body) == header.body_checksum:
            yield Frame(header, body)
        # A sound header says where its frame ends, whatever became of the body: what stands in that is no frame.
        offset = header.end_offset if header.end_offset <= len(data) else found + ALIGNMENT


def sound_headers(data: bytes, place: SegmentPlace, offset: int) -> Iterator[FrameHeader]:
    """Yield every sound header that names this very place, from ``offset`` on, whatever became of its body."""
    while (found := _later_frame(data, place, offset)) is not None:
        header = parse_header(memoryview(data)[found : found + HEADER_BYTES])
        assert header is not None  # it was just found
        yield header
        offset = header.end_offset if header.end_offset <= len(data) else found + ALIGNMENT


def _header_fault(header: FrameHeader | None, place: SegmentPlace, offset: int) -> str:
    if header is None:
        return "its header is missing or fails its checksum"
    if header.log_id != place.log_id:
        return f"it belongs to another log ({header.log_id:016x}, expected {place.log_id:016x})"
    if header.segment != place.number:
        return f"it belongs to segment {header.segment}, expected {place.number}"
    if header.offset != offset:
        return f"it belongs to byte {header.offset}"
    return ""


def check_format(header: FrameHeader, place: SegmentPlace) -> None:
    """Refuse a frame of a version, of a kind or with a feature that this code does not know.

    Raises:
        LogFormatError: It has one.
    """
    known_kind = SEGMENT_START <= header.kind <= ROLLED_END
    if header.version != FORMAT_VERSION or header.features & ~KNOWN_FEATURES or not known_kind:
        raise LogFormatError(
            f"{place.path} byte {header.offset}: the frame has format version {header.version}, kind {header.kind} and "
            f"feature bits {header.features:#06x}; this mainstem reads version {FORMAT_VERSION}, kinds {SEGMENT_START} "
            f"to {ROLLED_END} and bits {KNOWN_FEATURES:#06x}. Nothing was changed. Open the directory with the "
            "mainstem that wrote it, or a newer one.",
            try_command="pip install --upgrade mainstem",
        )


def _later_frame(data: bytes, place: SegmentPlace, offset: int) -> int | None:
    """Return the offset of a valid header of this very segment at or behind ``offset``."""
    if offset % ALIGNMENT == 0:  # the usual case, and the quick one
        header = parse_header(memoryview(data)[offset : offset + HEADER_BYTES])
        if header is not None and _header_fault(header, place, offset) == "":
            return offset
    end = last_nonzero(data, offset)  # the rest of a segment is zeros, which are told apart faster than searched
    at = data.find(MAGIC, offset, end)
    while at >= 0:
        if at % ALIGNMENT == 0:
            header = parse_header(memoryview(data)[at : at + HEADER_BYTES])
            if header is not None and _header_fault(header, place, at) == "":
                return at
        at = data.find(MAGIC, at + 1, end)
    return None


def last_nonzero(data: bytes, offset: int) -> int:
    """Return the aligned end of what is not zero behind ``offset``; ``offset`` where all is zero."""
    end = len(data)
    while end > offset:
        begin = max(offset, end - len(_ZERO_BLOCK))
        block = data[begin:end]
        if block != _ZERO_BLOCK[: len(block)]:
            used = begin + len(block.rstrip(b"\0"))
            return min(len(data), (used + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        end = begin
    return offset


def _corrupt(place: SegmentPlace, offset: int, position: int, what: str) -> NoReturn:
    raise LogCorruptError(
        f"{place.path} byte {offset}: the frame at position {position} is bad: {what}. Nothing was changed.",
        try_command=f"mainstem log verify {Path(place.path).parent}",
    )
