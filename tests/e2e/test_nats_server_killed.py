"""The NATS server is killed and comes back: nothing that was acknowledged is lost, tails go on, retries are safe."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from mainstem.log import (
    Append,
    AppendOutcomeUnknownError,
    Log,
    LogUnreachableError,
    NotWrittenError,
    Record,
    StoredRecord,
)
from mainstem.log.engines.nats import NatsLog, NatsSettings, open_nats_log
from tests.contract.nats_server import NatsServer, unused_address
from tests.support import run, until

KILLS = 6
SEED = 20_261_124
APPENDERS = 6
IMPATIENT = NatsSettings(patience_s=0.5, answer_s=0.3)
"""Settings under which a restart of the server is noticed by callers."""


async def everything(log: Log) -> list[StoredRecord]:
    """Return all records of a log."""
    records: list[StoredRecord] = []
    while batch := await log.read(">", records[-1].position if records else 0, 10_000):
        records += batch
    return records


class Work:
    """Appenders that retry until they are answered, each under its own ``dedup_id``; and a tail beside them."""

    def __init__(self, log: NatsLog) -> None:
        self.log = log
        self.acknowledged: dict[str, tuple[int, ...]] = {}
        self.unknown = 0
        self.seen: list[StoredRecord] = []
        self.over = False

    async def append(self, number: int) -> None:
        """Append pairs over two streams and single records under a condition, in turns."""
        last = 0
        count = 0
        while not self.over:
            name = f"{number}-{count}"
            record = Record(name.encode())
            if count % 3 == 0:
                call = [Append(f"pair.{number}", [record, record]), Append("pairs", [record])]
            else:
                call = [Append(f"chain.{number}", [record], last)]
            answer = await self._answered(call, name)
            self.acknowledged[name] = answer
            if count % 3:
                last = answer[0]
            count += 1

    async def _answered(self, call: Sequence[Append], name: str) -> tuple[int, ...]:
        while True:
            try:
                return await self.log.append_many(call, dedup_id=name)
            except AppendOutcomeUnknownError:
                self.unknown += 1
            except LogUnreachableError:
                continue  # nothing was written: it is tried again as it is

    async def follow(self) -> None:
        """Tail everything from the beginning."""
        async with aclosing(self.log.tail(">")) as batches:
            async for batch in batches:
                self.seen += batch

    def check(self, records: list[StoredRecord]) -> None:
        """Nothing is lost, nothing is there twice, batches are whole, and the tail saw exactly what is there."""
        by_position = {record.position: record for record in records}
        assert [record.position for record in records] == sorted(by_position)
        for name, answer in self.acknowledged.items():
            for position in answer:
                assert by_position[position].value.decode() == name, "an acknowledged record is lost"
        written = Counter(record.value.decode() for record in records)
        for name, times in written.items():
            count = int(name.rpartition("-")[2])
            assert times == (3 if count % 3 == 0 else 1), f"{name} is there {times} times"
        assert self.seen == records, "the tail has a gap or a duplicate"


@pytest.mark.serial
@pytest.mark.parametrize("settings", [NatsSettings(), IMPATIENT], ids=["patient", "impatient"])
def test_killed_again_and_again(settings: NatsSettings, tmp_path: Path) -> None:
    """Killed at random moments under load: every acknowledged record is there once, and a tail sees all of them once.

    With the default patience no caller even notices.
    """

    async def scenario() -> None:
        chance = random.Random(SEED)
        with NatsServer(tmp_path / "nats") as server:
            log = await open_nats_log(server.address(), settings=settings)
            work = Work(log)
            appenders = [asyncio.create_task(work.append(number)) for number in range(APPENDERS)]
            tail = asyncio.create_task(work.follow())
            for _kill in range(KILLS):
                enough = len(work.acknowledged) + chance.randrange(20, 60)
                await until(lambda enough=enough: len(work.acknowledged) >= enough, 30.0)  # type: ignore[misc]
                server.kill()
                if settings is IMPATIENT:
                    await asyncio.sleep(2 * settings.patience_s)  # sleeps: an outage that is longer than callers wait
                await asyncio.to_thread(server.start)
            enough = len(work.acknowledged) + 50
            await until(lambda: len(work.acknowledged) >= enough, 30.0)
            work.over = True
            await asyncio.gather(*appenders)
            records = await everything(log)
            await until(lambda: len(work.seen) >= len(records), what="the tail has caught up")
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)
            work.check(records)
            assert work.unknown == 0 if settings is not IMPATIENT else work.unknown > 0
            await log.close()

    run(scenario(), timeout_s=150.0)


class CutsConnections:
    """A proxy before the server that ends each connection after a random number of bytes, in either direction."""

    def __init__(self, server_port: int, chance: random.Random) -> None:
        self._server_port = server_port
        self._chance = chance
        self._over = asyncio.Event()
        self.cuts = 0

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._over.set()
        await self._server.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        ways: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._pass_on(reader, behind_writer, self._chance.randrange(4_000, 40_000))),
            asyncio.create_task(self._pass_on(behind_reader, writer, self._chance.randrange(4_000, 40_000))),
            asyncio.create_task(self._over.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cuts += 1
            for way in ways:
                way.cancel()
            writer.close()
            behind_writer.close()

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int) -> None:
        while left > 0 and (data := await reader.read(min(4096, left))):
            left -= len(data)
            writer.write(data)
            await writer.drain()


@pytest.mark.serial
def test_connections_cut_anywhere(tmp_path: Path) -> None:
    """Connections that end within messages, batches and answers: nothing is lost, nothing is there twice."""

    async def scenario() -> None:
        chance = random.Random(SEED)
        with NatsServer(tmp_path / "nats") as server:
            proxy = CutsConnections(int(server.address().rpartition(":")[2].partition("/")[0]), chance)
            async with proxy as port:
                log = await open_nats_log(f"nats://127.0.0.1:{port}/test?sync=always")
                work = Work(log)
                appenders = [asyncio.create_task(work.append(number)) for number in range(APPENDERS)]
                tail = asyncio.create_task(work.follow())
                await until(lambda: proxy.cuts >= 20, 60.0)
                work.over = True
                await asyncio.gather(*appenders)
                await log.close()
            beside = await open_nats_log(server.address())
            records = await everything(beside)
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)
            assert work.seen and work.seen == records[: len(work.seen)], "the tail has a gap or a duplicate"
            work.seen = records
            work.check(records)
            assert work.unknown == 0
            await beside.close()

    run(scenario(), timeout_s=120.0)


def test_what_was_sent_and_not_answered_is_unknown(tmp_path: Path) -> None:
    """A server that hangs: an append that was sent has an unknown outcome, in time; its retry gets the first answer."""

    async def scenario() -> None:
        with NatsServer(tmp_path / "nats") as server:
            log = await open_nats_log(server.address(), settings=IMPATIENT)
            assert await log.append("a", [Record(b"before")]) == 1
            os.kill(server.pid, signal.SIGSTOP)
            try:
                began_s = time.monotonic()
                with pytest.raises(AppendOutcomeUnknownError, match="It was sent"):
                    await log.append("a", [Record(b"1")], expected_position=1, dedup_id="one")
                with pytest.raises(AppendOutcomeUnknownError):
                    await log.append_many([Append("b", [Record(b"2")]), Append("c", [Record(b"3")])], dedup_id="two")
                with pytest.raises(LogUnreachableError):
                    await log.read("a")
                assert time.monotonic() - began_s < 6.0
            finally:
                os.kill(server.pid, signal.SIGCONT)
            one = await log.append("a", [Record(b"1")], expected_position=1, dedup_id="one")
            two = await log.append_many([Append("b", [Record(b"2")]), Append("c", [Record(b"3")])], dedup_id="two")
            records = await everything(log)
            assert sorted(record.value for record in records) == [b"1", b"2", b"3", b"before"]
            assert {records[one - 1].value, *(records[each - 1].value for each in two)} == {b"1", b"2", b"3"}
            await log.close()

    run(scenario())


def test_what_was_never_sent_is_not_written(tmp_path: Path) -> None:
    """A server that is gone: an append that finds no connection says, in time, that nothing was written."""

    async def scenario() -> None:
        with NatsServer(tmp_path / "nats") as server:
            log = await open_nats_log(server.address(), settings=IMPATIENT)
            server.kill()
            await until(lambda: "down" in repr(log))
            began_s = time.monotonic()
            with pytest.raises(NotWrittenError, match="never sent") as caught:
                await log.append("a", [Record(b"1")])
            assert isinstance(caught.value, LogUnreachableError)
            assert time.monotonic() - began_s < 3.0
            await asyncio.to_thread(server.start)
            assert await log.append("a", [Record(b"2")]) == 1
            await log.close()

    run(scenario())


def test_closing_while_the_server_is_away_ends(tmp_path: Path) -> None:
    """Closed while an append is unanswered, the log ends in time, and the caller hears that its outcome is unknown."""

    async def scenario() -> None:
        with NatsServer(tmp_path / "nats") as server:
            log = await open_nats_log(server.address(), settings=NatsSettings(answer_s=0.5))
            await log.append("a", [Record(b"1")])
            os.kill(server.pid, signal.SIGSTOP)
            try:
                waiting = asyncio.create_task(log.append("a", [Record(b"2")]))
                await until(lambda: "1 appends under way" in repr(log))
                async with asyncio.timeout(5.0):
                    await log.close()
                with pytest.raises(AppendOutcomeUnknownError):
                    await waiting
            finally:
                os.kill(server.pid, signal.SIGCONT)

    run(scenario())


def test_where_no_server_is(tmp_path: Path) -> None:
    """No server: a clear error in time, that names the place and not the password."""

    async def scenario() -> None:
        began_s = time.monotonic()
        address = unused_address().replace("nats://", "nats://me:secret@")
        with pytest.raises(LogUnreachableError, match="no connection within") as caught:
            await open_nats_log(address, settings=IMPATIENT)
        assert time.monotonic() - began_s < 5.0
        assert "127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)

    run(scenario())
