"""The simulated clock: time passes when it is told to, and wakes sleepers in order."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mainstem.host.clock import Clock
from mainstem.testing import SimulatedClock


async def settle() -> None:
    """Let the tasks that are ready run."""
    for _turn in range(5):
        await asyncio.sleep(0)


def test_time_stands_still() -> None:
    """Neither clock moves by itself; both move by what was advanced."""
    clock: Clock = SimulatedClock(time_ns=1_000)
    assert (clock.time_ns(), clock.monotonic_s()) == (1_000, 0.0)
    assert isinstance(clock, SimulatedClock)
    clock.advance(2.5)
    assert (clock.time_ns(), clock.monotonic_s()) == (2_500_001_000, 2.5)


def test_wall_jumps_leave_monotonic_time_alone() -> None:
    """The wall clock can be set back and forward; the monotonic clock does not notice and nobody wakes."""

    async def scenario() -> None:
        clock = SimulatedClock(time_ns=0)
        sleeper = asyncio.ensure_future(clock.sleep(1))
        await settle()
        clock.jump_wall(-3600)
        clock.jump_wall(10)
        await settle()
        assert (clock.time_ns(), clock.monotonic_s(), sleeper.done()) == (-3_590_000_000_000, 0.0, False)
        clock.advance(1)
        await sleeper

    asyncio.run(scenario())


def test_sleepers_wake_in_order() -> None:
    """Sleepers wake in the order of their times, equal ones in the order in which they fell asleep."""

    async def scenario() -> list[str]:
        clock = SimulatedClock()
        woken: list[str] = []

        async def sleeper(name: str, duration_s: float) -> None:
            await clock.sleep(duration_s)
            woken.append(name)

        tasks = [
            asyncio.ensure_future(sleeper(name, duration_s))
            for name, duration_s in (("late", 3), ("first", 1), ("second", 1), ("never", 99), ("now", 0))
        ]
        await settle()
        assert (woken, clock.sleepers) == (["now"], 4)
        clock.advance(0.5)
        await settle()
        assert woken == ["now"]
        clock.advance(5)
        await settle()
        tasks[3].cancel()
        await settle()
        assert clock.sleepers == 0
        clock.advance(100)
        await settle()
        return woken

    assert asyncio.run(scenario()) == ["now", "first", "second", "late"]


def test_run_for_lets_sleepers_sleep_again() -> None:
    """Advancing in steps lets a periodic task run once a period."""

    async def scenario() -> int:
        clock = SimulatedClock()
        ticks = 0

        async def ticker() -> None:
            nonlocal ticks
            while True:
                await clock.sleep(2)
                ticks += 1

        task = asyncio.ensure_future(ticker())
        await settle()
        await clock.run_for(10.5)
        task.cancel()
        return ticks

    assert asyncio.run(scenario()) == 5


def test_advance_from_another_thread() -> None:
    """Another thread may advance; the sleeper wakes on its own loop."""

    async def scenario() -> None:
        clock = SimulatedClock()
        sleeper = asyncio.ensure_future(clock.sleep(1))
        await settle()
        thread = threading.Thread(target=clock.advance, args=(1,))
        thread.start()
        await asyncio.wait_for(sleeper, timeout=10)
        thread.join()

    asyncio.run(scenario())


def test_advance_refuses_to_go_back() -> None:
    """Time does not run backwards, and the error says what does."""
    with pytest.raises(ValueError, match="jump_wall"):
        SimulatedClock().advance(-1)


def test_a_closed_loops_sleepers_are_forgotten() -> None:
    """A sleeper whose event loop is gone does not disturb a later advance."""
    clock = SimulatedClock()

    async def scenario() -> None:
        sleeper = asyncio.ensure_future(clock.sleep(1))
        await settle()
        assert not sleeper.done()

    asyncio.run(scenario())
    clock.advance(2)
    assert clock.sleepers == 0
    assert "2.0" in repr(clock)
