"""Many processes on one log: attaching, taking over, and what becomes of what was under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.errors import InvalidArgumentError
from mainstem.host.disk import SystemDisk
from mainstem.log import (
    Append,
    AppendOutcomeUnknownError,
    LogClosedError,
    LogFormatError,
    LogInUseError,
    LogSettings,
    LogUnreachableError,
    PositionConflictError,
    Record,
    open_log,
    owner_pid,
)
from mainstem.log.embedded.calls import encode_call
from mainstem.log.embedded.layout import epoch_name, socket_name
from mainstem.log.shared import SharedLog, SharedSettings, open_shared_log
from mainstem.log.shared.client import LeaderSilentError, connect
from mainstem.log.shared.protocol import (
    FRAME_MAX_BYTES,
    Appending,
    Pong,
    ProtocolError,
    RequestReader,
    ResponseReader,
    Tailing,
    Welcome,
    WireBlock,
    blocks_of,
    encode,
    wire_blocks,
)
from mainstem.log.shared.server import bind
from tests.support import run, until

QUICK = SharedSettings(patience_s=0.4, ping_s=0.1, open_timeout_s=1.0, takeover_timeout_s=10.0)

LEADER = """
import asyncio, contextlib, sys
from mainstem.log import AppendOutcomeUnknownError, Record
from mainstem.log.shared import open_shared_log

async def main():
    log = await open_shared_log(sys.argv[1])
    await log.append("a", [Record(b"leader")])
    print("leading" if log.is_leading else "attached", flush=True)
    while True:
        with contextlib.suppress(AppendOutcomeUnknownError):
            await log.append("a", [Record(b"x")])
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def leader_process(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run another process that leads the log and appends; kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEADER, str(directory), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"leading\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # the test has killed it
            process.send_signal(signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def pair(directory: Path, settings: LogSettings | None = None) -> AsyncIterator[tuple[SharedLog, SharedLog]]:
    """Open a log twice: the first leads, the second is attached."""
    first = await open_shared_log(directory, settings=settings, shared=QUICK)
    second = await open_shared_log(directory, settings=settings, shared=QUICK)
    try:
        yield first, second
    finally:
        await second.close()
        await first.close()


def test_a_killed_leader_is_followed_by_one_of_the_attached(tmp_path: Path) -> None:
    """After ``kill -9`` an attached process leads: acknowledged records are there, and its tail has no gap."""

    async def scenario() -> None:
        async with leader_process(tmp_path) as process:
            log = await open_shared_log(tmp_path, shared=QUICK)
            seen: list[int] = []

            async def follow() -> None:
                async for batch in log.tail("a"):
                    seen.extend(record.position for record in batch)

            following = asyncio.ensure_future(follow())
            positions = [await log.append("mine", [Record(b"%d" % number)]) for number in range(20)]
            assert not log.is_leading and owner_pid(tmp_path) == process.pid
            process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(log.leading(), 10)
            positions.append(await log.append("mine", [Record(b"20")]))
            last = await log.append("a", [Record(b"last")])
            await until(lambda: bool(seen) and seen[-1] == last)
            records = await log.read("mine")
            assert [(record.position, record.value) for record in records] == [
                (position, b"%d" % number) for number, position in enumerate(positions)
            ]
            assert seen == [record.position for record in await log.read("a", limit=60_000)]
            following.cancel()
            await log.close()

    run(scenario())


def test_a_stopped_leader_is_deposed_and_follows_when_it_wakes(tmp_path: Path) -> None:
    """A leader that is stopped loses the log to an attached process; woken up, it goes on as one of the attached."""

    async def scenario() -> None:
        async with leader_process(tmp_path) as process:
            log = await open_shared_log(tmp_path, shared=QUICK)
            await log.append("b", [Record(b"before")])
            process.send_signal(signal.SIGSTOP)
            await asyncio.wait_for(log.leading(), 10)
            position = await log.append("b", [Record(b"after")])
            process.send_signal(signal.SIGCONT)

            async def goes_on() -> bool:
                last = await log.last("a")
                return last is not None and last.position > position + 5

            await until(goes_on)
            assert owner_pid(tmp_path) == os.getpid()
            await log.close()

    run(scenario())


def test_opening_deposes_a_leader_that_says_nothing(tmp_path: Path) -> None:
    """Who comes to a log whose leader is stopped leads it, once its patience has ended."""

    async def scenario() -> None:
        async with leader_process(tmp_path) as process:
            process.send_signal(signal.SIGSTOP)
            log = await open_shared_log(tmp_path, shared=QUICK)
            assert log.is_leading
            assert [record.value for record in await log.read("a", limit=1)] == [b"leader"]
            await log.close()

    run(scenario())


def test_one_silence_deposes_one_leader(tmp_path: Path) -> None:
    """Of several who found a leader silent one deposes it; the others do not depose that one in its turn."""

    async def scenario() -> None:
        async with leader_process(tmp_path) as process:
            logs = [await open_shared_log(tmp_path, shared=QUICK) for _log in range(4)]
            process.send_signal(signal.SIGSTOP)
            await asyncio.wait([asyncio.ensure_future(log.leading()) for log in logs], return_when="FIRST_COMPLETED")
            for number, log in enumerate(logs):
                await log.append("b", [Record(b"x")], dedup_id=f"{number}")
            assert sum(log.is_leading for log in logs) == 1
            assert (tmp_path / epoch_name(2)).exists() and not (tmp_path / epoch_name(3)).exists()
            for log in logs:
                await log.close()

    run(scenario())


def test_what_was_under_way(tmp_path: Path) -> None:
    """When the leader is lost in mid commit, an append without a name raises, one with a name is answered, once."""

    async def scenario() -> None:
        async with leader_process(tmp_path) as process:
            log = await open_shared_log(tmp_path, shared=QUICK)
            await log.append("b", [Record(b"first")])
            process.send_signal(signal.SIGSTOP)
            named = asyncio.ensure_future(log.append("b", [Record(b"named")], dedup_id="n"))
            nameless = asyncio.ensure_future(log.append("b", [Record(b"nameless")]))
            reading = asyncio.ensure_future(log.read("b"))
            position = await named
            with pytest.raises(AppendOutcomeUnknownError, match="dedup_id"):
                await nameless
            assert (await reading)[0].value == b"first"
            assert await log.append("b", [Record(b"again")], dedup_id="n") == position
            values = [record.value for record in await log.read("b")]
            assert values.count(b"named") == 1 and values.count(b"nameless") <= 1
            await log.close()

    run(scenario())


def test_an_orderly_end_of_the_leader_loses_nothing(tmp_path: Path) -> None:
    """While the leader closes, appends of the attached are answered or wait for the next leader."""

    async def scenario() -> None:
        async with pair(tmp_path) as (first, second):
            waiting = [
                asyncio.ensure_future(second.append("a", [Record(b"%d" % n)], dedup_id=f"{n}")) for n in range(50)
            ]
            await asyncio.sleep(0)
            await first.close()
            positions = await asyncio.gather(*waiting)
            await second.leading()
            assert sorted(positions) == list(range(1, 51))

    run(scenario())


def test_errors_of_the_leader_reach_the_attached(tmp_path: Path) -> None:
    """Conflicts carry the stream and the positions; bad arguments are refused; a closed log says so."""

    async def scenario() -> None:
        async with pair(tmp_path) as (first, second):
            await first.append("a", [Record(b"1")])
            with pytest.raises(PositionConflictError) as caught:
                await second.append_many([Append("a", [Record(b"2")], 7)])
            assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a", 7, 1)
            with pytest.raises(InvalidArgumentError):
                await second.read("a", limit=-1)
            with pytest.raises(InvalidArgumentError):
                await anext(second.tail("a b"))
            assert second.append_now("a", [Record(b"x")]) is None
            assert second.end_position == 1 and second.traits.single_owner is False
            assert "attached" in repr(second) and "leading" in repr(first)
            await second.close()
            for answer in (
                second.append("a", [Record(b"x")]),
                second.read("a"),
                anext(second.tail("a")),
                second.stats(),
            ):
                with pytest.raises(LogClosedError):
                    await answer

    run(scenario())


def test_much_that_waits_holds_up_whoever_sends_it(tmp_path: Path) -> None:
    """With a small bound on what waits, large appends of an attached process all succeed, and conflict with nobody."""

    async def scenario() -> None:
        async with pair(tmp_path, LogSettings(pending_max_bytes=50_000)) as (_first, second):
            sent = [second.append(f"s.{number % 3}", [Record(bytes(30_000))]) for number in range(40)]
            assert sorted(await asyncio.gather(*sent)) == list(range(1, 41))
            assert (await second.stats()).record_count == 40

    run(scenario())


def test_a_tail_is_held_up_by_whoever_reads_it(tmp_path: Path) -> None:
    """A tail that is not read has one batch on its way, however much there is; read, it has everything."""

    async def scenario() -> None:
        async with pair(tmp_path) as (first, second):
            for _append in range(30):
                await first.append("a", [Record(bytes(1000))] * 200)
            batches = second.tail("a")
            count = len(await anext(batches))
            assert count == 1000
            async for batch in batches:
                count += len(batch)
                if count == 6000:
                    break
            await batches.aclose()

    run(scenario())


def test_an_owner_that_shares_with_nobody(tmp_path: Path) -> None:
    """A log that a process opened for itself alone is in use: opening says so after a while, and changes nothing."""

    async def scenario() -> None:
        alone = await open_log(tmp_path)
        with pytest.raises(LogInUseError) as caught:
            await open_shared_log(tmp_path, shared=SharedSettings(open_timeout_s=0.1))
        assert caught.value.owner_pid == os.getpid()
        assert await alone.append("a", [Record(b"1")]) == 1
        await alone.close()

    run(scenario())


def test_no_leader_in_time(tmp_path: Path) -> None:
    """A call that finds no leader fails unwritten, and says for how long it waited."""

    async def scenario() -> None:
        first = await open_shared_log(tmp_path, shared=QUICK)
        hasty = SharedSettings(patience_s=0.4, ping_s=0.1, takeover_timeout_s=0.2)
        second = await open_shared_log(tmp_path, shared=hasty)
        alone = SystemDisk().lock(tmp_path / epoch_name(2), new=True)  # somebody who leads, and serves nobody
        second._role.drop()  # type: ignore[union-attr]
        await until(lambda: second._role is None)
        with pytest.raises(LogUnreachableError, match="no leader"):
            await second.append("a", [Record(b"x")])
        await second.close()
        await first.close()
        alone.release()

    run(scenario())


def test_socket(tmp_path: Path) -> None:
    """Its mode is 0600, its path may be longer than an address of a Unix socket, and it is gone after the close."""

    async def scenario() -> None:
        directory = tmp_path / ("d" * 120) / ("e" * 120)
        async with pair(directory) as (_first, second):
            path = directory / socket_name(1)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert await second.append("a", [Record(b"1")]) == 1
        assert not path.exists()

    run(scenario())


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    """A child that was forked from a process on the log cannot use its handle, and closing it does nothing."""

    async def scenario() -> None:
        async with pair(tmp_path) as (first, second):
            for log in (first, second):
                read, write = os.pipe()
                pid = os.fork()
                if pid == 0:
                    try:
                        log._check_open()
                    except LogClosedError as error:
                        os.write(write, str(error).encode())
                    os._exit(0)
                os.close(write)
                os.waitpid(pid, 0)
                assert b"forked child" in os.read(read, 10_000)
                os.close(read)
            assert await second.append("a", [Record(b"1")]) == 1

    run(scenario())


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\x05\x00\x00\x00nopes", b"\x02\x00\x00\x00\x91\x63"])
def test_hostile_bytes_end_their_own_connection_only(sent: bytes, tmp_path: Path) -> None:
    """Who speaks no protocol of ours is let go; everyone else goes on."""

    async def scenario() -> None:
        async with pair(tmp_path) as (_first, second):
            reader, writer = await asyncio.open_unix_connection(tmp_path / socket_name(1))
            await reader.read(64)
            writer.write(sent)
            with contextlib.suppress(ConnectionResetError):  # an end as good as another
                assert await reader.read() == b""
            writer.close()
            assert await second.append("a", [Record(b"1")]) == 1

    run(scenario())


async def _serving(directory: Path, greeting: bytes, check: Callable[[], Awaitable[None]]) -> None:
    ended = asyncio.Event()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with contextlib.suppress(ConnectionResetError):  # an end as good as another
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_unix_server(greet, sock=bind(directory / socket_name(1)))
    await check()
    await ended.wait()
    server.close()
    await server.wait_closed()


def test_a_leader_of_another_version(tmp_path: Path) -> None:
    """One that speaks another version is refused with both versions; one that says nothing is silent."""

    async def scenario() -> None:
        async def other() -> None:
            with pytest.raises(LogFormatError, match="version 99"):
                await connect(tmp_path, 1, 5.0)

        async def silent() -> None:
            with pytest.raises(LeaderSilentError) as caught:
                await connect(tmp_path, 1, 0.05)
            assert caught.value.epoch == 1

        await _serving(tmp_path, encode(Welcome(99, 1, 0)), other)
        await _serving(tmp_path, b"", silent)

    run(scenario())


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=10)), min_size=1, max_size=8))
def test_messages_arrive_whole_in_whatever_pieces(rows: list[tuple[bytes, bytes]]) -> None:
    """Byte by byte the same messages come out as were put in, and the call is the same at the other end."""
    call = encode_call([("a", [Record(value, key, {"h": "1"}) for value, key in rows], 3)], "d", True, LogSettings())
    appending = Appending(7, wire_blocks(call), call.dedup_id, call.use_reserve)
    requests: list[Appending | Tailing] = [appending, Tailing(8, "a.>", 5)]
    reader, responses = RequestReader(), ResponseReader()
    data = b"".join(encode(request) for request in requests)
    assert [message for at in range(len(data)) for message in reader.feed(data[at : at + 1])] == requests
    assert list(RequestReader().feed(data)) == requests
    assert [(block.values.parts, block.keys and block.keys.parts) for block in blocks_of(appending)] == [
        (list(block.values.parts), block.keys and list(block.keys.parts)) for block in call.blocks
    ]
    assert list(responses.feed(encode(Pong(1, 2)))) == [Pong(1, 2)]


def test_what_is_no_message() -> None:
    """Frames that are too long, and columns of different lengths, are refused."""
    with pytest.raises(ProtocolError, match="expected"):
        list(RequestReader().feed((FRAME_MAX_BYTES + 1).to_bytes(4, "little")))
    with pytest.raises(ProtocolError):
        list(ResponseReader().feed(b"\x01\x00\x00\x00\xc1"))
    with pytest.raises(ProtocolError, match="column"):
        blocks_of(Appending(1, [WireBlock("a", None, [b"1", b"2"], [b"k"], None)], "", False))
