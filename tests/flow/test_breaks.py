"""What was found by trying to break workflows: cancelled starts, endings that cannot be written, text that is none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow import Enqueued, FlowError, Retry, RunCancelledError, RunFailedError, StepFailedError
from mainstem.flow.handles import send_wish
from mainstem.flow.journal import LOG_LINES_PREFIX, InboxMessage
from mainstem.flow.run import error_info
from mainstem.flow.writer import ENTRY_MAX_BYTES
from mainstem.host.clock import SystemClock
from mainstem.log import LogFullError, Record
from tests.flow.support import App, running
from tests.support import run, until

_tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def _declare(app: App) -> None:
    app.go = asyncio.Event()

    @app.flow.workflow
    async def short(value: int) -> int:
        return value

    @app.flow.job()
    async def task(value: int) -> int:
        return value

    @app.flow.workflow
    async def long() -> str:
        return "x" * (ENTRY_MAX_BYTES + 1)

    @app.flow.workflow
    async def no_text() -> None:
        raise ValueError("name \udcff")

    @app.flow.workflow
    async def mute() -> None:
        raise _MuteError

    @app.flow.step
    async def says() -> int:
        logging.getLogger("app").error("name %s", "\udcff")
        return 1

    @app.flow.workflow
    async def talks() -> int:
        return await says()

    app.short, app.task, app.long, app.no_text, app.mute, app.talks = short, task, long, no_text, mute, talks
    _declare_more(app)


def _declare_more(app: App) -> None:
    @app.flow.step
    async def waits() -> str:
        app.seen.append(app.flow.current_run())
        await app.go.wait()
        return "done"

    @app.flow.workflow
    async def work() -> str:
        return await waits()

    @app.flow.workflow
    async def stubborn() -> None:
        app.seen.append("stubborn")
        while not app.go.is_set():
            with suppress(asyncio.CancelledError):  # what this workflow is for
                await app.go.wait()

    @app.flow.step
    async def chats() -> int:
        for _ in range(1200):
            logging.getLogger("app").error("x" * 16_000)
        return 1

    @app.flow.workflow
    async def chatty() -> int:
        return await chats()

    @app.flow.workflow(concurrency=1)
    async def tenant(value: str) -> str | None:
        before = _tenant.get()
        _tenant.set(value)
        return before

    app.work, app.stubborn, app.chatty, app.tenant = work, stubborn, chatty, tenant


def _declare_waits(app: App) -> None:
    @app.flow.step(retry=Retry(base_s=3600.0, max_s=3600.0, jitter=0.0))
    async def fails() -> None:
        app.seen.append(app.flow.current_run())
        raise ValueError

    @app.flow.step
    async def fails_for_good() -> None:
        app.seen.append(app.flow.current_run())
        raise ValueError

    @app.flow.workflow
    async def backoff() -> None:
        await fails()

    @app.flow.workflow
    async def child() -> None:
        await app.flow.sleep(3600)

    @app.flow.workflow
    async def parent() -> None:
        await (await child.start(id="child")).result()

    @app.flow.workflow
    async def caught() -> str:
        with suppress(StepFailedError):  # what this workflow is for
            await fails_for_good()
        await app.flow.sleep(3600)
        return "slept"

    app.backoff, app.child, app.parent, app.caught = backoff, child, parent, caught


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_cancelled_start_leaves_no_run_behind_that_nobody_carries_out(tmp_path: Path, turns: int) -> None:
    """Whoever is cancelled in ``start()`` or ``enqueue()``: the run that it made exist is carried out."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:

            async def enqueue() -> None:
                enqueued: Enqueued[int] = app.task.enqueue(2, id="job")
                await enqueued

            for starting in (asyncio.create_task(app.short.start(1, id="run")), asyncio.create_task(enqueue())):
                for _ in range(turns):
                    await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait([starting])
            assert await (await app.short.start(1, id="run")).result(timeout_s=10) == 1
            assert await (await app.task.enqueue(2, id="job")).result(timeout_s=10) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("name", "said"), [("long", "Keep it as a blob"), ("no_text", r"name \\udcff"), ("mute", "cannot be shown")]
)
def test_an_ending_that_cannot_be_written_is_a_failure(tmp_path: Path, name: str, said: str) -> None:
    """A result over the limit, an error with a lone surrogate or a broken ``__str__``: the run fails, and says so."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await getattr(app, name).start()
            with pytest.raises(RunFailedError, match=said):
                await handle.result(timeout_s=10)
            assert app.flow.engine is not None
            assert not app.flow.engine.runs

    run(scenario())


def test_an_error_of_a_class_that_cannot_be_shown() -> None:
    """What is recorded of an error needs nothing of its own methods."""
    assert "RuntimeError in __str__" in error_info(_MuteError()).message


def test_a_line_that_is_no_text_fails_no_step(tmp_path: Path) -> None:
    """A lone surrogate in a log line is written out; the step that logged it goes on."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert await (await app.talks.start(id="r")).result(timeout_s=10) == 1
            record = await until(lambda: app.log.last(LOG_LINES_PREFIX + "r"))
            assert record is not None
            assert b"name \\\\udcff" in record.value

    run(scenario())


def test_keeping_a_line_never_raises_into_the_code_that_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong with a line is logging's own affair: it goes to stderr."""

    def broken(*_arguments: object) -> None:
        raise FlowError("no room for a line")

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            monkeypatch.setattr("mainstem.flow.log_lines.add_line", broken)
            assert await (await app.talks.start()).result(timeout_s=10) == 1

    run(scenario())
    assert "no room for a line" in capsys.readouterr().err


def _fill(app: App, *, reserve: bool) -> None:
    """Have the log refuse appends as a full disk does, but (with ``reserve``) for those into the reserve."""
    append, append_many = app.log.append, app.log.append_many

    async def one(stream: str, records: Sequence[Record], *, use_reserve: bool = False, **options: Any) -> int:
        if use_reserve and reserve:
            return await append(stream, records, use_reserve=True, **options)
        raise LogFullError("no room")

    async def many(appends: Any, *, use_reserve: bool = False, **options: Any) -> tuple[int, ...]:
        if use_reserve and reserve:
            return await append_many(appends, use_reserve=True, **options)
        raise LogFullError("no room")

    app.log.append = one  # type: ignore[method-assign]
    app.log.append_many = many  # type: ignore[method-assign]


def test_a_cancel_gets_through_on_a_full_disk(tmp_path: Path) -> None:
    """The run's last entry goes into the reserve; what could not be written before it is given up."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.work.start(id="r")
            await until(lambda: app.seen)
            _fill(app, reserve=True)
            app.go.set()
            engine = app.flow.engine
            assert engine is not None
            await until(lambda: engine.runs["r"].journal.stalled)
            await handle.cancel("full")
            with pytest.raises(RunCancelledError):
                await handle.result(timeout_s=10)
            assert await app.types("r") == ["Started", "RunCancelled"]

    run(scenario())


def test_a_result_gets_through_on_a_full_disk(tmp_path: Path) -> None:
    """A run that ends by itself takes what stands before its end into the reserve too."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            append = app.log.append

            async def start(stream: str, records: Sequence[Record], **options: Any) -> int:
                position = await append(stream, records, **options)
                _fill(app, reserve=True)
                return position

            app.log.append = start  # type: ignore[method-assign]
            handle = await app.task.enqueue(3, id="r")
            assert await handle.result(timeout_s=10) == 3
            assert await app.types("r") == ["Started", "StepCompleted", "RunCompleted"]

    run(scenario())


def test_the_application_stops_on_a_full_disk(tmp_path: Path) -> None:
    """What cannot be written is given up at the end; the run is open for the next start."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.work.start(id="r")
            await until(lambda: app.seen)
            _fill(app, reserve=False)
            app.go.set()
            engine = app.flow.engine
            assert engine is not None
            await until(lambda: engine.runs["r"].journal.stalled)
            async with asyncio.timeout(10):
                await app.flow.stop(grace_s=0.1)
            assert not engine.runs
        async with running(tmp_path, _declare) as app:
            app.go.set()
            assert await app.flow.handle("r").result(timeout_s=10) == "done"

    run(scenario())


def test_the_application_stops_though_a_workflow_heeds_no_cancel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Code that swallows its cancellation is left behind, and named."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.stubborn.start(id="r")
            await until(lambda: app.seen)
            async with asyncio.timeout(10):
                await app.flow.stop(grace_s=0.1)
            assert "run r was cancelled and goes on all the same" in caplog.text
            app.go.set()

    run(scenario())


def test_a_chatty_step_harms_nobody(tmp_path: Path) -> None:
    """Lines of a step that logs faster than can be written are dropped, which a line says; the run goes on."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert await (await app.chatty.start(id="r")).result(timeout_s=30) == 1

            async def told() -> bool:
                last = await app.log.last(LOG_LINES_PREFIX + "r")
                return last is not None and b"lines of this run were dropped" in last.value

            await until(told)

    run(scenario())


def test_lines_that_the_log_refuses_cost_no_run(tmp_path: Path) -> None:
    """A commit that is refused with lines in it is tried again without them."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:

            async def refusing(*_arguments: Any, **_options: Any) -> tuple[int, ...]:
                raise InvalidArgumentError("too large")

            app.log.append_many = refusing  # type: ignore[method-assign]
            assert await (await app.talks.start(id="r")).result(timeout_s=10) == 1

    run(scenario())


def test_nothing_leaks_from_one_run_into_the_next(tmp_path: Path) -> None:
    """A run does not see the context variables of the run whose end made room for it, nor of whoever started it."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            _tenant.set("starter")
            handles = [await app.tenant.start(value) for value in "abc"]
            assert [await handle.result(timeout_s=10) for handle in handles] == [None, None, None]

    run(scenario())


@pytest.mark.parametrize("name", ["backoff", "parent"])
def test_waiting_through_kills_is_no_sign_of_trouble(tmp_path: Path, name: str) -> None:
    """A run that waits for a step's next attempt, or for another run, is not quarantined by being killed."""

    async def scenario() -> None:
        for life in range(6):
            async with running(tmp_path, _declare_waits) as app:
                if life == 0:
                    await getattr(app, name).start(id="r")

                async def at_rest(app: App = app, life: int = life) -> bool:
                    if name == "parent" and await app.log.last("$run.child") is None:
                        return False
                    last = (await app.types("r"))[-1]
                    return last == "Rested" if life else name == "parent" or last == "StepFailed"

                await until(at_rest)
                await app.crash()

    run(scenario())


def test_a_cancel_before_the_beginning_is_not_for_the_run(tmp_path: Path) -> None:
    """A wish that came before a run of that name began cancels it neither at once nor after a restart."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.flow.handle("r").cancel("never mind")
            await app.work.start(id="r")
            await until(lambda: app.seen)
            await app.crash()
        async with running(tmp_path, _declare) as app:
            app.go.set()
            assert await app.flow.handle("r").result(timeout_s=10) == "done"

    run(scenario())


def test_a_cancel_that_was_written_while_nobody_listened_counts(tmp_path: Path) -> None:
    """A wish behind the run's beginning is dealt with at the next start."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.work.start(id="r")
            await until(lambda: app.seen)
            await app.crash()
            await send_wish(app.log, handle.id, InboxMessage("cancel", "late"))
        async with running(tmp_path, _declare) as app:
            with pytest.raises(RunCancelledError):
                await app.flow.handle("r").result(timeout_s=10)

    run(scenario())


def test_a_step_that_failed_for_good_fails_again_on_replay(tmp_path: Path) -> None:
    """A recorded last failure is raised from the history; the step is not carried out again."""

    async def scenario() -> None:
        async with running(tmp_path, _declare_waits) as app:
            await app.caught.start(id="r")

            async def sleeps() -> bool:
                return (await app.types("r"))[-1] == "TimerSet"

            await until(sleeps)
            assert len(app.seen) == 1
            await app.crash()
        ahead = _Ahead()
        async with running(tmp_path, _declare_waits, clock=ahead) as app:
            assert await app.flow.handle("r").result(timeout_s=10) == "slept"
            assert not app.seen

    run(scenario())


class _Ahead(SystemClock):
    """Two hours later."""

    def time_ns(self) -> int:
        return super().time_ns() + 7200 * 10**9
