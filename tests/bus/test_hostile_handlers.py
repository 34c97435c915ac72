"""Handlers that do what they should not: nobody else pays for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.codec import decode
from mainstem.bus import Bus, DeadLetter, Event, Retry
from mainstem.log import Record
from tests.bus.test_bus import running
from tests.support import run, until

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def test_a_handler_that_raises_cancelled_error_keeps_no_place(tmp_path: Path) -> None:
    """A cancellation of the handler's own making is a failed attempt: a dead letter, and the next event is handled."""
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", concurrency=1, retry=Retry(max_attempts=1))
        async def handler(event: Event[int]) -> None:
            if event.value == 1:
                gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                gone.cancel()
                await gone
            seen.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await bus.publish("a", 1, key="k")
            await bus.publish("a", 2, key="k")
            await until(lambda: seen == [2])
            letters = await log.read("$dead.g")
            assert "CancelledError" in decode(letters[0].value, DeadLetter).error

    run(scenario())


class Abort(BaseException):
    """What no ``except Exception`` catches."""


def _abort(event: Event[int]) -> None:
    raise Abort("enough")


async def _abort_soon(event: Event[int]) -> None:
    raise Abort("enough")


def _exit(event: Event[int]) -> None:
    sys.exit(4)


async def _exit_soon(event: Event[int]) -> None:
    sys.exit(4)


@pytest.mark.parametrize(
    ("break_off", "words"),
    [
        (_abort, "the handler raised Abort: enough"),
        (_abort_soon, "the handler raised Abort: enough"),
        (_exit, "the function raised SystemExit: 4"),  # in its thread
        (_exit_soon, "the handler raised SystemExit: 4"),
    ],
)
def test_what_is_no_exception_is_a_failed_attempt(tmp_path: Path, break_off: Any, words: str) -> None:
    """A handler that raises a ``BaseException``, ``sys.exit()`` too, fails like any other: it is tried again, ends in a
    dead letter, keeps no place and ends no process.
    """
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        bus.subscribe("bad", group="bad", concurrency=1, retry=Retry(max_attempts=2, base_s=0.0))(break_off)

        @bus.subscribe("good", group="good")
        async def handler(event: Event[int]) -> None:
            seen.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            for number in range(3):
                await bus.publish("bad", number)
            await until(lambda: bus.groups()[0].dead == 3)
            assert (bus.groups()[0].in_flight, bus.groups()[0].failure) == (0, "")
            letter = decode((await until(lambda: log.last("$dead.bad"))).value, DeadLetter)
            assert (letter.attempts, letter.error_type) == (2, "RuntimeError")
            assert letter.error == words
            await bus.publish("good", 1)
            await until(lambda: seen == [1])

    run(scenario())


def test_a_handler_that_heeds_no_cancel_is_left_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping ends though a handler goes on; its event is not done, and the next start hands it out again."""
    monkeypatch.setattr("mainstem.bus.group._SETTLE_S", 0.05)
    release = asyncio.Event()
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g")
        async def handler(event: Event[int]) -> None:
            seen.append(event.attempt)
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    logging.getLogger("stubborn").info("not yet")

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, _log):
            await bus.publish("a", 1)
            await until(lambda: seen)
            async with asyncio.timeout(10):
                await bus.stop(grace_s=0.0)
            assert "is left behind" in caplog.text
        release.set()
        async with running(tmp_path, declare) as (_bus, _log):
            await until(lambda: seen == [1, 1])

    run(scenario())


def test_a_group_whose_own_task_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw while an event is given up stops the group, with the reason: it does not freeze."""

    def broken(*_arguments: Any) -> Record:
        raise ZeroDivisionError("unforeseen")

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", retry=Retry(max_attempts=1))
        async def handler(event: Event[int]) -> None:
            raise ValueError("no")

    async def scenario() -> None:
        monkeypatch.setattr("mainstem.bus.group.letter_record", broken)
        async with running(tmp_path, declare) as (bus, _log):
            await bus.publish("a", 1)
            await until(lambda: bus.groups()[0].failure == "ZeroDivisionError: unforeseen")

    run(scenario())


def test_an_error_that_cannot_be_written_is_a_dead_letter_all_the_same(tmp_path: Path) -> None:
    """A message with a lone surrogate, or one that cannot be had at all, neither loses the event nor blocks its key."""

    class RudeError(Exception):
        def __str__(self) -> str:
            raise ValueError("no")

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", concurrency=1, retry=Retry(max_attempts=1))
        async def handler(event: Event[int]) -> None:
            raise ValueError("\udcff") if event.value == 1 else RudeError

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await bus.publish("a", 1)
            await bus.publish("a", 2)
            await until(lambda: bus.groups()[0].dead == 2)
            await until(lambda: bus.groups()[0].lag == 0)
        errors = []
        async with running(tmp_path, declare) as (bus, log):
            errors = [decode(record.value, DeadLetter).error for record in await log.read("$dead.g")]
        assert errors[0] == "\\udcff" and "cannot be shown" in errors[1]

    run(scenario())


def test_what_a_handler_sets_in_its_context_ends_with_it(tmp_path: Path) -> None:
    """A context variable that one event's handler sets is not seen by the next event's."""
    seen: list[str] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", concurrency=1)
        async def handler(event: Event[int]) -> None:
            seen.append(tenant.get())
            tenant.set(f"tenant of {event.value}")

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, _log):
            for number in range(3):
                await bus.publish("a", number)
            await until(lambda: len(seen) == 3)

    run(scenario())
    assert seen == ["nobody"] * 3


def test_handlers_that_wait_do_not_hold_up_the_log(tmp_path: Path) -> None:
    """With many plain handlers waiting, the log still rolls to new segments and reads from disk."""
    release = threading.Event()
    entered: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", concurrency=32)
        def handler(event: Event[Any]) -> None:
            entered.append(event.position)
            release.wait(30)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            for number in range(32):
                await bus.publish("a", number)
            await until(lambda: len(entered) == 32)
            for _ in range(6):
                await log.append("b", [Record(bytes(1 << 20))])
            assert (await log.stats()).segment_count > 1
            release.set()

    run(scenario())


def test_one_event_that_waits_does_not_make_the_cursor_grow(tmp_path: Path) -> None:
    """While one event waits for its retry and thousands behind it are done, the cursor's record stays small."""
    done: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g", concurrency=64, retry=Retry(max_attempts=9, base_s=60.0, max_s=60.0))
        async def handler(event: Event[int]) -> None:
            if event.value == 0:
                raise RuntimeError("later")
            done.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            for first in range(0, 3000, 500):
                await asyncio.gather(*(bus.publish("a", number) for number in range(first, first + 500)))
            await until(lambda: len(done) == 2999)
            await until(lambda: bus.groups()[0].lag == 1)
            last = await log.last("$group.g")
            assert last is not None and len(last.value) < 500

    run(scenario())
