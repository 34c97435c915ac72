"""Promises of the workflows, each with code that breaks it: the check passes on the one and fails on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import RunFencedError
from mainstem.flow.branch import Branch
from mainstem.flow.steps import Carrying
from mainstem.flow.writer import RunJournal
from mainstem.log import EmbeddedLog, Record
from mainstem.log.contract import Append
from tests.flow.support import App, running
from tests.support import run, until

_place: ContextVar[int] = ContextVar("place")


async def branches_keep_their_results(directory: Path) -> None:
    """Whichever branch was faster in which life, each gets its own results on replay."""
    life: dict[str, Any] = {"turns": [6, 0, 3], "blocked": True}

    def declare(app: App) -> None:
        @app.flow.step
        async def tag() -> int:
            return _place.get()

        async def branch(index: int) -> list[int]:
            _place.set(index)
            results = []
            for _call in range(2):
                for _turn in range(life["turns"][index]):
                    await asyncio.sleep(0)
                results.append(await tag())
            return results

        @app.flow.step
        async def last() -> None:
            app.seen.append("last")
            if life["blocked"]:
                await asyncio.Event().wait()

        @app.flow.workflow
        async def work() -> list[list[int]]:
            results = await app.flow.map(branch, [0, 1, 2])
            await last()
            return results

        app.work = work

    async with running(directory, declare) as app:
        await app.work.start(id="r")
        await until(lambda: app.seen)
        await app.crash()
    life["turns"], life["blocked"] = [0, 6, 3], False
    async with running(directory, declare) as app:
        assert await app.flow.handle("r").result(timeout_s=5) == [[0, 0], [1, 1], [2, 2]]


async def a_result_is_durable_before_it_is_seen(directory: Path) -> None:
    """While the disk has not taken a step's result, the workflow does not go on."""

    def declare(app: App) -> None:
        @app.flow.step
        async def first() -> int:
            return 1

        @app.flow.workflow
        async def work() -> int:
            result = await first()
            app.seen.append([record.value for record in await app.log.read("$run.r")])
            return result

        app.work = work

    async with running(directory, declare) as app:
        handle = await app.work.start(id="r")
        assert await handle.result(timeout_s=5) == 1
        assert b"step_completed" in app.seen[0][-1]


async def a_second_writer_is_noticed(directory: Path) -> None:
    """When something else wrote to a run's journal, the run stops, and writes nothing more."""

    def declare(app: App) -> None:
        app.go = asyncio.Event()

        @app.flow.step
        async def waits() -> None:
            app.seen.append("began")
            await app.go.wait()

        @app.flow.workflow
        async def work() -> str:
            await waits()
            return "finished"

        app.work = work

    async with running(directory, declare) as app:
        handle = await app.work.start(id="r")
        result = asyncio.create_task(handle.result(timeout_s=5))
        await until(lambda: app.seen)
        await app.log.append("$run.r", [Record(b'{"type":"claimed","process":"1@1","claim":1}')])
        app.go.set()
        await asyncio.wait([result])
        assert isinstance(result.exception(), RunFencedError)
        assert await app.types("r") == ["Started", "Claimed"]


async def an_event_is_in_its_runs_commit(directory: Path) -> None:
    """A run's event and the run's record of it are one commit."""

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> None:
            await app.bus.publish("a", 1)

        app.work = work

    async with running(directory, declare) as app:
        handle = await app.work.start(id="r")
        await handle.result(timeout_s=5)
        event = (await app.log.read("a"))[0]
        _started, published, _completed = await app.log.read("$run.r")
        assert event.time_ns == published.time_ns, "two commits: one could be there without the other"


async def the_first_attempt_is_the_first(directory: Path) -> None:
    """A step that may have been under way when a process died is never told that this is its first attempt."""
    life = {"blocked": True}
    attempts: list[int] = []

    def declare(app: App) -> None:
        @app.flow.step
        async def waits() -> None:
            attempts.append(app.flow.current_run().attempt)  # type: ignore[union-attr]
            if life["blocked"]:
                await asyncio.Event().wait()

        @app.flow.workflow
        async def work() -> None:
            await app.flow.gather(waits(), waits())

        app.work = work

    async with running(directory, declare) as app:
        await app.work.start(id="r")
        await until(lambda: len(attempts) == 2)
        await app.crash()
    life["blocked"] = False
    async with running(directory, declare) as app:
        await app.flow.handle("r").result(timeout_s=5)
        assert attempts == [1, 1, 2, 2]


def counted_over_the_whole_run(patch: pytest.MonkeyPatch) -> None:
    """Calls are numbered over all branches, in the order in which they happen."""
    counts: dict[tuple[object, str], int] = {}

    def take(self: Branch, name: str) -> str:
        count = counts[self.run, name] = counts.get((self.run, name), 0) + 1
        for here in self.run.uncalled.values():
            here.discard(f"{name}#{count}")
        return f"{name}#{count}"

    patch.setattr(Branch, "take", take)


def acknowledged_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    """A step's result is given to the workflow when its record was handed over, not when it is durable."""
    put = RunJournal.put

    def early(self: RunJournal, value: bytes) -> asyncio.Future[int]:
        waiter = put(self, value)
        if b'"step_completed"' in value:
            waiter.set_result(0)
        return waiter

    patch.setattr(RunJournal, "put", early)


def appended_without_a_condition(patch: pytest.MonkeyPatch) -> None:
    """A run's records are appended wherever the journal is by then."""
    append = EmbeddedLog.append

    async def unconditional(self: EmbeddedLog, stream: str, records: Sequence[Record], **options: Any) -> int:
        if stream.startswith("$run.") and options.get("expected_position"):
            options["expected_position"] = None
        return await append(self, stream, records, **options)

    patch.setattr(EmbeddedLog, "append", unconditional)


def published_beside_the_run(patch: pytest.MonkeyPatch) -> None:
    """An event is written in a commit of its own, before the run's record of it."""

    async def apart(self: EmbeddedLog, appends: Sequence[Append], **_options: Any) -> tuple[int, ...]:
        answers = [
            await self.append(one.stream, one.records, expected_position=one.expected_position) for one in appends
        ]
        return tuple(answers)

    patch.setattr(EmbeddedLog, "append_many", apart)


def claims_do_not_count(patch: pytest.MonkeyPatch) -> None:
    """After a takeover attempts are numbered as if nobody had tried before."""
    first = Carrying._first_attempt

    def fresh(self: Carrying, past: Any, passed: int) -> int:
        return first(self, past, self._run.claims)

    patch.setattr(Carrying, "_first_attempt", fresh)


Check = Callable[[Path], Awaitable[None]]
Mutant = Callable[[pytest.MonkeyPatch], None]

PROMISES: list[tuple[Check, Mutant]] = [
    (branches_keep_their_results, counted_over_the_whole_run),
    (a_result_is_durable_before_it_is_seen, acknowledged_before_the_sync),
    (a_second_writer_is_noticed, appended_without_a_condition),
    (an_event_is_in_its_runs_commit, published_beside_the_run),
    (the_first_attempt_is_the_first, claims_do_not_count),
]
"""What is promised, and what breaks it."""


@pytest.mark.parametrize("check", [check for check, _mutant in PROMISES], ids=lambda check: check.__name__)
def test_the_promise_holds(check: Check, tmp_path: Path) -> None:
    """The code as it is keeps the promise."""
    run(_as_coroutine(check(tmp_path)))


@pytest.mark.parametrize(("check", "mutant"), PROMISES, ids=lambda one: one.__name__)
def test_the_mutant_is_caught(check: Check, mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check finds out when the promise is broken."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run(_as_coroutine(check(tmp_path)))


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
