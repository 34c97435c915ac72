"""Errors of the disk: poison after EIO, refusal and recovery after ENOSPC, nobody acknowledged by another's sync."""

from __future__ import annotations

import asyncio
import errno
from typing import Literal

import pytest

from mainstem.log import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogFullError,
    LogInUseError,
    LogSettings,
    Record,
)
from mainstem.testing import OperationKind, SimulatedClock, SimulatedDisk, keep_all, keep_none
from tests.log.faults import DIRECTORY, Gate, bury, open_on, outcome, reopened, segment, slow_settings, stored
from tests.support import run, until


@pytest.mark.parametrize("kind", ["write", "sync"])
@pytest.mark.parametrize("callers", [1, 5], ids=["inline", "thread"])
def test_io_error_is_poison(kind: Literal["write", "sync"], callers: int) -> None:
    """After EIO everyone in the commit gets "outcome unknown", later calls "nothing written"; nothing is retried."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        assert await log.append("a", [Record(b"before")]) == 1
        disk.fail(kind, error=errno.EIO)
        outcomes = await asyncio.gather(*(outcome(log.append("a", [Record(b"%d" % i)])) for i in range(callers)))
        assert outcomes == [AppendOutcomeUnknownError] * callers
        operations = len(disk.operations)
        assert await outcome(log.append("a", [Record(b"after")])) is LogClosedError
        assert [one.kind for one in disk.operations[operations:]] == []
        assert [record.value for record in await log.read("a")] == [b"before"]
        assert log.end_position == 1
        await log.close()
        assert not any(one.kind == "sync" for one in disk.operations[operations:])
        for left in (disk.crash(keep_none), disk.crash(keep_all), disk.kill()):
            reopened(left)
            assert stored(left)[0] == (1, "a", b"before")
            assert len(stored(left)) in (1, 1 + callers)

    run(scenario())


def test_error_that_is_no_io_error_is_poison_too() -> None:
    """A disk that is full in the middle of a preallocated segment, or over quota, ends the log's life like EIO."""

    async def scenario(error: int) -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        disk.fail("write", error=error, after_bytes=100)
        assert await outcome(log.append("a", [Record(b"1")])) is AppendOutcomeUnknownError
        assert await outcome(log.append("a", [Record(b"2")])) is LogClosedError
        await log.close()
        left = disk.kill()
        reopened(left)
        assert stored(left) == []

    for error in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EBADF):
        run(scenario(error))


def test_nobody_is_acknowledged_by_anothers_sync() -> None:
    """Calls that gather while a sync is under way and then fails were not written, and say so; none is acknowledged."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=slow_settings())
        gate = Gate(disk)
        first = [asyncio.ensure_future(outcome(log.append("a", [Record(b"1")]))) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 30)
        second = [asyncio.ensure_future(outcome(log.append("a", [Record(b"2")]))) for _ in range(3)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in first + second)
        disk.fail("sync")
        gate.open.set()
        assert await asyncio.gather(*first) == [1, 2]
        assert await asyncio.gather(*second) == [AppendOutcomeUnknownError] * 3
        await log.close()
        left = disk.crash(keep_none)
        reopened(left)
        assert [value for _position, _stream, value in stored(left)] == [b"1", b"1"]

    run(scenario())


def test_calls_behind_a_failed_commit_were_not_written() -> None:
    """Of two groups the one whose sync fails is unknown; the one behind it is told that nothing was written."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=slow_settings())
        gate = Gate(disk)
        warm = [asyncio.ensure_future(outcome(log.append("a", [Record(b"0")]))) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 30)
        disk.cut_power()
        second = [asyncio.ensure_future(outcome(log.append("a", [Record(b"2")]))) for _ in range(3)]
        await asyncio.sleep(0)
        gate.open.set()
        assert await asyncio.gather(*warm) == [AppendOutcomeUnknownError] * 2
        assert await asyncio.gather(*second) == [LogClosedError] * 3
        await bury(log)

    run(scenario())


def test_tail_ends_with_the_logs_life() -> None:
    """A tail that waits for more is told when an error ends the log's life."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        tail = log.tail("a")
        assert [record.value for record in await anext(tail)] == [b"1"]
        waiting = asyncio.ensure_future(anext(tail))
        await asyncio.sleep(0)
        disk.fail("sync")
        assert await outcome(log.append("a", [Record(b"2")])) is AppendOutcomeUnknownError
        with pytest.raises(LogClosedError):
            await waiting
        await log.close()

    run(scenario())


def test_error_while_closing() -> None:
    """An error at the end mark reaches the caller of close; the lock is free all the same, and nothing is lost."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        disk.fail("sync")
        with pytest.raises(OSError, match="Input/output"):
            await log.close()
        await log.close()
        log = await open_on(disk)
        assert [record.value for record in await log.read("a")] == [b"1"]
        await log.close()

    run(scenario())


def test_error_while_opening_frees_the_lock() -> None:
    """An error of the disk while opening reaches the caller; opening again starts over."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        await log.close()
        for kind in ("open", "read", "write", "sync"):
            disk.fail(kind)
            with pytest.raises(OSError, match="Input/output"):
                await open_on(disk)
        log = await open_on(disk)
        assert [record.value for record in await log.read("a")] == [b"1"]
        await log.close()

    run(scenario())


ROLL: tuple[tuple[OperationKind, int, str], ...] = (
    ("create", 1, "2-000001.wal.new"),
    ("write", 1, "2-000001.wal.new"),
    ("sync", 1, "2-000001.wal.new"),
    ("write", 2, "2-000001.wal.new"),
    ("sync", 2, "2-000001.wal.new"),
    ("rename", 1, "2-000001.wal"),
    ("sync_directory", 1, ""),
)
"""The operations of a roll, up to the new segment's name."""


@pytest.mark.parametrize(("kind", "nth", "path"), ROLL)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_error_of_a_roll(kind: OperationKind, nth: int, path: str, error: int) -> None:
    """Whatever fails while a segment is begun, who waits is told that nothing was written, and nothing is lost."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        disk.fail(kind, nth, error, path=path)
        outcomes = [await outcome(log.append("a", [Record(b"%d" % i + b"x" * 900)])) for i in range(12)]
        acknowledged = [position for position in outcomes if isinstance(position, int)]
        assert acknowledged == list(range(1, len(acknowledged) + 1))
        assert set(outcomes[len(acknowledged) :]) <= {LogFullError, LogClosedError}
        await log.close()
        for left in (disk.crash(keep_none), disk.crash(keep_all), disk.kill()):
            reopened(left)
            assert len(stored(left)) == len(acknowledged)

    run(scenario())


def fill_until_full_settings() -> LogSettings:
    """Settings with a small second segment and a reserve of 1 KiB."""
    return LogSettings(first_segment_bytes=4096, segment_max_bytes=4096, reserve_bytes=1024, full_retry_s=1.0)


def test_full_disk() -> None:
    """ENOSPC is met when a segment is allocated: appends are refused unwritten, and reading goes on.

    The reserve lets claims through; once there is room and a second has passed, appends work again.
    """

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        log = await open_on(disk, clock, fill_until_full_settings())
        disk.capacity_bytes = disk.used_bytes()
        written = []
        for number in range(20):
            result = await outcome(log.append("a", [Record(b"%d" % number + b"x" * 300)]))
            if result is LogFullError:
                break
            assert result == number + 1
            written.append(number)
        assert 3 <= len(written) < 10
        size = len(disk.contents(segment(1)))
        assert await outcome(log.append("a", [Record(b"no")] * 40)) is LogFullError
        claims = 0
        while (
            await outcome(
                log.append(
                    "claims",
                    [Record(b"claim" * 20)],
                )
            )
            is not LogFullError
        ):
            claims += 1
        while await outcome(log.append("claims", [Record(b"claim" * 20)], use_reserve=True)) is not LogFullError:
            claims += 1
        assert claims >= 4
        records = await log.read(">", 0, 1000)
        assert len(records) == len(written) + claims
        assert len(disk.contents(segment(1))) == size
        assert disk.list_directory(DIRECTORY) == ["0000000001-000001.wal", "epoch.000001", "log.meta", "manifest"]
        disk.capacity_bytes = None
        assert await outcome(log.append("a", [Record(b"still" * 100)])) is LogFullError
        clock.advance(1.5)
        assert await outcome(log.append("a", [Record(b"again" * 100)])) == len(records) + 1
        await log.close()
        left = disk.crash(keep_none)
        reopened(left)
        assert len(stored(left)) == len(records) + 1

    run(scenario())


def test_mixed_callers_on_a_full_disk() -> None:
    """Callers with and without the right to the reserve, waiting together, each get their own answer."""

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        log = await open_on(disk, clock, fill_until_full_settings())
        disk.capacity_bytes = disk.used_bytes()
        while await outcome(log.append("a", [Record(b"x" * 300)])) is not LogFullError:
            pass
        end = log.end_position
        calls = [outcome(log.append("a", [Record(b"y" * 120)], use_reserve=number % 2 == 1)) for number in range(4)]
        assert await asyncio.gather(*calls) == [LogFullError, end + 1, LogFullError, end + 2]
        await log.close()

    run(scenario())


def test_closing_and_opening_on_a_full_disk() -> None:
    """A log whose segment is full to the last byte can be closed and opened again without any further space."""

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        log = await open_on(disk, clock, fill_until_full_settings())
        disk.capacity_bytes = disk.used_bytes()
        while await outcome(log.append("a", [Record(b"x" * 60)], use_reserve=True)) is not LogFullError:
            pass
        end = log.end_position
        for _turn in range(5):
            await log.close()
            log = await open_on(disk, clock, fill_until_full_settings())
            assert log.end_position == end
        assert await outcome(log.append("a", [Record(b"x" * 60)], use_reserve=True)) is LogFullError
        disk.capacity_bytes = None
        clock.advance(2)
        assert await outcome(log.append("a", [Record(b"x" * 60)])) == end + 1
        await log.close()
        reopened(disk)
        assert len(stored(disk)) == end + 1

    run(scenario())


def test_no_room_for_a_new_log() -> None:
    """Creating a log on a full disk fails with a clear error, leaves no half log, and works once there is room."""

    async def scenario() -> None:
        disk = SimulatedDisk(capacity_bytes=2048)
        with pytest.raises(LogFullError, match="no room for the files that opening needs"):
            await open_on(disk)
        disk.capacity_bytes = None
        log = await open_on(disk)
        assert await log.append("a", [Record(b"1")]) == 1
        await log.close()

    run(scenario())


def test_cancelled_awaits() -> None:
    """A cancelled append is wholly there or wholly absent; a retry with the same dedup_id gets its answer, once."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=slow_settings())
        gate = Gate(disk)
        in_flight = [
            asyncio.ensure_future(log.append("a", [Record(b"%d" % i)] * 3, dedup_id=f"first-{i}")) for i in range(2)
        ]
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = [asyncio.ensure_future(log.append("b", [Record(b"b")] * 3, dedup_id=f"second-{i}")) for i in range(2)]
        await asyncio.sleep(0)
        for task in (in_flight[0], waiting[0]):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.open.set()
        assert await in_flight[1] == 6
        assert await waiting[1] == 9
        assert [record.value for record in await log.read("a")] == [b"0"] * 3 + [b"1"] * 3
        assert len(await log.read("b")) == 3
        assert await log.append("a", [Record(b"0")] * 3, dedup_id="first-0") == 3
        assert await log.append("b", [Record(b"b")] * 3, dedup_id="second-0") == 12
        await log.close()
        reopened(disk)
        assert len(stored(disk)) == 12

    run(scenario())


def test_cancelled_open_lets_go() -> None:
    """A cancelled opening gives its lock back once it is through; whether it fails or not, nobody is told twice."""

    async def scenario(*, fails: bool) -> None:
        disk = SimulatedDisk()
        await (await open_on(disk)).close()
        gate = Gate(disk)
        opening = asyncio.ensure_future(open_on(disk))
        await asyncio.to_thread(gate.entered.wait, 30)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        if fails:
            disk.fail("remove", path="epoch.000001")
        gate.open.set()

        async def free() -> bool:
            try:
                await (await open_on(disk)).close()
            except LogInUseError:
                return False
            return True

        await until(free)

    run(scenario(fails=False))
    run(scenario(fails=True))


def test_cancelled_close_goes_on() -> None:
    """Cancelling a close does not let go of the file in mid write: the close goes on, and can be awaited again."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        gate = Gate(disk)
        closing = asyncio.ensure_future(log.close())
        await asyncio.to_thread(gate.entered.wait, 30)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        gate.open.set()
        await log.close()
        again = await open_on(disk)
        assert await again.append("a", [Record(b"2")]) == 2
        await again.close()

    run(scenario())


def test_waiting_for_room_in_memory_survives_cancels() -> None:
    """Appenders that wait because too much is pending can be cancelled in any number; the others come through."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        settings = LogSettings(
            first_segment_bytes=1 << 16, segment_max_bytes=1 << 16, reserve_bytes=256, pending_max_bytes=3000
        )
        log = await open_on(disk, settings=settings)
        gate = Gate(disk)
        tasks = [asyncio.ensure_future(log.append("a", [Record(b"%02d" % i + b"x" * 1000)])) for i in range(20)]
        await asyncio.to_thread(gate.entered.wait, 30)
        for task in tasks[3::2]:
            task.cancel()
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [result for result in results if isinstance(result, int)]
        assert len(kept) == 11
        assert kept == sorted(kept)
        assert len(await log.read("a", 0, 100)) == kept[-1]
        await log.close()

    run(scenario())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_no_descriptor_for_a_segment_passes(number: int) -> None:
    """What keeps a segment from being allocated for a while is met as a full disk is, and does not end the log."""

    async def scenario() -> None:
        disk, clock = SimulatedDisk(), SimulatedClock()
        log = await open_on(disk, clock, fill_until_full_settings())
        disk.fail("create", error=number)
        refused = False
        for _ in range(20):
            refused = refused or await outcome(log.append("a", [Record(b"x" * 300)])) is LogFullError
        assert refused
        clock.advance(1.5)
        assert isinstance(await outcome(log.append("a", [Record(b"x" * 300)])), int)
        await log.close()

    run(scenario())
