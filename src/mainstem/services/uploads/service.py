"""The uploads service: answers requests as ``protocol.py`` decides, cleans up after crashes and idle clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import new_id
from mainstem.host.disk import Disk, SystemDisk
from mainstem.services.uploads.asgi import TusApplication
from mainstem.services.uploads.errors import (
    UploadError,
    UploadFinishedError,
    UploadLockedError,
    UploadUnavailableError,
)
from mainstem.services.uploads.headers import (
    CHECKSUM_ALGORITHMS,
    EXTENSIONS,
    TUS_VERSION,
    Checksum,
    check_version,
    effective_method,
    http_date,
    parse_creation,
    parse_patch,
    relative_location,
)
from mainstem.services.uploads.protocol import (
    Created,
    Expired,
    Terminated,
    TransferLimits,
    begin,
    creation_trace,
    refuse_gone,
)
from mainstem.services.uploads.reception import Reception, Tools, look_at
from mainstem.services.uploads.registry import Entry, Registry
from mainstem.services.uploads.storage import PartFiles
from mainstem.trace.context import TraceContext, new_trace, parse_traceparent

if TYPE_CHECKING:
    from mainstem.bus import Bus
    from mainstem.flow import Flow
    from mainstem.services.contract import ServiceContext
    from mainstem.ui.panel import Panel

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 4
_BUFFER_MAX_BYTES = 512 << 10
_TAKE_OVER_WAIT_S = 10.0
_SWEEP_MAX_S = 60.0


class Uploads:
    """Resumable uploads over tus 1.0.0; each finished one becomes a blob and exactly one event ``upload.completed``.

    Extensions: creation, creation-with-upload, checksum (sha1, sha256), termination, expiration.

    Addresses, below the service's own: ``files`` creates (POST) and tells what is offered (OPTIONS); ``files/<id>``
    is an upload (HEAD, PATCH, DELETE). A finished one cannot be terminated: its bytes are the application's (409).

    Args:
        max_size_bytes: Largest upload.
        expire_after_s: An unfinished upload is removed so long after its last request.
        max_open: Most unfinished uploads at a time.
        max_open_bytes: Most bytes that the unfinished uploads may come to, by their declared sizes.
        max_active: Most requests that bring bytes at a time; each holds up to 1 MiB of memory.
        checkpoint_bytes: While a request goes on, its bytes are made durable and recorded each time so many came …
        checkpoint_s: … or so many seconds passed.
        idle_max_s: A request that brings no byte for so long (at most twice as long) is ended; what it brought is kept.
        allowed_origins: Origins whose pages may upload, such as ``https://shop.example``; none but our own by default.
        disk: The file system, for tests.
    """

    name = "uploads"

    def __init__(
        self,
        *,
        max_size_bytes: int = 16 << 30,
        expire_after_s: float = 24 * 3600.0,
        max_open: int = 1000,
        max_open_bytes: int = 1 << 40,
        max_active: int = 256,
        checkpoint_bytes: int = 8 << 20,
        checkpoint_s: float = 2.0,
        idle_max_s: float = 60.0,
        allowed_origins: Sequence[str] = (),
        disk: Disk | None = None,
    ) -> None:
        limits = {"max_size_bytes": max_size_bytes, "expire_after_s": expire_after_s, "max_open": max_open}
        limits |= {"max_open_bytes": max_open_bytes, "max_active": max_active, "checkpoint_bytes": checkpoint_bytes}
        for name, value in {**limits, "checkpoint_s": checkpoint_s, "idle_max_s": idle_max_s}.items():
            if not value > 0:
                raise InvalidArgumentError(f"Uploads({name}={value!r}): expected a number above 0.")
        self._max_size_bytes = max_size_bytes
        self._expire_after_ns = round(expire_after_s * 1e9)
        self._max_open = max_open
        self._max_open_bytes = max_open_bytes
        self._max_active = max_active
        self._limits = TransferLimits(checkpoint_bytes, checkpoint_s)
        self._idle_max_s = idle_max_s
        self._allowed_origins = frozenset(allowed_origins)
        self._disk: Disk = disk or SystemDisk()
        self._tools: Tools | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._receptions: set[Reception] = set()
        self._changes: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        state = "stopped" if self._tools is None else f"{len(self._receptions)} receiving"
        return f"<Uploads {state}>"

    # ---- the service's shape

    def register(self, flow: Flow, bus: Bus) -> None:
        """Declare nothing: others subscribe to ``upload.completed``."""

    async def start(self, context: ServiceContext) -> None:
        """Learn the open uploads from the log, remove the files of all others, expire what is overdue, and serve."""
        registry = Registry(context.log, max_open=self._max_open, max_open_bytes=self._max_open_bytes)
        await registry.load()
        parts = PartFiles(context.directory, self._disk, context.blobs)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mainstem-uploads")
        tools = Tools(
            registry,
            parts,
            context.blobs,
            context.clock,
            self._threads,
            self._expire_after_ns,
            _BUFFER_MAX_BYTES,
            self._idle_max_s,
        )
        try:
            await self._recover(tools)
        except BaseException:
            self._threads.shutdown()  # what did not start is not stopped by anybody else
            self._threads = None
            raise
        self._tools = tools
        self._sweeping = asyncio.create_task(self._sweep_for_ever(tools), name="uploads sweep")

    async def stop(self) -> None:
        """End the requests in flight: what they brought is synced and recorded. Idempotent."""
        self._tools = None
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
            self._sweeping = None
        for reception in self._receptions:
            reception.stop("stopped")
        tasks = [reception.task for reception in self._receptions if reception.task is not None]
        tasks += self._changes
        if tasks:
            await asyncio.wait(tasks)
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of ``files`` and ``files/<id>``."""
        application = TusApplication(self._answer, self._allowed_origins)
        return [Route(path, application) for path in ("/files", "/files/", "/files/{upload_id}")]

    def panels(self) -> Sequence[Panel]:
        """Return the pages of uploads."""
        from mainstem.services.uploads.panel import UploadsPanel  # noqa: PLC0415 (only who has a dashboard needs it)

        return (UploadsPanel(),)

    # ---- recovery and expiry

    async def _recover(self, tools: Tools) -> None:
        loop = asyncio.get_running_loop()
        now_ns = tools.clock.time_ns()
        for entry in tools.registry.open_entries():
            upload = entry.upload
            if upload.expires_ns <= now_ns:
                await self._expire(tools, entry)
                continue
            found = await loop.run_in_executor(tools.threads, tools.parts.size_bytes, upload.id)
            if found < upload.offset:
                _logger.error("upload %s: %d of %d recorded bytes are on the disk", upload.id, found, upload.offset)
                await tools.registry.end(entry, Terminated("bytes_lost", now_ns), upload.trace)
        removed = await loop.run_in_executor(tools.threads, tools.parts.remove_others, tools.registry.kept_ids())
        if removed:
            _logger.info("uploads: %d files of ended uploads removed", removed)

    async def _sweep_for_ever(self, tools: Tools) -> None:
        period_s = min(_SWEEP_MAX_S, self._expire_after_ns / 4e9)
        while True:
            await tools.clock.sleep(period_s)
            now_ns = tools.clock.time_ns()
            for entry in tools.registry.open_entries():
                if not entry.busy and entry.upload.expires_ns <= now_ns:
                    try:
                        await self._expire(tools, entry)
                    except (UploadError, OSError) as error:
                        # It stays, and is tried again at the next sweep; a restart removes it too.
                        _logger.warning("upload %s could not be expired: %s", entry.upload.id, error)

    async def _expire(self, tools: Tools, entry: Entry) -> None:
        await self._end(tools, entry, Expired(tools.clock.time_ns()))
        _logger.info("upload %s has expired at %d bytes", entry.upload.id, entry.upload.offset)

    def _end(self, tools: Tools, entry: Entry, record: Terminated | Expired) -> Coroutine[Any, Any, None]:
        """Take hold of an upload that is not busy, at once; return what records its end, then removes its file.

        Whoever looks next, even before that was begun, finds it busy: no request slips in between the two.
        """
        entry.ending = True
        return self._record_end(tools, entry, record)

    async def _record_end(self, tools: Tools, entry: Entry, record: Terminated | Expired) -> None:
        try:
            await tools.registry.end(entry, record, entry.upload.trace)
        finally:
            tools.registry.release(entry)
        await asyncio.get_running_loop().run_in_executor(tools.threads, tools.parts.remove, entry.upload.id)

    # ---- requests

    async def _answer(self, request: Request, receive: Receive) -> Response:
        """Answer one request of the protocol.

        Raises:
            UploadError: It is refused.
        """
        method = effective_method(request.method, request.headers)
        if method == "OPTIONS":
            return self._options()
        check_version(request.headers)
        tools = self._tools
        if tools is None:
            raise UploadUnavailableError("the server is stopping.", headers={"Retry-After": "5"})
        upload_id = request.path_params.get("upload_id")
        match method, upload_id:
            case "POST", None:
                return await self._create(tools, request, receive)
            case "HEAD", str():
                return await self._head(tools, upload_id)
            case "PATCH", str():
                return await self._patch(tools, upload_id, request, receive)
            case "DELETE", str():
                return await self._delete(tools, upload_id)
            case _:
                allowed = "OPTIONS, POST" if upload_id is None else "OPTIONS, HEAD, PATCH, DELETE"
                return Response(status_code=405, headers={"Allow": allowed})

    def _options(self) -> Response:
        return Response(
            status_code=204,
            headers={
                "Tus-Version": TUS_VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Max-Size": str(self._max_size_bytes),
                "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
            },
        )

    async def _create(self, tools: Tools, request: Request, receive: Receive) -> Response:
        started_ns = tools.clock.time_ns()
        creation = parse_creation(request.headers, self._max_size_bytes)
        incoming = parse_traceparent(request.headers.get("traceparent"))
        takes_in = creation.body_bytes != 0 or creation.size_bytes == 0
        if takes_in:
            self._check_active(tools)
        upload_id = new_id(started_ns)
        created = Created(
            size_bytes=creation.size_bytes,
            started_ns=started_ns,
            expires_ns=started_ns + self._expire_after_ns,
            filename=creation.metadata.filename,
            content_type=creation.metadata.content_type,
            metadata=creation.metadata.values,
            upload_metadata=creation.metadata.raw,
            parent_span=incoming.span_id if incoming is not None else "",
        )
        entry = await self._change(
            tools.registry.create(upload_id, created, creation_trace(upload_id, incoming, new_trace()))
        )
        headers = {"Location": relative_location(request.url.path, upload_id)}
        if takes_in:
            try:
                arrival = _Arrival(0, creation.body_bytes, creation.checksum, incoming, started_ns, request=0)
                await self._take_in(tools, entry, arrival, receive)
            except UploadError as error:
                error.headers |= headers  # the upload exists all the same, and can go on
                raise
            headers["Upload-Offset"] = str(entry.upload.offset)
        return Response(status_code=201, headers={**headers, **_expires(entry)})

    async def _head(self, tools: Tools, upload_id: str) -> Response:
        entry = await self._take_over(tools, upload_id)
        refuse_gone(entry.upload)
        if entry.upload.phase == "open" and entry.upload.offset == entry.upload.size_bytes:
            # All bytes are there (there may be none at all), but its last request died before it was complete.
            arrival = _Arrival(entry.upload.offset, 0, None, None, tools.clock.time_ns())
            await self._take_in(tools, entry, arrival, _no_body)
        upload = entry.upload
        headers = {"Upload-Offset": str(upload.offset), "Upload-Length": str(upload.size_bytes), **_expires(entry)}
        if upload.created.upload_metadata:
            headers["Upload-Metadata"] = upload.created.upload_metadata
        return Response(status_code=200, headers=headers)

    async def _patch(self, tools: Tools, upload_id: str, request: Request, receive: Receive) -> Response:
        started_ns = tools.clock.time_ns()
        patch = parse_patch(request.headers)
        incoming = parse_traceparent(request.headers.get("traceparent"))
        entry = await tools.registry.get(upload_id)
        arrival = _Arrival(patch.offset, patch.body_bytes, patch.checksum, incoming, started_ns)
        await self._take_in(tools, entry, arrival, receive)
        headers = {"Upload-Offset": str(entry.upload.offset), **_expires(entry)}
        return Response(status_code=204, headers=headers)

    async def _delete(self, tools: Tools, upload_id: str) -> Response:
        entry = await self._take_over(tools, upload_id)
        refuse_gone(entry.upload)
        if entry.upload.phase == "finished":
            raise UploadFinishedError(f"upload {upload_id} is complete; its bytes belong to the application now.")
        await self._change(self._end(tools, entry, Terminated("client", tools.clock.time_ns())))
        return Response(status_code=204)

    async def _change(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what changes log and files as a task of the service: a request that is cancelled leaves no half of it."""
        task = asyncio.create_task(work, name="upload change")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        task.add_done_callback(look_at)
        return await asyncio.shield(task)

    async def _take_in(self, tools: Tools, entry: Entry, arrival: _Arrival, receive: Receive) -> None:
        """Take a request's bytes into an upload."""
        upload = entry.upload
        transfer = begin(
            upload,
            arrival.offset,
            arrival.body_bytes,
            has_checksum=arrival.checksum is not None,
            busy=entry.busy,
            now_s=tools.clock.monotonic_s(),
            limits=self._limits,
        )
        if upload.phase == "finished":
            return  # a repeated last PATCH without bytes: there is nothing left to do
        self._check_active(tools)
        number = upload.requests if arrival.request is None else arrival.request
        reception = Reception(
            tools,
            entry,
            transfer,
            request=number,
            checksum=arrival.checksum,
            span=upload.request_span(number, arrival.incoming),
            parent_span=arrival.incoming.span_id if arrival.incoming is not None else "",
            started_ns=arrival.started_ns,
        )
        self._receptions.add(reception)
        try:
            await reception.serve(receive)
        finally:
            # The request may end before its reception does: then the reception stays, for stop() to wait for.
            if reception.task is None:
                self._receptions.discard(reception)
            else:
                reception.task.add_done_callback(lambda _task: self._receptions.discard(reception))

    def _check_active(self, tools: Tools) -> None:
        if self._tools is not tools:
            raise UploadUnavailableError("the server is stopping.", headers={"Retry-After": "5"})
        if len(self._receptions) >= self._max_active:
            raise UploadUnavailableError(
                f"{len(self._receptions)} requests bring bytes at present, allowed are {self._max_active}. Try again.",
                headers={"Retry-After": "5"},
            )

    async def _take_over(self, tools: Tools, upload_id: str) -> Entry:
        """Return an upload that no request is writing to: a client that asks has given its earlier request up.

        As tusd does it: without this, a connection that died silently would hold the upload until its time-out.

        Raises:
            UploadNotFoundError: There is none.
            UploadLockedError: The earlier request did not end in time.
        """
        entry = await tools.registry.get(upload_id)
        reception = entry.reception
        if reception is not None and reception.task is not None:
            reception.stop("superseded")
            await asyncio.wait([reception.task], timeout=_TAKE_OVER_WAIT_S)
            entry = await tools.registry.get(upload_id)
        if entry.busy:
            raise UploadLockedError(f"upload {upload_id}: another request is at work on it. Try again.")
        return entry


class _Arrival(msgspec.Struct, frozen=True):
    """A request that brings bytes; ``request`` is ``None`` for the next number, ``body_bytes`` when not told."""

    offset: int
    body_bytes: int | None
    checksum: Checksum | None
    incoming: TraceContext | None
    started_ns: int
    request: int | None = None


async def _no_body() -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def _expires(entry: Entry) -> dict[str, str]:
    """Return the field that says until when an unfinished upload can go on."""
    return {"Upload-Expires": http_date(entry.upload.expires_ns)} if entry.upload.phase == "open" else {}
