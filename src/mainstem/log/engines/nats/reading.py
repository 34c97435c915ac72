"""Reading: JetStream's direct get, many records an answer, and what the stream says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mainstem.log.contract import StoredRecord
from mainstem.log.engines.nats import wire
from mainstem.log.engines.nats.connection import Inbox, NatsConnection, NoAnswerError, NotSentError, status_of
from mainstem.log.errors import LogNotFoundError, LogUnreachableError

if TYPE_CHECKING:
    from nats.aio.msg import Msg

T = TypeVar("T")

_PAUSE_S = 0.05
_PAUSE_MAX_S = 1.0
_ANSWER_MAX_BYTES = 8 << 20

STREAM_NOT_FOUND = 10059
"""JetStream's number for what it says of a stream that there is not."""

_encode = msgspec.json.Encoder().encode


class Found(msgspec.Struct, frozen=True):
    """A message as it is stored: the record, and the headers that are none of the record's."""

    record: StoredRecord
    fields: Mapping[str, str]


class StreamState(msgspec.Struct, frozen=True):
    """What a JetStream stream holds; see :class:`mainstem.log.contract.LogStats`."""

    messages: int = 0
    bytes: int = 0
    last_seq: int = 0
    num_subjects: int = 0


class StreamInfo(msgspec.Struct, frozen=True):
    """A JetStream stream: how it is configured, and what it holds."""

    config: dict[str, Any] = {}
    state: StreamState = StreamState()
    ts: str = ""
    error: wire.ApiError | None = None


class _LeaderMessage(msgspec.Struct, frozen=True):
    subject: str = ""
    seq: int = 0
    data: bytes = b""
    hdrs: bytes = b""
    time: str = ""


class _LeaderAnswer(msgspec.Struct, frozen=True):
    message: _LeaderMessage | None = None
    error: wire.ApiError | None = None


class _BrokenAnswerError(Exception):
    """An answer in which something is missing that is known to be there."""


def check_follows(message: Msg, before: int) -> None:
    """Refuse a message of an answer that does not follow the one before: the client drops what it cannot hold."""
    said = int((message.headers or {}).get("Nats-Last-Sequence", "-1"))
    if said != before:
        raise _BrokenAnswerError(f"between {before} and what follows {said} something is missing")


class StreamReader:
    """Reads one JetStream stream.

    Args:
        connection: The connection.
        log: The stream's name.
        prefix: What its subjects begin with.
        answer_s: How long the server may take to answer.
        patience_s: How long a call asks again.

    Attributes:
        replicated: Whether servers other than the leader may answer, who may be a little behind.
    """

    def __init__(
        self, connection: NatsConnection, log: str, prefix: str, *, answer_s: float, patience_s: float
    ) -> None:
        self._connection = connection
        self._log = log
        self._prefix = prefix
        self._answer_s = answer_s
        self._patience_s = patience_s
        self.replicated = False

    async def persist(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what ``attempt`` does, repeated while the server is away, but not for ever.

        Raises:
            LogUnreachableError: It was away for ``patience_s`` seconds.
            LogClosedError: The log was closed.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._patience_s
        pause_s = _PAUSE_S
        while True:
            try:
                if await self._connection.wait(max(0.0, until_s - loop.time())):
                    return await attempt()
                reason = self._connection.last_error
            except (NotSentError, NoAnswerError, _BrokenAnswerError) as error:
                reason = str(error)
            if loop.time() + pause_s > until_s:
                raise LogUnreachableError(
                    f"log {self._log!r} on NATS: {what} had no answer for {self._patience_s:g} s: {reason}. Nothing "
                    "was written."
                )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    async def info(self) -> StreamInfo:
        """Return what the stream says of itself; ``error`` is set where there is none.

        Raises:
            LogUnreachableError: There was no answer.
        """

        async def ask() -> StreamInfo:
            message = await self._connection.ask(f"$JS.API.STREAM.INFO.{self._log}", timeout_s=self._answer_s)
            info = msgspec.json.decode(message.data, type=StreamInfo)
            if info.error is not None and wire.judge(info.error) == "passing":
                raise NotSentError(info.error.description)
            return info

        return await self.persist("asking for the stream's state", ask)

    async def page(self, pattern: str, *, limit: int, after: int = 0, since: str = "") -> list[Found]:
        """Return the next messages of a pattern behind a position, or since a time of the server's.

        None come back only when there are none.
        """
        request: dict[str, Any] = {"batch": limit, "max_bytes": _ANSWER_MAX_BYTES}
        request |= {"start_time": since} if since else {"seq": after + 1}
        request["next_by_subj"] = self._prefix + pattern
        return await self.persist("reading", lambda: self._page_or_nothing(request))

    async def _page_or_nothing(self, request: dict[str, Any]) -> list[Found]:
        found = await self._page(request)
        if not found and self.replicated and "seq" in request:
            wanted = {"seq": request["seq"], "next_by_subj": request["next_by_subj"]}
            if await self._one_of_leader(wanted) is not None:
                raise _BrokenAnswerError("a replica answered that is behind its leader")
        return found

    async def _page(self, request: dict[str, Any]) -> list[Found]:
        found: list[Found] = []
        async with self._connection.inbox() as inbox:
            await self._connection.send(f"$JS.API.DIRECT.GET.{self._log}", _encode(request), reply=inbox.subject)
            try:
                await self._take_page(inbox, found)
            except (NoAnswerError, _BrokenAnswerError):
                if not found:
                    raise
                # What came before the connection was lost is a part of the answer without a hole: the next goes on.
        return found

    async def _take_page(self, inbox: Inbox, found: list[Found]) -> None:
        before = 0
        while True:
            message = await inbox.next(self._answer_s)
            match status_of(message):
                case "":
                    check_follows(message, before)
                    found.append(self._found(message))
                    before = found[-1].record.position
                case "204":
                    check_follows(message, before)
                    return
                case "404":
                    return
                case status:
                    raise NotSentError(f"status {status} {(message.headers or {}).get(wire.DESCRIPTION, '')}")

    def _found(self, message: Msg) -> Found:
        fields = message.headers or {}
        record = wire.record_of(
            int(fields["Nats-Sequence"]),
            fields["Nats-Subject"].removeprefix(self._prefix),
            wire.time_ns_of(fields["Nats-Time-Stamp"]),
            message.data,
            fields,
        )
        return Found(record, fields)

    async def at(self, position: int) -> Found | None:
        """Return the message at a position, or ``None`` where none is retained."""
        return await self._one({"seq": position})

    async def last(self, stream: str) -> Found | None:
        """Return a stream's last message, or ``None``."""
        return await self._one({"last_by_subj": self._prefix + stream})

    async def _one(self, request: dict[str, Any]) -> Found | None:
        return await self.persist(
            "reading", lambda: self._one_of_leader(request) if self.replicated else self._one_directly(request)
        )

    async def _one_directly(self, request: dict[str, Any]) -> Found | None:
        message = await self._connection.ask(
            f"$JS.API.DIRECT.GET.{self._log}", _encode(request), timeout_s=self._answer_s
        )
        match status_of(message):
            case "":
                return self._found(message)
            case "404":
                return None
            case status:
                raise NotSentError(f"status {status} {(message.headers or {}).get(wire.DESCRIPTION, '')}")

    async def _one_of_leader(self, request: dict[str, Any]) -> Found | None:
        answer = await self._connection.ask(
            f"$JS.API.STREAM.MSG.GET.{self._log}", _encode(request), timeout_s=self._answer_s
        )
        decoded = msgspec.json.decode(answer.data, type=_LeaderAnswer)
        if decoded.error is not None and decoded.error.err_code == STREAM_NOT_FOUND:
            raise LogNotFoundError(f"the JetStream stream {self._log!r} is gone.")
        if decoded.error is not None and decoded.error.code != 404:
            raise NotSentError(decoded.error.description)
        message = decoded.message
        if message is None:
            return None
        fields = wire.fields_of_lines(message.hdrs)
        stream = message.subject.removeprefix(self._prefix)
        return Found(wire.record_of(message.seq, stream, wire.time_ns_of(message.time), message.data, fields), fields)
