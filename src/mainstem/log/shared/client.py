"""The end of those who are attached: one connection to the leader, for as long as it lasts."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from mainstem.base.errors import InvalidArgumentError, MainstemError
from mainstem.log.contract import LogStats, StoredRecord
from mainstem.log.embedded.calls import Call
from mainstem.log.embedded.layout import socket_name
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogCorruptError,
    LogError,
    LogFormatError,
    LogFullError,
    NotWrittenError,
    PositionConflictError,
)
from mainstem.log.shared import protocol
from mainstem.log.shared.protocol import (
    Answer,
    Appending,
    AskingStats,
    Batch,
    Failure,
    LookingLast,
    Ping,
    Pong,
    ProtocolError,
    Reading,
    Request,
    Response,
    Stats,
    Stopping,
    Tailing,
    Taken,
    Welcome,
)

_ERRORS: dict[str, type[MainstemError]] = {
    kind.code: kind
    for kind in (
        AppendOutcomeUnknownError,
        InvalidArgumentError,
        LogClosedError,
        LogCorruptError,
        LogFormatError,
        LogFullError,
        NotWrittenError,
    )
}


class LeaderLostError(Exception):
    """The connection to the leader is gone.

    Attributes:
        sent: Whether the request had been sent: an append may be written or not.
    """

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the leader is gone")
        self.sent = sent


class LeaderSilentError(Exception):
    """The leader took the connection and says nothing.

    Attributes:
        epoch: The epoch that it leads.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__("the leader says nothing")
        self.epoch = epoch


class LeaderConnection(asyncio.Protocol):
    """A connection to the leader; made by :func:`connect`.

    Attributes:
        end_position: The last durable position that was heard of.
        epoch: The leader's epoch.
        lost: Done once the connection is gone.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = protocol.ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._ids = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tails: dict[int, asyncio.Queue[Batch | Failure | None]] = {}
        self._out: list[bytes] = []
        self._flush_due = False
        self._closed = False
        self.welcome: asyncio.Future[Welcome] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.end_position = self.epoch = 0
        self.heard_s = self._loop.time()

    # ---- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell everyone who waits."""
        self._closed = True
        unsent, self._out = bool(self._out), []
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LeaderLostError(sent=True))
        self._waiting.clear()
        for batches in self._tails.values():
            batches.put_nowait(None)
        if not self.welcome.done():
            self.welcome.set_exception(LeaderLostError(sent=unsent))
            self.welcome.exception()  # whoever waits for it has perhaps gone
        if not self.lost.done():
            self.lost.set_result(None)

    def drop(self) -> None:
        """End the connection."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take responses in."""
        self.heard_s = self._loop.time()
        try:
            for response in self._reader.feed(data):
                self._handle(response)
        except ProtocolError:
            self.drop()  # the same as one that is gone: others are looked for

    def _handle(self, response: Response) -> None:
        if isinstance(response, Welcome):
            self.end_position = max(self.end_position, response.end_position)
            self.epoch = response.epoch
            if not self.welcome.done():
                self.welcome.set_result(response)
            return
        if isinstance(response, Answer):
            self.end_position = max(self.end_position, *response.positions)
        elif isinstance(response, Pong):
            self.end_position = max(self.end_position, response.end_position)
        elif isinstance(response, Batch) and response.records:
            self.end_position = max(self.end_position, response.records[-1].position)
        if isinstance(response, (Batch, Failure)) and (batches := self._tails.get(response.id)) is not None:
            batches.put_nowait(response)
            return
        future = self._waiting.pop(response.id, None)
        if future is None or future.done():
            return  # its caller was cancelled
        if isinstance(response, Failure):
            future.set_exception(error_of(response))
        else:
            future.set_result(response)

    def _send(self, request: Request) -> None:
        self._out.append(protocol.encode(request))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out, self._out = self._out, []
        if self._transport is not None and not self._closed:
            self._transport.write(b"".join(out))

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    async def _ask(self, request: Request) -> Any:
        if self._closed:
            raise LeaderLostError(sent=False)
        future = self._waiting[request.id] = self._loop.create_future()
        self._send(request)
        try:
            return await future
        finally:
            self._waiting.pop(request.id, None)

    # ---- what the log's contract needs

    async def append(self, call: Call) -> tuple[int, ...]:
        """Have a call committed; return the last position of each of its appends.

        Raises:
            LogError: As the leader raised it.
            LeaderLostError: The connection ended first.
        """
        request = Appending(self._next_id(), protocol.wire_blocks(call), call.dedup_id, call.use_reserve)
        answer: Answer = await self._ask(request)
        return answer.positions

    async def read(self, pattern: str, after: int, limit: int) -> list[StoredRecord]:
        """Read; errors as for :meth:`append`."""
        batch: Batch = await self._ask(Reading(self._next_id(), pattern, after, limit))
        return [record.stored() for record in batch.records]

    async def last(self, stream: str) -> StoredRecord | None:
        """Return a stream's last record; errors as for :meth:`append`."""
        batch: Batch = await self._ask(LookingLast(self._next_id(), stream))
        return batch.records[0].stored() if batch.records else None

    async def stats(self) -> LogStats:
        """Return how much the log holds; errors as for :meth:`append`."""
        answer: Stats = await self._ask(AskingStats(self._next_id()))
        return answer.stats

    def ping(self) -> None:
        """Ask whether the leader is there; its answer shows in :attr:`heard_s`."""
        self._send(Ping(0))

    async def tail(self, pattern: str, after: int) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of records; errors as for :meth:`append`."""
        if self._closed:
            raise LeaderLostError(sent=False)
        tail_id = self._next_id()
        batches = self._tails[tail_id] = asyncio.Queue()
        self._send(Tailing(tail_id, pattern, after))
        try:
            while (batch := await batches.get()) is not None:
                if isinstance(batch, Failure):
                    raise error_of(batch)
                yield [record.stored() for record in batch.records]
                if not self._closed:
                    self._send(Taken(tail_id))
            raise LeaderLostError(sent=False)
        finally:
            del self._tails[tail_id]
            if not self._closed:
                self._send(Stopping(tail_id))


async def connect(directory: Path, epoch: int, patience_s: float) -> LeaderConnection:
    """Attach to the leader of an epoch.

    Raises:
        OSError: Nobody listens there.
        LeaderSilentError: Somebody does, and does not answer within ``patience_s``.
        LeaderLostError: It went away at once.
        LogFormatError: It speaks another version.
    """
    loop = asyncio.get_running_loop()
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    descriptor = -1
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # A Unix socket's connect never takes long: it succeeds, is refused, or finds the other's backlog full.
        raw.connect(f"/proc/self/fd/{descriptor}/{socket_name(epoch)}")
        _transport, connection = await loop.create_unix_connection(LeaderConnection, sock=raw)
    except BlockingIOError:
        raw.close()
        raise LeaderSilentError(epoch) from None
    except BaseException:
        raw.close()
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    try:
        async with asyncio.timeout(patience_s):
            welcome = await asyncio.shield(connection.welcome)
    except TimeoutError:
        connection.drop()
        raise LeaderSilentError(epoch) from None
    except BaseException:
        connection.drop()
        raise
    if welcome.version != protocol.VERSION:
        connection.drop()
        raise LogFormatError(
            f"{directory}: the process that leads this log speaks version {welcome.version} of the protocol, this one "
            f"{protocol.VERSION}. Run all processes of an application with one version of mainstem."
        )
    return connection


def error_of(failure: Failure) -> MainstemError:
    """Return the error that a leader raised."""
    if failure.code == PositionConflictError.code:
        return PositionConflictError(failure.stream, failure.expected, failure.actual)
    return _ERRORS.get(failure.code, LogError)(failure.message)
