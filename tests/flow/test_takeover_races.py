"""A wish, a time limit and a takeover at the same moment: what was acknowledged comes to pass, and once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import RunFailedError, RunFencedError, RunHandle, StepFailedError
from mainstem.flow.engine import Engine
from mainstem.flow.journal import Claimed, RunCancelled, RunResumed
from mainstem.log import Record
from mainstem.testing import SimulatedClock
from tests.flow.support import App, running
from tests.support import run, until


def _declare(app: App) -> None:
    app.go = asyncio.Event()

    @app.flow.step
    async def charge(number: int) -> int:
        app.seen.append(number)
        await app.go.wait()
        return number

    @app.flow.workflow
    async def sleeps(number: int) -> int:
        await app.flow.sleep(100)
        return await charge(number)

    @app.flow.workflow(timeout_s=10.0)
    async def limited(number: int) -> int:
        return await charge(number)

    @app.flow.workflow(timeout_s=10.0)
    async def limited_sleep() -> None:
        await app.flow.sleep(hours=1)

    @app.flow.workflow(timeout_s=10.0, concurrency=1)
    async def one_by_one(number: int) -> int:
        return await charge(number)

    app.sleeps, app.limited, app.limited_sleep, app.one_by_one = sleeps, limited, limited_sleep, one_by_one


async def _is(handle: RunHandle[Any], state: str) -> bool:
    return (await handle.status()).state == state


async def _cancelled(app: App, run_id: str = "r") -> bool:
    return await _is(app.flow.handle(run_id), "cancelled")


async def _leave_asleep(directory: Path, clock: SimulatedClock) -> None:
    async with running(directory, _declare, clock=clock) as app:
        await app.sleeps.start(1, id="r")
        await until(lambda: app.engine.runs["r"].sleepers)
        await app.crash()


class _Held:
    """A log whose answer to an append with a certain text is held back until told; the records are durable by then."""

    def __init__(self, log: Any, text: bytes) -> None:
        self._log = log
        self._text = text
        self.came = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, stream: str, records: Sequence[Record], **options: Any) -> int:
        position: int = await self._log.append(stream, records, **options)
        if any(self._text in record.value for record in records):
            self.came.set()
            await self.go.wait()
        return position


# ---- cancels


def test_a_run_that_becomes_resident_meanwhile_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel that finds a dormant run, which is resident when its end is to be written, stops it."""
    clock = SimulatedClock()

    async def scenario() -> None:
        await _leave_asleep(tmp_path, clock)
        async with running(tmp_path, _declare, clock=clock) as app:
            real = app.engine.end_dormant

            async def late(run_id: str, cancelled: RunCancelled) -> bool:
                if run_id not in app.engine.runs:
                    clock.advance(100)
                    await until(lambda: run_id in app.engine.runs)
                return await real(run_id, cancelled)

            monkeypatch.setattr(app.engine, "end_dormant", late)
            await app.flow.handle("r").cancel("the customer called")
            await until(lambda: _cancelled(app))
            assert not app.engine.runs

    run(scenario())


def test_a_run_that_is_being_claimed_is_cancelled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cancel between a claim and the run's beginning waits for it: the journal keeps its one writer."""
    clock = SimulatedClock()

    async def scenario() -> None:
        await _leave_asleep(tmp_path, clock)
        async with running(tmp_path, _declare, clock=clock) as app:
            held = app.engine.log = _Held(app.log, b'"claimed"')
            clock.advance(100)
            await held.came.wait()
            await app.flow.handle("r").cancel()
            await until(lambda: app.engine._claiming and app.engine._tasks)
            for _turn in range(50):
                await asyncio.sleep(0)
            held.go.set()
            await until(lambda: _cancelled(app))
            assert (await app.types("r"))[-2:] == ["Claimed", "RunCancelled"]
            assert not [record for record in caplog.records if "Something else writes" in record.getMessage()]

    run(scenario())


def test_a_conflict_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the journal goes on between a cancel's look and its write, it looks again."""
    clock = SimulatedClock()

    async def scenario() -> None:
        await _leave_asleep(tmp_path, clock)
        async with running(tmp_path, _declare, clock=clock) as app:
            real: Callable[[str], Any] = app.engine.history
            left = [1]

            async def history(run_id: str) -> Any:
                found = await real(run_id)
                if asyncio.current_task() in app.engine._tasks and left and left.pop():
                    await app.log.append("$run.r", [Record(b'{"type":"rested"}')])
                return found

            monkeypatch.setattr(app.engine, "history", history)
            await app.flow.handle("r").cancel()
            await until(lambda: _cancelled(app))

    run(scenario())


def test_a_cancel_during_a_pause_counts(tmp_path: Path) -> None:
    """A run that is being paused when its cancel comes is cancelled, not left waiting."""
    life = {"new": False}

    def declare(app: App) -> None:
        @app.flow.step
        async def charge() -> None:
            app.seen.append(1)

        @app.flow.workflow
        async def work() -> None:
            if not life["new"]:
                await charge()
                await asyncio.Event().wait()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            await app.work.start(id="r")
            await until(lambda: app.seen)
            await until(lambda: _has(app, "StepCompleted"))
            await app.crash()
        life["new"] = True
        async with running(tmp_path, declare) as app:
            held = app.engine.log = _Held(app.log, b'"paused"')
            await held.came.wait()
            await app.flow.handle("r").cancel()
            await until(lambda: app.engine._tasks)
            held.go.set()
            await until(lambda: _cancelled(app))
            assert (await app.types("r"))[-2:] == ["RunPaused", "RunCancelled"]

    run(scenario())


async def _has(app: App, name: str, run_id: str = "r") -> bool:
    return name in await app.types(run_id)


def test_cancelled_delayed_jobs_leave_nothing_behind(tmp_path: Path) -> None:
    """However many delayed jobs are cancelled, none begins when its time comes, in this process or the next."""
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.job(concurrency=2)
        async def mail(number: int) -> None:
            app.seen.append(number)

        app.mail = mail

    async def cancel(app: App, numbers: range) -> None:
        for number in numbers:
            await app.flow.handle(f"m{number}").cancel()
        for number in numbers:
            await until(lambda number=number: _cancelled(app, f"m{number}"))  # type: ignore[misc]

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            for number in range(30):
                await app.mail.enqueue(number, id=f"m{number}", delay_s=60)
            await cancel(app, range(10))
            assert len(app.engine._waiting) == 20
            await app.crash()
        async with running(tmp_path, declare, clock=clock) as app:
            assert len(app.engine._waiting) == 20
            await cancel(app, range(10, 20))
            assert len(app.engine._waiting) == 10
            clock.advance(60)
            await until(lambda: len(app.seen) == 10)
            assert sorted(app.seen) == list(range(20, 30))
            assert not app.engine._waiting

    run(scenario())


# ---- resuming


def test_resumed_jobs_heed_their_queue(tmp_path: Path) -> None:
    """Jobs and workflows that are resumed wait for their turn as all others do; the decision is durable meanwhile."""
    life = {"blocked": True}

    def declare(app: App) -> None:
        app.at_once, app.most = 0, 0

        async def work(number: int) -> int:
            app.at_once += 1
            app.most = max(app.most, app.at_once)
            if life["blocked"]:
                await asyncio.Event().wait()
            for _turn in range(20):
                await asyncio.sleep(0)
            app.at_once -= 1
            return number

        app.job = app.flow.job(name="j", queue="q", concurrency=2)(work)
        app.work = app.flow.workflow(name="w", concurrency=1)(work)

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            for number in range(6):
                await app.job.enqueue(number, id=f"j{number}")
                await app.work.start(number, id=f"w{number}")
            await app.crash()
        life["blocked"] = False
        async with running(tmp_path, lambda _app: None) as app:
            for name in ("j", "w"):
                for number in range(6):
                    await until(lambda name=name, number=number: _has(app, "RunPaused", f"{name}{number}"))  # type: ignore[misc]
        for name, most in (("j", 2), ("w", 1)):
            async with running(tmp_path, declare) as app:
                handles = [app.flow.handle(f"{name}{number}") for number in range(6)]
                for handle in handles:
                    await handle.resume("the code is back")
                assert [await handle.result(timeout_s=10) for handle in handles] == list(range(6))
                assert app.most == most
                types = await app.types(f"{name}5")
                assert types.index("Claimed") == types.index("RunResumed") + 1

    run(scenario())


def test_a_stale_wish_to_resume_does_not_count(tmp_path: Path) -> None:
    """A wish to resume that came before the pause is no answer to it, live and at a start."""
    clock = SimulatedClock()

    async def scenario() -> None:
        async with running(tmp_path, _declare, clock=clock) as app:
            await app.sleeps.start(1, id="r")
            await until(lambda: _has(app, "TimerSet"))
            stale = await app.log.append("$inbox.r", [Record(b'{"wish":"resume"}')])
            await app.crash()
        async with running(tmp_path, lambda _app: None, clock=clock) as app:
            await until(lambda: _has(app, "RunPaused"))
            await app.engine.resume("r", RunResumed("late", stale))
            assert await _is(app.flow.handle("r"), "paused")
            await app.crash()
        async with running(tmp_path, _declare, clock=clock) as app:
            assert "RunResumed" not in await app.types("r")
            await app.flow.handle("r").resume("now")
            await until(lambda: _has(app, "RunResumed"))
            assert await _is(app.flow.handle("r"), "sleeping")  # as before, until it wakes
            app.go.set()
            clock.advance(100)
            assert await app.flow.handle("r").result(timeout_s=10) == 1

    run(scenario())


def test_resuming_what_waits_for_its_turn_changes_nothing(tmp_path: Path) -> None:
    """A wish to resume a run that waits for a place does not begin it twice, nor before its turn."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.one_by_one.start(1, id="first")
            waits = await app.one_by_one.start(2, id="second")
            await until(lambda: app.seen == [1])
            before = app.log.end_position
            await waits.resume()
            await until(lambda: app.log.end_position > before)
            for _turn in range(50):
                await asyncio.sleep(0)
            assert app.seen == [1]
            app.go.set()
            assert await waits.result(timeout_s=10) == 2
            assert app.seen == [1, 2]
            assert Claimed not in [type(entry) for entry in await app.entries("second")]

    run(scenario())


# ---- time limits


def test_a_time_limit_that_passed_while_the_process_was_down(tmp_path: Path) -> None:
    """A run whose limit is over at the takeover fails at once, gives its place on, and can be asked."""
    clock = SimulatedClock()

    async def scenario() -> None:
        async with running(tmp_path, _declare, clock=clock) as app:
            await app.one_by_one.start(1, id="r")
            await until(lambda: app.seen)
            await app.crash()
        clock.advance(11)
        async with running(tmp_path, _declare, clock=clock) as app:
            with pytest.raises(RunFailedError, match="TimeoutError: the run did not end within 10 s"):
                await app.flow.handle("r").result(timeout_s=3)
            assert not app.engine.runs
            app.go.set()
            assert await (await app.one_by_one.start(2)).result(timeout_s=10) == 2
            assert app.seen == [2]

    run(scenario())


def test_a_time_limit_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    """A takeover does not begin the limit anew, nor does it forget it; waiting for a place counts, too."""
    clock = SimulatedClock()

    async def scenario() -> None:
        async with running(tmp_path, _declare, clock=clock) as app:
            await app.limited.start(1, id="r")
            await until(lambda: app.seen)
            clock.advance(6)
            await app.crash()
        async with running(tmp_path, _declare, clock=clock) as app:
            await until(lambda: app.seen)
            first, second = await app.one_by_one.start(2), await app.one_by_one.start(3)
            clock.advance(4.5)
            with pytest.raises(RunFailedError, match="TimeoutError"):
                await app.flow.handle("r").result(timeout_s=3)
            clock.advance(6)
            for handle in (first, second):
                with pytest.raises(RunFailedError, match="TimeoutError"):
                    await handle.result(timeout_s=10)
            assert app.seen == [1, 2]

    run(scenario())


def test_a_time_limit_holds_for_a_sleeper_across_restarts(tmp_path: Path) -> None:
    """A run that is asleep when its process ends is out of time when it is, and not when it would wake."""
    clock = SimulatedClock()

    async def scenario() -> None:
        async with running(tmp_path, _declare, clock=clock) as app:
            await app.limited_sleep.start(id="r")
            await until(lambda: _has(app, "TimerSet"))
            await app.crash()
        async with running(tmp_path, _declare, clock=clock) as app:
            await until(lambda: app.engine._waiting)
            clock.advance(10)
            with pytest.raises(RunFailedError, match="TimeoutError"):
                await app.flow.handle("r").result(timeout_s=3)

    run(scenario())


# ---- code that heeds no cancel, journals that were lost


def test_code_that_catches_everything_freezes_nobody(tmp_path: Path) -> None:
    """A loop with a bare ``except`` in a workflow that is cancelled leaves the event loop to others, and little by
    little the processor.
    """

    def declare(app: App) -> None:
        app.released = False

        @app.flow.step
        async def poll() -> None:
            app.seen.append(1)
            await asyncio.sleep(0)
            raise ValueError("not yet")

        @app.flow.workflow
        async def work() -> None:
            while not app.released:
                try:
                    await poll()
                except (StepFailedError, asyncio.CancelledError):  # the mistake, as a bare except makes it
                    app.caught = app.seen[-1]

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(id="r")
            await until(lambda: len(app.seen) > 3)
            await handle.cancel("stop it")
            resident = app.engine.runs["r"]
            await until(lambda: resident.refused > 101)
            began_s = asyncio.get_running_loop().time()
            refused = resident.refused
            await until(lambda: resident.refused > refused + 3)
            assert asyncio.get_running_loop().time() - began_s > 0.1
            app.released = True
            await until(lambda: _cancelled(app))

    run(scenario())


def test_a_lost_run_lets_nobody_wait(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks for the result of a run whose journal was lost is told so, as often as it is asked, until it is
    resumed.
    """
    caplog.set_level(logging.CRITICAL)

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.limited.start(1, id="r")
            await until(lambda: app.seen)
            await app.log.append("$run.r", [Record(b'{"type":"rested"}')])
            app.go.set()
            for _time in range(2):
                with pytest.raises(RunFencedError):
                    await handle.result(timeout_s=10)
            await handle.resume()
            await until(lambda: _has(app, "Claimed"))
            assert await handle.result(timeout_s=10) == 1

    run(scenario())


def test_a_lost_log_lets_nobody_wait(tmp_path: Path) -> None:
    """When the log is lost, a later question for a result is answered with that, too."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.limited.start(1, id="r")
            await until(lambda: app.seen)
            engine: Engine = app.engine
            engine._lose_log(OSError("the disk is gone"))
            await until(lambda: not engine.runs)
            with pytest.raises(Exception, match="the disk is gone"):
                await handle.result(timeout_s=10)

    run(scenario())
