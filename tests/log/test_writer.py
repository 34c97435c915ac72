"""When a sync may be done on the event loop, and the bound on what waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mainstem.log.embedded.budget import ByteBudget
from mainstem.log.embedded.writer import InlinePolicy, WriterThread


def test_lone_call_on_a_fast_disk_is_inline() -> None:
    """One caller and fast syncs: inline. Two callers: not."""
    policy = InlinePolicy(0.002, 8)
    policy.observe(0.0002, 1)
    assert policy.allows(1)
    assert not policy.allows(2)


def test_one_slow_sync_ends_it_until_the_disk_is_fast_for_a_while() -> None:
    """After a slow sync, so many fast ones are demanded before inline is tried again; each relapse demands more."""
    policy = InlinePolicy(0.002, 8, probation_syncs=4)
    needed = []
    for _relapse in range(3):
        policy.observe(0.05, 1)
        count = 0
        while not policy.allows(1):
            policy.observe(0.0002, 1)
            count += 1
        needed.append(count)
    assert needed == [8, 16, 32]


def test_a_call_commits_at_once_only_where_nobody_joined_of_late() -> None:
    """After a streak of lone commits a lone caller need not wait for others; a shared or a slow one ends it."""
    policy = InlinePolicy(0.002, 8)
    for _ in range(8):
        assert not policy.allows_at_once(1)
        policy.observe(0.0002, 1)
    assert policy.allows_at_once(1)
    assert not policy.allows_at_once(2)
    policy.observe(0.0002, 2)
    assert not policy.allows_at_once(1)
    for _ in range(8):
        policy.observe(0.0002, 1)
    policy.observe(0.05, 1)
    assert not policy.allows_at_once(1)


def test_thread_reports_results_and_errors_in_order() -> None:
    """Each job's result or error arrives on the loop, in the order of submission, from another thread."""

    async def run() -> None:
        thread = WriterThread(asyncio.get_running_loop(), "test")
        reports: list[object] = []
        done = asyncio.Event()

        def fail() -> None:
            raise OSError("disk")

        thread.submit(threading.get_ident, lambda result, error: reports.append(result))
        thread.submit(fail, lambda result, error: reports.append(str(error)))
        thread.submit(lambda: None, lambda result, error: done.set())
        await asyncio.wait_for(done.wait(), 10)
        thread.stop()
        assert reports[0] != threading.get_ident()
        assert reports[1] == "disk"

    asyncio.run(run())


def test_budget_lets_in_first_come_first_served() -> None:
    """Takers wait when the bound is reached; a later small one does not overtake; what is given back lets them in."""

    async def run() -> None:
        budget = ByteBudget(100)
        assert budget.take_now(80)
        order: list[str] = []

        async def taker(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)

        big, small = asyncio.create_task(taker("big", 60)), asyncio.create_task(taker("small", 10))
        await asyncio.sleep(0)
        assert order == [] and not budget.take_now(1)
        budget.give_back(80)
        await asyncio.gather(big, small)
        assert order == ["big", "small"] and budget.used_bytes == 70
        assert "70/100" in repr(budget)

    asyncio.run(run())


def test_budget_lets_one_oversized_request_through_alone() -> None:
    """A request above the bound is not refused for ever: it goes when nothing else is out."""

    async def run() -> None:
        budget = ByteBudget(10)
        await asyncio.wait_for(budget.take(50), 10)
        assert not budget.take_now(1)
        budget.give_back(50)
        assert budget.take_now(10)

    asyncio.run(run())


def test_cancelled_taker_holds_nothing() -> None:
    """A cancelled wait takes no bytes, also when it is cancelled in the moment in which it was let in."""

    async def run() -> None:
        for granted in (False, True):
            budget = ByteBudget(10)
            await budget.take(10)
            waiting = asyncio.create_task(budget.take(5))
            await asyncio.sleep(0)
            if granted:
                budget.give_back(10)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if not granted:
                budget.give_back(10)
            assert budget.used_bytes == 0

    asyncio.run(run())
