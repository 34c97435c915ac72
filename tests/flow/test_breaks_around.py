"""What was found by trying to break what is around workflows: workers, threads, clocks, journals of another version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from mainstem.flow import Retry, RunFailedError, StepFailedError
from mainstem.flow.process_pool import Worker
from mainstem.host.clock import SystemClock
from mainstem.log import Record
from tests.flow import process_steps
from tests.flow.support import App, running
from tests.support import ROOT, run, until


class _Shifted(SystemClock):
    """A wall clock that can be set."""

    shift_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.shift_ns


def _is_dead(worker: Worker) -> bool:
    return not worker.alive


def _declare(app: App) -> None:
    app.go = threading.Event()

    @app.flow.step(timeout_s=0.05)
    def hangs(_number: int) -> None:
        app.go.wait()

    @app.flow.step
    def quick() -> int:
        return 1

    @app.flow.step(retry=Retry(max_attempts=2, base_s=0.3, jitter=0.0))
    async def fails_once() -> int:
        app.seen.append(app.flow.current_run())
        if len(app.seen) == 1:
            raise ValueError
        return 1

    @app.flow.step
    async def fails_at_last(number: int) -> int:
        if number == 99:
            raise ValueError
        return number

    @app.flow.workflow
    async def hang() -> None:
        await hangs(1)

    @app.flow.workflow
    async def be_quick() -> int:
        return await quick()

    @app.flow.workflow
    async def retry() -> int:
        return await fails_once()

    @app.flow.workflow
    async def many() -> str:
        with suppress(StepFailedError):  # what this workflow is for
            await app.flow.map(fails_at_last, range(100), max_concurrency=10)
        await app.flow.sleep(3600)
        return "slept"

    app.hang, app.be_quick, app.retry, app.many = hang, be_quick, retry, many


@pytest.mark.usefixtures("no_children_left")
def test_a_worker_that_died_while_it_was_idle_costs_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead worker is not handed out; one whose death shows when it is sent the request is replaced."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            for notices in (True, False):
                pid, _trace, _attempt = await (await app.work.start(1)).result()
                [worker] = app.flow._executors.processes._idle
                os.kill(pid, signal.SIGKILL)
                await until(partial(_is_dead, worker))
                if not notices:
                    monkeypatch.setattr(Worker, "alive", True)
                other, _trace, attempt = await (await app.work.start(2)).result(timeout_s=20)
                assert other != pid
                assert attempt == 1

    run(scenario())


def test_hanging_threads_take_no_place(tmp_path: Path) -> None:
    """A plain step that ran out of time gives its place to another, though its thread hangs on."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            for handle in [await app.hang.start() for _ in range(40)]:
                with pytest.raises(RunFailedError, match="TimeoutError"):
                    await handle.result(timeout_s=10)
            assert await (await app.be_quick.start()).result(timeout_s=10) == 1
            app.go.set()

    run(scenario())


def test_a_hanging_plain_step_does_not_keep_the_process(tmp_path: Path) -> None:
    """The process ends after the time of grace, though a step's thread never does."""
    program = (
        "import asyncio, sys, threading\n"
        "from mainstem.bus import Bus\n"
        "from mainstem.flow import Flow\n"
        "from mainstem.host.clock import SystemClock\n"
        "from mainstem.log import open_log\n"
        "flow = Flow(Bus(SystemClock()), SystemClock())\n"
        "began = threading.Event()\n"
        "@flow.step\n"
        "def hangs():\n"
        "    began.set()\n"
        "    threading.Event().wait()\n"
        "@flow.workflow\n"
        "async def work():\n"
        "    await hangs()\n"
        "async def main():\n"
        "    log = await open_log(sys.argv[1])\n"
        "    await flow.start(log)\n"
        "    await work.start()\n"
        "    await asyncio.to_thread(began.wait)\n"
        "    await flow.stop(grace_s=0.1)\n"
        "    await log.close()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "log")], check=True, timeout=30, cwd=ROOT)


def test_a_clock_set_back_holds_up_no_retry(tmp_path: Path) -> None:
    """The process that waits for a step's next attempt waits no longer than the delay."""

    async def scenario() -> None:
        clock = _Shifted()
        async with running(tmp_path, _declare, clock=clock) as app:
            handle = await app.retry.start(id="r")

            async def failed() -> bool:
                return (await app.types("r"))[-1] == "StepFailed"

            await until(failed)
            clock.shift_ns = -3600 * 10**9
            assert await handle.result(timeout_s=10) == 1

    run(scenario())


def test_a_journal_that_cannot_be_read_holds_up_no_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run of a version that this one does not know is set aside, named; the others go on."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            position = await app.log.append("$run.z", [Record(b'{"type":"future"}'), Record(b"\xff")])
        async with running(tmp_path, _declare) as app:
            assert f"run z is set aside: This version cannot read $run.z position {position - 1}" in caplog.text
            assert await (await app.be_quick.start()).result(timeout_s=10) == 1
            assert app.flow.engine is not None
            assert "z" not in app.flow.engine.runs

    run(scenario())


def test_the_branches_of_a_failed_map_are_not_kept_one_by_one(tmp_path: Path) -> None:
    """What was cancelled is kept by call, however many branches there were; a replay comes to the same place."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            await app.many.start(id="r")

            async def sleeps() -> bool:
                return (await app.types("r"))[-1] == "TimerSet"

            await until(sleeps)
            assert app.flow.engine is not None
            assert app.flow.engine.runs["r"].abandoned == {"map#1"}
            await app.crash()
        clock = _Shifted()
        clock.shift_ns = 7200 * 10**9
        async with running(tmp_path, _declare, clock=clock) as app:
            handle = app.flow.handle("r")
            assert await handle.result(timeout_s=10) == "slept"

    run(scenario())
