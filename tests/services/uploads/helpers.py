"""An uploads service on a real log, spoken to in this process or over a socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.host.blobs import BlobStore
from mainstem.host.clock import Clock, SystemClock
from mainstem.log import Log, LogSettings, StoredRecord, open_log
from mainstem.services.contract import ServiceContext
from mainstem.services.uploads import UPLOAD_COMPLETED, UPLOAD_PREFIX, UploadCompleted, Uploads
from mainstem.services.uploads.protocol import UploadRecord, decode_record
from tests.support import until

FILES = "/up/uploads/files"
TUS = {"Tus-Resumable": "1.0.0"}
LOG = LogSettings(first_segment_bytes=256 << 10, segment_max_bytes=1 << 20, reserve_bytes=16 << 10)
"""A log that is quick to begin."""

OFFSET_TYPE = {"Content-Type": "application/offset+octet-stream"}


class Desk:
    """A started service with all that is around it.

    Attributes:
        client: Speaks to the service in this process.
    """

    def __init__(self, log: Log, blobs: BlobStore, uploads: Uploads, directory: Path) -> None:
        self.log = log
        self.blobs = blobs
        self.uploads = uploads
        self.directory = directory
        self.app = Starlette(routes=[Mount("/up", routes=[Mount("/uploads", routes=uploads.routes())])])
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://here", headers=TUS, timeout=30
        )

    async def create(self, size_bytes: int, headers: Mapping[str, str] | None = None) -> str:
        """Create an upload; return its address."""
        answer = await self.client.post(FILES, headers={"Upload-Length": str(size_bytes), **(headers or {})})
        assert answer.status_code == 201, answer.text
        return str(answer.url.join(answer.headers["location"]))

    async def patch(
        self, url: str, offset: int, content: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send bytes."""
        fields = {"Upload-Offset": str(offset), **OFFSET_TYPE, **(headers or {})}
        return await self.client.patch(url, content=content, headers=fields)

    async def offset(self, url: str) -> int:
        """Ask for the offset."""
        answer = await self.client.head(url)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])

    async def records(self, url: str) -> list[UploadRecord]:
        """Return an upload's records."""
        return [decode_record(stored.value) for stored in await self.stored(url)]

    async def stored(self, url: str) -> list[StoredRecord]:
        """Return an upload's records as they are stored."""
        return list(await self.log.read(UPLOAD_PREFIX + id_of(url)))

    async def completed(self) -> list[UploadCompleted]:
        """Return all events of finished uploads."""
        return [decode_completed(stored) for stored in await self.log.read(UPLOAD_COMPLETED)]

    def parts(self) -> list[str]:
        """Return the names of the files of unfinished uploads."""
        return sorted(path.name for path in self.directory.iterdir())


def decode_completed(stored: StoredRecord) -> UploadCompleted:
    """Return the event in a record."""
    return msgspec.json.decode(stored.value, type=UploadCompleted)


def id_of(url: str) -> str:
    """Return the id in an upload's address."""
    return url.rpartition("/")[2]


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def checksum(data: bytes, algorithm: str = "sha1") -> dict[str, str]:
    """Return the header with the checksum of a body."""
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"}


def metadata(**values: str) -> dict[str, str]:
    """Return the header with metadata."""
    pairs = (f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
    return {"Upload-Metadata": ",".join(pairs)}


@asynccontextmanager
async def serving(
    data: Path,
    uploads: Uploads | None = None,
    *,
    clock: Clock | None = None,
    log: Log | None = None,
    blobs: BlobStore | None = None,
) -> AsyncIterator[Desk]:
    """Start a service in a data directory; stop it, and close the log, at the end."""
    clock = clock or SystemClock()
    own_log = log is None
    opened = await open_log(data / "log", clock=clock, settings=LOG) if log is None else log
    directory = data / "services" / "uploads"
    directory.mkdir(parents=True, exist_ok=True)
    blobs = blobs or BlobStore(data / "blobs")
    uploads = uploads or Uploads()
    bus = Bus(clock)
    await uploads.start(ServiceContext(opened, bus, Flow(bus, clock), blobs, clock, directory))
    desk = Desk(opened, blobs, uploads, directory)
    try:
        yield desk
    finally:
        await desk.client.aclose()
        await uploads.stop()
        if own_log:
            await opened.close()


@asynccontextmanager
async def listening(desk: Desk, port: int = 0) -> AsyncIterator[str]:
    """Serve on a socket, with uvicorn; yield the address that creates uploads."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    config = uvicorn.Config(desk.app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{FILES}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):  # uvicorn's way to end a request that it waited for
            await task
        listener.close()


def code_of(answer: httpx.Response) -> str:
    """Return the code in a refusal."""
    return str(answer.json()["error"]["code"])


class Slow:
    """A request's body of which the test decides when what comes."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, piece: bytes | None) -> None:
        """Let a piece come; ``None`` ends the body."""
        self._pieces.put_nowait(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


def begin_patch(desk: Desk, url: str, offset: int, slow: Slow) -> asyncio.Task[httpx.Response]:
    """Begin a PATCH whose body comes as the test says."""
    headers = {"Upload-Offset": str(offset), **OFFSET_TYPE}
    return asyncio.create_task(desk.client.patch(url, content=slow, headers=headers))


async def until_busy(desk: Desk) -> None:
    """Wait until a request is bringing bytes."""
    await until(lambda: "1 receiving" in repr(desk.uploads))
