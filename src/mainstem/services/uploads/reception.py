"""One request's bytes, from the connection into file, log and blob store: performs what ``protocol.Transfer`` says.

A reception is a task of the service, not of the request: when the connection or its task dies, what arrived is still
synced, recorded and released.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any, TypeVar

import msgspec

from mainstem.host.blobs import BlobStore
from mainstem.host.clock import Clock
from mainstem.services.uploads.errors import (
    UploadChecksumError,
    UploadError,
    UploadGoneError,
    UploadLockedError,
    UploadNoSpaceError,
    UploadRequestError,
    UploadTooLargeError,
    UploadUnavailableError,
)
from mainstem.services.uploads.headers import Checksum
from mainstem.services.uploads.protocol import (
    Cause,
    Finished,
    Outcome,
    Overflow,
    Progressed,
    Settlement,
    Terminated,
    Transfer,
    Write,
)
from mainstem.services.uploads.registry import Entry, Registry
from mainstem.services.uploads.storage import NO_ROOM, BytesLostError, PartFile, PartFiles
from mainstem.trace.context import TraceContext, use_trace

_logger = logging.getLogger(__name__)

T = TypeVar("T")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""ASGI's ``receive``."""


class Body:
    """A request's body between connection and file: at most ``max_bytes`` wait; a fast client is held back."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self.cause: Cause | None = None
        self.puts = 0

    @property
    def is_full(self) -> bool:
        """Whether the client is held back."""
        return self._waiting_bytes >= self._max_bytes

    async def put(self, chunk: bytes) -> None:
        """Hand over bytes; return once there is room for more. After the end they are dropped."""
        self.puts += 1
        while self.cause is None and self.is_full:
            self._changed.clear()
            await self._changed.wait()
        if self.cause is None:
            self._chunks.append(chunk)
            self._waiting_bytes += len(chunk)
            self._changed.set()

    def end(self, cause: Cause) -> None:
        """Say that nothing more comes, and why; the first cause counts. What waits is still taken."""
        if self.cause is None:
            self.cause = cause
            self._changed.set()

    async def take(self) -> list[bytes]:
        """Return all bytes that wait, as soon as there are any; nothing after the end."""
        while not self._chunks and self.cause is None:
            self._changed.clear()
            await self._changed.wait()
        chunks, self._chunks, self._waiting_bytes = self._chunks, [], 0
        self._changed.set()
        return chunks


async def read_body(receive: Receive, body: Body) -> None:
    """Hand a request's body over as it comes, until its end or the connection's."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            body.end("disconnected")
            return
        if chunk := message.get("body", b""):
            await body.put(chunk)
        if not message.get("more_body", False):
            body.end("end")
            return


class Tools(msgspec.Struct, frozen=True):
    """What all receptions of a service share."""

    registry: Registry
    parts: PartFiles
    blobs: BlobStore
    clock: Clock
    threads: Executor
    expire_after_ns: int
    buffer_max_bytes: int
    idle_max_s: float = 60.0


class Reception:
    """One request that writes to an upload. Holds the upload from :meth:`start` until its task is done.

    Args:
        tools: What all receptions share.
        entry: The upload; nobody else writes to it.
        transfer: What ``protocol.begin`` made.
        request: Number of the request within the upload.
        checksum: What the body must have, if that was announced.
        span: The request's span.
        parent_span: Span id of the client's span, or empty.
        started_ns: Wall-clock time at which the request came.
    """

    def __init__(
        self,
        tools: Tools,
        entry: Entry,
        transfer: Transfer,
        *,
        request: int,
        checksum: Checksum | None,
        span: TraceContext,
        parent_span: str,
        started_ns: int,
    ) -> None:
        self._tools = tools
        self._entry = entry
        self._transfer = transfer
        self._request = request
        self._checksum = checksum
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum is not None else None
        self._span = span
        self._parent_span = parent_span
        self._started_ns = started_ns
        self._watching: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self.body = Body(tools.buffer_max_bytes)
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        cause = self.body.cause or "receiving"
        return f"<Reception of upload {self._entry.upload.id} at {self._transfer.written}, {cause}>"

    async def serve(self, receive: Receive) -> None:
        """Take a request's body in; return when it is durable, recorded and, at the upload's end, complete.

        Raises:
            UploadError: It was refused, or did not come to its end; what was kept is durable and recorded all the same.
        """
        self._entry.reception = self
        self._reading = asyncio.create_task(read_body(receive, self.body), name="upload body")
        self._reading.add_done_callback(self._reading_done)
        self._watching = asyncio.create_task(self._watch(), name="upload idle time")
        with use_trace(self._span):
            self.task = asyncio.create_task(self._run(), name=f"upload {self._entry.upload.id}")
        self.task.add_done_callback(look_at)
        try:
            await asyncio.shield(self.task)
        except asyncio.CancelledError:
            self._reading.cancel()
            self.stop("disconnected")
            raise

    def stop(self, cause: Cause) -> None:
        """End the request early: what has arrived is still written, synced and recorded."""
        self.body.end(cause)

    def _reading_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _logger.warning("upload %s: reading its body failed: %r", self._entry.upload.id, task.exception())
        self.body.end("disconnected")  # has no effect after a regular end

    async def _run(self) -> None:
        try:
            await self._receive_and_settle()
        finally:
            self._tools.registry.release(self._entry)
            for helper in (self._reading, self._watching):
                if helper is not None:
                    helper.cancel()

    async def _watch(self) -> None:
        """End a request whose client has gone silent: it would hold a place, and keep its upload from expiring."""
        clock, idle_max_s = self._tools.clock, self._tools.idle_max_s
        seen, since_s = 0, clock.monotonic_s()
        while (left_s := since_s + idle_max_s - clock.monotonic_s()) > 0:
            await clock.sleep(left_s)
            if self.body.is_full or self.body.puts != seen:
                # Bytes came, or the disk is what is waited for: the client has its time anew.
                seen, since_s = self.body.puts, clock.monotonic_s()
        self.stop("disconnected")

    async def _receive_and_settle(self) -> None:
        part = await self._open()
        cut_to: int | None = None
        try:
            cause, error = await self._receive(part)
            settlement = self._transfer.settle(cause, checksum_matches=self._checksum_matches())
            settlement, error = await self._sync(part, settlement, error)
            if settlement.cut:
                cut_to = settlement.offset
            if settlement.complete:
                await self._complete(part, settlement)
            elif settlement.record:
                await self._record(settlement.outcome, settlement.offset)
                if settlement.offset == self._transfer.written:
                    part.hashing.mark(settlement.offset)
        except UploadUnavailableError:
            cut_to = None  # what is recorded is unknown: every byte is left where it is
            raise
        finally:
            await self._in_thread(part.close, cut_to)
        self._answer(settlement, error)

    async def _open(self) -> PartFile:
        upload = self._entry.upload
        try:
            await self._tools.parts.detach(upload.id, upload.offset)
            return await self._in_thread(self._tools.parts.open, upload.id, upload.offset, self._entry.hashing)
        except BytesLostError as error:
            _logger.exception("upload %s cannot go on", upload.id)
            await self._tools.registry.end(
                self._entry, Terminated("bytes_lost", self._tools.clock.time_ns()), self._span
            )
            raise UploadGoneError(
                f"upload {upload.id}: its bytes were damaged on the server. Begin it anew."
            ) from error
        except OSError as error:
            raise _disk_error(upload.id, error) from error

    async def _receive(self, part: PartFile) -> tuple[Cause, OSError | None]:
        """Write the body as it comes; return why it ended, and the disk's error if that was it."""
        while chunks := await self.body.take():
            count = sum(map(len, chunks))
            now_s = self._tools.clock.monotonic_s()
            moved, action = self._transfer.receive(count, now_s)
            if isinstance(action, Overflow):
                self._transfer = moved
                return "too_large", None
            try:
                await self._in_thread(self._write, part, chunks, action)
            except OSError as error:
                # The bytes of this round may be in the file or not; those before it are.
                self._transfer = self._transfer.lost(count)
                return ("no_space" if error.errno in NO_ROOM else "failed"), error
            self._transfer = moved
            if action.checkpoint:
                await self._record("receiving", moved.written)
                part.hashing.mark(moved.written)
                self._transfer = moved.checkpointed(now_s)
        return self.body.cause or "failed", None

    def _write(self, part: PartFile, chunks: list[bytes], action: Write) -> None:
        part.write(action.offset, chunks, sync=action.checkpoint)
        if self._digest is not None:
            for chunk in chunks:
                self._digest.update(chunk)

    def _checksum_matches(self) -> bool | None:
        if self._checksum is None or self._digest is None:
            return None
        return hmac.compare_digest(self._digest.digest(), self._checksum.digest)

    async def _sync(
        self, part: PartFile, settlement: Settlement, error: OSError | None
    ) -> tuple[Settlement, OSError | None]:
        if not settlement.sync:
            return settlement, error
        try:
            await self._in_thread(part.sync)
        except OSError as failure:
            # What a failed sync leaves on the disk is unknown, so the offset stays where it was recorded before.
            return self._given_up(failure), failure
        return settlement, error

    def _given_up(self, error: OSError) -> Settlement:
        """Return what is to be done when the disk refuses at the end: the recorded offset stays."""
        lost = self._transfer.settle("failed")
        return msgspec.structs.replace(lost, outcome="no_space") if error.errno in NO_ROOM else lost

    async def _record(self, outcome: Outcome, offset: int) -> None:
        await self._tools.registry.progress(self._entry, self._progressed(outcome, offset), self._span)

    def _progressed(self, outcome: Outcome, offset: int) -> Progressed:
        now_ns = self._tools.clock.time_ns()
        return Progressed(
            offset=offset,
            request=self._request,
            received_bytes=self._transfer.received_bytes,
            started_ns=self._started_ns,
            ended_ns=now_ns,
            outcome=outcome,
            expires_ns=now_ns + self._tools.expire_after_ns,
            parent_span=self._parent_span,
        )

    async def _complete(self, part: PartFile, settlement: Settlement) -> None:
        """Put the blob, then commit the last offset, the end and the event as one; then the file's name may go."""
        tools, upload = self._tools, self._entry.upload
        try:
            blob = await tools.blobs.put_file(part.path, sha256=part.hashing.digest(upload.size_bytes))
        except OSError as error:
            given_up = self._given_up(error)
            await self._record(given_up.outcome, given_up.offset)
            raise _disk_error(upload.id, error) from error
        last = self._progressed(settlement.outcome, settlement.offset)
        finished = Finished(blob, upload.size_bytes, tools.clock.time_ns())
        await tools.registry.finish(self._entry, last, self._span, finished)
        await self._in_thread(tools.parts.remove, upload.id)
        _logger.info("upload %s is complete: %d bytes, blob %s", upload.id, upload.size_bytes, blob)

    def _answer(self, settlement: Settlement, error: OSError | None) -> None:
        """Raise what the client is to be told, unless all went well."""
        upload = self._entry.upload
        if error is not None:
            raise _disk_error(upload.id, error) from error
        refusal = _refusal(settlement, upload.id)
        if refusal is not None:
            raise refusal

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        work = asyncio.get_running_loop().run_in_executor(self._tools.threads, lambda: function(*arguments))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # A file must not be closed, nor its upload released, while a thread is writing to it.
            with contextlib.suppress(OSError):  # what became of it no longer matters: nothing of it will be recorded
                await work
            raise


def look_at(task: asyncio.Task[Any]) -> None:
    """Look at a task's exception, so that it is not reported as lost when its request was cancelled."""
    if not task.cancelled():
        task.exception()


def _refusal(settlement: Settlement, upload_id: str) -> UploadError | None:
    """Return what the client of a request is told that did not go well."""
    headers = {"Upload-Offset": str(settlement.offset)}
    match settlement.outcome:
        case "disconnected":
            return UploadRequestError(f"upload {upload_id}: the body ended early; what came was kept.", headers=headers)
        case "superseded":
            return UploadLockedError(f"upload {upload_id}: another request took over.", headers=headers)
        case "stopped":
            return UploadUnavailableError("the server is stopping; what came was kept.", headers=headers)
        case "too_large":
            return UploadTooLargeError(
                f"upload {upload_id}: the body went beyond the upload's size. The offset is {settlement.offset}.",
                headers=headers,
            )
        case "checksum_mismatch":
            return UploadChecksumError(
                f"upload {upload_id}: the body does not have the checksum that was announced. It was discarded; the "
                f"offset is {settlement.offset}.",
                headers=headers,
            )
        case _:
            return None


def _disk_error(upload_id: str, error: OSError) -> UploadError:
    if error.errno in NO_ROOM:
        return UploadNoSpaceError(
            f"upload {upload_id}: the disk is full. What was acknowledged stays; go on once there is room.",
            headers={"Retry-After": "60"},
        )
    _logger.error("upload %s: the disk failed: %r", upload_id, error)
    return UploadUnavailableError(
        f"upload {upload_id}: the disk failed. What was acknowledged stays.", headers={"Retry-After": "60"}
    )
