"""Jobs: queues, delays, rate limits, retries, threads, other threads; logging; worker processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.bus import Bus
from mainstem.flow import DuplicateNameError, Flow, Retry, RunFailedError
from mainstem.flow.journal import LogLine, RunCompleted, StepCompleted
from mainstem.flow.log_lines import LINES_MAX
from mainstem.flow.queues import RateLimit, Window, parse_rate
from mainstem.testing import SimulatedClock
from tests.flow import process_steps
from tests.flow.support import App, running
from tests.support import ROOT, TimedOutError, run, until, wait_until


def test_a_job_ends_in_one_commit(tmp_path: Path) -> None:
    """A job's result and its run's end are one commit; a plain function runs in a thread."""

    def declare(app: App) -> None:
        @app.flow.job(queue="mail")
        def send(to: str) -> str:
            assert threading.current_thread() is not threading.main_thread()
            return f"sent to {to}"

        app.send = send

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.send.enqueue("a@b.c")
            before = app.log.sync_count  # type: ignore[attr-defined]
            assert await handle.result() == "sent to a@b.c"
            assert app.log.sync_count == before + 1  # type: ignore[attr-defined]
            _started, completed, ended = await app.entries(handle.id)
            assert isinstance(completed, StepCompleted)
            assert isinstance(ended, RunCompleted)
            assert (await handle.status()).queue == "mail"

    run(scenario())


def test_a_queue_runs_so_many_at_once(tmp_path: Path) -> None:
    """No more than ``concurrency`` jobs of a queue are under way; the others wait, and the wait is on record."""

    def declare(app: App) -> None:
        app.go = asyncio.Event()

        @app.flow.job(queue="narrow", concurrency=2)
        async def work(number: int) -> int:
            app.seen.append(number)
            await app.go.wait()
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handles = [await app.work.enqueue(number) for number in range(5)]
            await until(lambda: len(app.seen) >= 2)
            for _turn in range(20):
                await asyncio.sleep(0)
            assert app.seen == [0, 1]
            app.go.set()
            assert [await handle.result() for handle in handles] == [0, 1, 2, 3, 4]
            assert app.seen == [0, 1, 2, 3, 4]

    run(scenario())


def test_a_delayed_job_waits_across_restarts(tmp_path: Path) -> None:
    """A job with a delay is durable at once and begins at its time, whatever process is there then."""
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.job()
        async def later() -> str:
            app.seen.append("ran")
            return "done"

        app.later = later

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            handle = await app.later.enqueue(id="j", delay_s=100)
            assert (await handle.status()).state == "scheduled"
            clock.advance(50)
            await app.crash()
        async with running(tmp_path, declare, clock=clock) as app:
            result = asyncio.create_task(app.flow.handle("j").result())
            await clock.run_for(40, step_s=10)
            engine = app.flow.engine
            assert engine is not None
            await until(lambda: not engine._tasks)  # a takeover that had begun has come to its end
            assert (app.seen, engine.runs) == ([], {})
            await clock.run_for(40, step_s=10)
            assert await result == "done"

    run(scenario())


def test_a_failing_job_gives_its_place_to_others(tmp_path: Path) -> None:
    """While a job waits for its next attempt another one has its place in the queue."""

    def declare(app: App) -> None:
        @app.flow.job(queue="one", concurrency=1, retry=Retry(max_attempts=2, base_s=0.05, jitter=0))
        async def work(name: str) -> str:
            app.seen.append(name)
            if name == "fails" and app.seen.count("fails") == 1:
                raise OSError("no")
            return name

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            first = await app.work.enqueue("fails")
            second = await app.work.enqueue("other")
            assert await first.result() == "fails"
            assert await second.result() == "other"
            assert app.seen == ["fails", "other", "fails"]

    run(scenario())


def test_jobs_in_a_queue_survive_a_crash(tmp_path: Path) -> None:
    """Jobs that waited for their turn are done by the next process, each once, in their order."""
    life = {"blocked": True}
    done: list[int] = []

    def declare(app: App) -> None:
        @app.flow.job(queue="one", concurrency=1)
        async def work(number: int) -> int:
            app.seen.append(number)
            if life["blocked"]:
                await asyncio.Event().wait()
            done.append(number)
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            for number in range(4):
                await app.work.enqueue(number, id=f"j{number}")
            await until(lambda: app.seen)
            await app.crash()
        life["blocked"] = False
        async with running(tmp_path, declare) as app:
            assert [await app.flow.handle(f"j{number}").result() for number in range(4)] == [0, 1, 2, 3]
            assert done == [0, 1, 2, 3]

    run(scenario())


def test_a_waiting_job_can_be_cancelled(tmp_path: Path) -> None:
    """A job that is cancelled before its turn never begins."""

    def declare(app: App) -> None:
        app.go = asyncio.Event()

        @app.flow.job(queue="one", concurrency=1)
        async def work(number: int) -> int:
            app.seen.append(number)
            await app.go.wait()
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            first = await app.work.enqueue(1)
            second = await app.work.enqueue(2)
            await second.cancel("not needed")
            await until(lambda: _state(second, "cancelled"))
            app.go.set()
            assert await first.result() == 1
            third = await app.work.enqueue(3)
            assert await third.result() == 3
            assert app.seen == [1, 3]

    async def _state(handle: object, state: str) -> bool:
        return bool((await handle.status()).state == state)  # type: ignore[attr-defined]

    run(scenario())


def test_enqueue_from_another_thread(tmp_path: Path) -> None:
    """Synchronous code in a thread enqueues and waits for durability; on the event loop ``wait`` is refused."""

    def declare(app: App) -> None:
        @app.flow.job()
        async def work(number: int) -> int:
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await asyncio.to_thread(lambda: app.work.enqueue(5).wait())
            assert await handle.result() == 5
            with pytest.raises(InvalidArgumentError, match=r"await job\.enqueue"):
                app.work.enqueue(6).wait()

    run(scenario())


def test_a_rate_is_never_exceeded_in_any_period() -> None:
    """A window allows ``count`` starts in any period, not in calendar periods."""
    window = Window(RateLimit(2, 10.0))
    for now_s in (0.0, 9.0):
        assert window.next_s(now_s) <= now_s
        window.start(now_s)
    assert window.next_s(9.5) == 10.0
    window.start(10.0)
    assert window.next_s(10.0) == 19.0
    assert parse_rate("100/m") == RateLimit(100, 60.0)
    with pytest.raises(InvalidArgumentError, match="100/m"):
        parse_rate("fast")


def test_a_rate_limited_queue(tmp_path: Path) -> None:
    """Jobs over the rate wait for the next period."""
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.job(queue="slow", rate_limit="2/m")
        async def work(number: int) -> int:
            app.seen.append(number)
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            handles = [await app.work.enqueue(number) for number in range(4)]
            assert [await handle.result() for handle in handles[:2]] == [0, 1]
            assert app.seen == [0, 1]
            rest = asyncio.gather(*(handle.result() for handle in handles[2:]))
            await clock.run_for(61, step_s=1)
            assert await rest == [2, 3]

    run(scenario())


def test_declarations_are_checked() -> None:
    """Names, queues and parameters that would be ambiguous later are refused when they are declared."""
    clock = SimulatedClock()
    flow = Flow(Bus(clock), clock)

    @flow.job(queue="q", concurrency=2)
    def one() -> None:
        return None

    with pytest.raises(InvalidArgumentError, match="concurrency was declared"):

        @flow.job(queue="q", concurrency=3)
        def two() -> None:
            return None

    with pytest.raises(DuplicateNameError, match="is the name of"):
        flow.job(name="one")(lambda: None)
    with pytest.raises(InvalidArgumentError, match="'id' has the name of an option"):

        @flow.workflow
        async def three(id: int) -> None:  # noqa: A002 (that is the point)
            return None

    with pytest.raises(InvalidArgumentError, match="coroutine function"):
        flow.workflow(name="four")(lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidArgumentError, match="top level"):

        @flow.step(executor="process")
        def local() -> None:
            return None


def test_log_lines_are_kept_beside_the_run(tmp_path: Path) -> None:
    """What a run's code logs, in threads too, is in ``$lines.<id>`` with its step; a replay does not repeat it."""
    logger = logging.getLogger("shop")
    life = {"blocked": True}

    def declare(app: App) -> None:
        @app.flow.step
        def in_thread() -> None:
            logger.warning("in a thread %d", 1)

        @app.flow.step
        async def last() -> None:
            app.seen.append("last")
            if life["blocked"]:
                await asyncio.Event().wait()

        @app.flow.workflow
        async def work() -> None:
            logger.warning("begins")
            logging.getLogger("mainstem.log.embedded").warning("of a room below: not the run's")
            logging.getLogger("mainstem.services.media").warning("of a service")
            await in_thread()
            await last()

        app.work = work

    async def scenario() -> None:
        root = logging.getLogger()
        before = (root.level, list(root.handlers))
        async with running(tmp_path, declare) as app:
            await app.work.start(id="r")
            await until(lambda: app.seen)
            await app.crash()
        life["blocked"] = False
        async with running(tmp_path, declare) as app:
            logger.warning("not a run's")
            await app.flow.handle("r").result()
            lines = [_line(record.value) for record in await app.log.read("$lines.r")]
            assert [(line.message, line.step_key, line.level) for line in lines] == [
                ("begins", "", "WARNING"),
                ("of a service", "", "WARNING"),
                ("in a thread 1", "in_thread#1", "WARNING"),
            ]
        assert (root.level, list(root.handlers)) == before

    run(scenario())


def test_a_flood_of_log_lines_is_cut(tmp_path: Path) -> None:
    """Behind 10,000 lines of a run one more says that the rest is dropped."""

    def declare(app: App) -> None:
        @app.flow.step
        async def floods() -> None:
            for number in range(LINES_MAX + 50):
                logging.getLogger("flood").warning("line %d", number)

        @app.flow.workflow
        async def work() -> None:
            await floods()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            await handle.result()
            lines = await app.log.read(f"$lines.{handle.id}", limit=65_536)
            assert len(lines) == LINES_MAX + 1
            assert "dropped" in _line(lines[-1].value).message

    run(scenario())


def _line(value: bytes) -> LogLine:
    from msgspec.json import decode

    return decode(value, type=LogLine)


@pytest.mark.usefixtures("no_children_left")
def test_a_step_in_a_process(tmp_path: Path) -> None:
    """A CPU-bound step runs in a spawned process, under the run's trace; its logging comes back; its errors are
    recorded.
    """

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            handle = await app.work.start(20)
            pid, traceparent, attempt = await handle.result()
            assert pid != os.getpid()
            assert attempt == 1
            started = (await app.log.read(f"$run.{handle.id}"))[0]
            assert traceparent.split("-")[1] == started.headers["traceparent"].split("-")[1]
            lines = [_line(record.value) for record in await app.log.read(f"$lines.{handle.id}")]
            assert [(line.message, line.step_key) for line in lines] == [("counting to 20", "count#1")]
            with pytest.raises(RunFailedError, match="ValueError: negative"):
                await (await app.work.start(-1)).result()

    run(scenario())


@pytest.mark.usefixtures("no_children_left")
def test_a_worker_that_dies_is_a_failed_attempt(tmp_path: Path) -> None:
    """A step whose process is killed is tried again, in a new one."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            marker = tmp_path / "marker"
            handle = await app.dies.start(str(marker))
            assert await handle.result() == 2
            assert await app.types(handle.id) == ["Started", "StepFailed", "StepCompleted", "RunCompleted"]
            assert (await app.entries(handle.id))[1].error.type == "mainstem.flow.errors.WorkerDiedError"  # type: ignore[union-attr]

    run(scenario())


@pytest.mark.usefixtures("no_children_left")
def test_a_time_limit_kills_the_worker(tmp_path: Path) -> None:
    """A step in a process that takes too long is killed, and so it is when its run is cancelled."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            with pytest.raises(RunFailedError, match="TimeoutError"):
                await (await app.hangs.start()).result()

    run(scenario())


PROGRAM = """
import asyncio, sys
from mainstem.log import open_log
from tests.flow import process_steps as steps
{mutant}
async def main():
    log = await open_log(sys.argv[1])
    await steps.flow.start(log)
    await steps.sleeper.start(sys.argv[2])
    await asyncio.Event().wait()
asyncio.run(main())
"""

WITHOUT_SIGNAL = """
WORKER = "from mainstem.flow import process_worker as w; w.die_with_parent = lambda _pid: None; w.main()"
spawn = asyncio.create_subprocess_exec
asyncio.create_subprocess_exec = lambda program, *_module, **options: spawn(program, "-c", WORKER, **options)
"""


def worker_after_kill(directory: Path, mutant: str = "") -> int | None:
    """Kill an application in mid step; return its worker's pid, or ``None`` if that is gone within five seconds."""
    marker = directory / "pid"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    arguments = [sys.executable, "-c", PROGRAM.format(mutant=mutant), str(directory / "log"), str(marker)]
    with subprocess.Popen(arguments, env=environment, cwd=ROOT) as process:
        try:
            wait_until(lambda: marker.exists() and marker.read_text() != "", 20.0)
            pid = int(marker.read_text())
            assert Path(f"/proc/{pid}").exists()
        finally:
            process.kill()
    try:
        wait_until(lambda: _is_gone(pid), 5.0)
    except TimedOutError:
        return pid
    return None


def test_a_worker_dies_with_the_application(tmp_path: Path) -> None:
    """When the application is killed in mid step, its worker process is gone with it."""
    assert worker_after_kill(tmp_path) is None


def test_mutant_without_parent_death_signal(tmp_path: Path) -> None:
    """A worker that does not ask for its parent's death signal outlives it: the test above would notice."""
    survivor = worker_after_kill(tmp_path, WITHOUT_SIGNAL)
    assert survivor is not None
    os.kill(survivor, signal.SIGKILL)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
