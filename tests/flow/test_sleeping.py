"""Sleeps beside which something else is under way: a restart does not let that wait for their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow.journal import TimerSet
from mainstem.testing import SimulatedClock
from tests.flow.support import App, running
from tests.support import run, until

_Beside = Callable[[Awaitable[Any], Awaitable[Any]], Awaitable[Any]]


async def _gathered(sleep: Awaitable[Any], call: Awaitable[Any]) -> Any:
    return (await asyncio.gather(sleep, call))[1]


async def _gathered_late(sleep: Awaitable[Any], call: Awaitable[Any]) -> Any:
    async def late() -> Any:
        for _turn in range(10):
            await asyncio.sleep(0)
        return await call

    return (await asyncio.gather(sleep, late()))[1]


async def _in_a_task(sleep: Awaitable[Any], call: Awaitable[Any]) -> Any:
    task = asyncio.ensure_future(call)
    try:
        await sleep
        return await task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("beside", [_gathered, _gathered_late, _in_a_task])
def test_a_step_beside_a_sleep_does_not_wait_for_its_end(tmp_path: Path, beside: _Beside) -> None:
    """A step that was under way beside a sleep when the process died is carried out again at the next start."""
    clock = SimulatedClock()
    life = {"blocked": True}

    def declare(app: App) -> None:
        @app.flow.step
        async def charge() -> int:
            app.seen.append("charge")
            if life["blocked"]:
                await asyncio.Event().wait()
            return 7

        @app.flow.workflow
        async def work() -> int:
            result: int = await beside(app.flow.sleep(hours=1), charge())
            return result

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            await app.work.start(id="r")
            await until(lambda: app.seen == ["charge"] and app.log.end_position == 2)
            await app.crash()
        life["blocked"] = False
        async with running(tmp_path, declare, clock=clock) as app:
            await until(lambda: app.seen == ["charge"])
            result = asyncio.create_task(app.flow.handle("r").result())
            await clock.run_for(3700, step_s=20)
            assert await result == 7

    run(scenario())


def test_a_sleep_alone_is_noted_as_such(tmp_path: Path) -> None:
    """A sleep that the workflow itself awaits, with nothing else under way, is one for whose end a restart waits."""

    def declare(app: App) -> None:
        @app.flow.step
        async def before() -> None:
            app.seen.append("before")

        @app.flow.workflow
        async def work() -> None:
            await before()
            await app.flow.sleep(0.01)
            await app.flow.gather(app.flow.sleep(0.01), before())

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            await (await app.work.start(id="r")).result()
            timers = [entry for entry in await app.entries("r") if isinstance(entry, TimerSet)]
            assert [timer.alone for timer in timers] == [True, False]

    run(scenario())
