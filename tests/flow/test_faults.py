"""What goes wrong around workflows: a full disk, a lost log, a value too large, an application that stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mainstem.bus import BusError, GroupFencedError, GroupStatus
from mainstem.flow import (
    Enqueued,
    FlowError,
    FlowStoppedError,
    Job,
    Retry,
    RunFailedError,
    RunInfo,
    RunSummary,
    Step,
    ValueTooLargeError,
    WorkerDiedError,
    Workflow,
)
from mainstem.flow.errors import RunFencedError
from mainstem.flow.functions import NO_ARGUMENTS
from mainstem.flow.process_pool import Worker
from mainstem.flow.process_protocol import FRAME_MAX_BYTES, Request, body_bytes, frame
from mainstem.flow.steps import may_retry
from mainstem.flow.writer import ENTRY_MAX_BYTES, RunJournal
from mainstem.host.clock import SystemClock
from mainstem.log import AppendOutcomeUnknownError, LogFullError, NotWrittenError, Record
from tests.flow.support import App, running
from tests.support import run, until


def _declare(app: App) -> None:
    app.go = asyncio.Event()

    @app.flow.step
    async def waits() -> str:
        app.seen.append(app.flow.current_run())
        await app.go.wait()
        return "done"

    @app.flow.step
    async def large() -> str:
        return "x" * ENTRY_MAX_BYTES

    @app.flow.workflow
    async def work() -> str:
        return await waits()

    @app.flow.workflow
    async def too_large() -> str:
        return await large()

    @app.flow.job()
    async def task() -> str:
        return "done"

    app.waits, app.work, app.too_large, app.task = waits, work, too_large, task


def test_a_full_disk_holds_runs_up_and_loses_nothing(tmp_path: Path) -> None:
    """While nothing can be written a run stays where it is, visibly; when there is room it goes on by itself."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.work.start()
            await until(lambda: app.seen)
            append, full = app.log.append, [True]

            async def refusing(stream: str, records: Sequence[Record], **options: Any) -> int:
                if full[0]:
                    raise LogFullError("no room")
                return await append(stream, records, **options)

            app.log.append = refusing  # type: ignore[method-assign]
            app.go.set()
            engine = app.flow.engine
            assert engine is not None
            await until(lambda: engine.runs[handle.id].journal.stalled == "no room")
            full[0] = False
            assert await handle.result() == "done"

    run(scenario())


def test_a_lost_log_stops_all_runs(tmp_path: Path) -> None:
    """When the log's life has ended, runs stop, those who wait are told, and the next start goes on with them."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.work.start(id="r")
            result = asyncio.create_task(handle.result())
            await until(lambda: app.seen)

            async def failing(*_arguments: Any, **_options: Any) -> int:
                raise AppendOutcomeUnknownError("EIO")

            app.log.append = failing  # type: ignore[method-assign]
            app.go.set()
            await asyncio.wait([result])
            assert isinstance(result.exception(), AppendOutcomeUnknownError | FlowStoppedError)
            engine = app.flow.engine
            assert engine is not None
            assert isinstance(engine.failure, AppendOutcomeUnknownError)
            await until(lambda: not engine.runs)
        async with running(tmp_path, _declare) as app:
            app.go.set()
            assert await app.flow.handle("r").result() == "done"

    run(scenario())


def test_who_waits_is_told_when_the_application_stops(tmp_path: Path) -> None:
    """Stopping ends the waiting for a result with ``FlowStoppedError``; the run stays open."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await app.work.start(id="r")
            result = asyncio.create_task(handle.result())
            await until(lambda: app.seen)
            await app.flow.stop(grace_s=0.0)
            with pytest.raises(FlowStoppedError, match="goes on at the next start"):
                await result

    run(scenario())


def test_a_value_that_is_too_large(tmp_path: Path) -> None:
    """A result over 8 MiB fails its step, without retry; so does an event over it."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            with pytest.raises(RunFailedError, match="Store it as a blob"):
                await (await app.too_large.start()).result()
            journal = RunJournal(app.log, SystemClock(), "x", "$run.x", 0, {}, lambda _error: None)
            with pytest.raises(ValueTooLargeError):
                journal.put(b"x" * (ENTRY_MAX_BYTES + 1))
            assert not may_retry(Retry(), ValueTooLargeError("large"), 1)
            assert await app.log.last("$run.x") is None

    run(scenario())


def test_entries_are_written_in_the_order_in_which_they_were_put(tmp_path: Path) -> None:
    """What is written at once does not overtake what was put before, and neither conflicts with the other."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            lost: list[Exception] = []
            journal = RunJournal(app.log, SystemClock(), "x", "$run.x", 0, {}, lost.append)
            for _round in range(30):  # the log commits lone calls in their own turn after some of them
                await journal.write(b"[1]")
            journal.put_soon(b"[2]")
            await journal.write(b"[3]")
            await journal.write(b"[4]")
            values = [record.value for record in await app.log.read("$run.x", 0, 100)]
            assert values == [b"[1]"] * 30 + [b"[2]", b"[3]", b"[4]"]
            assert not lost and journal.position == app.log.end_position

    run(scenario())


def test_a_second_writer_is_noticed_by_what_is_written_at_once(tmp_path: Path) -> None:
    """A journal that somebody else wrote to is lost for whoever writes without waiting, too; nothing is written."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            lost: list[Exception] = []
            journal = RunJournal(app.log, SystemClock(), "x", "$run.x", 0, {}, lost.append)
            for _round in range(30):
                await journal.write(b"[1]")
            await app.log.append("$run.x", [Record(b"[2]")])
            with pytest.raises(asyncio.CancelledError):
                await journal.write(b"[3]")
            assert [type(error) for error in lost] == [RunFencedError]
            assert [record.value for record in await app.log.read("$run.x", 0, 100)] == [b"[1]"] * 30 + [b"[2]"]

    run(scenario())


@pytest.mark.usefixtures("no_children_left")
def test_a_dead_worker_is_told_from_a_failed_step(tmp_path: Path) -> None:
    """A worker that ends in mid call raises ``WorkerDiedError`` with how it ended; that is retried at least twice."""

    async def scenario() -> None:
        worker = await Worker.spawn()
        assert worker.alive
        await worker.kill()
        with pytest.raises(WorkerDiedError, match="signal 9"):
            await worker.call(frame(Request("m", "f", msgspec.Raw(NO_ARGUMENTS), "r", "w", "f#1", 1, "")), "f#1")
        assert not worker.has_taken

    run(scenario())
    assert may_retry(Retry(max_attempts=1), WorkerDiedError("died"), 2)
    assert not may_retry(Retry(max_attempts=1), WorkerDiedError("died"), 3)
    with pytest.raises(ValueError, match="over the limit"):
        body_bytes((FRAME_MAX_BYTES + 1).to_bytes(4, "big"))


def test_the_public_types(tmp_path: Path) -> None:
    """What declarations and handles are can be named in annotations; all errors have one base."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert isinstance(app.waits, Step)
            assert isinstance(app.work, Workflow)
            assert isinstance(app.task, Job)
            enqueued = app.task.enqueue()
            assert isinstance(enqueued, Enqueued)
            handle = await enqueued
            await handle.result()
            assert isinstance(await handle.status(), RunSummary)
            work = await app.work.start()
            await until(lambda: app.seen)
            assert app.seen == [RunInfo(work.id, "work", "waits#1", 1)]
            assert all(isinstance(one, GroupStatus) for one in app.bus.groups())
        assert issubclass(FlowStoppedError, FlowError)
        assert issubclass(GroupFencedError, BusError)
        assert issubclass(LogFullError, NotWrittenError)

    run(scenario())
