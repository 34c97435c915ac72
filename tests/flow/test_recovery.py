"""A crash at any point: what a restart replays, what it starts again, and what it leaves to a decision."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import Retry, RunPausedError, StepFailedError
from mainstem.flow.journal import Claimed, RunPaused, RunQuarantined, StepCompleted
from mainstem.testing import SimulatedClock
from tests.flow.support import App, running
from tests.support import run, until


class Two:
    """A workflow of two steps; the second blocks until told. What was executed is noted over all lives."""

    def __init__(self, *, record_start: bool = False) -> None:
        self.executed: list[tuple[str, int]] = []
        self.blocked = True
        self.record_start = record_start

    def __call__(self, app: App) -> None:
        """Declare it."""

        @app.flow.step
        async def first() -> int:
            self.note(app, "first")
            return 1

        @app.flow.step(record_start=self.record_start)
        async def second(number: int) -> int:
            self.note(app, "second")
            if self.blocked:
                await asyncio.Event().wait()
            return number + 1

        @app.flow.workflow
        async def work() -> int:
            return await second(await first())

        app.work = work

    def note(self, app: App, name: str) -> None:
        """Note an execution with its attempt."""
        here = app.flow.current_run()
        assert here is not None
        self.executed.append((name, here.attempt))


def test_a_completed_step_never_runs_again(tmp_path: Path) -> None:
    """After a crash the run goes on behind its last completed step; what may have been under way gets attempt 2."""
    two = Two()

    async def scenario() -> None:
        async with running(tmp_path, two) as app:
            await app.work.start(id="r")
            await until(lambda: len(two.executed) == 2)
            await app.crash()
        two.blocked = False
        async with running(tmp_path, two) as app:
            assert await app.flow.handle("r").result() == 2
            assert two.executed == [("first", 1), ("second", 1), ("second", 2)]
            assert await app.types("r") == ["Started", "StepCompleted", "Claimed", "StepCompleted", "RunCompleted"]
            assert app.log.end_position == (await app.log.last("$run.r")).position  # type: ignore[union-attr]

    run(scenario())


def test_an_orderly_stop_is_no_sign_of_trouble(tmp_path: Path) -> None:
    """Stopping leaves runs open and says so in the journal; however often it happens, nothing is quarantined."""
    two = Two()

    async def scenario() -> None:
        async with running(tmp_path, two) as app:
            await app.work.start(id="r")
            await until(lambda: len(two.executed) == 2)
            await app.flow.stop(grace_s=0.0)
        for _restart in range(5):
            before = len(two.executed)
            async with running(tmp_path, two) as app:
                await until(lambda before=before: len(two.executed) > before)  # type: ignore[misc]
                await app.flow.stop(grace_s=0.0)
        two.blocked = False
        async with running(tmp_path, two) as app:
            assert await app.flow.handle("r").result() == 2
            types = await app.types("r")
            assert types.count("Released") == 6
            assert "RunQuarantined" not in types

    run(scenario())


def test_branches_that_only_sleep_are_no_sign_of_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with several branches asleep is taken over at each start; however often the process dies, it wakes."""
    monkeypatch.setattr("mainstem.flow.run._REST_AFTER_S", 0.05)
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> int:
            await app.flow.gather(app.flow.sleep(hours=1), app.flow.sleep(hours=2))
            return 7

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            await app.work.start(id="r")
            await until_types(app, "r", "TimerSet", 2)
            await app.crash()
        for life in range(1, 6):
            async with running(tmp_path, declare, clock=clock) as app:
                await until_types(app, "r", "Rested", life)
                await app.crash()
        async with running(tmp_path, declare, clock=clock) as app:
            await until_types(app, "r", "Rested", 6)
            clock.advance(7200)
            assert await app.flow.handle("r").result() == 7

    run(scenario())


async def until_types(app: App, run_id: str, name: str, count: int) -> None:
    """Return once the journal has so many entries of a type."""
    async with asyncio.timeout(20):
        async for _batch in app.log.tail(f"$run.{run_id}"):
            if (await app.types(run_id)).count(name) >= count:
                return


@pytest.mark.parametrize("record_start", [False, True])
def test_three_claims_in_vain_are_a_quarantine(tmp_path: Path, record_start: bool) -> None:
    """A run whose process died three times without progress waits for a decision; ``resume`` has it tried again. That
    an attempt began is no progress, though it is on record.
    """
    two = Two(record_start=record_start)

    async def scenario() -> None:
        async with running(tmp_path, two) as app:
            await app.work.start(id="r")
            await until(lambda: len(two.executed) == 2)
            await app.crash()
        for _life in range(3):
            before = len(two.executed)
            async with running(tmp_path, two) as app:
                await until(lambda before=before: len(two.executed) > before)  # type: ignore[misc]
                await app.crash()
        two.blocked = False
        async with running(tmp_path, two) as app:
            handle = app.flow.handle("r")
            with pytest.raises(RunPausedError, match="taken over 3 times"):
                await handle.result()
            assert (await handle.status()).state == "quarantined"
            assert (await app.entries("r"))[-1] == RunQuarantined(3)
            await handle.resume("looked at it")
            assert await handle.result() == 2
            assert two.executed[-1] == ("second", 5)

    run(scenario())


def test_a_sleeper_is_not_taken_over_before_it_wakes(tmp_path: Path) -> None:
    """A durable sleep outlives any number of crashes without a claim, and ends at its time."""
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> str:
            await app.flow.sleep(hours=2)
            return "awake"

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            await app.work.start(id="r")
            await until(lambda: clock.sleepers)
            await until(lambda: app.log.end_position == 2)
            await app.crash()
        for _life in range(5):
            async with running(tmp_path, declare, clock=clock) as app:
                assert await app.types("r") == ["Started", "TimerSet"]
                assert (await app.flow.handle("r").status()).state == "sleeping"
                clock.advance(60)
                await app.crash()
        async with running(tmp_path, declare, clock=clock) as app:
            result = asyncio.create_task(app.flow.handle("r").result())
            await clock.run_for(7000, step_s=20)
            await until(result.done)
            assert await result == "awake"
            assert await app.types("r") == ["Started", "TimerSet", "Claimed", "RunCompleted"]

    run(scenario())


def test_a_retrys_waiting_outlives_a_crash(tmp_path: Path) -> None:
    """The time of the next attempt is on record: a restart waits for it, and does not count anew."""
    clock = SimulatedClock()
    attempts: list[int] = []

    def declare(app: App) -> None:
        @app.flow.step(retry=Retry(max_attempts=3, base_s=600, max_s=600, jitter=0))
        async def fails_once() -> str:
            here = app.flow.current_run()
            assert here is not None
            attempts.append(here.attempt)
            if len(attempts) == 1:
                raise OSError("no")
            return "done"

        @app.flow.workflow
        async def work() -> str:
            return await fails_once()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            handle = await app.work.start(id="r")
            await until(lambda: app.log.end_position == 2)
            status = await handle.status()
            assert status.state == "retrying"
            assert "Attempt 2 follows by itself" in status.message
            await app.crash()
        async with running(tmp_path, declare, clock=clock) as app:
            result = asyncio.create_task(app.flow.handle("r").result())
            await until(lambda: app.log.end_position == 3)
            await clock.run_for(580, step_s=20)
            assert attempts == [1]
            await clock.run_for(60, step_s=10)
            assert await result == "done"
            assert attempts == [1, 3]  # conservative: the second may have begun in the process that died

    run(scenario())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("other arguments", "first#1"),
        ("renamed", "other#1"),
        ("left out", "without calling"),
        ("inserted", "inserted#1"),
        ("not registered", "No workflow named work is registered"),
    ],
)
def test_code_that_no_longer_fits_pauses_the_run(tmp_path: Path, change: str, words: str) -> None:
    """The run is paused with what is recorded and what was called; with fitting code it can be resumed."""
    changing = Changing()

    async def scenario() -> None:
        async with running(tmp_path, changing) as app:
            await app.work.start(id="r")
            await until(lambda: "blocked" in app.seen)
            await app.crash()
        changing.change, changing.blocked = change, False
        async with running(tmp_path, changing) as app:
            with pytest.raises(RunPausedError) as caught:
                await app.flow.handle("r").result()
            assert words in str(caught.value)
            assert "inserted" not in app.seen
            assert isinstance((await app.entries("r"))[-1], RunPaused)
        changing.change = ""
        async with running(tmp_path, changing) as app:
            handle = app.flow.handle("r")
            assert (await handle.status()).state == "paused"
            await handle.resume("the old code is back")
            assert await handle.result() == "done"
            assert app.seen == []  # first() was not executed again

    run(scenario())


class Changing:
    """A workflow of two steps whose code can be changed between two lives."""

    def __init__(self) -> None:
        self.change = ""
        self.blocked = True

    def __call__(self, app: App) -> None:
        """Declare it as it is now."""

        @app.flow.step
        async def first(number: int) -> int:
            app.seen.append("first")
            return number

        @app.flow.step
        async def other(number: int) -> int:
            return number

        @app.flow.step
        async def inserted(_number: int) -> None:
            app.seen.append("inserted")

        @app.flow.step
        async def last() -> None:
            if self.blocked:
                app.seen.append("blocked")
                await asyncio.Event().wait()

        calls: dict[str, list[Any]] = {
            "": [first, 1, last],
            "other arguments": [first, 2, last],
            "renamed": [other, 1, last],
            "inserted": [inserted, 1, first, 1, last],
            "left out": [],
        }

        async def work() -> str:
            todo = list(calls[self.change])
            while todo:
                step = todo.pop(0)
                await (step() if step is last else step(todo.pop(0)))
            return "done"

        if self.change != "not registered":
            app.work = app.flow.workflow(work)


def test_a_wish_that_nobody_read_is_answered_at_the_start(tmp_path: Path) -> None:
    """A cancel that became durable before a crash ends the run at the next start, before it does anything more."""
    two = Two()

    async def scenario() -> None:
        async with running(tmp_path, two) as app:
            handle = await app.work.start(id="r")
            await until(lambda: len(two.executed) == 2)
            engine = app.flow.engine
            assert engine is not None
            engine.draining = True
            engine._inbox.end()
            await handle.cancel("late")
            await app.crash()
        async with running(tmp_path, two) as app:
            await until(lambda: app.log.last("$run.r"))
            summary: Any = await until(lambda: _ended(app))
            assert summary.state == "cancelled"
            assert len(two.executed) == 2

    async def _ended(app: App) -> Any:
        summary = await app.flow.handle("r").status()
        return summary if summary.ended_ns else None

    run(scenario())


def test_the_branch_that_failed_fails_again(tmp_path: Path) -> None:
    """Which branch's error ended a ``gather`` is on record, so a replay raises the same one, whatever finishes first
    then.
    """
    life = {"blocked": True}

    def declare(app: App) -> None:
        @app.flow.step
        async def fails(name: str) -> None:
            raise ValueError(name)

        async def slowly(name: str) -> None:
            if life["blocked"]:  # only in the first life is this branch slower than the other
                for _turn in range(20):
                    await asyncio.sleep(0)
            await fails(name)

        @app.flow.step
        async def last() -> None:
            app.seen.append("last")
            if life["blocked"]:
                await asyncio.Event().wait()

        @app.flow.workflow
        async def work() -> str:
            message = ""
            try:
                await app.flow.map(slowly_if_first, ["a", "b"])
            except StepFailedError as error:
                message = str(error)
            await last()
            return message

        async def slowly_if_first(name: str) -> None:
            await (slowly(name) if name == "a" else fails(name))

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            await app.work.start(id="r")
            await until(lambda: app.seen)
            await app.crash()
        life["blocked"] = False
        async with running(tmp_path, declare) as app:
            assert "map#1[1]/fails#1" in await app.flow.handle("r").result()

    run(scenario())


def test_many_open_runs_share_commits(tmp_path: Path) -> None:
    """Taking over many runs needs far fewer syncs than runs."""
    two = Two()

    async def scenario() -> None:
        async with running(tmp_path, two) as app:
            await asyncio.gather(*(app.work.start(id=f"r{number}") for number in range(200)))
            await until(lambda: len(two.executed) == 400)
            await app.crash()
        two.blocked = False
        async with running(tmp_path, two) as app:
            results = await asyncio.gather(*(app.flow.handle(f"r{number}").result() for number in range(200)))
            assert results == [2] * 200
            assert app.log.sync_count < 300  # type: ignore[attr-defined]
            claims = [entry for entry in await app.entries("r7") if isinstance(entry, Claimed)]
            assert [one.claim for one in claims] == [1]
            done = [entry.attempt for entry in await app.entries("r7") if isinstance(entry, StepCompleted)]
            assert done == [1, 2]
            engine = app.flow.engine
            assert engine is not None
            assert not engine.runs

    run(scenario())
