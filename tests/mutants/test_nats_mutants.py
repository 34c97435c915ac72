"""Promises of the log on NATS, each with code that breaks it: the check passes on the one and fails on the other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from mainstem.bus import Bus, Event
from mainstem.bus.group import ConsumerGroup
from mainstem.host.clock import SystemClock
from mainstem.log import Append, AppendOutcomeUnknownError, Record, StoredRecord, Traits
from mainstem.log.engines.nats import NatsLog, NatsSettings, open_nats_log, reading, tail, wire
from mainstem.log.engines.nats.appending import Appender
from mainstem.log.engines.nats.calls import Call, Message
from mainstem.log.engines.nats.connection import Inbox, NoAnswerError
from mainstem.testing.contract import check_append_many_is_atomic, check_expected_position
from tests.contract.nats_server import NatsServer
from tests.support import TimedOutError, run, until

if TYPE_CHECKING:
    from nats.aio.msg import Msg

IMPATIENT = NatsSettings(patience_s=1.0, answer_s=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all: each check has a log of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


async def _log(server: NatsServer) -> NatsLog:
    return await open_nats_log(server.address(uuid4().hex), settings=IMPATIENT)


# ---- checks


async def acknowledged_by_the_server(server: NatsServer) -> None:
    """While the server does nothing, nothing is acknowledged."""
    log = await _log(server)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        answered = await log.append("a", [Record(b"1")])
    except AppendOutcomeUnknownError:
        return  # as promised
    else:
        raise AssertionError(f"position {answered} was acknowledged, and nobody has it")
    finally:
        os.kill(server.pid, signal.SIGCONT)
        await log.close()


async def a_lost_answer_writes_nothing_twice(server: NatsServer) -> None:
    """An append whose answer is lost is sent again, and is there once; a batch too."""
    log = await _log(server)
    following = Inbox.next
    lost: list[Inbox] = []

    async def loses_every_second(self: Inbox, timeout_s: float) -> Msg:
        message = await following(self, timeout_s)
        if message.data.startswith(b'{"stream"') and len(lost) % 2 == 0:
            lost.append(self)
            raise NoAnswerError("lost by the test")
        lost.append(self)
        return message

    Inbox.next = loses_every_second  # type: ignore[method-assign]
    try:
        assert await log.append("a", [Record(b"1")]) == 1
        assert await log.append_many([Append("a", [Record(b"2")]), Append("b", [Record(b"3")] * 2)]) == (2, 4)
        assert await log.append("a", [Record(b"4")], expected_position=2) == 5
    finally:
        Inbox.next = following  # type: ignore[method-assign]
        records = [record.value for record in await log.read(">")]
        await log.close()
    assert records == [b"1", b"2", b"3", b"3", b"4"]
    assert len(lost) >= 6


async def a_tail_misses_nothing(server: NatsServer) -> None:
    """A message that is lost on its way to a tail comes all the same."""
    log = await _log(server)
    deliver = Inbox.deliver

    def loses_two(self: Inbox, message: Msg) -> None:
        if message.data not in wanted_lost:
            deliver(self, message)
        else:
            wanted_lost.remove(message.data)

    wanted_lost = [b"3", b"7"]
    seen: list[StoredRecord] = []

    async def follow() -> None:
        async with aclosing(log.tail("a")) as batches:
            async for batch in batches:
                seen.extend(batch)

    for number in range(10):
        await log.append("a", [Record(b"%d" % number)])
    Inbox.deliver = loses_two  # type: ignore[method-assign]
    following = asyncio.create_task(follow())
    try:
        await until(lambda: len(seen) >= 10, 2.0)
        assert [int(record.value) for record in seen] == list(range(10))
    finally:
        Inbox.deliver = deliver  # type: ignore[method-assign]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await log.close()


async def a_read_misses_nothing(server: NatsServer) -> None:
    """A message that is lost on its way to a reader leaves no hole."""
    log = await _log(server)
    for number in range(10):
        await log.append("a", [Record(b"%d" % number)])
    deliver = Inbox.deliver
    to_lose = [b"3", b"9"]

    def loses_some(self: Inbox, message: Msg) -> None:
        if message.data not in to_lose:
            deliver(self, message)
        else:
            to_lose.remove(message.data)

    Inbox.deliver = loses_some  # type: ignore[method-assign]
    try:
        seen: list[StoredRecord] = []
        while page := await log.read("a", seen[-1].position if seen else 0):
            seen += page
        assert [int(record.value) for record in seen] == list(range(10))
    finally:
        Inbox.deliver = deliver  # type: ignore[method-assign]
        await log.close()


async def a_batch_is_whole(server: NatsServer) -> None:
    """The contract's check of atomic appends."""
    log = await _log(server)
    try:
        await check_append_many_is_atomic(log)
    finally:
        await log.close()


async def a_condition_is_kept(server: NatsServer) -> None:
    """The contract's check of conditions."""
    log = await _log(server)
    try:
        await check_expected_position(log)
    finally:
        await log.close()


async def the_later_owner_has_the_group(server: NatsServer) -> None:
    """Where a second process starts a group, the first one is refused at its next save."""
    address = server.address(uuid4().hex)
    logs = [await open_nats_log(address), await open_nats_log(address)]
    buses = [Bus(SystemClock()), Bus(SystemClock())]
    held = asyncio.Event()

    async def handle(event: Event[int]) -> None:
        if event.value:
            await held.wait()

    try:
        for bus, log in zip(buses, logs, strict=True):
            bus.subscribe("e", group="g", concurrency=1)(handle)
            await bus.start(log)
        first, second = (bus.groups()[0] for bus in buses)
        await buses[0].publish("e", 0)
        await until(lambda: any(bus.groups()[0].failure for bus in buses), 5.0)
        first, second = (bus.groups()[0] for bus in buses)
        assert "GroupFencedError" in first.failure
        assert second.failure == ""
    finally:
        held.set()
        for bus, log in zip(buses, logs, strict=True):
            await bus.stop(grace_s=0.5)
            await log.close()


# ---- mutants


def acknowledged_when_sent(patch: pytest.MonkeyPatch) -> None:
    """An append is answered when it was sent."""

    async def send(self: Appender, call: Call) -> wire.PublishAnswer:
        prefix = self._address.subjects
        for index, message in enumerate(call.messages):
            await self._connection.send(prefix + message.stream, message.value, fields=call.fields(index))
        return wire.PublishAnswer(len(call.messages))

    patch.setattr(Appender, "_send", send)


def sent_again_without_its_name(patch: pytest.MonkeyPatch) -> None:
    """What is sent has no id that the server could know it by."""
    fields = Call.fields

    def nameless(self: Call, index: int, batch_id: str = "") -> wire.Fields:
        return {name: value for name, value in fields(self, index, batch_id).items() if name != wire.MESSAGE_ID}

    patch.setattr(Call, "fields", nameless)


def numbers_unchecked(patch: pytest.MonkeyPatch) -> None:
    """A tail takes what comes."""
    patch.setattr(tail, "check_number", lambda _delivered, _number: None)


def answers_unchecked(patch: pytest.MonkeyPatch) -> None:
    """A reader takes what comes."""
    patch.setattr(reading, "check_follows", lambda _message, _before: None)


def batch_in_pieces(patch: pytest.MonkeyPatch) -> None:
    """A batch is sent as messages of their own."""
    whole = Appender._send

    async def apart(self: Appender, call: Call) -> wire.PublishAnswer:
        answer = wire.PublishAnswer()
        for index in range(len(call.messages)):
            answer = await whole(self, _only(call, index))
            if answer.error is not None:
                break
        return answer

    patch.setattr(Appender, "_send", apart)


def _only(call: Call, index: int) -> Call:
    message: Message = call.messages[index]
    conditions = {0: call.conditions[index]} if index in call.conditions else {}
    expected = tuple((message.stream, position) for position in conditions.values())
    return Call((message,), (1,), expected, conditions, contradicts=False, id=f"{call.id}.{index}", named=False)


def condition_left_out(patch: pytest.MonkeyPatch) -> None:
    """The server is not told what is expected."""
    fields = Call.fields

    def unconditional(self: Call, index: int, batch_id: str = "") -> wire.Fields:
        return {name: value for name, value in fields(self, index, batch_id).items() if name != wire.EXPECTED}

    patch.setattr(Call, "fields", unconditional)


def cursor_only_read(patch: pytest.MonkeyPatch) -> None:
    """A group goes on from its cursor without writing it again."""
    original = ConsumerGroup._take_over

    async def reads(self: ConsumerGroup, last: StoredRecord) -> None:
        log, self._log = self._log, _SingleOwner()  # type: ignore[assignment]
        try:
            await original(self, last)
        finally:
            self._log = log

    patch.setattr(ConsumerGroup, "_take_over", reads)


class _SingleOwner:
    """A log of which nothing is asked but whether others may append to it."""

    traits = Traits(
        name="single",
        conditional_append=True,
        atomic_streams=True,
        max_batch_records=1,
        max_batch_bytes=1,
        dedup_window_calls=0,
        dedup_window_s=0.0,
    )


Check = Callable[[NatsServer], Coroutine[Any, Any, None]]
Mutant = Callable[[pytest.MonkeyPatch], None]

PROMISES: list[tuple[Check, Mutant]] = [
    (acknowledged_by_the_server, acknowledged_when_sent),
    (a_lost_answer_writes_nothing_twice, sent_again_without_its_name),
    (a_tail_misses_nothing, numbers_unchecked),
    (a_read_misses_nothing, answers_unchecked),
    (a_batch_is_whole, batch_in_pieces),
    (a_condition_is_kept, condition_left_out),
    (the_later_owner_has_the_group, cursor_only_read),
]
"""What is promised, and what breaks it."""


@pytest.mark.parametrize("check", [check for check, _mutant in PROMISES], ids=lambda check: check.__name__)
def test_the_promise_holds(check: Check, server: NatsServer) -> None:
    """The code as it is keeps the promise."""
    run(check(server))


@pytest.mark.parametrize(("check", "mutant"), PROMISES, ids=lambda one: one.__name__)
def test_the_mutant_is_caught(
    check: Check, mutant: Mutant, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check finds out when the promise is broken."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, TimedOutError)):
        run(check(server))
