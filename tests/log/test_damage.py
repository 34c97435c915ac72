"""Damaged bytes: an unfinished write at the very end is set aside; damage elsewhere is refused, nothing changed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from mainstem.log import LogCorruptError, LogFormatError, Record
from mainstem.log.frame import ALIGNMENT, CLEAN_END, COMMIT, HEADER_BYTES, FrameHeader, build_frame
from mainstem.testing import SECTOR_BYTES, SimulatedDisk
from tests.log.faults import (
    DIRECTORY,
    current,
    headers_of,
    last_commit,
    open_on,
    refused,
    reopened,
    segment,
    stored,
    written_log,
)
from tests.support import run

BASE = written_log()
CLEAN = written_log(clean=True)
TWO_SEGMENTS = written_log(8)


def expect_torn(disk: SimulatedDisk, base: SimulatedDisk = BASE, number: int = 1) -> None:
    """The last commit is set aside byte for byte, everything before it is there, and a second opening finds nothing."""
    last = last_commit(base, number)
    damaged = disk.contents(segment(number))[last.offset :].rstrip(b"\0")
    torn = reopened(disk)
    assert torn is not None
    assert torn.offset == last.offset
    assert disk.contents(Path(torn.copy)).rstrip(b"\0") == damaged
    assert stored(disk) == [row for row in stored(base) if row[0] < last.first_position]
    assert not disk.contents(current(disk, number))[last.offset :].strip(b"\0")
    assert reopened(disk) is None


def test_last_frame_written_up_to_any_byte() -> None:
    """A last frame of which only the first bytes were written is dropped, and nothing else; with none, none is torn."""
    last = last_commit(BASE)
    frame = BASE.contents(segment())[last.offset : last.end_offset]
    used = len(frame.rstrip(b"\0"))
    for written in range(1, used):
        disk = BASE.copy()
        disk.zero(segment(), last.offset + written, len(frame))
        if not frame[:written].strip(b"\0"):
            continue
        expect_torn(disk)
    disk = BASE.copy()
    disk.zero(segment(), last.offset, len(frame))
    assert reopened(disk) is None
    assert stored(disk) == stored(BASE)[:-2]


def test_last_frame_written_from_any_byte() -> None:
    """A last frame whose first bytes are missing is dropped, and nothing else."""
    last = last_commit(BASE)
    used = len(BASE.contents(segment()).rstrip(b"\0"))
    for missing in range(1, used - last.offset, 7):
        disk = BASE.copy()
        disk.zero(segment(), last.offset, missing)
        expect_torn(disk)


@pytest.mark.parametrize("base", [BASE, CLEAN], ids=["killed", "closed"])
def test_file_cut_at_every_byte(base: SimulatedDisk) -> None:
    """A segment that was cut off is refused at every length: it was allocated in full before its first record."""
    size = len(base.contents(segment()))
    for length in range(size):
        disk = base.copy()
        disk.cut(segment(), length)
        with refused(disk, str(segment())):
            reopened(disk)


def test_bit_flip_at_every_byte_after_a_kill() -> None:
    """A flipped bit in the last frame is a torn tail; behind it, set aside; before it, refused by frame."""
    headers = headers_of(BASE)
    last = headers[-1]
    for offset in range(len(BASE.contents(segment()))):
        disk = BASE.copy()
        disk.flip_bit(segment(), offset, offset % 8)
        frame = next((header for header in headers if header.offset <= offset < header.end_offset), None)
        if frame is None:
            torn = reopened(disk)
            assert torn is not None
            assert torn.offset == last.end_offset
            assert stored(disk) == stored(BASE)
        elif offset >= frame.offset + HEADER_BYTES + frame.body_bytes:
            assert reopened(disk) is None  # padding: no part of any record
            assert stored(disk) == stored(BASE)
        elif frame is last:
            expect_torn(disk)
        else:
            with refused(disk, f"{segment()} byte {frame.offset}:"):
                reopened(disk)


def test_bit_flip_before_an_end_mark() -> None:
    """After a clean close a flipped bit in any frame is refused, the last commit's too; the mark itself is torn."""
    headers = headers_of(CLEAN)
    assert headers[-1].kind == CLEAN_END
    for frame in headers:
        for offset in range(frame.offset, frame.offset + HEADER_BYTES + frame.body_bytes):
            disk = CLEAN.copy()
            disk.flip_bit(segment(), offset, offset % 8)
            if frame.kind == CLEAN_END:
                assert reopened(disk) is not None
                assert stored(disk) == stored(CLEAN)
            else:
                with refused(disk, f"{segment()} byte {frame.offset}:"):
                    reopened(disk)


def test_bit_flip_in_a_segment_that_was_rolled() -> None:
    """In a segment that is not the last a flipped bit is refused anywhere, end mark and what is behind included."""
    headers = headers_of(TWO_SEGMENTS, 1)
    covered = [(header.offset, header.offset + HEADER_BYTES + header.body_bytes) for header in headers]
    behind = len(TWO_SEGMENTS.contents(segment(1))) - 1
    for begin, end in [*covered, (headers[-1].end_offset, behind)]:
        for offset in range(begin, end, 3):
            disk = TWO_SEGMENTS.copy()
            disk.flip_bit(segment(1), offset, offset % 8)
            with refused(disk, str(segment(1))):
                reopened(disk)


def test_missing_sector_anywhere_in_the_last_frame() -> None:
    """A last frame without one of its sectors is a torn tail; one that loses nothing but zeros is complete."""
    last = last_commit(BASE)
    content = BASE.contents(segment())
    for begin in range(last.offset // SECTOR_BYTES * SECTOR_BYTES, last.end_offset, SECTOR_BYTES):
        start = max(begin, last.offset)  # what stood in the sector before survives: sectors are written whole
        disk = BASE.copy()
        disk.overwrite(segment(), start, bytes(begin + SECTOR_BYTES - start))
        if content[start : begin + SECTOR_BYTES].strip(b"\0"):
            expect_torn(disk)
        else:
            assert reopened(disk) is None


@given(offset=st.integers(0, 4095), size=st.integers(1, 3000))
def test_zeroed_range_anywhere(offset: int, size: int) -> None:
    """A zeroed range that ends before the last frame is refused, or it hit only zeros; none makes up a record."""
    disk = BASE.copy()
    content = disk.contents(segment())
    disk.zero(segment(), offset, size)
    last = last_commit(BASE)
    if offset + size <= last.offset and content != disk.contents(segment()):
        with refused(disk, str(segment())):
            reopened(disk)
        return
    with contextlib.suppress(LogCorruptError):  # a range that reaches the last frame may have hit others before it
        reopened(disk)
        found = stored(disk)
        assert found == stored(BASE)[: len(found)]


def test_nothing_behind_a_torn_frame() -> None:
    """A bad frame with a sound header is refused when anything at all stands behind where it ends."""
    disk = BASE.copy()
    last = last_commit(BASE)
    disk.flip_bit(segment(), last.offset + 100)
    disk.flip_bit(segment(), last.end_offset + 100)
    with refused(disk, f"{segment()} byte {last.offset}:"):
        reopened(disk)


def test_zeroed_tail_after_a_clean_close() -> None:
    """When the end mark is gone, so that nothing follows the last commit, the commit is still there."""
    disk = CLEAN.copy()
    mark = headers_of(CLEAN)[-1]
    disk.zero(segment(), mark.offset, 10_000)
    assert reopened(disk) is None
    assert stored(disk) == stored(CLEAN)


def test_stale_bytes_behind_the_end() -> None:
    """Old bytes of other files in the preallocated space are set aside, frames of another log among them."""
    other = written_log(2)
    stale = other.contents(segment())[64:1024]
    for shift in (0, 1, 64, 500):
        disk = BASE.copy()
        end = headers_of(BASE)[-1].end_offset
        disk.overwrite(segment(), end + shift, stale)
        torn = reopened(disk)
        assert torn is not None
        assert stored(disk) == stored(BASE)
        assert stale.rstrip(b"\0") in disk.contents(Path(torn.copy))


def with_length(header: FrameHeader, body_bytes: int) -> bytes:
    """Return a frame like another one, but with a body of so many zeros."""
    _made, buffers = build_frame(
        header.kind,
        bytes(body_bytes),
        log_id=header.log_id,
        segment=header.segment,
        offset=header.offset,
        first_position=header.first_position,
        record_count=header.record_count,
        time_ns=header.time_ns,
        chain=header.chain,
    )
    return b"".join(buffers)


@pytest.mark.parametrize("length", [0, 1, 64, 5000, (1 << 20) - 1])
def test_length_field_that_lies(length: int) -> None:
    """A wrong length under a sound header checksum is refused; in the last frame it is torn if nothing is behind it."""
    headers = headers_of(BASE)
    for frame in headers[1:]:
        disk = BASE.copy()
        lie = with_length(frame, length)[:HEADER_BYTES]
        # The body's checksum is that of the true body, so that only the length is wrong.
        true_checksum = BASE.contents(segment())[frame.offset + 44 : frame.offset + 48]
        disk.overwrite(segment(), frame.offset, sealed(lie[:44] + true_checksum + lie[48:60]))
        if frame is headers[-1] and length > frame.body_bytes:
            expect_torn(disk)
        else:
            with refused(disk, f"{segment()} byte {frame.offset}:"):
                reopened(disk)


def sealed(head: bytes) -> bytes:
    """Return a header's first 60 bytes with their checksum."""
    checksum: int = crc32c(head)
    return head + checksum.to_bytes(4, "little")


@pytest.mark.parametrize(("at", "value"), [(4, 2), (5, 9), (6, 1)], ids=["version", "kind", "feature bit"])
def test_unknown_version_kind_or_feature(at: int, value: int) -> None:
    """A frame of an unknown version, kind or feature is refused with what is needed, and nothing is changed."""
    disk = BASE.copy()
    frame = last_commit(BASE)
    head = bytearray(BASE.contents(segment())[frame.offset : frame.offset + 60])
    head[at] = value
    disk.overwrite(segment(), frame.offset, sealed(bytes(head)))
    before = disk.files()
    with pytest.raises(LogFormatError, match="this mainstem reads version 1"):
        reopened(disk)
    assert disk.files() == before


def test_unknown_format_in_the_meta_file() -> None:
    """A directory of a later format is refused before any segment is looked at; a damaged meta file is damage."""
    path = DIRECTORY / "log.meta"
    line = BASE.contents(path).split(b"\n")[0]
    later = line.replace(b'"format":1', b'"format":2')
    assert later != line
    disk = BASE.copy()
    disk.put(path, later + b"\n%08x\n" % crc32c(later))
    with pytest.raises(LogFormatError, match="has format 2"):
        reopened(disk)
    for offset in range(len(BASE.contents(path))):
        disk = BASE.copy()
        disk.flip_bit(path, offset, 0)
        with refused(disk, str(path)):
            reopened(disk)
    disk.put(path, b"")
    with refused(disk, str(path)):
        reopened(disk)


def test_frame_at_the_wrong_offset() -> None:
    """A frame copied behind the last one, sound but not of this place, is set aside and never served."""
    disk = BASE.copy()
    first = headers_of(BASE)[1]
    end = headers_of(BASE)[-1].end_offset
    disk.overwrite(segment(), end, BASE.contents(segment())[first.offset : first.end_offset])
    torn = reopened(disk)
    assert torn is not None
    assert torn.offset == end
    assert stored(disk) == stored(BASE)


def test_frame_of_another_log() -> None:
    """A frame of another log in the place of one of ours is refused, or set aside when it is the last."""
    other = written_log()
    assert [header.offset for header in headers_of(other)] == [header.offset for header in headers_of(BASE)]
    for frame in headers_of(BASE)[1:]:
        disk = BASE.copy()
        disk.overwrite(segment(), frame.offset, other.contents(segment())[frame.offset : frame.end_offset])
        if frame.offset == last_commit(BASE).offset:
            expect_torn(disk)
        else:
            with refused(disk, f"{segment()} byte {frame.offset}:", "another log"):
                reopened(disk)


def test_frame_that_does_not_chain() -> None:
    """A sound frame of this place that belongs to another history is refused."""
    disk = BASE.copy()
    last = last_commit(BASE)
    body = BASE.contents(segment())[last.offset + HEADER_BYTES :][: last.body_bytes]
    _header, buffers = build_frame(
        COMMIT,
        body,
        log_id=last.log_id,
        segment=last.segment,
        offset=last.offset,
        first_position=last.first_position,
        record_count=last.record_count,
        time_ns=last.time_ns,
        chain=last.chain ^ 1,
    )
    disk.overwrite(segment(), last.offset, b"".join(buffers))
    with refused(disk, "does not follow the frame before it"):
        reopened(disk)


def test_record_that_looks_like_a_frame() -> None:
    """Values full of frame headers, also of this very log, are records like any other, torn or not."""

    async def write() -> SimulatedDisk:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        own = disk.contents(segment())[:512]
        await log.append("a", [Record(b"x" * shift + own * 2) for shift in (0, 8, 24)])
        left = disk.copy()
        disk.kill()
        return left

    base = run(write())
    assert len(stored(base)) == 4
    last = last_commit(base)
    for damaged in range(last.offset, last.end_offset - ALIGNMENT, 16):
        disk = base.copy()
        disk.flip_bit(segment(), damaged)
        expect_torn(disk, base)


def test_appends_go_on_behind_a_torn_tail() -> None:
    """After a torn tail was set aside the log takes new records in its place, and they survive."""
    disk = BASE.copy()
    disk.flip_bit(segment(), last_commit(BASE).offset + 100)

    async def go_on() -> None:
        log = await open_on(disk)
        assert log.torn is not None
        assert await log.append("orders", [Record(b"new")]) == 7
        await log.close()

    run(go_on())
    assert stored(disk)[-1] == (7, "orders", b"new")
    assert reopened(disk) is None
