"""Time limits of steps: they are the work's, not the wait's for a place to do it in."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.bus import Bus
from mainstem.flow import Flow, RunFailedError
from mainstem.flow.process_pool import Worker
from mainstem.testing import SimulatedClock
from tests.flow import process_steps
from tests.flow.support import App, running
from tests.support import run, until


@pytest.mark.parametrize(("work_s", "is_in_time"), [(9, True), (11, False)])
def test_the_limit_begins_with_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_s: int, is_in_time: bool
) -> None:
    """A step that had to wait for a thread has its whole time from then on, and no more than that."""
    monkeypatch.setattr("mainstem.flow.executors._THREADS_MAX", 2)
    clock = SimulatedClock()
    go = {number: threading.Event() for number in range(3)}

    def declare(app: App) -> None:
        @app.flow.step(timeout_s=10)
        def work(number: int) -> int:
            app.seen.append(number)
            go[number].wait(30)
            return number

        @app.flow.workflow
        async def all_of_them() -> list[int]:
            return await app.flow.map(work, range(3))

        app.all_of_them = all_of_them

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            handle = await app.all_of_them.start()
            result = asyncio.create_task(handle.result())
            await until(lambda: sorted(app.seen) == [0, 1])
            await clock.run_for(9)
            go[0].set()
            go[1].set()
            await until(lambda: 2 in app.seen)
            await clock.run_for(work_s)
            if is_in_time:
                go[2].set()
                assert await result == [0, 1, 2]
            else:
                with pytest.raises(RunFailedError, match="did not end within 10 s"):
                    await result
                go[2].set()

    run(scenario())


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("inf"), float("nan"), 1e300])
def test_what_is_no_time_limit_is_refused(timeout_s: float) -> None:
    """A time limit is positive and a hundred years at most; what is not is refused when it is declared."""
    clock = SimulatedClock()
    flow = Flow(Bus(clock), clock)

    async def work() -> None:
        return None

    declarations = (flow.step(timeout_s=timeout_s), flow.workflow(timeout_s=timeout_s), flow.job(timeout_s=timeout_s))
    for declare in declarations:
        with pytest.raises(InvalidArgumentError, match=r"work: timeout_s=.*hundred years"):
            declare(work)


@pytest.mark.usefixtures("no_children_left")
def test_a_worker_processs_start_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in a process has its whole time once there is one, however long that took."""
    clock = SimulatedClock()
    spawn = Worker.spawn

    async def slowly() -> Worker:
        worker = await spawn()
        await clock.run_for(60)
        return worker

    async def scenario() -> None:
        monkeypatch.setattr(Worker, "spawn", slowly)
        monkeypatch.setattr(process_steps.flow, "clock", clock)
        async with running(tmp_path, process_steps.declare, clock=clock) as app:
            handle = await app.answers.start(7)
            assert await handle.result() == 7

    run(scenario())
