"""Workflow code that cancels calls of its own: no history tells whether it did, so the run fails, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import CallInterruptedError, RunCancelledError, RunFailedError, StepFailedError
from mainstem.flow.errors import type_name
from tests.flow.support import App, running
from tests.support import run, until

_NAME = type_name(CallInterruptedError)
_SHORT_S = 0.02


async def _blocks_in_time(call: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(_SHORT_S):
        await call()


async def _waits_for(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    await asyncio.wait_for(call(), _SHORT_S)


async def _cancels_itself(call: Callable[[], Awaitable[Any]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(_SHORT_S, task.cancel)
    await call()


async def _groups(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    async def fails() -> None:
        await asyncio.sleep(_SHORT_S)  # sleeps: until the other task of the group is at its call
        raise ValueError

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        group.create_task(fails())


WAYS = {"timeout": _blocks_in_time, "wait_for": _waits_for, "cancel": _cancels_itself, "TaskGroup": _groups}
CALLS: dict[str, Callable[[App], Coroutine[Any, Any, Any]]] = {
    "hangs#1": lambda app: app.hangs(),
    "sleep#1": lambda app: app.flow.sleep(3600),
    "gather#1": lambda app: app.flow.gather(app.hangs(), app.flow.sleep(3600)),
    "map#1": lambda app: app.flow.map(app.in_branch, [1, 2]),
}


def _declare(app: App) -> None:
    app.go = asyncio.Event()

    @app.flow.step
    async def hangs() -> None:
        app.seen.append("began")
        await app.go.wait()

    @app.flow.step
    async def after() -> None:
        app.seen.append("after")

    @app.flow.step
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError

    @app.flow.step
    async def limits_itself() -> str:
        try:
            async with asyncio.timeout(_SHORT_S):
                await app.go.wait()
        except TimeoutError:
            return "in time"
        return "late"

    async def in_branch(_item: int) -> None:
        await hangs()

    app.in_branch, app.hangs, app.after, app.fails, app.limits_itself = in_branch, hangs, after, fails, limits_itself
    _declare_workflows(app)


def _declare_workflows(app: App) -> None:
    hangs = app.hangs

    @app.flow.workflow
    async def interrupts(way: str, key: str) -> str:
        with suppress(TimeoutError, ExceptionGroup, CallInterruptedError):  # code that hides it and goes on
            await WAYS[way](lambda: CALLS[key](app))
        await app.after()
        return "went on"

    @app.flow.workflow
    async def interrupts_in_a_branch() -> None:
        async def branch(number: int) -> None:
            if number:
                await hangs()
            await _blocks_in_time(hangs)

        await app.flow.map(branch, [0, 1])

    @app.flow.workflow
    async def waits_for_nothing() -> None:
        with suppress(CallInterruptedError):  # code that hides it
            await _blocks_in_time(hangs)
        await asyncio.Event().wait()

    @app.flow.workflow
    async def is_well() -> str:
        async with asyncio.timeout(60):
            with suppress(StepFailedError):  # what this workflow is for: the gather cancels its other branches
                await app.flow.gather(hangs(), app.flow.sleep(3600), app.fails())
            told: str = await app.limits_itself()
            return told

    @app.flow.workflow
    async def patient() -> None:
        async with asyncio.timeout(3600):
            await app.flow.gather(hangs(), hangs())

    app.interrupts, app.is_well, app.patient = interrupts, is_well, patient
    app.interrupts_in_a_branch, app.waits_for_nothing = interrupts_in_a_branch, waits_for_nothing


@pytest.mark.parametrize("key", CALLS)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_cancels_its_own_call_fails(way: str, key: str, tmp_path: Path) -> None:
    """Whatever is cancelled in whatever way, and though the code catches it: the run fails, no further step runs."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.interrupts.start(way, key, id="r")
            with pytest.raises(RunFailedError) as caught:
                await handle.result(timeout_s=10)
            assert caught.value.error.type == _NAME
            assert "was cancelled by the workflow's own code" in str(caught.value)
            assert "@ms.step(timeout_s=5)" in str(caught.value)
            assert "after" not in app.seen
            assert (await app.types("r"))[-1] == "RunFailed"
        async with running(tmp_path, _declare) as app:
            assert (await app.flow.handle("r").status()).state == "failed"
            assert app.seen == []

    run(scenario())


@pytest.mark.parametrize("name", ["interrupts_in_a_branch", "waits_for_nothing"])
def test_where_it_is_noticed(name: str, tmp_path: Path) -> None:
    """In a branch as well, with the place in the code; and though the code then waits for what never comes."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            with pytest.raises(RunFailedError, match="hangs#1 was cancelled by the workflow's own code") as caught:
                await (await getattr(app, name).start()).result(timeout_s=10)
            assert (caught.value.error.traceback.count("_blocks_in_time") > 0) == (name == "interrupts_in_a_branch")

    run(scenario())


def test_other_cancels_are_none_of_it(tmp_path: Path) -> None:
    """A gather that cancels its branches, a time limit in a step, and one that is not reached fail no run."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert await (await app.is_well.start()).result(timeout_s=10) == "in time"

    run(scenario())


def test_a_cancelled_run_is_cancelled(tmp_path: Path) -> None:
    """A wish to cancel, and the end of the application, are what they were, also within a time limit."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle, other = await app.patient.start(id="r"), await app.patient.start(id="s")
            await until(lambda: len(app.seen) == 4)
            await handle.cancel("enough")
            with pytest.raises(RunCancelledError, match="enough"):
                await handle.result(timeout_s=10)
        async with running(tmp_path, _declare) as app:
            app.go.set()
            assert await app.flow.handle(other.id).result(timeout_s=10) is None

    run(scenario())


def test_a_loop_that_is_closed_leaves_runs_open(tmp_path: Path) -> None:
    """An application whose event loop cancels all tasks, as at its end, has failed no run: they go on later."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.patient.start(id="r")
            await until(lambda: len(app.seen) == 2)
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert await app.types("r") == ["Started"]
        async with running(tmp_path, _declare) as app:
            app.go.set()
            assert await app.flow.handle("r").result(timeout_s=10) is None

    run(scenario())
