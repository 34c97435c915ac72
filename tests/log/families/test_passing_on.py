"""Death, deposed owners and repeats while a log passes from one owner to the next (families 10, 11, 13 and 17)."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from mainstem.log import AppendOutcomeUnknownError, EmbeddedLog, EmbeddedReader, LogError, Record, open_log
from mainstem.log.embedded.layout import epochs
from mainstem.log.embedded.recovery import recover
from mainstem.testing import SimulatedClock, SimulatedDisk, keep_all, keep_none, keep_some
from tests.log.faults import (
    DIRECTORY,
    SETTINGS,
    bury,
    current,
    last_commit,
    open_on,
    outcome,
    reopened,
    segment,
    stored,
    written_log,
)
from tests.support import run

AT_ONCE = msgspec.structs.replace(SETTINGS, alone_after_commits=0)
"""Settings under which a lone append is written in its caller's own turn."""


def crashed() -> SimulatedDisk:
    """Return a log of several segments whose owner was killed, with an unfinished write at its end."""
    disk = written_log(7)
    number = next(number for number in range(9, 0, -1) if disk.exists(segment(number)))
    disk.flip_bit(current(disk, number), last_commit(disk, number).offset + 100)
    return disk


def dies_taking_over(process: SimulatedDisk, changes: int, depose: int = 0) -> bool:
    """Take the log over as a process that dies behind so many operations; tell whether it met its death."""
    process.cut_power_after(changes)
    with contextlib.suppress(OSError, LogError):  # no power; or somebody else is the owner now
        recover(process, SimulatedClock(), DIRECTORY, SETTINGS, depose=depose)
    met = process.power_is_cut
    process.kill()
    return met


def test_death_around_each_operation_of_a_takeover() -> None:
    """Claim, copy, manifest, removal: a taker that dies around any of them loses nothing."""
    start = crashed()
    expected = stored(start)[:-2]
    for changes in range(60):
        met = True
        for end in (keep_none, keep_all, keep_some(changes), None):
            disk = start.copy()
            process = disk.another_process()
            met = dies_taking_over(process, changes)
            left = disk.another_process() if end is None else disk.crash(end)
            reopened(left)
            assert stored(left) == expected
            assert reopened(left) is None
            assert stored(left.crash(keep_none)) == expected
        if not met:
            return
    pytest.fail("taking over does not end")


def test_names_that_were_not_synced() -> None:
    """Whatever subset of the names that a taker gave and removed survives a power cut, nothing is lost."""
    start = crashed()
    expected = stored(start)[:-2]
    whole = start.copy()
    recover(whole, SimulatedClock(), DIRECTORY, SETTINGS)
    kinds = [one.kind for one in whole.operations if one.kind not in ("read", "open")]
    before_name_syncs = [at for at, kind in enumerate(kinds) if kind == "sync_directory"] + [len(kinds)]
    assert len(before_name_syncs) > 4
    for changes in before_name_syncs:
        disk = start.copy()
        dies_taking_over(disk, changes)
        for seed in range(12):
            left = disk.crash(keep_some(f"{changes} {seed}"))
            reopened(left)
            assert stored(left) == expected


async def _living_owner(disk: SimulatedDisk, records: int) -> EmbeddedLog:
    log = await open_on(disk, settings=AT_ONCE)
    for number in range(records):
        await log.append("a", [Record(b"%d" % number + b"x" * 700)])
    return log


def _numbers(disk: SimulatedDisk) -> list[int]:
    return [int(value.rstrip(b"x")) for _position, _stream, value in stored(disk)]


@pytest.mark.parametrize("step", range(3))
def test_deaths_while_a_living_owner_is_deposed(step: int) -> None:
    """Two in a row die in deposing an owner that goes on appending: what it was acknowledged is found by the third."""

    async def scenario(first: int, second: int) -> bool:
        disk = SimulatedDisk()
        old = await _living_owner(disk, 6)
        acknowledged = 6
        met = dies_taking_over(disk.another_process(), first, depose=epochs(disk.list_directory(DIRECTORY))[-1])
        if isinstance(await outcome(old.append("a", [Record(b"6" + b"x" * 700)])), int):
            acknowledged = 7
        dies_taking_over(disk.another_process(), second, depose=epochs(disk.list_directory(DIRECTORY))[-1])
        if isinstance(await outcome(old.append("a", [Record(b"7" + b"x" * 700)])), int):
            acknowledged += 1
        for left in (disk.crash(keep_none), disk.crash(keep_some(f"{first} {second}")), disk.kill()):
            reopened(left)
            found = _numbers(left)
            assert found == list(range(len(found))) and acknowledged <= len(found) <= 8
            assert reopened(left) is None
            assert _numbers(left) == found
        await bury(old)
        return met

    for first in range(60):
        ends = [run(scenario(first, second)) for second in range((first + step) % 3, 24, 3)]
        if not any(ends):
            return
    pytest.fail("taking over does not end")


def test_a_deposed_owner_learns_it_after_others_came_and_went() -> None:
    """However many owners opened and closed the log since, the first one acknowledges nothing more when it wakes up."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        old = await _living_owner(disk, 6)
        acknowledged = 6
        for turn in range(4):
            latest = epochs(disk.list_directory(DIRECTORY))[-1]
            process = disk.another_process()
            depose = latest if turn == 0 else 0
            new = await open_log(DIRECTORY, disk=process, clock=SimulatedClock(), settings=SETTINGS, depose=depose)
            for _append in range(2):
                await new.append("a", [Record(b"%d" % acknowledged + b"x" * 700)])
                acknowledged += 1
            reader = EmbeddedReader(disk.another_process(), SimulatedClock(), DIRECTORY, SETTINGS)
            await reader.refresh()
            assert reader.end_position == acknowledged  # the last one is not held back
            await reader.close()
            await new.close()
        assert await outcome(old.append("a", [Record(b"-1")])) is AppendOutcomeUnknownError
        await bury(old)
        reopened(disk)
        assert _numbers(disk) == list(range(acknowledged))

    run(scenario())


def test_a_clock_that_stands_still() -> None:
    """When the wall clock never moves, over commits, rolls and owners, positions alone keep the order."""

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        for owner in range(3):
            log = await open_on(disk, clock)
            for number in range(5):
                await log.append("a", [Record(b"%d" % (owner * 5 + number) + b"x" * 700)])
            records = await log.read("a")
            assert [int(record.value.rstrip(b"x")) for record in records] == list(range(owner * 5 + 5))
            assert len({record.time_ns for record in records}) == 1
            successor = disk.kill()
            await bury(log)
            disk = successor

    run(scenario())


def test_a_repeat_in_the_segment_behind() -> None:
    """A call whose first try is the last of a segment and whose repeat comes in the next one is written once."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        position = 0
        while not disk.exists(segment(2)):
            position = await log.append("a", [Record(b"x" * 700)], dedup_id=f"call-{log.end_position}")
        segments_before = (await log.stats()).segment_count
        for _time in range(2):
            for end in range(position):
                assert await log.append("a", [Record(b"x" * 700)], dedup_id=f"call-{end}") == end + 1
        both = await asyncio.gather(
            *(log.append("a", [Record(b"y" * 3000)], dedup_id="large") for _time in range(3)),
        )
        assert both == [position + 1] * 3
        assert (await log.stats()).segment_count > segments_before
        left = disk.crash(keep_none)
        disk.kill()
        await bury(log)
        log = await open_on(left)
        assert await log.append("a", [Record(b"z")], dedup_id="large") == position + 1
        assert await log.append("a", [Record(b"z")], dedup_id="call-0") == 1
        assert log.end_position == position + 1
        await log.close()

    run(scenario())


def test_answers_after_an_owner_was_deposed() -> None:
    """The new owner repeats what the deposed one answered, and what that one could not answer is written once."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        old = await open_on(disk)
        for number in range(9):
            assert await old.append("a", [Record(b"x" * 600)], dedup_id=f"call-{number}") == number + 1
        latest = epochs(disk.list_directory(DIRECTORY))[-1]
        process = disk.another_process()
        new = await open_log(DIRECTORY, disk=process, clock=SimulatedClock(), settings=SETTINGS, depose=latest)
        with pytest.raises(AppendOutcomeUnknownError):
            await old.append("a", [Record(b"late")], dedup_id="late")
        for number in range(9):
            assert await new.append("a", [Record(b"other")], dedup_id=f"call-{number}") == number + 1
        assert await new.append("a", [Record(b"late")], dedup_id="late") == 10
        assert await new.append("a", [Record(b"late")], dedup_id="late") == 10
        assert new.end_position == 10
        await old.close()
        await new.close()

    run(scenario())
