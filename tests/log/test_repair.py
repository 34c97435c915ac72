"""Repairing damaged logs: what can be proven is kept in its place, what is gone is said, and nothing is made up."""

from __future__ import annotations

import os
import random
from pathlib import Path

import msgspec
import pytest

from mainstem.host.disk import SystemDisk
from mainstem.log import LogCorruptError, LogFormatError, LogInUseError, LogNotFoundError, Record, open_log, open_reader
from mainstem.log.embedded.layout import Hole, read_manifest
from mainstem.log.embedded.repair import REPAIRED_STREAM, RepairReport, repair_directory
from mainstem.log.embedded.salvage import UNKNOWN_POSITIONS, Gone
from mainstem.log.embedded.verify import verify_directory
from mainstem.log.frame import CLEAN_END, HEADER_BYTES
from mainstem.testing import SimulatedClock, SimulatedDisk, keep_none, keep_some
from tests.log.faults import (
    DIRECTORY,
    SETTINGS,
    Values,
    bury,
    current,
    headers_of,
    last_commit,
    open_on,
    reopened,
    segment,
    stored,
    written_log,
)
from tests.log.test_damage import sealed
from tests.log.test_segments import BASE, DAMAGES, LAST, drop
from tests.support import run


def closed(base: SimulatedDisk) -> SimulatedDisk:
    """Return a log that was opened once more and closed in good order."""

    async def close() -> SimulatedDisk:
        disk = base.copy()
        log = await open_on(disk)
        await log.close()
        return disk.copy()

    return run(close())


NONE: frozenset[int] = frozenset()
ORIGINAL = {position: (stream, value) for position, stream, value in stored(BASE)}
CLEAN = written_log(11, clean=True)
DAMAGED_LOGS = int(os.environ.get("DAMAGED_LOGS", "200"))
"""How many logs with random damage are repaired."""

CLOSED = closed(BASE)


def repair(disk: SimulatedDisk, *, carry_out: bool = True) -> RepairReport:
    """Repair the log of a simulated disk."""
    return repair_directory(disk, SimulatedClock(), DIRECTORY, carry_out=carry_out, settings=SETTINGS)


async def _all_records(disk: SimulatedDisk) -> tuple[Values, Values, int]:
    """Return what an owner and a reader find, and the position that the owner gives next."""
    log = await open_on(disk)
    found = [(record.position, record.stream, record.value) for record in await log.read(">", 0, 1000)]
    reader = await open_reader(DIRECTORY, disk=disk.another_process(), clock=SimulatedClock(), settings=SETTINGS)
    beside = [(record.position, record.stream, record.value) for record in await reader.read(">", 0, 1000)]
    next_position = await log.append("orders", [Record(b"new")])
    assert (await reader.read(">", next_position - 1))[0].value == b"new"
    await reader.close()
    await log.close()
    return found, beside, next_position


def judge(
    disk: SimulatedDisk, report: RepairReport, damaged: dict[str, bytes] | None = None, *, unseen: frozenset[int] = NONE
) -> list[int]:
    """Check a repaired log against what was in it before; return the positions that are gone, of those that were there.

    Nothing is made up or moved; what is missing is named, but for what left no trace (``unseen``); what is named as
    certain was there; no position is given twice; files that are not kept whole are kept aside; the log opens, appends
    and is sound.
    """
    assert report.done and report.findings
    assert verify_directory(disk.another_process(), DIRECTORY).sound
    found, beside, next_position = run(_all_records(disk))
    assert found == beside
    assert found[-1][:2] == (report.next_position, REPAIRED_STREAM)
    assert msgspec.json.decode(found[-1][2])["set_aside"] == report.set_aside
    kept = {position: (stream, value) for position, stream, value in found if stream != REPAIRED_STREAM}
    traced = ORIGINAL.keys() - unseen | kept.keys()
    assert kept.items() <= ORIGINAL.items()
    assert len(found) - 1 == report.records
    named = {
        position for gone in report.gone for position in traced if gone.first_position <= position <= gone.last_position
    }
    assert named == traced - kept.keys()
    assert not kept.keys() & named
    for gone in report.gone:
        assert not gone.is_certain or gone.last_position <= max(ORIGINAL)
    assert next_position == report.next_position + 1 > max(traced, default=0)
    files = disk.files()
    assert all(name.startswith("set-aside/") and str(DIRECTORY / name) in files for name in report.set_aside)
    copies = [files[str(DIRECTORY / name)] for name in report.set_aside]
    for path, content in (damaged or {}).items():
        assert content in copies, path
    assert verify_directory(disk.another_process(), DIRECTORY).sound
    assert not repair(disk).done
    # What was repaired survives what any log survives: a power cut, and a takeover that copies.
    left = disk.crash(keep_none)
    left.flip_bit(DIRECTORY / read_manifest(left, DIRECTORY).segment_name(_last_segment(left)), 3000)
    reopened(left)
    again, _beside, _next = run(_all_records(left))
    assert again[: len(found)] == found
    return sorted(named)


def _last_segment(disk: SimulatedDisk) -> int:
    return read_manifest(disk, DIRECTORY).segments(disk.list_directory(DIRECTORY))[-1]


def changed_files(disk: SimulatedDisk, base: SimulatedDisk = BASE) -> dict[str, bytes]:
    """Return the log's files on a disk that are not what they were."""
    before = base.files()
    return {path: data for path, data in disk.files().items() if before.get(path) != data}


def repaired_and_judged(disk: SimulatedDisk) -> list[int]:
    """Repair a log; return the positions that are gone, of those that were there."""
    damaged = changed_files(disk)
    return judge(disk, repair(disk), damaged)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_set_of_segments(name: str) -> None:
    """Whatever became of a log's files, a repair keeps what it can prove, names what is gone, and the log goes on."""
    disk = BASE.copy()
    DAMAGES[name](disk)
    gone = repaired_and_judged(disk)
    if "exchanged" in name or name in ("last renamed", "meta file missing", "last copied further behind"):
        assert not gone or name == "last renamed"
    if name in ("first missing", "middle missing", "middle emptied", "middle zeroed"):
        number = 1 if name.startswith("first") else 2
        assert set(gone) == _positions_in(number)


def _positions_in(number: int) -> set[int]:
    return {
        position
        for header in headers_of(BASE, number)
        for position in range(header.first_position, header.next_position)
    }


def test_a_flipped_bit_costs_one_commit() -> None:
    """Wherever a bit flips in a segment that is not the last, at most the records of one commit are gone."""
    for number in (1, 2):
        for header in headers_of(BASE, number):
            for at in (header.offset + 20, header.offset + HEADER_BYTES + header.body_bytes // 2):
                if header.body_bytes == 0 and at >= header.end_offset:
                    continue
                disk = BASE.copy()
                disk.flip_bit(segment(number), at)
                if verify_directory(disk, DIRECTORY).sound:
                    continue  # it hit padding
                gone = repaired_and_judged(disk)
                assert gone == list(range(header.first_position, header.next_position))


def test_what_is_behind_the_damage_is_kept_in_its_place() -> None:
    """Positions that are gone stay empty: records behind keep theirs, byte for byte, and a stream is read across."""
    disk = BASE.copy()
    frame = headers_of(BASE, 1)[2]
    disk.flip_bit(segment(1), frame.offset + 100)
    before = disk.contents(segment(1))
    report = repair(disk)
    assert report.gone == [Gone(frame.first_position, frame.next_position - 1, is_certain=True)]
    assert str(report.gone[0]) == f"positions {frame.first_position} to {frame.next_position - 1}"
    assert disk.contents(segment(1)) == before  # no segment is written to
    judge(disk, report)
    findings = verify_directory(disk.another_process(), DIRECTORY)
    assert [line.split(",")[0] for line in findings.gone] == [
        f"positions {frame.first_position} to {frame.next_position - 1}"
    ]


@pytest.mark.parametrize("number", range(1, LAST + 1))
def test_cut_at_a_frame_boundary_or_within(number: int) -> None:
    """A segment that was cut off keeps the frames before the cut; what was behind it is named."""
    for header in headers_of(BASE, number):
        for length in (header.offset, header.offset + 40, header.end_offset):
            disk = BASE.copy()
            disk.cut(segment(number), length)
            gone = repaired_and_judged(disk)
            kept_before = {position for position in ORIGINAL if position < header.first_position}
            if length >= HEADER_BYTES * 2:
                assert not kept_before & set(gone)


def test_zeroed_sectors_anywhere() -> None:
    """Of a segment whose sectors were zeroed, one after the other, the frames in other sectors are kept."""
    size = len(BASE.contents(segment(1)))
    for number in (1, LAST):
        for offset in range(0, size, 512):
            disk = BASE.copy()
            disk.zero(segment(number), offset, 512)
            if not verify_directory(disk, DIRECTORY).sound:
                repaired_and_judged(disk)


def test_damage_before_an_end_mark() -> None:
    """A log that was closed in good order and damaged in its last commit says that this commit is gone, certainly."""
    disk = CLEAN.copy()
    last = last_commit(CLEAN, LAST)
    assert headers_of(CLEAN, LAST)[-1].kind == CLEAN_END
    disk.flip_bit(segment(LAST), last.offset + 100)
    report = repair(disk)
    assert report.gone == [Gone(last.first_position, last.next_position - 1, is_certain=True)]
    judge(disk, report)


def test_where_nobody_can_tell_how_much_is_gone() -> None:
    """When the last segment is missing, the log goes on far behind, and says that it does not know."""
    disk = BASE.copy()
    disk.drop(segment(LAST))
    report = repair(disk)
    (gone,) = report.gone
    first = min(_positions_in(LAST))
    assert gone == Gone(first, first + UNKNOWN_POSITIONS - 1, is_certain=False)
    assert "nobody can tell" in str(gone)
    judge(disk, report)


@pytest.mark.parametrize("name", ["log.meta", "manifest"])
@pytest.mark.parametrize("damage", ["missing", "flipped", "emptied"])
def test_damaged_small_file(name: str, damage: str) -> None:
    """A lost meta file or manifest is made anew from the frames, and nothing is gone."""
    disk = BASE.copy()
    path = DIRECTORY / name
    if damage == "missing":
        disk.drop(path)
    elif damage == "flipped":
        disk.flip_bit(path, 5, 1)
    else:
        disk.cut(path, 0)
    assert repaired_and_judged(disk) == []


def test_lost_manifest_of_a_log_that_was_taken_over() -> None:
    """Without its manifest a log of several owners is put together from the files that follow each other."""

    async def owners(base: SimulatedDisk) -> SimulatedDisk:
        disk = base
        for owner in range(3):
            log = await open_on(disk)
            for number in range(3):
                await log.append("a", [Record(b"%d %d" % (owner, number) + b"x" * 900)])
            successor = disk.kill()
            await bury(log)
            disk = successor
        return disk

    disk = run(owners(SimulatedDisk()))
    before = stored(disk)
    stale = disk.contents(DIRECTORY / read_manifest(disk, DIRECTORY).segment_name(2))
    disk.put(segment(2, epoch=1), stale)  # left by an owner that was deposed: no part of the log
    disk.drop(DIRECTORY / "manifest")
    report = repair(disk)
    assert report.done and not report.gone
    found, beside, _next = run(_all_records(disk))
    assert [row for row in found if row[1] == "a"] == before and beside == found


def test_two_repairs() -> None:
    """A second damage is repaired like the first; what was gone before is not told again, and stays gone."""
    disk = BASE.copy()
    disk.flip_bit(segment(1), headers_of(BASE, 1)[1].offset + 90)
    first = repair(disk)
    assert [gone.is_certain for gone in first.gone] == [True]
    disk.flip_bit(segment(2), headers_of(BASE, 2)[1].offset + 90)
    second = repair(disk)
    lost = headers_of(BASE, 2)[1]
    assert second.gone == [Gone(lost.first_position, lost.next_position - 1, is_certain=True)]
    holes = read_manifest(disk, DIRECTORY).holes
    assert {type(hole) for hole in holes} == {Hole} and len(holes) == 4
    found, beside, _next = run(_all_records(disk))
    assert found == beside
    assert [row[1] for row in found].count(REPAIRED_STREAM) == 2
    assert {row[0]: row[1:] for row in found if row[1] != REPAIRED_STREAM}.items() <= ORIGINAL.items()


def test_frames_of_another_history_are_not_kept() -> None:
    """Where a segment was exchanged for one of another history, sound in itself, none of its records is served."""
    start = written_log(3)

    async def other_history() -> SimulatedDisk:
        histories = []
        for word in (b"one", b"two"):
            left = start.copy()
            log = await open_on(left)
            for number in range(8):
                await log.append("orders", [Record(word + b"%d" % number + b"x" * 900)])
            histories.append(left.copy())
            left.kill()
            await bury(log)
        one, two = histories
        one.put(segment(3, epoch=2), two.contents(segment(3, epoch=2)))
        return one

    disk = run(other_history())
    assert repair(disk).done
    found, _beside, _next = run(_all_records(disk))
    assert not [row for row in found if row[2].startswith(b"two")]
    assert any(row[2].startswith(b"one") for row in found)


@pytest.mark.parametrize("name", ["middle missing", "first and second exchanged", "last zeroed", "meta file missing"])
def test_a_repair_may_die_anywhere(name: str) -> None:
    """Around each operation of a repair, death leaves the log as it was or repaired; done again, it is done."""
    for changes in range(200):
        disk = BASE.copy()
        DAMAGES[name](disk)
        damaged = changed_files(disk)
        disk.cut_power_after(changes)
        try:
            report = repair(disk)
        except OSError:
            left = disk.crash(keep_some(f"{name} {changes}"))
            if verify_directory(left, DIRECTORY).sound:
                found, beside, _next = run(_all_records(left))
                assert found == beside and found[-1][1] == REPAIRED_STREAM
                continue
            with pytest.raises(LogCorruptError):
                reopened(left)
            judge(left, repair(left), damaged)
        else:
            judge(disk.kill(), report, damaged)
            return
    pytest.fail("a repair does not end")


def test_saying_what_would_be_done_changes_nothing() -> None:
    """Without being told to carry it out, a repair says the same and changes nothing, also on a disk that is full."""
    disk = BASE.copy()
    drop(2)(disk)
    before = disk.files()
    told = repair(disk, carry_out=False)
    assert not told.done and disk.files() == before
    done = repair(disk)
    assert (told.gone, told.records, told.next_position) == (done.gone, done.records, done.next_position)


def test_a_full_disk_stops_a_repair() -> None:
    """Without room for the copies a repair fails with the system's error, the log is as it was, and later it works."""
    disk = BASE.copy()
    drop(2)(disk)
    disk.flip_bit(segment(1), 300)
    disk.capacity_bytes = disk.used_bytes()
    with pytest.raises(OSError, match="No space"):
        repair(disk)
    with pytest.raises(LogCorruptError):
        reopened(disk)
    disk.capacity_bytes = None
    judge(disk, repair(disk))


def test_a_log_that_is_in_use_is_not_repaired() -> None:
    """While a process owns the log, or one that was deposed lives, a repair is refused, and says whose it is."""

    async def scenario() -> None:
        disk = BASE.copy()
        log = await open_on(disk)
        disk.flip_bit(segment(1), 300)
        before = disk.files()
        for carry_out in (False, True):
            with pytest.raises(LogInUseError) as caught:
                repair(disk.another_process(), carry_out=carry_out)
            assert caught.value.owner_pid == disk.pid
        assert disk.files() == before
        await log.close()
        assert repair(disk).done

    run(scenario())


def test_a_sound_log_is_left_alone() -> None:
    """Nothing is done to a log without damage, an unfinished write at its end included."""
    disk = BASE.copy()
    disk.flip_bit(segment(LAST), last_commit(BASE, LAST).offset + 100)
    before = disk.files()
    report = repair(disk)
    assert (report.done, report.findings, report.gone) == (False, [], [])
    assert disk.files() == before


def test_nothing_to_repair_from() -> None:
    """Without a log there is none to repair; another version's is left to that; where no frame is left, it says so."""
    empty = SimulatedDisk()
    empty.make_directory(DIRECTORY)
    with pytest.raises(LogNotFoundError):
        repair(empty)
    disk = BASE.copy()
    disk.cut(DIRECTORY / "log.meta", 0)
    for number in range(1, LAST + 1):
        disk.zero(segment(number), 0, 1 << 20)
    with pytest.raises(LogCorruptError, match="nothing to repair from"):
        repair(disk)


def test_a_log_of_another_version_is_not_repaired() -> None:
    """A frame of an unknown version is not taken for damage: the repair is refused, and nothing is changed."""
    disk = BASE.copy()
    frame = headers_of(BASE, 1)[1]
    head = bytearray(BASE.contents(segment(1))[frame.offset : frame.offset + 60])
    head[4] = 9
    disk.overwrite(segment(1), frame.offset, sealed(bytes(head)))
    before = disk.files()
    with pytest.raises(LogFormatError):
        repair(disk)
    assert disk.files() == before


def test_a_reader_goes_on_behind_a_repair() -> None:
    """Once the log is repaired, a reader beside its next owner sees what is kept, and what comes then."""

    async def scenario() -> None:
        disk = BASE.copy()
        reader_disk = disk.another_process()
        frame = headers_of(BASE, 2)[1]
        disk.flip_bit(segment(2), frame.offset + 90)
        disk.zero(segment(3), 0, 1 << 20)
        with pytest.raises(LogCorruptError):
            await open_reader(DIRECTORY, disk=reader_disk, clock=SimulatedClock(), settings=SETTINGS)
        repair(disk)
        reader = await open_reader(DIRECTORY, disk=reader_disk, clock=SimulatedClock(), settings=SETTINGS)
        log = await open_log(DIRECTORY, disk=disk, clock=SimulatedClock(), settings=SETTINGS)
        await log.append("orders", [Record(b"new")])
        records = list(await reader.read(">", 0, 1000))
        assert [record.position for record in records] == [record.position for record in await log.read(">", 0, 1000)]
        assert records[-1].value == b"new"
        await reader.close()
        await log.close()

    run(scenario())


def test_a_repair_on_the_file_system(tmp_path: Path) -> None:
    """On the operating system's files a repair does the same: the log opens again, and the copy is there."""

    async def write() -> int:
        log = await open_log(tmp_path, settings=SETTINGS)
        for number in range(9):
            await log.append("a", [Record(b"%d" % number + b"x" * 700)])
        await log.close()
        return log.end_position

    assert run(write()) == 9
    path = min(tmp_path.glob("*.wal"))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    report = repair_directory(SystemDisk(), SimulatedClock(), tmp_path, carry_out=True, settings=SETTINGS)
    assert (report.done, report.records) == (True, 8)
    assert (tmp_path / report.set_aside[0]).read_bytes() == bytes(data)

    async def again() -> list[int]:
        log = await open_log(tmp_path, settings=SETTINGS)
        records = await log.read("a")
        await log.close()
        return [record.position for record in records]

    assert run(again()) == list(range(2, 10))


def hurt(disk: SimulatedDisk, seed: int) -> frozenset[int]:
    """Damage a log in one to five random ways; return positions of which that may have left no trace at all.

    Zeros over the last commits of a log look as if these had never been written; so does what stood behind a segment's
    zeroed end, once the files behind it are gone.
    """
    chance = random.Random(f"damage {seed}")
    unseen = NONE
    kinds: set[str] = set()
    paths = [current(disk, number) for number in range(1, LAST + 1)]
    for _damage in range(chance.randint(1, 5)):
        there = [path for path in paths if disk.exists(path)]
        if not there:
            break
        one, other = chance.choice(there), chance.choice(there)
        size = len(disk.contents(one))
        kind = chance.choice(("flip", "flip", "flip", "zero", "noise", "cut", "drop", "swap", "copy", "small"))
        if kind == "flip" and size:
            disk.flip_bit(one, chance.randrange(size), chance.randrange(8))
        elif kind == "zero" and size:
            disk.zero(one, chance.randrange(size), chance.choice((64, 512, 2048)))
            unseen = frozenset(_positions_in(LAST)) if one == paths[-1] else unseen
            kinds.add("zero")
        elif kind == "noise" and size > 600:
            disk.overwrite(one, chance.randrange(size - 512), chance.randbytes(512))
        elif kind == "cut":
            disk.cut(one, chance.randint(0, size))
        elif kind == "drop":
            disk.drop(one)
            kinds.add("lost")
        elif kind == "swap":
            disk.swap(one, other)
            kinds.add("lost")
        elif kind == "copy":
            disk.duplicate(one, other)
            kinds.add("lost")
        elif kind == "small" and disk.exists(DIRECTORY / "manifest"):
            disk.drop(DIRECTORY / "manifest")
    return frozenset(ORIGINAL) if kinds == {"zero", "lost"} else unseen


@pytest.mark.parametrize("first", range(0, DAMAGED_LOGS, 50))
def test_random_damage(first: int) -> None:
    """Whatever several damages leave, a repair tells the truth about it, and the log goes on."""
    for seed in range(first, first + 50):
        disk = (BASE if seed % 2 else CLOSED).copy()
        unseen = hurt(disk, seed)
        if verify_directory(disk, DIRECTORY).sound:
            continue
        judge(disk, repair(disk), unseen=unseen)
