"""What a crash does to retries: attempt numbers grow with what may have been begun, what is spent does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mainstem.flow import Retry, RunFailedError
from mainstem.flow.journal import StepFailed
from mainstem.testing import SimulatedClock
from tests.flow.support import App, running
from tests.support import run, until


class Crashing:
    """A map, one branch after the other, and a job in a queue of one place; the last of each raises on its first
    call.
    """

    def __init__(self) -> None:
        self.blocked = True
        self.calls: list[tuple[str, int]] = []

    def __call__(self, app: App) -> None:
        """Declare it."""

        @app.flow.step(retry=Retry(max_attempts=2, base_s=10.0, jitter=0.0))
        async def one(index: int) -> int:
            times = self.note(app, f"one {index}")
            if index == 0 and self.blocked:
                await asyncio.Event().wait()
            if index == 5 and times == 1:
                raise ConnectionError("the first time")
            return index

        @app.flow.job(queue="narrow", concurrency=1, retry=Retry(max_attempts=3, base_s=0.0))
        async def task(name: str) -> str:
            times = self.note(app, name)
            if name == "first" and self.blocked:
                await asyncio.Event().wait()
            if name == "second" and times < 3:
                raise ConnectionError("twice")
            return name

        @app.flow.workflow
        async def work() -> list[int]:
            return await app.flow.map(one, range(6), max_concurrency=1)

        app.work, app.task = work, task

    def note(self, app: App, name: str) -> int:
        """Note a call with its attempt; return how many there were."""
        here = app.flow.current_run()
        assert here is not None
        self.calls.append((name, here.attempt))
        return sum(called == name for called, _attempt in self.calls)


def test_a_crash_spends_no_retry_of_a_branch_that_had_not_begun(tmp_path: Path) -> None:
    """Item 5 raises on its first call, after a restart: it is tried again; its attempts are numbered 2 and 3, and the
    back-off is that of a first failure.
    """
    crashing, clock = Crashing(), SimulatedClock()

    async def scenario() -> None:
        async with running(tmp_path, crashing, clock=clock) as app:
            await app.work.start(id="r")
            await until(lambda: crashing.calls == [("one 0", 1)])
            await app.crash()
        crashing.blocked = False
        async with running(tmp_path, crashing, clock=clock) as app:
            failed: list[StepFailed] = []
            async with asyncio.timeout(20):
                async for _batch in app.log.tail("$run.r"):
                    if failed := [entry for entry in await app.entries("r") if isinstance(entry, StepFailed)]:
                        break
            assert [(one.attempt, one.retry_at_ns - one.started_ns) for one in failed] == [(2, 10_000_000_000)]
            clock.advance(10)
            assert await app.flow.handle("r").result() == [0, 1, 2, 3, 4, 5]
        assert [attempt for name, attempt in crashing.calls if name == "one 5"] == [2, 3]

    run(scenario())


def test_a_crash_spends_no_retry_of_a_job_that_never_left_its_queue(tmp_path: Path) -> None:
    """After two crashes in which a job only waited, it has all its three attempts still."""
    crashing = Crashing()

    async def scenario() -> None:
        async with running(tmp_path, crashing) as app:
            await app.task.enqueue("first", id="a")
            await app.task.enqueue("second", id="b")
            await until(lambda: len(crashing.calls) == 1)
            await app.crash()
        for life in range(2, 4):
            async with running(tmp_path, crashing) as app:
                await until(lambda life=life: len(crashing.calls) == life)  # type: ignore[misc]
                await app.crash()
        crashing.blocked = False
        async with running(tmp_path, crashing) as app:
            assert await app.flow.handle("b").result(timeout_s=10) == "second"
        assert sum(name == "second" for name, _attempt in crashing.calls) == 3

    run(scenario())


def test_a_recorded_start_that_died_is_spent(tmp_path: Path) -> None:
    """With ``record_start`` an attempt that died with its process is known, and counts."""
    attempts: list[int] = []
    blocked = True

    def declare(app: App) -> None:
        @app.flow.step(retry=Retry(max_attempts=2, base_s=0.0), record_start=True)
        async def stuck() -> None:
            here = app.flow.current_run()
            assert here is not None
            attempts.append(here.attempt)
            if blocked:
                await asyncio.Event().wait()
            raise ConnectionError("every time")

        @app.flow.workflow
        async def work() -> None:
            await stuck()

        app.work = work

    async def scenario() -> None:
        nonlocal blocked
        async with running(tmp_path, declare) as app:
            await app.work.start(id="r")
            await until(lambda: attempts == [1])
            await app.crash()
        blocked = False
        async with running(tmp_path, declare) as app:
            with pytest.raises(RunFailedError):
                await app.flow.handle("r").result()
        assert attempts == [1, 2]

    run(scenario())
