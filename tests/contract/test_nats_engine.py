"""What the NATS engine does with its server: the stream it makes or refuses, limits, several owners, replicas."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats
import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.log import (
    Append,
    Log,
    LogClosedError,
    LogFormatError,
    LogFullError,
    LogNotFoundError,
    LogUnreachableError,
    NotWrittenError,
    PositionConflictError,
    Record,
    UnsupportedByEngineError,
)
from mainstem.log.engines.nats import NatsLog, NatsSettings, configuration, open_nats_log, parse_address
from mainstem.log.engines.nats.configuration import configuration_of
from tests.contract.nats_server import NatsServer
from tests.support import ROOT, free_port, run, until

IMPATIENT = NatsSettings(patience_s=0.5, answer_s=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests: each has a log of its own."""
    limits = "limits { batch { max_msgs: 20 } }"
    with NatsServer(tmp_path_factory.mktemp("nats"), jetstream=limits, lines="max_payload: 65536") as server:
        yield server


@pytest.fixture
def address(server: NatsServer) -> str:
    """Return the address of a log that does not exist yet."""
    return server.address(uuid4().hex)


async def api(address: str, verb: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream for something, as an operator would."""
    parsed = parse_address(address)
    client = await nats.connect(parsed.servers)
    try:
        payload = json.dumps(request).encode() if request is not None else b""
        answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{verb}", payload)).data)
        return answer
    finally:
        await client.close()


@asynccontextmanager
async def opened(address: str, settings: NatsSettings | None = None) -> AsyncIterator[NatsLog]:
    """Open a log for the time of a test."""
    log = await open_nats_log(address, settings=settings)
    try:
        yield log
    finally:
        await log.close()


def test_traits_and_limits(address: str) -> None:
    """The traits say what holds; a record over max_payload is refused with the limit, one below it is kept."""

    async def scenario() -> None:
        async with opened(address) as log:
            assert isinstance(log, Log)
            traits = log.traits
            assert (traits.name, traits.max_batch_records, traits.dedup_window_s) == ("nats", 1000, 120.0)
            assert not traits.single_owner
            assert not traits.verified_sync
            with pytest.raises(InvalidArgumentError, match="max_payload of 65536 bytes"):
                await log.append("a", [Record(bytes(65_536))])
            assert await log.append("a", [Record(bytes(traits.max_record_bytes))]) == 1
            with pytest.raises(InvalidArgumentError):
                await log.append("a", [Record(bytes(traits.max_record_bytes + 1))])
            with pytest.raises(InvalidArgumentError):
                await log.append("a", [Record(bytes(traits.max_record_bytes))], dedup_id="☃" * 255)
            assert await log.append("a", [Record(bytes(50_000))] * 4, dedup_id="☃" * 255) == 5
            assert await log.append("a", [Record(b"")], dedup_id="☃" * 255) == 5

    run(scenario())


def test_a_server_with_lower_limits_says_so(address: str) -> None:
    """A batch that the engine takes and the server does not is refused, and nothing of it is written."""

    async def scenario() -> None:
        async with opened(address) as log:
            assert await log.append("a", [Record(b"")] * 20) == 20
            with pytest.raises(InvalidArgumentError, match="too large: 20"):
                await log.append("a", [Record(b"")] * 21)
            assert (await log.stats()).record_count == 20

    run(scenario())


def test_a_full_log_refuses(address: str) -> None:
    """At the stream's max_bytes appends are refused and nothing old goes; reading goes on."""

    async def scenario() -> None:
        async with opened(address) as log:
            await log.append("a", [Record(b"first")])
            config = (await api(address, f"STREAM.INFO.{parse_address(address).name}"))["config"]
            await api(address, f"STREAM.UPDATE.{config['name']}", config | {"max_bytes": 4096})

            async def fill() -> None:
                for _ in range(10):
                    await log.append("a", [Record(bytes(1000))])

            with pytest.raises(LogFullError, match="maximum bytes"):
                await fill()
            assert (await log.read("a"))[0].value == b"first"

    run(scenario())


def test_many_batches_at_once_wait_their_turn(address: str) -> None:
    """More calls of several records than the server takes at once are all written, each as a whole."""

    async def scenario() -> None:
        async with opened(address, NatsSettings(batches_max=60)) as log:
            calls = [
                [Append(f"a.{i}", [Record(b"%d" % i)] * 2), Append("all", [Record(b"%d" % i)])] for i in range(120)
            ]
            answers = await asyncio.gather(*map(log.append_many, calls))
            assert sorted(position for _first, position in answers) == list(range(3, 361, 3))
            assert all(last - first == 1 for first, last in answers)

    run(scenario())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_age": 600_000_000_000}, "max_age"),
        ({"max_msgs": 5}, "max_msgs"),
        ({"discard": "old"}, "discard"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject"),
        ({"allow_direct": False}, "allow_direct"),
        ({"allow_atomic": False}, "allow_atomic"),
        ({"storage": "memory"}, "storage"),
        ({"retention": "workqueue"}, "retention"),
        ({"duplicate_window": 1_000_000_000}, "duplicate_window"),
        ({"metadata": {}}, "was not made by mainstem"),
        ({"metadata": {"mainstem.format": "2"}}, "format 2, this version knows 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stream_that_would_lose_records_is_refused(change: dict[str, Any], said: str, address: str) -> None:
    """A stream that drops records by itself, or is none of mainstem's, is not touched."""

    async def scenario() -> None:
        parsed = parse_address(address)
        config = configuration_of(parsed, NatsSettings(), "an id") | change
        made = await api(address, f"STREAM.CREATE.{parsed.name}", config)
        assert "error" not in made, made
        with pytest.raises(LogFormatError, match=said):
            await open_nats_log(address)
        assert (await api(address, f"STREAM.INFO.{parsed.name}"))["config"] == made["config"]

    run(scenario())


def test_an_older_server_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without atomic batches is refused at opening, with its version."""
    monkeypatch.setattr(configuration, "OLDEST_VERSION", (99, 0))

    async def scenario() -> None:
        with pytest.raises(UnsupportedByEngineError, match=r"NATS 2\.\d+"):
            await open_nats_log(address)

    run(scenario())


def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    """A plain NATS server is refused, in time."""

    async def scenario() -> None:
        lines = "accounts { A { users [ { user: a, password: b } ] } }\nno_auth_user: a"
        unavailable = (UnsupportedByEngineError, LogUnreachableError)
        with NatsServer(tmp_path, lines=lines) as plain, pytest.raises(unavailable):
            await open_nats_log(plain.address(), settings=IMPATIENT)

    run(scenario())


def test_opened_only_where_it_is(address: str) -> None:
    """With ``create=False`` a missing log is an error and stays missing."""

    async def scenario() -> None:
        with pytest.raises(LogNotFoundError):
            await open_nats_log(address, create=False)
        assert (await api(address, f"STREAM.INFO.{parse_address(address).name}"))["error"]["err_code"] == 10059

    run(scenario())


def test_two_openers_at_once_have_one_log(address: str) -> None:
    """Opened by several at once, there is one log with one id."""

    async def scenario() -> None:
        logs = await asyncio.gather(*(open_nats_log(address) for _ in range(5)))
        assert len({log.id for log in logs}) == 1
        for log in logs:
            await log.close()

    run(scenario())


def test_a_closed_log(address: str) -> None:
    """After closing, calls are refused and a tail ends with the error that says so."""

    async def scenario() -> None:
        log = await open_nats_log(address)
        await log.append("a", [Record(b"1")])

        async def follow() -> None:
            async with aclosing(log.tail("a")) as batches:
                async for _batch in batches:
                    pass

        tail = asyncio.create_task(follow())
        await until(lambda: "1 questions open" in repr(log._connection))
        await log.close()
        await log.close()
        with pytest.raises(LogClosedError):
            await tail
        for call in (log.append("a", [Record(b"2")]), log.read("a"), log.last("a"), log.stats()):
            with pytest.raises(LogClosedError):
                await call
        assert "closed" in repr(log)

    run(scenario())


def test_a_tail_outlives_its_consumer(address: str) -> None:
    """When the server forgets the tail's consumer, another one goes on where it was."""

    async def scenario() -> None:
        async with opened(address) as log:
            seen: list[bytes] = []

            async def follow() -> None:
                async with aclosing(log.tail("a")) as batches:
                    async for batch in batches:
                        seen.extend(record.value for record in batch)

            tail = asyncio.create_task(follow())
            name = parse_address(address).name
            for number in range(5):
                await log.append("a", [Record(b"%d" % number)])
                await until(lambda number=number: len(seen) == number + 1)  # type: ignore[misc]
                for consumer in (await api(address, f"CONSUMER.NAMES.{name}"))["consumers"]:
                    await api(address, f"CONSUMER.DELETE.{name}.{consumer}")
            tail.cancel()
            await asyncio.gather(tail, return_exceptions=True)
            assert seen == [b"0", b"1", b"2", b"3", b"4"]

            async def no_consumers() -> bool:
                return not (await api(address, f"CONSUMER.NAMES.{name}")).get("consumers")

            await until(no_consumers, what="a tail that ended leaves no consumer")

    run(scenario())


def test_a_tail_of_a_stream_that_was_deleted_ends(address: str) -> None:
    """When an operator deletes the JetStream stream, a tail says so."""

    async def scenario() -> None:
        async with opened(address, IMPATIENT) as log:
            await log.append("a", [Record(b"1")])

            async def follow() -> None:
                async with aclosing(log.tail("a")) as batches:
                    async for _batch in batches:
                        await api(address, f"STREAM.DELETE.{parse_address(address).name}")

            with pytest.raises(LogNotFoundError):
                await follow()
            with pytest.raises(NotWrittenError):
                await log.append("a", [Record(b"2")])

    run(scenario())


def test_dedup_outlives_the_server(tmp_path: Path) -> None:
    """After a crash of the server a repeated call still gets its first answer, singles and batches alike."""

    async def scenario() -> None:
        with NatsServer(tmp_path) as server:
            async with opened(server.address()) as log:
                batch = [Append("a", [Record(b"1")] * 2), Append("b", [Record(b"2")], 0)]
                first = (
                    await log.append_many(batch, dedup_id="many"),
                    await log.append("c", [Record(b"3")], dedup_id="x"),
                )
                server.kill()
                await asyncio.to_thread(server.start)
                again = (
                    await log.append_many(batch, dedup_id="many"),
                    await log.append("c", [Record(b"3")], dedup_id="x"),
                )
                assert again == first
                assert (await log.stats()).record_count == 4

    run(scenario())


def test_what_other_clients_publish_is_read(address: str) -> None:
    """A message that some NATS client published to one of the log's subjects is a record."""

    async def scenario() -> None:
        async with opened(address) as log:
            parsed = parse_address(address)
            client = await nats.connect(parsed.servers)
            subject = parsed.subjects + "orders.created"
            await client.request(subject, b"{}", headers={"traceparent": "00-1-2-01", "Nats-Msg-Id": "theirs"})
            await client.request(subject, b"plain")
            await client.close()
            first, second = await log.read("orders.>")
            assert (first.value, dict(first.headers), first.key) == (b"{}", {"traceparent": "00-1-2-01"}, b"")
            assert (second.value, dict(second.headers)) == (b"plain", {})

    run(scenario())


def test_two_processes_fence_each_other(address: str) -> None:
    """Of several processes that append to one stream under a condition, one wins each position."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.nats_racer", address, str(number)],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    wins = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]

    async def scenario() -> None:
        async with opened(address) as log:
            records = await log.read("race", limit=10_000)
            assert len(records) == sum(wins) >= 200
            expected = [0, *(record.position for record in records)]
            assert [int(record.headers["expected"]) for record in records] == expected[:-1]
            for number, count in enumerate(wins):
                assert sum(record.value == b"%d" % number for record in records) == count

    run(scenario())


@pytest.mark.serial
def test_three_replicas(tmp_path: Path) -> None:
    """On a cluster a read shows what was acknowledged, whoever answers; the leader killed, the log goes on."""
    routes = [free_port() for _ in range(3)]
    urls = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    servers = [
        NatsServer(
            tmp_path / str(number),
            lines=f'server_name: s{number}\ncluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{urls}] }}',
        )
        for number, port in enumerate(routes)
    ]

    async def scenario() -> None:
        hosts = ",".join(server.address().split("//")[1].split("/")[0] for server in servers)
        address = f"nats://{hosts}/cluster?sync=always"
        async with opened(address, NatsSettings(replicas=3, answer_s=1.0)) as log:
            last = 0
            for number in range(100):
                last = await log.append("a", [Record(b"%d" % number)], expected_position=last)
                assert [record.position for record in await log.read("a", last - 1)] == [last]
                newest = await log.last("a")
                assert newest is not None and newest.position == last
            for expected in (0, last - 1, last + 1):
                with pytest.raises(PositionConflictError) as caught:
                    await log.append("a", [Record(b"no")], expected_position=expected)
                assert caught.value.actual == last
            both = [Append("a", [Record(b"100")], last), Append("b", [Record(b"x")] * 2, 0)]
            answer = await log.append_many(both, dedup_id="both")
            assert await log.append_many(both, dedup_id="both") == answer
            leader = (await api(address, "STREAM.INFO.cluster"))["cluster"]["leader"]
            servers[int(leader[1:])].kill()
            last = await log.append("a", [Record(b"101")], expected_position=answer[0], dedup_id="over")
            assert await log.append("a", [Record(b"101")], expected_position=answer[0], dedup_id="over") == last
            assert [int(record.value) for record in await log.read("a")] == list(range(102))

    try:
        for server in servers:
            server.start()
        run(scenario())
    finally:
        for server in servers:
            server.kill()
