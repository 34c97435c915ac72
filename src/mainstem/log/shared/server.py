"""The leader's end: answers those who are attached, out of its own log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from mainstem.base.errors import InvalidArgumentError, MainstemError
from mainstem.log.embedded import EmbeddedLog
from mainstem.log.embedded.calls import Answer as Positions
from mainstem.log.embedded.calls import Call, call_of
from mainstem.log.errors import LogError, PositionConflictError
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
    WireRecord,
)

_logger = logging.getLogger(__name__)

_TASKS_MAX = 256
_BACKLOG = 128


class LogServer:
    """Serves one leader's log on a Unix socket of mode 0600."""

    def __init__(self, log: EmbeddedLog, path: Path) -> None:
        self._log = log
        self._path = path
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    def __repr__(self) -> str:
        return f"<LogServer {self._path}, {len(self._connections)} attached>"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The socket cannot be made.
        """
        listening = bind(self._path)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: Connection(self._log, self._connections), sock=listening, backlog=_BACKLOG
            )
        except BaseException:
            listening.close()
            raise

    async def stop(self) -> None:
        """Send the answers that are ready, then let go of everyone who is attached, and of the socket."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        with contextlib.suppress(FileNotFoundError):  # the next owner has tidied up
            self._path.unlink()


def bind(path: Path) -> socket.socket:
    """Return a listening Unix socket at a path of any length, of mode 0600.

    An address of a Unix socket has room for 107 bytes, so it is named by its directory's descriptor.
    """
    with contextlib.suppress(FileNotFoundError):  # left by an owner that died
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(listening.fileno(), 0o600)  # Linux gives the file the mode that the socket has when it is bound
        listening.bind(f"/proc/self/fd/{directory}/{path.name}")
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.close(directory)
    return listening


class _RemoteCaller:
    """Stands for a caller elsewhere in the log's queue."""

    __slots__ = ("_connection", "_id")

    def __init__(self, connection: Connection, call_id: int) -> None:
        self._connection = connection
        self._id = call_id

    def done(self) -> bool:
        """Whether it has gone."""
        return self._connection.closed

    def set_result(self, answer: Positions, /) -> None:
        """Send the answer."""
        self._connection.send(Answer(self._id, answer))

    def set_exception(self, error: LogError, /) -> None:
        """Send the error."""
        self._connection.send(failure(self._id, error))


class _Tail:
    """A tail of a client: one batch at a time, and the next when that was taken."""

    __slots__ = ("taken", "task")

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Connection(asyncio.Protocol):
    """One process that is attached."""

    def __init__(self, log: EmbeddedLog, connections: set[Connection]) -> None:
        self._log = log
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._reader = protocol.RequestReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flush_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._tails: dict[int, _Tail] = {}
        self._waiting: deque[tuple[Call, _RemoteCaller]] = deque()
        self._admitting: asyncio.Task[None] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Welcome whoever came."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self.send(Welcome(protocol.VERSION, self._log.epoch, self._log.end_position))

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget it. What it submitted and what is not yet being written is dropped, wholly absent."""
        self.closed = True
        self._connections.discard(self)
        for task in tuple(self._tasks):
            task.cancel()

    def close(self) -> None:
        """End the connection behind what was to be sent."""
        self._flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """End the connection at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take requests in."""
        try:
            for request in self._reader.feed(data):
                self._handle(request)
        except ProtocolError as error:
            _logger.warning("log: whoever was attached spoke no protocol of ours and is let go: %s", error)
            self.drop()

    def _handle(self, request: Request) -> None:
        if isinstance(request, Appending):
            self._append(request)
        elif isinstance(request, Taken):
            if (tail := self._tails.get(request.id)) is not None:
                tail.taken.set()
        elif isinstance(request, Stopping):
            if (tail := self._tails.get(request.id)) is not None and tail.task is not None:
                tail.task.cancel()
        elif isinstance(request, Ping):
            self.send(Pong(request.id, self._log.end_position))
        elif isinstance(request, Tailing):
            tail = self._tails[request.id] = _Tail()
            tail.task = self._start(request.id, self._follow(request, tail))
        else:
            self._start(request.id, self._answer(request))

    # ---- appending

    def _append(self, request: Appending) -> None:
        caller = _RemoteCaller(self, request.id)
        try:
            blocks = protocol.blocks_of(request)
            call = call_of(blocks, request.dedup_id, request.use_reserve, self._log.settings)
            if self._waiting or not self._log.submit(call, caller):
                self._wait_for_memory(call, caller)
        except (LogError, InvalidArgumentError) as error:
            self.send(failure(request.id, error))

    def _wait_for_memory(self, call: Call, caller: _RemoteCaller) -> None:
        """Too much waits for the disk: hear nothing more from this client until its call is admitted."""
        self._waiting.append((call, caller))
        if self._admitting is None:
            assert self._transport is not None
            self._transport.pause_reading()
            self._admitting = self._start(0, self._admit())

    async def _admit(self) -> None:
        try:
            while self._waiting:
                call, caller = self._waiting.popleft()
                try:
                    await self._log.wait_for_memory(call, caller)
                except LogError as error:
                    caller.set_exception(error)
        finally:
            self._admitting = None
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # ---- reading

    def _start(self, request_id: int, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(self._guarded(request_id, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if len(self._tasks) > _TASKS_MAX:
            _logger.warning("log: a client that is attached has %d requests under way at once", len(self._tasks))
            self.drop()
        return task

    async def _guarded(self, request_id: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (MainstemError, OSError) as error:
            self.send(failure(request_id, error))

    async def _answer(self, request: Reading | LookingLast | AskingStats) -> None:
        if isinstance(request, Reading):
            records = await self._log.read(request.pattern, request.after, request.limit)
            self.send(Batch(request.id, [WireRecord.of(record) for record in records]))
        elif isinstance(request, LookingLast):
            last = await self._log.last(request.stream)
            self.send(Batch(request.id, [WireRecord.of(last)] if last is not None else []))
        else:
            self.send(Stats(request.id, await self._log.stats()))

    async def _follow(self, request: Tailing, tail: _Tail) -> None:
        batches = self._log.tail(request.pattern, request.after)
        try:
            async for records in batches:
                tail.taken.clear()
                self.send(Batch(request.id, [WireRecord.of(record) for record in records]))
                await tail.taken.wait()
        finally:
            del self._tails[request.id]
            await batches.aclose()

    # ---- sending

    def send(self, message: Response) -> None:
        """Send a message, together with all others of this turn of the event loop."""
        if self.closed:
            return
        self._out.append(protocol.encode(message))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        out, self._out = self._out, []
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(out))


def failure(request_id: int, error: BaseException) -> Failure:
    """Return an error as it travels."""
    if isinstance(error, PositionConflictError):
        return Failure(request_id, error.code, error.message, error.stream, error.expected, error.actual)
    if isinstance(error, MainstemError):
        return Failure(request_id, error.code, error.message)
    return Failure(request_id, "error", str(error))
