"""Workflow code and steps that do what they should not: they fail, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import Retry, RunFailedError
from mainstem.flow.journal import GatherFailed, StepFailed
from tests.flow.support import App, running
from tests.support import run, until


class Abort(BaseException):
    """What no ``except Exception`` catches, as the panic of an extension in Rust is."""


def _abort() -> None:
    raise Abort("out of bounds")


def _exit() -> None:
    sys.exit(3)


@pytest.mark.parametrize("end", [_abort, _exit])
@pytest.mark.parametrize("where", ["in a step", "in the branch"])
def test_a_branch_that_breaks_off_fails_its_map(tmp_path: Path, end: Any, where: str) -> None:
    """Whatever a branch of ``map`` raises, the call ends with it: a branch without a result never counts as done."""

    def declare(app: App) -> None:
        @app.flow.step
        async def step(number: int) -> int:
            if number == 1 and where == "in a step":
                end()
            return number * 10

        async def branch(number: int) -> int:
            if number == 1 and where == "in the branch":
                await step(0)
                end()
            return await step(number)

        @app.flow.workflow
        async def work() -> list[int]:
            return await app.flow.map(branch, [0, 1, 2, 3])

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(id="r")
            with pytest.raises(RunFailedError, match="Abort" if end is _abort else "SystemExit"):
                await handle.result(timeout_s=10)
            assert GatherFailed("map#1", 1) in await app.entries("r")
            assert not app.engine.runs

    run(scenario())


def test_a_branch_that_cancels_itself_fails_its_map(tmp_path: Path) -> None:
    """A branch that cancels its own task has no result, and so has the call."""

    async def branch(number: int) -> int:
        task = asyncio.current_task()
        if number == 1 and task is not None:
            task.cancel()
        await asyncio.sleep(0)
        return number

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> list[int]:
            return await app.flow.map(branch, [0, 1, 2])

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(id="r")
            with pytest.raises(RunFailedError, match="CancelledError"):
                await handle.result(timeout_s=10)

    run(scenario())


def test_an_error_of_our_own_in_a_worker_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When what carries out the branches fails itself, the call raises: nothing is filled up with ``None``."""

    class Wrong:
        def __init__(self, *_args: Any, **_options: Any) -> None:
            raise LookupError("a fault in the worker")

    def declare(app: App) -> None:
        @app.flow.step
        async def step(number: int) -> int:
            return number

        @app.flow.workflow
        async def work() -> list[int]:
            return await app.flow.map(step, [0, 1])

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            monkeypatch.setattr("mainstem.flow.fanout.Branch", Wrong)
            handle = await app.work.start(id="r")
            with pytest.raises(RunFailedError, match="a fault in the worker"):
                await handle.result(timeout_s=10)

    run(scenario())


@pytest.mark.parametrize("end", [_abort, _exit])
@pytest.mark.parametrize("where", ["step", "plain step", "workflow"])
def test_what_is_no_exception_fails_the_run(tmp_path: Path, end: Any, where: str) -> None:
    """``sys.exit()`` and any other ``BaseException`` are failures as any other: of a step's attempt, which is tried
    again, or of the run; the loop goes on.
    """

    def declare(app: App) -> None:
        @app.flow.step(retry=Retry(max_attempts=2, base_s=0.0))
        async def step() -> None:
            end()

        @app.flow.step(retry=Retry(max_attempts=2, base_s=0.0))
        def plain_step() -> None:
            end()

        @app.flow.workflow(concurrency=1)
        async def work(place: str) -> int:
            if place == "step":
                await step()
            elif place == "plain step":
                await plain_step()
            elif place == "workflow":
                end()
            return 1

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(where, id="r")
            with pytest.raises(RunFailedError, match="Abort: out of bounds" if end is _abort else "SystemExit: 3"):
                await handle.result(timeout_s=10)
            failures = [entry for entry in await app.entries("r") if isinstance(entry, StepFailed)]
            assert len(failures) == (0 if where == "workflow" else 2)
            assert not app.engine.runs
            assert await (await app.work.start("nowhere")).result(timeout_s=10) == 1  # the place is free again

    run(scenario())


def test_a_job_that_breaks_off_gives_its_place_back(tmp_path: Path) -> None:
    """A job that raises what is no ``Exception`` has failed, and the next one has its turn."""

    def declare(app: App) -> None:
        @app.flow.job(queue="q", concurrency=1, retry=Retry(max_attempts=1))
        async def job(number: int) -> int:
            if not number:
                _abort()
            return number

        app.job = job

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            first, second = await app.job.enqueue(0), await app.job.enqueue(1)
            with pytest.raises(RunFailedError, match="Abort: out of bounds"):
                await first.result(timeout_s=10)
            assert await second.result(timeout_s=10) == 1

    run(scenario())


def test_an_interrupt_leaves_the_run_open(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a step is no failure of the run: it is passed on, and the run goes on at the next
    start.
    """
    life = {"interrupted": True}

    def declare(app: App) -> None:
        @app.flow.step
        async def step() -> int:
            if life["interrupted"]:
                raise KeyboardInterrupt
            return 1

        @app.flow.workflow
        async def work() -> int:
            return await step()

        app.work = work

    async def first() -> None:
        async with running(tmp_path, declare) as app:
            await app.work.start(id="r")
            await until(lambda: not app.engine.runs)

    async def second() -> None:
        async with running(tmp_path, declare) as app:
            assert await app.flow.handle("r").result(timeout_s=10) == 1

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(first())
    life["interrupted"] = False
    run(second())
