"""What the log does not take: nothing of a run is lost without a word, and the run ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.bus.events import HEADERS_MAX_BYTES
from mainstem.flow import RunFailedError
from mainstem.flow.journal import LOG_LINES_PREFIX, LogLine, Published, Rested
from mainstem.flow.run import encode_entry
from mainstem.flow.writer import JournalLimits, RunJournal
from mainstem.host.clock import SystemClock
from mainstem.log import Record
from mainstem.log.contract import Append
from tests.flow.support import App, running
from tests.support import run


@pytest.mark.parametrize(
    "headers",
    [
        {"retries": 5},
        {5: "retries"},
        {"name": "\udcff"},
        {"\udcff": "name"},
        {"long": "x" * HEADERS_MAX_BYTES},
        "ab",
        7,
    ],
)
def test_headers_that_no_record_can_have(tmp_path: Path, headers: Any) -> None:
    """A header that is no text is refused where the event is published, and costs no other event."""

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work() -> str:
            await app.bus.publish("orders.paid", 1)
            with pytest.raises(InvalidArgumentError, match=r"headers.*Nothing was published"):
                await app.bus.publish("audit.seen", 2, headers=headers)
            await app.bus.publish("orders.sent", 3)
            return "done"

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(id="r")
            assert await handle.result(timeout_s=10) == "done"
            assert [record.value for record in await app.log.read("orders.*")] == [b"1", b"3"]
            with pytest.raises(InvalidArgumentError, match="headers"):
                await app.bus.publish("audit.seen", 2, headers=headers)

    run(scenario())


def test_many_events_at_once_go_in_several_commits(tmp_path: Path) -> None:
    """Keys, headers and the run's own records count for what a commit holds: 16 MiB are never asked for too much."""

    def declare(app: App) -> None:
        @app.flow.workflow
        async def work(count: int) -> int:
            headers = {"note": "n" * 2000}
            for index in range(count):
                await app.bus.publish("out.made", "x" * 700, key=f"{index}" * 100, headers=headers, about=["order:1"])
            return count

        app.work = work

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            handle = await app.work.start(6000, id="r", about=["order:1234", "customer:12345678"])
            assert await handle.result(timeout_s=30) == 6000
            assert await _count(app, "out.made") == 6000
            assert await _count(app, "$run.r") == 6002

    run(scenario())


async def _count(app: App, stream: str) -> int:
    count = after = 0
    while batch := await app.log.read(stream, after, 65_536):
        count, after = count + len(batch), batch[-1].position
    return count


class _Refusing:
    """A log that refuses what holds a certain text."""

    def __init__(self, log: Any, text: bytes, error: Exception) -> None:
        self._log = log
        self._text = text
        self._error = error
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def _look_at(self, appends: Sequence[tuple[str, Sequence[Record]]]) -> None:
        records = [record for _stream, records in appends for record in records]
        self.seen.append(len(records))
        if any(self._text in record.value for record in records):
            raise self._error

    def append_now(self, stream: str, records: Sequence[Record], **options: Any) -> int | None:
        self._look_at([(stream, records)])
        return self._log.append_now(stream, records, **options)  # type: ignore[no-any-return]

    async def append(self, stream: str, records: Sequence[Record], **options: Any) -> int:
        self._look_at([(stream, records)])
        return await self._log.append(stream, records, **options)  # type: ignore[no-any-return]

    async def append_many(self, appends: Sequence[Append], **options: Any) -> tuple[int, ...]:
        self._look_at([(one.stream, one.records) for one in appends])
        return await self._log.append_many(appends, **options)  # type: ignore[no-any-return]


def _declare_three(app: App) -> None:
    @app.flow.step
    async def step(value: str) -> str:
        app.seen.append(value)
        return value

    @app.flow.workflow
    async def by_step() -> None:
        await step("poison")
        await step("after")

    @app.flow.workflow
    async def by_event() -> str:
        await app.bus.publish("out.a", "poison")
        await app.bus.publish("out.b", 2)
        return "done"

    @app.flow.workflow
    async def by_event_amidst() -> str:
        await app.bus.publish("out.a", "poison")
        for _turn in range(20):
            await asyncio.sleep(0)
        await app.bus.publish("out.b", 2)
        return "done"

    @app.flow.workflow
    async def by_result() -> str:
        return "poison"

    app.by_step, app.by_event, app.by_event_amidst, app.by_result = by_step, by_event, by_event_amidst, by_result


@pytest.mark.parametrize("name", ["by_step", "by_event", "by_event_amidst", "by_result"])
def test_what_the_log_refuses_fails_the_run(tmp_path: Path, name: str) -> None:
    """A record that the log does not take ends its run as failed, with the log's words; nothing behind it is
    written.
    """

    async def scenario() -> None:
        async with running(tmp_path, _declare_three) as app:
            app.engine.log = _Refusing(app.log, b'"poison"', InvalidArgumentError("no poison, please"))
            handle = await getattr(app, name).start(id="r")
            with pytest.raises(RunFailedError, match="no poison, please"):
                await handle.result(timeout_s=10)
            assert await app.types("r") == ["Started", "RunFailed"]
            assert await app.log.read("out.*") == []
            assert "after" not in app.seen
            assert not app.engine.runs

    run(scenario())


def test_a_fault_below_lets_nobody_wait(tmp_path: Path) -> None:
    """Whatever the log raises, the run does not go on as if its records were there."""

    async def scenario() -> None:
        async with running(tmp_path, _declare_three) as app:
            app.engine.log = _Refusing(app.log, b'"poison"', TypeError("headers map strings to strings"))
            handle = await app.by_event.start(id="r")
            with pytest.raises(TypeError, match="headers map strings"):
                await handle.result(timeout_s=10)
            assert await app.types("r") == ["Started"]
            assert await app.log.read("out.*") == []

    run(scenario())


class _Counting(_Refusing):
    def _look_at(self, appends: Sequence[tuple[str, Sequence[Record]]]) -> None:
        records = [record for _stream, records in appends for record in records]
        size_bytes = sum(
            len(one.value) + len(one.key) + sum(map(len, (*one.headers, *one.headers.values()))) for one in records
        )
        self.seen.append(size_bytes)


def test_a_commit_stays_within_its_limit(tmp_path: Path) -> None:
    """Entries, events with keys and headers, and lines with the run's headers: all of it fits what the engine takes."""

    async def scenario() -> None:
        async with running(tmp_path, lambda _app: None) as app:
            log = _Counting(app.log, b"", ValueError())
            limits = JournalLimits(batch_max_bytes=60_000)
            headers = {"about": "order:" + "1" * 1000}
            lost: list[Exception] = []
            journal = RunJournal(log, SystemClock(), "x", "$run.x", 0, headers, lost.append, limits=limits)
            for index in range(50):
                journal.add_line(LogLine(1, "INFO", "a", f"line {index}"))
                record = Record(b"1", b"k" * 1000, {"h": "v" * 1000})
                journal.publish(Published(f"publish#{index + 1}", "out.a", "d"), record, wait=False)
                journal.put_soon(encode_entry(Rested()))
            await journal.settle()
            assert not lost
            assert max(log.seen) <= 80_000
            assert sum(log.seen) > 200_000
            assert len(await app.log.read("out.a")) == 50
            assert len(await app.log.read(LOG_LINES_PREFIX + "x")) == 50

    run(scenario())
