"""The example's upload client, against the real service, through the connection that is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from examples.video.proxy import CuttingProxy
from examples.video.tus import TusUpload, UploadError
from mainstem import Mainstem
from mainstem.cli.listening import listen
from mainstem.log import ReadableLog, open_reader
from mainstem.services.uploads import Uploads
from mainstem.trace.context import parse_traceparent
from tests.support import run, until


@asynccontextmanager
async def uploads_server(data: Path) -> AsyncIterator[int]:
    """Serve an application with uploads; yield its port."""
    listener = listen("127.0.0.1", 0)
    application = Mainstem(data, services=[Uploads(max_size_bytes=2_000_000)])
    server = uvicorn.Server(uvicorn.Config(application.asgi, lifespan="on", log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started or serving.done(), 20)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def completed_events(log: ReadableLog) -> int:
    """Return how many uploads were completed."""
    return len(await log.read("upload.completed", 0, 10))


def test_an_upload_survives_two_cuts(tmp_path: Path) -> None:
    """The bytes arrive whole, the breaks are told, and what was sent again is counted."""
    clip = tmp_path / "clip.bin"
    clip.write_bytes(bytes(range(256)) * 4000)
    breaks: list[int] = []
    progress: list[int] = []

    async def upload() -> TusUpload:
        async with (
            uploads_server(tmp_path / "data") as port,
            CuttingProxy(port, [300_000, 700_000], rate_bytes_per_s=5e6) as proxy,
        ):
            client = TusUpload(
                f"http://127.0.0.1:{proxy.port}/uploads/files",
                clip,
                content_type="application/octet-stream",
                on_progress=progress.append,
                on_break=breaks.append,
            )
            upload_id = await client.run()
            assert proxy.cuts == 2
            reader = await open_reader(tmp_path / "data" / "log")
            assert await completed_events(reader) == 1
            records = await reader.read(f"$upload.{upload_id}", 0, 100)
            contexts = [parse_traceparent(record.headers["traceparent"]) for record in records]
            assert {context.trace_id for context in contexts if context} == {client.trace.trace_id}
            await reader.close()
            return client

    client = run(upload())
    (blob,) = [path for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    assert blob.read_bytes() == clip.read_bytes()
    assert len(breaks) == 2
    assert 0 < breaks[0] < breaks[1] < clip.stat().st_size
    assert progress[-1] == clip.stat().st_size
    assert client.bytes_sent_again == client.body_bytes_sent - clip.stat().st_size > 0


def test_a_refusal_is_an_error(tmp_path: Path) -> None:
    """A file that the server does not want ends the upload with the server's answer."""
    clip = tmp_path / "clip.bin"
    clip.write_bytes(bytes(2_000_001))

    async def upload() -> None:
        async with uploads_server(tmp_path / "data") as port:
            await TusUpload(f"http://127.0.0.1:{port}/uploads/files", clip, content_type="video/mp4").run()

    with pytest.raises(UploadError, match="413"):
        run(upload())
