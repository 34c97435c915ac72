"""Promises of the bus, each with code that breaks it: the check passes on the one and fails on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.bus import Bus, Event, Retry
from mainstem.bus.cursors import Cursor, FailedAttempts
from mainstem.bus.lanes import Delivery
from mainstem.host.clock import SystemClock
from mainstem.log import EmbeddedLog, Record, open_log
from mainstem.log.contract import Append
from tests.support import run, until


async def _started(directory: Path, handler: Any, retry: Retry | None = None) -> tuple[Bus, EmbeddedLog]:
    log = await open_log(directory / "log")
    bus = Bus(SystemClock())
    bus.subscribe("s", group="g", start="beginning", retry=retry or Retry(base_s=0.01))(handler)
    await bus.start(log)
    return bus, log


async def an_unfinished_event_comes_again(directory: Path) -> None:
    """An event that was with the handler when the process ended is handled by the next one."""
    seen: list[int] = []

    async def blocks(event: Event[int]) -> None:
        seen.append(event.value)
        if event.value == 1:
            await asyncio.Event().wait()

    async def notes(event: Event[int]) -> None:
        seen.append(event.value)

    bus, log = await _started(directory, blocks)
    await bus.publish("s", 1)
    await bus.publish("s", 2)
    await until(lambda: seen == [1, 2])
    await bus.stop(grace_s=0.0)
    await log.close()
    seen.clear()
    bus, log = await _started(directory, notes)
    try:
        await until(lambda: seen == [1], 2.0)
    finally:
        await bus.stop(grace_s=0.0)
        await log.close()


async def a_key_is_in_order(directory: Path) -> None:
    """An event waits for the one of its key before it, also while that is retried."""
    seen: list[int] = []

    async def notes(event: Event[int]) -> None:
        if event.value == 1 and event.attempt == 1:
            raise OSError("not yet")
        seen.append(event.value)

    bus, log = await _started(directory, notes)
    try:
        for number in (1, 2):
            await bus.publish("s", number, key="k")
        await until(lambda: len(seen) == 2)
        assert seen == [1, 2]
    finally:
        await bus.stop(grace_s=0.0)
        await log.close()


async def another_owner_keeps_its_cursor(directory: Path) -> None:
    """Who lost a group to another process does not overwrite the other's cursor."""
    go = asyncio.Event()

    async def waits(_event: Event[int]) -> None:
        await go.wait()

    bus, log = await _started(directory, waits)
    try:
        await bus.publish("s", 1)
        position = await log.append("$group.g", [Record(b'{"pattern":"s","position":0}')])
        go.set()
        await until(lambda: bus.groups()[0].failure, 2.0)
        last = await log.last("$group.g")
        assert last is not None
        assert last.position == position
    finally:
        await bus.stop(grace_s=0.0)
        await log.close()


async def a_dead_letter_goes_with_the_cursor(directory: Path) -> None:
    """Giving an event up and moving past it are one commit."""

    async def fails(_event: Event[int]) -> None:
        raise ValueError("never")

    bus, log = await _started(directory, fails, Retry(max_attempts=1))
    try:
        await bus.publish("s", 1)
        letter = await until(lambda: log.last("$dead.g"))
        cursors = await log.read("$group.g")
        assert letter.time_ns in [record.time_ns for record in cursors]
    finally:
        await bus.stop(grace_s=0.0)
        await log.close()


async def attempts_are_remembered(directory: Path) -> None:
    """A restart does not begin to count anew."""
    attempts: list[int] = []

    async def fails(event: Event[int]) -> None:
        attempts.append(event.attempt)
        raise OSError("no")

    for _life in range(3):
        bus, log = await _started(directory, fails, Retry(base_s=0.001, max_attempts=1000))
        if not attempts:
            await bus.publish("s", 1)
        before = len(attempts)
        await until(lambda before=before: len(attempts) > before)  # type: ignore[misc]
        await bus.stop(grace_s=1.0)
        await log.close()
    assert attempts == list(range(1, len(attempts) + 1))


def acknowledged_when_read(patch: pytest.MonkeyPatch) -> None:
    """An event counts as done when it was read."""
    take_in = Cursor.take_in

    def finished(self: Cursor, position: int) -> bool:
        todo = take_in(self, position)
        if todo:
            original(self, position)
        return todo

    original = Cursor.finish
    patch.setattr(Cursor, "take_in", finished)
    patch.setattr(Cursor, "finish", lambda _self, _position, dead=False: None)


def keys_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """Events of one key pass each other."""
    patch.setattr(Delivery, "lane", None)


def cursor_without_a_condition(patch: pytest.MonkeyPatch) -> None:
    """A cursor is written whatever is there by then."""
    together = EmbeddedLog.append_many

    async def unconditional(self: EmbeddedLog, appends: Sequence[Append], **options: Any) -> tuple[int, ...]:
        return await together(self, [Append(one.stream, one.records) for one in appends], **options)

    patch.setattr(EmbeddedLog, "append_many", unconditional)


def letters_apart(patch: pytest.MonkeyPatch) -> None:
    """A dead letter is written in a commit of its own."""

    async def apart(self: EmbeddedLog, appends: Sequence[Append], **_options: Any) -> tuple[int, ...]:
        answers = [
            await self.append(one.stream, one.records, expected_position=one.expected_position) for one in appends
        ]
        return tuple(answers)

    patch.setattr(EmbeddedLog, "append_many", apart)


def attempts_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Failed attempts are not part of the cursor."""

    def forget(_self: Cursor, _position: int, _attempts: FailedAttempts) -> None:
        return None

    patch.setattr(Cursor, "fail", forget)


Check = Callable[[Path], Coroutine[Any, Any, None]]
Mutant = Callable[[pytest.MonkeyPatch], None]

PROMISES: list[tuple[Check, Mutant]] = [
    (an_unfinished_event_comes_again, acknowledged_when_read),
    (a_key_is_in_order, keys_are_ignored),
    (another_owner_keeps_its_cursor, cursor_without_a_condition),
    (a_dead_letter_goes_with_the_cursor, letters_apart),
    (attempts_are_remembered, attempts_forgotten),
]
"""What is promised, and what breaks it."""


@pytest.mark.parametrize("check", [check for check, _mutant in PROMISES], ids=lambda check: check.__name__)
def test_the_promise_holds(check: Check, tmp_path: Path) -> None:
    """The code as it is keeps the promise."""
    run(check(tmp_path))


@pytest.mark.parametrize(("check", "mutant"), PROMISES, ids=lambda one: one.__name__)
def test_the_mutant_is_caught(check: Check, mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check finds out when the promise is broken."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        run(check(tmp_path))
