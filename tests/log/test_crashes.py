"""Power cuts and kills at every moment: what was acknowledged is there, and what is there was submitted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstem.host.lock import LockHeldError
from mainstem.log import (
    Append,
    AppendOutcomeUnknownError,
    EmbeddedLog,
    LogInUseError,
    LogSettings,
    NotWrittenError,
    Record,
    open_reader,
)
from mainstem.testing import Chooser, SimulatedClock, SimulatedDisk, keep_all, keep_none, keep_some
from tests.log.faults import DIRECTORY, SETTINGS, bury, open_on, reopened, segment, stored, written_log
from tests.support import run

BIG = LogSettings(first_segment_bytes=1 << 15, segment_max_bytes=1 << 15, reserve_bytes=256)

_ENDS: dict[str, Callable[[SimulatedDisk, int], SimulatedDisk]] = {
    "none kept": lambda disk, _seed: disk.crash(keep_none),
    "all kept": lambda disk, _seed: disk.crash(keep_all),
    "some kept": lambda disk, seed: disk.crash(keep_some(seed)),
    "killed": lambda disk, _seed: disk.kill(),
}


def unfinished_commit() -> SimulatedDisk:
    """Return a disk on which two commits are durable and a third, of many sectors, is written but not synced."""

    async def scenario() -> SimulatedDisk:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=BIG)
        await log.append("a", [Record(b"1")])
        await log.append("a", [Record(b"2" * 900)])
        disk.on_sync = lambda _path: disk.cut_power()
        with pytest.raises(AppendOutcomeUnknownError):
            await log.append("a", [Record(b"%d" % number * 400) for number in range(3, 10)])
        await bury(log)
        return disk

    return run(scenario())


UNFINISHED = unfinished_commit()


def judge_unfinished(choose: Chooser) -> int:
    """Cut the power in the third commit; return how many records are there, after two openings that agree."""
    left = UNFINISHED.crash(choose)
    reopened(left)
    found = stored(left)
    assert [position for position, _stream, _value in found] == list(range(1, len(found) + 1))
    assert [value[:1] for _position, _stream, value in found] == [b"%d" % number for number in range(1, len(found) + 1)]
    assert reopened(left) is None
    assert stored(left) == found
    assert stored(left.crash(keep_none)) == found
    return len(found)


def test_any_subset_of_an_unfinished_commit() -> None:
    """Whatever subset of a commit's sectors a power cut leaves, the commit is there as a whole or not at all."""
    counts = {judge_unfinished(keep_some(seed)) for seed in range(300)}
    assert counts | {judge_unfinished(keep_none), judge_unfinished(keep_all)} == {2, 9}


@given(kept=st.lists(st.booleans(), min_size=12, max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_drawn_subset_of_an_unfinished_commit(kept: list[bool]) -> None:
    """The same for any subset at all: it is complete only when every sector that matters was kept."""
    answers = iter(kept)
    count = judge_unfinished(lambda versions: (versions - 1) * next(answers, False))
    assert count in (2, 9)
    if all(kept):
        assert count == 9


async def _append_until_dead(disk: SimulatedDisk) -> tuple[list[int], int]:
    """Append through several rolls until the disk is gone; return what was acknowledged, and how much was submitted."""
    acknowledged: list[int] = []
    submitted = 0
    try:
        log = await open_on(disk)
    except OSError:
        return acknowledged, submitted
    try:
        for number in range(14):
            submitted += 1
            await log.append("a", [Record(b"%d:" % number + b"x" * 800)])
            acknowledged.append(number)
        await log.close()
    except (NotWrittenError, AppendOutcomeUnknownError, OSError):
        await bury(log)
    return acknowledged, submitted


@pytest.mark.parametrize("end", _ENDS)
def test_death_around_every_operation(end: str) -> None:
    """Before and after each operation of creating, appending, rolling and closing, death loses nothing acknowledged."""
    for changes in range(200):
        disk = SimulatedDisk()
        disk.cut_power_after(changes)
        acknowledged, submitted = run(_append_until_dead(disk))
        lived_to_the_end = not disk.power_is_cut
        left = _ENDS[end](disk, changes)
        reopened(left)
        found = [int(value.split(b":")[0]) for _position, _stream, value in stored(left)]
        assert found == list(range(len(found)))
        assert len(acknowledged) <= len(found) <= submitted
        assert stored(left.crash(keep_none)) == stored(left)
        if lived_to_the_end:
            assert len(acknowledged) == 14
            return
    pytest.fail("appending does not end")


def dying_recoveries(start: SimulatedDisk, expected: list[int]) -> None:
    """Open a log, dying around every operation, twice in a row; the third opening finds what was durable."""
    for first in range(40):
        disk = start.copy()
        disk.cut_power_after(first)
        died = _dies_opening(disk)
        for second in range(first % 3, 40, 3) if died else ():
            for again in (disk.crash(keep_some(f"{first} {second}")), disk.crash(keep_none)):
                again.cut_power_after(second)
                _dies_opening(again)
                left = again.crash(keep_some(second))
                reopened(left)
                assert [position for position, _stream, _value in stored(left)] == expected
        if not died:
            return
    pytest.fail("recovery does not end")


def _dies_opening(disk: SimulatedDisk) -> bool:
    async def scenario() -> bool:
        try:
            log = await open_on(disk)
        except OSError:
            return True
        disk.cut_power()
        await bury(log)
        return False

    return run(scenario())


def test_death_during_recovery_of_a_torn_tail() -> None:
    """Recovery of a torn tail can die anywhere, twice; nothing is lost, and evidence of the torn tail remains."""
    torn = written_log(3)
    torn.flip_bit(segment(), len(torn.contents(segment()).rstrip(b"\0")) - 1)
    dying_recoveries(torn, [1, 2, 3, 4])
    reopened(torn)
    assert len(torn.list_directory(DIRECTORY / "set-aside")) == 1


def test_death_during_recovery_after_a_roll() -> None:
    """Recovery of a roll that died before its end mark can itself die anywhere, twice."""
    rolled = written_log(4)
    disk = rolled.copy()

    async def roll() -> SimulatedDisk:
        log = await open_on(disk)
        disk.fail("write", path=segment(1, epoch=2).name + ".new")
        with pytest.raises(NotWrittenError):
            await log.append("a", [Record(b"x" * 3000)])
        await log.close()
        return disk.copy()

    started = run(roll())
    assert started.exists(segment(2, epoch=2))
    dying_recoveries(started, list(range(1, 9)))


def test_a_kill_then_a_power_cut() -> None:
    """What a process that was killed left unsynced, and its successor showed, is not taken back by a power cut."""
    left = unfinished_commit().kill()
    reopened(left)
    assert len(stored(left)) == 9
    assert len(stored(left.crash(keep_none))) == 9


def test_answers_survive_a_crash() -> None:
    """A named call gets its first answer again after a crash, also from an earlier segment, and adds nothing."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        answers = []
        for number in range(10):
            appends = [Append("a", [Record(b"x" * 500)] * 2), Append("b", [Record(b"%d" % number)])]
            answers.append(await log.append_many(appends, dedup_id=f"call-{number}"))
        left = disk.crash(keep_none)
        disk.kill()
        await bury(log)
        assert left.exists(segment(3))
        log = await open_on(left)
        for number in range(10):
            wrong_now = [Append("a", [Record(b"other")], expected_position=0)]
            assert await log.append_many(wrong_now, dedup_id=f"call-{number}") == answers[number]
        assert log.end_position == 30
        await log.close()

    run(scenario())


def test_two_openers() -> None:
    """A second opener is told the owner's pid and changes nothing; after the owner's death it gets in."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        before = disk.files()
        for process in (disk, disk.another_process()):
            with pytest.raises(LogInUseError) as caught:
                await open_on(process)
            assert caught.value.owner_pid == disk.pid
        assert disk.files() == before
        successor = disk.kill()
        await bury(log)
        log = await open_on(successor)
        assert log.end_position == 1
        with pytest.raises(LockHeldError):
            successor.another_process().lock(DIRECTORY / "epoch.000002")
        await log.close()

    run(scenario())


def test_forked_child_cannot_touch_the_log(tmp_path: Path) -> None:
    """A forked child's append is refused and its close does nothing; the parent's log and lock take no harm."""
    program = textwrap.dedent(
        """
        import asyncio, os, sys
        from mainstem.log import LogClosedError, LogInUseError, Record, open_log

        async def child(log):
            try:
                await log.append("a", [Record(b"child")])
            except LogClosedError:
                pass
            else:
                os._exit(3)
            await log.close()

        async def start():
            log = await open_log(sys.argv[1])
            await log.append("a", [Record(b"1")])
            return log

        async def go_on(log):
            assert await log.append("a", [Record(b"2")]) == 2
            try:
                await open_log(sys.argv[1])
            except LogInUseError:
                pass
            else:
                sys.exit("the lock is gone")
            assert [record.value for record in await log.read("a")] == [b"1", b"2"]
            await log.close()

        loop = asyncio.new_event_loop()
        log = loop.run_until_complete(start())
        pid = os.fork()
        if pid == 0:
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(child(log))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        loop.run_until_complete(go_on(log))

        async def again():
            log = await open_log(sys.argv[1])
            assert [record.value for record in await log.read("a")] == [b"1", b"2"]
            await log.close()

        asyncio.run(again())
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_wall_clock_may_jump() -> None:
    """Positions increase and recovery works whatever the wall clock does: back, forward, before 1970."""

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        log = await open_on(disk, clock)
        for number, jump_s in enumerate((0, -1e6, 1e8, -4e9, 0), start=1):
            clock.jump_wall(jump_s)
            assert await log.append("a", [Record(b"%d" % number)]) == number
        left = disk.crash(keep_none)
        await log.close()
        again = await open_on(left, clock)
        assert [record.value for record in await again.read("a")] == [b"1", b"2", b"3", b"4", b"5"]
        await again.close()

    run(scenario())


def test_cursor_behind_a_recovered_end() -> None:
    """A cursor past the end of what was recovered reads nothing, and reads on when the positions are reached again."""

    async def scenario() -> None:
        disk = UNFINISHED.crash(keep_none)
        log = await open_on(disk, settings=BIG)
        assert list(await log.read("a", 9)) == []
        tail = log.tail("a", 2)
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        assert await log.append("a", [Record(b"new")]) == 3
        assert [record.position for record in await waiting] == [3]
        await log.close()

    run(scenario())


async def _survives(log: EmbeddedLog) -> bool:
    try:
        await log.append("a", [Record(b"y" * 700)])
    except (AppendOutcomeUnknownError, NotWrittenError):
        return False
    return True


def test_reader_follows_over_rolls_and_deaths() -> None:
    """A reader that stays open sees every record once, over rolls, a kill with an unsynced commit, and a new owner."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        reader_disk = disk.another_process()
        log = await open_on(disk)
        reader = await open_reader(DIRECTORY, disk=reader_disk, clock=SimulatedClock(), settings=SETTINGS)
        seen: list[int] = []

        async def look() -> None:
            seen.extend(record.position for record in await reader.read("a", seen[-1] if seen else 0))

        for life in range(4):
            for _number in range(6):
                await log.append("a", [Record(b"x" * 700)])
                await look()
            disk.cut_power_after(1 + life % 2)
            while await _survives(log):
                pass
            await look()
            successor = disk.kill()
            await bury(log)
            disk = successor
            log = await open_on(disk)
            await look()
        assert seen == list(range(1, log.end_position + 1))
        await reader.close()
        await log.close()

    run(scenario())
