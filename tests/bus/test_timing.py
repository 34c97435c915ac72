"""When a group tries again and when its cursor is saved, with the clock and the log held by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.codec import decode
from mainstem.bus import Bus, Event, Retry
from mainstem.bus.cursors import CursorRecord
from mainstem.log import EmbeddedLog, open_log
from mainstem.log.contract import Append
from mainstem.testing import SimulatedClock
from tests.bus.test_bus import running
from tests.support import run, until


class Held:
    """A group of one place: each event but the value 0 fails once, and 0 keeps the place until it is released."""

    def __init__(self) -> None:
        self.clock = SimulatedClock()
        self.attempts: list[int] = []
        self.release = asyncio.Event()
        self.bus = Bus(self.clock)
        retry = Retry(base_s=10.0, max_s=10.0, jitter=0.0)
        self.bus.subscribe("a", group="g", concurrency=1, retry=retry)(self._handle)

    async def _handle(self, event: Event[int]) -> None:
        self.attempts.append(event.value)
        if event.value == 0:
            await self.release.wait()
        elif event.attempt == 1:
            raise OSError("once")

    async def publish(self, value: int) -> None:
        """Publish an event, and wait until its first attempt has failed or keeps the place."""
        retrying = self.bus.groups()[0].retrying
        await self.bus.publish("a", value)
        await until(lambda: value in self.attempts and self.bus.groups()[0].retrying == retrying + (value != 0))

    @asynccontextmanager
    async def running(self, directory: Path) -> AsyncIterator[None]:
        """Run it on a log."""
        log = await open_log(directory / "log", clock=self.clock)
        await self.bus.start(log)
        try:
            yield
        finally:
            await self.bus.stop(grace_s=0.0)
            await log.close()


def test_a_due_retry_is_not_forgotten_on_a_quiet_stream(tmp_path: Path) -> None:
    """A retry that finds no free place when it is due gets the one that is given back, though nothing else happens."""

    async def scenario() -> None:
        held = Held()
        async with held.running(tmp_path):
            for value in (1, 2, 0):
                await held.publish(value)
            await held.clock.run_for(11)  # both are due by then
            assert held.attempts == [1, 2, 0]
            held.release.set()
            await until(lambda: held.attempts == [1, 2, 0, 1, 2])

    run(scenario())


def test_a_retry_behind_one_that_was_held_up_comes_at_its_time(tmp_path: Path) -> None:
    """A due retry found no free place, and got one later; the next one is not forgotten, though nothing else happens.

    The times: 1 is tried again at 10 s, 2 at 15 s; from 6 to 12 s a third event has the only place.
    """

    async def scenario() -> None:
        held = Held()
        async with held.running(tmp_path):
            for value, then_s in ((1, 5), (2, 1), (0, 6)):
                await held.publish(value)
                await held.clock.run_for(then_s)
            assert held.attempts == [1, 2, 0]
            held.release.set()
            await until(lambda: held.attempts == [1, 2, 0, 1] and held.bus.groups()[0].in_flight == 0)
            await held.clock.run_for(2)
            assert held.attempts == [1, 2, 0, 1]
            await held.clock.run_for(2)
            await until(lambda: held.attempts == [1, 2, 0, 1, 2])

    run(scenario())


def test_stopping_saves_what_was_done_during_the_last_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that was done while the cursor was being written is in the cursor that the stop leaves."""
    writing, gate = asyncio.Event(), asyncio.Event()
    together = EmbeddedLog.append_many
    done: list[int] = []

    async def waits(self: EmbeddedLog, appends: Sequence[Append], **options: Any) -> tuple[int, ...]:
        writing.set()
        await gate.wait()
        for _turn in range(20):  # as long as a sync may take: whoever does not wait for the save cancels it here
            await asyncio.sleep(0)
        return await together(self, appends, **options)

    def declare(bus: Bus) -> None:
        @bus.subscribe("a", group="g")
        async def handler(event: Event[int]) -> None:
            done.append(event.position)

    async def scenario() -> None:
        monkeypatch.setattr(EmbeddedLog, "append_many", waits)
        async with running(tmp_path, declare) as (bus, log):
            await bus.publish("a", 1)
            await writing.wait()
            last = await bus.publish("a", 2)
            await until(lambda: last in done and bus.groups()[0].lag == 0)
            stopping = asyncio.create_task(bus.stop(grace_s=5.0))
            gate.set()
            await stopping
            saved: Any = await log.last("$group.g")
            assert decode(saved.value, CursorRecord).position == last

    run(scenario())
