"""Workflows: steps, gather, map, sleep, publish, results, ids."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow import (
    FlowNotStartedError,
    Retry,
    RunCancelledError,
    RunFailedError,
    RunIdConflictError,
    RunNotFoundError,
    StepFailedError,
    StepOutsideBranchError,
)
from mainstem.flow.journal import Published, StepCompleted, StepFailed, StepStarted, TimerSet
from mainstem.log import TRACEPARENT
from mainstem.testing import SimulatedClock
from mainstem.trace.context import new_trace, parse_traceparent, use_trace
from tests.flow.support import App, keys_of, running
from tests.support import run, until


@dataclass
class Order:
    """An argument with a shape."""

    id: int
    items: tuple[str, ...]


def test_a_step_costs_one_commit(tmp_path: Path) -> None:
    """Each step of a run alone is one sync of the log."""

    def declare(app: App) -> None:
        @app.flow.step
        async def double(number: int) -> int:
            return number * 2

        @app.flow.workflow
        async def work(count: int) -> int:
            total = 0
            for number in range(count):
                total += await double(number)
            return total

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(10)
            before = app.log.sync_count  # type: ignore[attr-defined]
            assert await handle.result() == 90
            assert app.log.sync_count - before == 11  # type: ignore[attr-defined]
            assert await app.types(handle.id) == ["Started", *["StepCompleted"] * 10, "RunCompleted"]

    run(scenario())


def test_branches_number_their_calls_by_place(tmp_path: Path) -> None:
    """Keys are branch path, name and occurrence, whatever order the branches run in."""

    def declare(app: App) -> None:
        @app.flow.step
        async def slowly(number: int) -> int:
            await asyncio.sleep(0.02 if number == 0 else 0.0)  # sleeps: the first branch is to finish last
            return number

        async def twice(number: int) -> int:
            return await slowly(number) + await slowly(number)

        @app.flow.workflow
        async def work() -> list[int]:
            mapped = await app.flow.map(twice, [0, 1, 2])
            a, b = await app.flow.gather(twice(5), slowly(6))
            return [*mapped, a, b]

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == [0, 2, 4, 10, 6]
            assert sorted(keys_of(await app.entries(handle.id))) == [
                "gather#1[0]/slowly#1",
                "gather#1[0]/slowly#2",
                *(f"map#1[{index}]/slowly#{occurrence}" for index in range(3) for occurrence in (1, 2)),
                "slowly#1",
            ]

    run(scenario())


def test_results_are_what_reading_them_back_gives(tmp_path: Path) -> None:
    """A step's result has its annotated type, live as on replay; without an annotation it is plain JSON."""
    seen: list[Any] = []

    def declare(app: App) -> None:
        @app.flow.step
        async def typed() -> tuple[int, ...]:
            return (1, 2)

        @app.flow.step
        async def plain():  # type: ignore[no-untyped-def]
            return (1, 2)

        @app.flow.workflow
        async def work(order: Order) -> Order:
            seen.extend([await typed(), await plain(), order])
            return order

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(Order(1, ("a",)))
            assert await handle.result() == Order(1, ("a",))
            assert seen == [(1, 2), [1, 2], Order(1, ("a",))]

    run(scenario())


def test_the_same_id_is_the_same_run(tmp_path: Path) -> None:
    """Starting with an id again gives the existing run; with other arguments it is a conflict, and nothing is
    started.
    """

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work(number: int) -> int:
            app.seen.append(number)
            return number

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            work = app.work
            first = await work.start(1, id="one")
            assert await first.result() == 1
            again = await work.start(1, id="one")
            assert await again.result() == 1
            assert app.seen == [1]
            with pytest.raises(RunIdConflictError, match="other arguments"):
                await work.start(2, id="one")
            with pytest.raises(InvalidArgumentError, match="not a valid run id"):
                await work.start(1, id="../etc")
            with pytest.raises(InvalidArgumentError, match="missing a required argument"):
                await work.start()

    run(scenario())


def test_a_failing_step_is_retried_then_raised(tmp_path: Path) -> None:
    """Each failed attempt is on record; the last one is raised into the workflow as ``StepFailedError``, and names its
    cause.
    """

    def declare(app: App) -> None:
        @app.flow.step(retry=Retry(max_attempts=3, base_s=0.001))
        async def fails() -> None:
            app.seen.append(app.flow.current_run().attempt)  # type: ignore[union-attr]
            raise ValueError("no luck")

        @app.flow.workflow
        async def work() -> str:
            try:
                await fails()
            except StepFailedError as error:
                return f"{error.key} {error.attempt} {error.caused_by(ValueError)} {error.caused_by(KeyError)}"
            return "fine"

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == "fails#1 3 True False"
            assert app.seen == [1, 2, 3]
            failed = [entry for entry in await app.entries(handle.id) if isinstance(entry, StepFailed)]
            assert [bool(entry.retry_at_ns) for entry in failed] == [True, True, False]
            assert "ValueError: no luck" in failed[0].error.traceback

    run(scenario())


def test_a_failed_run_says_what_failed_and_why(tmp_path: Path) -> None:
    """The error of a run names the step, the reason, and what happens next."""

    def declare(app: App) -> None:
        @app.flow.step
        async def charge() -> None:
            raise RuntimeError("card declined")

        @app.flow.workflow
        async def work() -> None:
            await charge()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            with pytest.raises(
                RunFailedError, match="Step charge#1 failed at its only attempt: RuntimeError: card declined"
            ) as caught:
                await handle.result()
            assert caught.value.error.type == "RuntimeError"
            summary = await handle.status()
            assert summary.state == "failed"
            assert "nothing is tried again" in summary.message

    run(scenario())


def test_a_step_from_a_task_of_the_users_is_refused(tmp_path: Path) -> None:
    """Calls inside a foreign task raise ``StepOutsideBranchError``; native ``gather`` over calls made in the branch is
    fine.
    """

    def declare(app: App) -> None:
        @app.flow.step
        async def one(number: int) -> int:
            return number

        async def helper() -> int:
            return await one(1)

        @app.flow.workflow
        async def wrong() -> int:
            return await asyncio.create_task(helper())

        @app.flow.workflow
        async def right() -> list[int]:
            return list(await asyncio.gather(one(1), one(2)))

        app.wrong, app.right = wrong, right

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            with pytest.raises(RunFailedError, match=r"right: ms\.gather"):
                await (await app.wrong.start()).result()
            assert await (await app.right.start()).result() == [1, 2]

    run(scenario())
    assert StepOutsideBranchError.code == "step-outside-branch"


def test_the_first_failure_of_a_gather_cancels_the_rest(tmp_path: Path) -> None:
    """The other branches are cancelled and awaited before the error is raised, and leave no result."""

    def declare(app: App) -> None:
        @app.flow.step
        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                app.seen.append("cleaned up")

        @app.flow.step
        async def fails() -> None:
            raise ValueError("no")

        @app.flow.workflow
        async def work() -> str:
            try:
                await app.flow.gather(endless(), fails())
            except StepFailedError as error:
                app.seen.append("raised")
                return error.step
            return ""

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == "fails"
            assert app.seen == ["cleaned up", "raised"]
            assert await app.types(handle.id) == ["Started", "StepFailed", "GatherFailed", "RunCompleted"]

    run(scenario())


def test_publish_is_in_the_runs_commit(tmp_path: Path) -> None:
    """An event and the run's record of it are one commit; ``durable`` gives its position; it carries the run's span
    and entities.
    """

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> list[int]:
            first = await app.bus.publish("a.b", 1, about=["thing:1"])
            second = await app.bus.publish("a.c", 2, durable=True)
            return [first, second]

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            origin = new_trace()
            with use_trace(origin):
                handle = await app.work.start(about=["order:7"])
            first, second = await handle.result()
            records = {record.stream: record for record in await app.log.read("a.*")}
            assert (first, second) == (0, records["a.c"].position)
            assert records["a.b"].headers["about"] == "thing:1 order:7"
            context = parse_traceparent(records["a.b"].headers[TRACEPARENT])
            assert context == origin.child("run", handle.id)
            for record in await app.log.read(f"$run.{handle.id}"):
                entry = (await app.entries(handle.id))[0]
                assert entry is not None
                assert record.headers["about"] == "order:7"
            published = [entry for entry in await app.entries(handle.id) if isinstance(entry, Published)]
            journal = [r for r in await app.log.read(f"$run.{handle.id}") if b'"published"' in r.value]
            assert [r.position - p.ahead for r, p in zip(journal, published, strict=True)] == [
                records["a.b"].position,
                records["a.c"].position,
            ]

    run(scenario())


def test_sleep_takes_the_clocks_time(tmp_path: Path) -> None:
    """A durable sleep of a day ends when the clock says so, and costs no real time in a test."""
    clock = SimulatedClock()

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> str:
            await app.flow.sleep(days=1)
            return "awake"

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare, clock=clock) as app:
            handle = await app.work.start()
            result = asyncio.create_task(handle.result())
            await until(lambda: clock.sleepers > 0)
            assert (await handle.status()).state == "sleeping"
            await clock.run_for(86_390, step_s=10)
            assert not result.done()
            clock.advance(60)
            assert await result == "awake"
            assert isinstance((await app.entries(handle.id))[1], TimerSet)

    run(scenario())


def test_a_steps_time_limit(tmp_path: Path) -> None:
    """An attempt that takes too long has failed with ``TimeoutError``, and is retried as any other."""

    def declare(app: App) -> None:
        @app.flow.step(timeout_s=0.02, retry=Retry(max_attempts=2, base_s=0.0))
        async def slow() -> str:
            if app.flow.current_run().attempt == 1:  # type: ignore[union-attr]
                await asyncio.Event().wait()
            return "second"

        @app.flow.workflow
        async def work() -> str:
            return await slow()

        @app.flow.workflow(timeout_s=0.02)
        async def endless() -> None:
            await app.flow.sleep(days=1)

        app.work, app.endless = work, endless

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == "second"
            failed = (await app.entries(handle.id))[1]
            assert isinstance(failed, StepFailed)
            assert failed.error.type == "TimeoutError"
            with pytest.raises(RunFailedError, match="did not end within"):
                await (await app.endless.start()).result()

    run(scenario())


def test_cancel(tmp_path: Path) -> None:
    """A cancelled run's step may clean up; the run ends as cancelled with the reason, citing the wish; steps leave no
    result.
    """

    def declare(app: App) -> None:
        @app.flow.step
        async def endless() -> None:
            app.seen.append("began")
            try:
                await asyncio.Event().wait()
            finally:
                app.seen.append("cleaned up")

        @app.flow.workflow
        async def work() -> None:
            await endless()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            await until(lambda: app.seen)
            await handle.cancel("changed my mind")
            with pytest.raises(RunCancelledError, match="changed my mind"):
                await handle.result()
            assert app.seen == ["began", "cleaned up"]
            assert await app.types(handle.id) == ["Started", "RunCancelled"]
            wish = (await app.log.read(f"$inbox.{handle.id}"))[0]
            assert (await app.entries(handle.id))[-1].message == wish.position  # type: ignore[union-attr]
            await handle.cancel("again")
            assert (await handle.status()).state == "cancelled"

    run(scenario())


def test_record_start_makes_starts_durable(tmp_path: Path) -> None:
    """With ``record_start`` the start is on record before the work begins."""

    def declare(app: App) -> None:
        @app.flow.step(record_start=True)
        async def careful() -> list[str]:
            here = app.flow.current_run()
            assert here is not None
            return await app.types(here.run_id)

        @app.flow.workflow
        async def work() -> list[str]:
            return await careful()

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == ["Started", "StepStarted"]
            _started, begun, completed, _end = await app.entries(handle.id)
            assert isinstance(begun, StepStarted)
            assert isinstance(completed, StepCompleted)
            assert (begun.key, begun.attempt) == (completed.key, completed.attempt)

    run(scenario())


def test_outside_of_a_workflow_all_is_ordinary(tmp_path: Path) -> None:
    """Steps, gather, map and sleep can be used anywhere; nothing is recorded then."""

    def declare(app: App) -> None:
        @app.flow.step
        def double(number: int) -> int:
            return number * 2

        @app.flow.workflow
        async def work(number: int) -> int:
            await app.flow.sleep(0.001)
            return sum(await app.flow.map(double, [number, 1])) + sum(await app.flow.gather(double(2), double(3)))

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            assert await app.work(4) == 20
            assert await app.log.read("$run.>") == []

    run(scenario())


def test_an_event_starts_exactly_one_run(tmp_path: Path) -> None:
    """A workflow on a pattern has one run an event, named after the event's position; a value that does not fit is a
    dead letter.
    """

    def declare(app: App) -> None:
        @app.flow.workflow(on="orders.*", name="fulfil")
        async def fulfil(order: Order) -> int:
            return order.id

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            position = await app.bus.publish("orders.created", Order(3, ()), about=["order:3"])
            handle = app.flow.handle(f"fulfil@{position}")
            await until(lambda: app.log.last(f"$run.{handle.id}"))
            assert await handle.result() == 3
            summary = await handle.status()
            assert (summary.about, summary.trigger.position) == (("order:3",), position)  # type: ignore[union-attr]
            await app.bus.publish("orders.created", "no order")
            letter: Any = await until(lambda: app.log.last("$dead.workflow.fulfil"))
            assert b"does not fit" in letter.value

    run(scenario())


def test_a_run_starts_others_once(tmp_path: Path) -> None:
    """A run started from within a run has an id that follows from the place of the call."""

    def declare(app: App) -> None:
        @app.flow.workflow
        async def child(number: int) -> int:
            return number

        @app.flow.workflow
        async def parent() -> list[str]:
            return [(await child.start(number)).id for number in range(2)]

        app.parent = parent

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            ids = await (await app.parent.start(id="p")).result()
            assert len(set(ids)) == 2
            assert [await app.flow.handle(one).result() for one in ids] == [0, 1]

    run(scenario())


def test_not_started_is_said_with_the_line_that_starts(tmp_path: Path) -> None:
    """Starting a run of an application that does not run shows the lifespan line; an unknown run is not found."""

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> None:
            return None

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            with pytest.raises(RunNotFoundError):
                await app.flow.handle("nobody").result()
        with pytest.raises(FlowNotStartedError, match=r"lifespan=ms\.lifespan"):
            await app.work.start()

    run(scenario())


def test_map_is_bounded(tmp_path: Path) -> None:
    """``max_concurrency`` is never exceeded, results come in the order of the items, and the time in the queue is on
    record.
    """
    now: set[int] = set()
    most: list[int] = []

    def declare(app: App) -> None:
        @app.flow.step
        async def work_on(number: int) -> int:
            now.add(number)
            most.append(len(now))
            await asyncio.sleep(0)
            now.discard(number)
            return number * 10

        @app.flow.workflow
        async def work() -> list[int]:
            return await app.flow.map(work_on, range(20), max_concurrency=3)

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start()
            assert await handle.result() == [number * 10 for number in range(20)]
            assert max(most) == 3
            done = [entry for entry in await app.entries(handle.id) if isinstance(entry, StepCompleted)]
            waited = {entry.key: entry.waited_ns for entry in done}
            assert waited["map#1[0]/work_on#1"] == 0
            assert waited["map#1[19]/work_on#1"] > 0

    run(scenario())
