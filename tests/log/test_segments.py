"""Segments that are missing, doubled, exchanged or emptied are refused; so is a log without its meta file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mainstem.log import LogCorruptError, LogNotFoundError, open_reader
from mainstem.log.embedded.verify import verify_directory
from mainstem.testing import SimulatedClock, SimulatedDisk
from tests.log.faults import DIRECTORY, SETTINGS, headers_of, refused, reopened, segment, stored, written_log
from tests.support import run

BASE = written_log(11)
LAST = len([name for name in BASE.files() if name.endswith(".wal")])


def drop(*numbers: int) -> Callable[[SimulatedDisk], None]:
    """Lose segments."""

    def damage(disk: SimulatedDisk) -> None:
        for number in numbers:
            disk.drop(segment(number))

    return damage


def rename(number: int, new: int) -> Callable[[SimulatedDisk], None]:
    """Give a segment another number, over whatever is there."""

    def damage(disk: SimulatedDisk) -> None:
        disk.duplicate(segment(number), segment(new))
        disk.drop(segment(number))

    return damage


DAMAGES: dict[str, Callable[[SimulatedDisk], None]] = {
    "first missing": drop(1),
    "middle missing": drop(2),
    "last missing": drop(LAST),
    "first emptied": lambda disk: disk.cut(segment(1), 0),
    "middle emptied": lambda disk: disk.cut(segment(2), 0),
    "last emptied": lambda disk: disk.cut(segment(LAST), 0),
    "first zeroed": lambda disk: disk.zero(segment(1), 0, 1 << 20),
    "middle zeroed": lambda disk: disk.zero(segment(2), 0, 1 << 20),
    "last zeroed": lambda disk: disk.zero(segment(LAST), 0, 1 << 20),
    "first and second exchanged": lambda disk: disk.swap(segment(1), segment(2)),
    "last two exchanged": lambda disk: disk.swap(segment(LAST), segment(LAST - 1)),
    "first copied over the second": lambda disk: disk.duplicate(segment(1), segment(2)),
    "first copied over the last": lambda disk: disk.duplicate(segment(1), segment(LAST)),
    "first copied behind the last": lambda disk: disk.duplicate(segment(1), segment(LAST + 1)),
    "last copied behind itself": lambda disk: disk.duplicate(segment(LAST), segment(LAST + 1)),
    "last copied further behind": lambda disk: disk.duplicate(segment(LAST), segment(LAST + 2)),
    "last renamed": rename(LAST, LAST + 1),
    "middle renamed over the first": rename(2, 1),
    "all but the last missing": drop(*range(1, LAST)),
    "all missing": drop(*range(1, LAST + 1)),
    "meta file missing": lambda disk: disk.drop(DIRECTORY / "log.meta"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_set_of_segments(name: str) -> None:
    """The log is refused, nothing is changed; readers and the check of a directory see the damage as well."""
    assert LAST >= 3
    disk = BASE.copy()
    DAMAGES[name](disk)
    with refused(disk):
        reopened(disk)
    before = disk.files()
    assert not verify_directory(disk, DIRECTORY).sound

    async def read() -> None:
        reader = await open_reader(DIRECTORY, disk=disk, clock=SimulatedClock(), settings=SETTINGS)
        await reader.close()

    if name != "last copied further behind":  # a reader goes from segment to segment, and does not look further
        with pytest.raises(LogCorruptError):
            run(read())
    assert disk.files() == before


def test_cut_on_a_frame_boundary() -> None:
    """A segment that ends exactly behind one of its frames is refused: frames may have stood there."""
    for number in range(1, LAST + 1):
        for header in headers_of(BASE, number):
            disk = BASE.copy()
            disk.cut(segment(number), header.end_offset)
            with refused(disk, str(segment(number))):
                reopened(disk)


def test_last_frames_zeroed_before_an_end_mark() -> None:
    """In a rolled segment no number of whole frames can vanish from the end, with the mark or without it."""
    headers = headers_of(BASE, 1)
    for header in headers[1:]:
        disk = BASE.copy()
        disk.zero(segment(1), header.offset, 1 << 20)
        with refused(disk, str(DIRECTORY)):
            reopened(disk)
    for header in headers[1:-1]:
        disk = BASE.copy()
        disk.zero(segment(1), header.offset, headers[-1].offset - header.offset)
        with refused(disk, str(segment(1))):
            reopened(disk)


def test_segment_of_another_log() -> None:
    """A segment of the same number from another log is refused."""
    other = written_log(11)
    for number in range(1, LAST + 1):
        disk = BASE.copy()
        disk.put(segment(number), other.contents(segment(number)))
        with refused(disk, str(segment(number))):
            reopened(disk)


def test_unrelated_files_are_left_alone() -> None:
    """Files that are no segments are neither read nor removed; unfinished new segments go."""
    disk = BASE.copy()
    disk.put(DIRECTORY / "notes.txt", b"mine")
    disk.put(DIRECTORY / "00000001.wal", b"not ours")
    disk.put(DIRECTORY / "0000000009.wal.new", b"unfinished")
    assert reopened(disk) is None
    assert disk.contents(DIRECTORY / "notes.txt") == b"mine"
    assert disk.contents(DIRECTORY / "00000001.wal") == b"not ours"
    assert not disk.exists(DIRECTORY / "0000000009.wal.new")
    assert stored(disk) == stored(BASE)


def test_empty_directory_is_a_new_log_for_the_owner_only() -> None:
    """Where nothing is, the owner creates a log and a reader says that there is none."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)

    async def read() -> None:
        await open_reader(DIRECTORY, disk=disk, clock=SimulatedClock(), settings=SETTINGS)

    with pytest.raises(LogNotFoundError):
        run(read())
    assert reopened(disk) is None
    assert stored(disk) == []
