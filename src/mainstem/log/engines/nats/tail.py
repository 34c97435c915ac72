"""Following a stream: a consumer of the server's that nobody acknowledges to, made anew whenever something is missing.

The position is the client's own, so the server keeps nothing that matters: when the connection or the consumer is lost,
or its numbers show a gap, a new consumer begins behind the last record that was given out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from mainstem.log.contract import StoredRecord
from mainstem.log.engines.nats import wire
from mainstem.log.engines.nats.connection import Inbox, NatsConnection, NoAnswerError, NotSentError, status_of
from mainstem.log.errors import LogNotFoundError

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_logger = logging.getLogger(__name__)

BATCH_MAX_RECORDS = 1000
"""Most records that a tail gives out at once."""

_PULL_MAX_BYTES = 8 << 20
_PULL_S = 60.0
_HEARTBEAT_S = 10.0
_HEARTBEAT_LATE_S = 2.5 * _HEARTBEAT_S
_UNUSED_MAX_S = 300.0
_AGAIN_S = 0.1
_AGAIN_MAX_S = 2.0
_NS = 1_000_000_000
_STREAM_NOT_FOUND = 10059

_encode = msgspec.json.Encoder().encode


class _CreateAnswer(msgspec.Struct):
    error: wire.ApiError | None = None


class _AgainError(Exception):
    """This consumer is of no use any more; a new one is."""


def check_number(delivered: wire.Delivered, number: int) -> None:
    """Refuse a message that is not the next of its consumer: one before it was lost on the way."""
    if delivered.number != number:
        raise _AgainError(f"message {number} of the consumer is missing, number {delivered.number} came")


class Tail:
    """One tail; :meth:`batches` is the whole of it.

    Args:
        connection: The connection.
        log: Name of the JetStream stream.
        prefix: What its subjects begin with.
        pattern: The streams, as a pattern.
        after: Position to begin behind.
        answer_s: How long the server may take to answer.
    """

    def __init__(
        self, connection: NatsConnection, log: str, prefix: str, pattern: str, after: int, *, answer_s: float
    ) -> None:
        self._connection = connection
        self._log = log
        self._prefix = prefix
        self._filter = prefix + pattern
        self._after = after
        self._answer_s = answer_s

    def __repr__(self) -> str:
        return f"<Tail of {self._filter} at {self._after}>"

    async def batches(self) -> AsyncGenerator[list[StoredRecord], None]:
        """Yield what comes, 1 to 1,000 records at a time, until closed.

        Raises:
            LogClosedError: The log was closed.
            LogNotFoundError: The JetStream stream was deleted.
        """
        pause_s = _AGAIN_S
        while True:
            await self._connection.wait(None)
            try:
                async with self._consumer() as consumer, aclosing(self._follow(consumer)) as batches:
                    async for batch in batches:
                        pause_s = _AGAIN_S
                        yield batch
            except (NotSentError, NoAnswerError, _AgainError) as reason:
                _logger.debug("%r: %s; a new consumer begins there", self, reason)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _AGAIN_MAX_S)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[str]:
        """Have the server make a consumer that begins behind the last record that was given out."""
        name = f"tail-{uuid4().hex}"
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._after + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": self._filter,
            "inactive_threshold": int(_UNUSED_MAX_S * _NS),
            "mem_storage": True,
            "num_replicas": 1,
        }
        request = _encode({"stream_name": self._log, "config": config})
        try:
            message = await self._connection.ask(
                f"$JS.API.CONSUMER.CREATE.{self._log}.{name}", request, timeout_s=self._answer_s
            )
            error = msgspec.json.decode(message.data, type=_CreateAnswer).error
            if error is not None and error.err_code == _STREAM_NOT_FOUND:
                raise LogNotFoundError(f"the JetStream stream {self._log!r} is gone; the tail of {self._filter} ended.")
            if error is not None:
                raise _AgainError(error.description)
            yield name
        finally:
            # Where this does not arrive, the server forgets it when it was not used for a while.
            with suppress(NotSentError):
                await self._connection.send(f"$JS.API.CONSUMER.DELETE.{self._log}.{name}")

    async def _follow(self, consumer: str) -> AsyncGenerator[list[StoredRecord], None]:
        delivered = 0
        max_bytes = max(_PULL_MAX_BYTES, 2 * self._connection.message_max_bytes)
        request = _encode(
            {
                "batch": BATCH_MAX_RECORDS,
                "max_bytes": max_bytes,
                "expires": int(_PULL_S * _NS),
                "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            }
        )
        async with self._connection.subscription() as inbox:
            while True:
                await self._connection.send(
                    f"$JS.API.CONSUMER.MSG.NEXT.{self._log}.{consumer}", request, reply=inbox.subject
                )
                left, pull_is_over = BATCH_MAX_RECORDS, False
                while left > 0 and not pull_is_over:
                    messages, pull_is_over = await self._arrived(inbox)
                    left -= len(messages)
                    batch = []
                    for message in messages:
                        delivered += 1
                        record = self._record(message, delivered)
                        if record.position > self._after:
                            batch.append(record)
                    if batch:
                        self._after = batch[-1].position
                        yield batch

    @staticmethod
    async def _arrived(inbox: Inbox) -> tuple[list[Msg], bool]:
        """Wait for messages; return those that are there, and whether the request is answered in full."""
        messages: list[Msg] = []
        message: Msg | None = await inbox.next(_HEARTBEAT_LATE_S)
        while message is not None:
            match status_of(message):
                case "":
                    messages.append(message)
                case "100":
                    pass  # a sign of life
                case "404" | "408":
                    return messages, True
                case "409" if "MaxBytes" in (message.headers or {}).get(wire.DESCRIPTION, ""):
                    return messages, True
                case status:
                    raise _AgainError(f"status {status} {(message.headers or {}).get(wire.DESCRIPTION, '')}")
            message = inbox.take()
        return messages, False

    def _record(self, message: Msg, number: int) -> StoredRecord:
        delivered = wire.delivered_of(message.reply)
        if delivered is None:
            raise _AgainError(f"{message.reply!r} is none of a consumer's")
        check_number(delivered, number)
        stream = message.subject.removeprefix(self._prefix)
        return wire.record_of(delivered.position, stream, delivered.time_ns, message.data, message.headers)
