"""Going through all segments of a directory in order, each verified, and each found to follow the one before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from mainstem.host.disk import Disk
from mainstem.log.embedded.layout import Manifest, check_segment_numbers
from mainstem.log.embedded.scan import SegmentPlace, SegmentScan, scan_segment
from mainstem.log.errors import LogCorruptError
from mainstem.log.frame import HEADER_BYTES, ROLLED_END, FrameHeader


class Segment(msgspec.Struct):
    """A segment that was read, and what stands in it."""

    place: SegmentPlace
    scan: SegmentScan
    size_bytes: int


def walk(disk: Disk, directory: Path, log_id: int, manifest: Manifest) -> Iterator[Segment]:
    """Yield each segment, verified.

    Raises:
        LogCorruptError: Acknowledged bytes are damaged or missing.
        LogFormatError: Another version wrote them.
    """
    numbers = manifest.segments(disk.list_directory(directory))
    check_segment_numbers(directory, numbers, manifest)
    before: Segment | None = None
    while numbers:
        number = numbers.pop(0)
        previous = before.scan.frames[-1].header if before is not None else None
        segment = read_segment(disk, place_after(directory, manifest, log_id, number, previous))
        if before is not None:
            check_closed(before, segment, is_last=not numbers)
        yield segment
        before = segment
        if not numbers and segment.scan.rolled:
            # An owner who is writing may have begun the next one since.
            numbers = [one for one in manifest.segments(disk.list_directory(directory)) if one > number]
            if not numbers:
                raise LogCorruptError(
                    f"{directory / manifest.segment_name(number + 1)} is missing: {segment.place.path} says that the "
                    "log goes on in it. Nothing was changed.",
                    try_command=f"mainstem log verify {directory}",
                )


def check_closed(before: Segment, after: Segment, *, is_last: bool) -> None:
    """Refuse a segment that was not closed as it must be, given the one after it.

    A roll writes the old segment's end mark last, so as long as the new segment has no record, that mark may be
    missing, stand in the page cache only, or be torn. It cannot be a commit that is torn: the new segment's first
    frame, which chains to the last commit, was found to fit.

    Raises:
        LogCorruptError: Frames of it are damaged or lost.
    """
    scan, path = before.scan, before.place.path
    if scan.left_by_hole:
        return
    unfinished_roll = is_last and not after.scan.has_commits
    torn_bytes = scan.torn_end_offset - scan.end_offset
    if torn_bytes and not (unfinished_roll and not scan.rolled and torn_bytes <= HEADER_BYTES):
        raise LogCorruptError(
            f"{path} byte {scan.end_offset}: what stands here is damaged, and {Path(after.place.path).name} shows "
            "that the segment was complete. Nothing was changed.",
            try_command=f"mainstem log verify {Path(path).parent}",
        )
    if not scan.rolled and not unfinished_roll:
        raise LogCorruptError(
            f"{path} byte {scan.end_offset}: its end mark is missing, though records follow in a later segment: its "
            "last frames are lost. Nothing was changed.",
            try_command=f"mainstem log verify {Path(path).parent}",
        )


def place_after(
    directory: Path, manifest: Manifest, log_id: int, number: int, previous: FrameHeader | None
) -> SegmentPlace:
    """Return what segment ``number`` must say of itself, given the last frame before it.

    A rolled end mark is not part of the chain: it is written after the next segment was begun. Behind a hole its
    end says what follows.
    """
    path, holes = str(directory / manifest.segment_name(number)), manifest.holes_from(number)
    hole = manifest.hole_into(number)
    if hole is not None:
        return SegmentPlace(path, log_id, number, hole.chain, hole.next_position, hole.end_offset, holes)
    if previous is None:
        return SegmentPlace(path, log_id, number, 0, 1, holes=holes)
    chain = previous.chain if previous.kind == ROLLED_END else previous.checksum
    return SegmentPlace(path, log_id, number, chain, previous.next_position, holes=holes)


def read_segment(disk: Disk, place: SegmentPlace) -> Segment:
    """Read and scan one segment; errors as :func:`~mainstem.log.embedded.scan.scan_segment`."""
    file = disk.open(Path(place.path))
    try:
        size_bytes = file.size()
        data = file.read_at(0, size_bytes)
    finally:
        file.close()
    return Segment(place, scan_segment(data, place), size_bytes)
