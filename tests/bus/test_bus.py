"""Publish and subscribe: order, retries, dead letters, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.codec import decode
from mainstem.base.errors import InvalidArgumentError
from mainstem.bus import (
    Bus,
    BusNotStartedError,
    DeadLetter,
    DuplicateGroupError,
    Event,
    GroupFencedError,
    Retry,
    SubscribedTooLateError,
)
from mainstem.bus.cursors import Cursor, CursorRecord
from mainstem.host.clock import SystemClock
from mainstem.log import EmbeddedLog, Record, open_log
from mainstem.trace.context import current_trace, new_trace, use_trace
from tests.support import run, until


@dataclass
class Order:
    """An event's value."""

    id: int


@asynccontextmanager
async def running(directory: Path, declare: Callable[[Bus], object]) -> AsyncIterator[tuple[Bus, EmbeddedLog]]:
    """Run a bus on a log."""
    log = await open_log(directory / "log")
    bus = Bus(SystemClock())
    declare(bus)
    try:
        await bus.start(log)
        yield bus, log
    finally:
        await bus.stop(grace_s=0.5)
        await log.close()


def test_events_arrive_typed_and_traced(tmp_path: Path) -> None:
    """A handler gets the value by annotation, under a span below the publisher's; entities and key come along."""
    seen: list[Any] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("orders.*", group="audit")
        async def audit(event: Event[Order]) -> None:
            seen.append((event, current_trace()))

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, _log):
            trace = new_trace()
            with use_trace(trace):
                position = await bus.publish("orders.created", Order(1), key="k", about=["order:1"])
            await until(lambda: seen)
            event, inside = seen[0]
            assert event.value == Order(1)
            assert (event.position, event.key, event.about, event.attempt) == (position, "k", ("order:1",), 1)
            assert inside.trace_id == trace.trace_id
            assert inside.span_id != trace.span_id

    run(scenario())


def test_a_failing_event_holds_back_its_key_only(tmp_path: Path) -> None:
    """Order holds within a key, also through retries; other keys go on meanwhile."""
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g", retry=Retry(base_s=0.02, jitter=0))
        async def handle(event: Event[int]) -> None:
            if event.value == 1 and event.attempt < 3:
                raise OSError("not yet")
            seen.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, _log):
            for number, key in ((1, "a"), (2, "a"), (3, "b"), (4, "")):
                await bus.publish("s", number, key=key)
            await until(lambda: len(seen) == 4)
            assert seen.index(1) < seen.index(2)
            assert seen.index(3) < seen.index(1)
            assert seen.index(4) < seen.index(1)

    run(scenario())


def test_after_the_last_attempt_a_dead_letter(tmp_path: Path) -> None:
    """The letter is in the same commit as the cursor, and says what failed; the key goes on."""
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g", retry=Retry(max_attempts=2, base_s=0.0))
        def handle(event: Event[int]) -> None:
            if event.value == 1:
                raise ValueError("never")
            seen.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            position = await bus.publish("s", 1, key="k")
            await bus.publish("s", 2, key="k")
            await until(lambda: seen == [2])
            record = await until(lambda: log.last("$dead.g"))
            letter = decode(record.value, DeadLetter)
            assert (letter.position, letter.attempts, letter.error_type, letter.error) == (
                position,
                2,
                "ValueError",
                "never",
            )
            cursors = {r.position: decode(r.value, CursorRecord) for r in await log.read("$group.g")}
            assert cursors[record.position - 1].dead == 1
            assert bus.groups()[0].dead == 1

    run(scenario())


def test_a_value_that_does_not_fit_is_not_retried(tmp_path: Path) -> None:
    """An event that cannot be decoded is a dead letter at once; bytes that are no JSON, too."""

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g")
        async def handle(event: Event[Order]) -> None:
            raise AssertionError(event)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await bus.publish("s", "text")
            await log.append("s", [Record(b"\xff")])
            await until(lambda: bus.groups()[0].dead == 2)
            await until(lambda: _letters(log, 2))
            assert [letter.attempts for letter in await _letters(log, 2)] == [1, 1]

    async def _letters(log: EmbeddedLog, count: int) -> list[DeadLetter]:
        letters = [decode(record.value, DeadLetter) for record in await log.read("$dead.g")]
        return letters if len(letters) == count else []

    run(scenario())


def test_a_restart_loses_and_repeats_nothing_that_was_saved(tmp_path: Path) -> None:
    """What was done is not handled again; what was not, is; attempts are counted on."""
    seen: list[tuple[int, int]] = []
    life = {"failing": True}

    def declare(bus: Bus) -> None:
        @bus.subscribe(
            "s",
            group="g",
            start="beginning",
            retry=Retry(base_s=0.0, max_attempts=1000)
            if not life["failing"]
            else Retry(base_s=30.0, max_attempts=1000, jitter=0),
        )
        async def handle(event: Event[int]) -> None:
            seen.append((event.value, event.attempt))
            if event.value == 1 and life["failing"]:
                raise OSError("no")

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            for number in range(3):
                await bus.publish("s", number)
            await until(lambda: len(seen) == 3)
            assert bus.groups()[0].retrying == 1
        log = await open_log(tmp_path / "log")
        saved = decode((await log.last("$group.g")).value, CursorRecord)  # type: ignore[union-attr]
        assert len(saved.done) == 1
        assert next(iter(saved.attempts.values())).failed == 1
        # As if half a minute had passed: the time of the next attempt is on record.
        await log.append("$group.g", [Record(_due(saved))])
        await log.close()
        life["failing"] = False
        seen.clear()
        async with running(tmp_path, declare) as (bus, _log):
            await until(lambda: seen)
            await until(lambda: bus.groups()[0].lag == 0)
            assert seen == [(1, 2)]

    def _due(saved: CursorRecord) -> bytes:
        from mainstem.base.codec import encode
        from mainstem.bus import FailedAttempts

        return encode(
            CursorRecord(
                saved.pattern,
                saved.position,
                saved.done,
                {position: FailedAttempts(1, 1) for position in saved.attempts},
            )
        )

    run(scenario())


def test_new_groups_begin_at_the_end_or_at_the_beginning(tmp_path: Path) -> None:
    """Where a group begins is durable before ``start`` returns: what is published afterwards is never missed."""
    new: list[int] = []
    all_: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="new")
        async def from_now(event: Event[int]) -> None:
            new.append(event.value)

        @bus.subscribe("s", group="all", start="beginning")
        async def from_the_beginning(event: Event[int]) -> None:
            all_.append(event.value)

    async def scenario() -> None:
        log = await open_log(tmp_path / "log")
        await log.append("s", [Record(b"1")])
        await log.close()
        async with running(tmp_path, declare) as (bus, _log):
            await bus.publish("s", 2)
            await until(lambda: new == [2] and all_ == [1, 2])

    run(scenario())


def test_wildcards_do_not_see_the_system(tmp_path: Path) -> None:
    """A pattern that begins with a wildcard matches no ``$`` stream; the system's streams cannot be published to."""
    seen: list[str] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe(">", group="all")
        async def handle(event: Event[Any]) -> None:
            seen.append(event.stream)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await log.append("$mine.x", [Record(b"1")])
            await bus.publish("a", 1)
            await until(lambda: seen)
            assert seen == ["a"]
            with pytest.raises(InvalidArgumentError, match="system's own"):
                await bus.publish("$run.x", 1)

    run(scenario())


def test_a_second_owner_is_fenced(tmp_path: Path) -> None:
    """When something else moves the cursor, the group stops and says so; the other one's cursor stays."""
    go = asyncio.Event()

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g")
        async def handle(event: Event[int]) -> None:
            await go.wait()

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await bus.publish("s", 1)
            position = await log.append("$group.g", [Record(b'{"pattern":"s","position":0}')])
            go.set()
            await until(lambda: bus.groups()[0].failure)
            failure = bus.groups()[0].failure
            assert failure.startswith(GroupFencedError.__name__)
            assert "Another process owns the group" in failure
            assert (await log.last("$group.g")).position == position  # type: ignore[union-attr]

    run(scenario())


def test_concurrency_and_read_ahead_are_bounded(tmp_path: Path) -> None:
    """No more handlers than allowed run at once, and a busy group does not read without end; its lag tells."""
    running_now: list[int] = []
    most: list[int] = []
    go = asyncio.Event()

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g", concurrency=3)
        async def handle(event: Event[int]) -> None:
            running_now.append(event.value)
            most.append(len(running_now))
            await go.wait()
            running_now.remove(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await log.append("s", [Record(b"%d" % number) for number in range(1500)])
            await until(lambda: bus.groups()[0].lag >= 1500)
            assert bus.groups()[0].in_flight == 3
            go.set()
            await until(lambda: bus.groups()[0].lag == 0, 20.0)
            assert max(most) == 3
            assert len(most) == 1500

    run(scenario())


def test_read_ahead_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those with its handler a group holds few large events: it reads on when one of them is handed out."""
    monkeypatch.setattr("mainstem.bus.group.READ_AHEAD_BYTES", 200_000)
    taken_in: list[int] = []
    done: list[int] = []
    go = asyncio.Semaphore(0)
    take_in = Cursor.take_in

    def noted(self: Cursor, position: int) -> bool:
        taken_in.append(position)
        return take_in(self, position)

    def declare(bus: Bus) -> None:
        @bus.subscribe("s", group="g", concurrency=2)
        async def handle(event: Event[str]) -> None:
            await go.acquire()
            done.append(event.position)

    async def scenario() -> None:
        monkeypatch.setattr(Cursor, "take_in", noted)
        async with running(tmp_path, declare) as (bus, log):
            for _number in range(20):
                await log.append("s", [Record(b'"' + b"x" * 100_000 + b'"')])
            await until(lambda: bus.groups()[0].lag >= 20)  # it knows of those that it does not read
            assert (bus.groups()[0].in_flight, len(taken_in)) == (2, 4)
            go.release()
            await until(lambda: len(done) == 1 and len(taken_in) == 5)
            for _event in range(19):
                go.release()
            await until(lambda: sorted(done) == taken_in and len(done) == 20)
            assert bus.groups()[0].lag == 0

    run(scenario())


def test_declarations_are_checked(tmp_path: Path) -> None:
    """One handler a group, an event as its parameter, before the start; publishing needs a running application."""

    async def scenario() -> None:
        bus = Bus(SystemClock())

        async def handle(event: Event[int]) -> None:
            return None

        async def wrong(event: int) -> None:
            return None

        with pytest.raises(BusNotStartedError, match="lifespan"):
            await bus.publish("a", 1)
        bus.subscribe("a", group="g")(handle)
        with pytest.raises(DuplicateGroupError):
            bus.subscribe("b", group="g")(handle)
        with pytest.raises(InvalidArgumentError):
            bus.subscribe("a b", group="h")(handle)
        bus.subscribe("a", group="w")(wrong)  # type: ignore[type-var]
        log = await open_log(tmp_path / "log")
        with pytest.raises(InvalidArgumentError, match=r"Event\[int\]"):
            await bus.start(log)
        async with running(tmp_path / "other", lambda _bus: None) as (other, _log):
            with pytest.raises(SubscribedTooLateError):
                other.subscribe("a", group="late")(handle)
        await log.close()

    run(scenario())
