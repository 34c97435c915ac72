"""Real clients over real sockets, connections that break, and a server that is killed with -9 in between."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tusclient import client as tus_client
from tusclient.uploader.uploader import Uploader

from mainstem.services.uploads.protocol import Progressed
from tests.services.uploads.helpers import listening, serving, sha256
from tests.support import ROOT, node_modules, node_program, run, until, wait_until

DATA = os.urandom(3 << 20)


def uploader(endpoint: str, data: bytes, chunk_bytes: int, url: str | None = None) -> Uploader:
    """Return tuspy's uploader."""
    client = tus_client.TusClient(endpoint)
    return client.uploader(
        file_stream=io.BytesIO(data),
        chunk_size=chunk_bytes,
        url=url,
        metadata={"filename": "a film.mp4", "filetype": "video/mp4"},
        upload_checksum=True,
    )


def upload_rest(endpoint: str, data: bytes, chunk_bytes: int, url: str | None = None) -> str:
    """Upload with tuspy, blocking; return the upload's address."""
    upload = uploader(endpoint, data, chunk_bytes, url)
    upload.upload()
    return str(upload.url)


def test_tuspy(tmp_path: Path) -> None:
    """Tuspy uploads in chunks, with checksums."""

    async def body() -> None:
        async with serving(tmp_path) as desk, listening(desk) as endpoint:
            url = await asyncio.to_thread(upload_rest, endpoint, DATA, 1_000_000)
            [event] = await desk.completed()
            assert (event.blob, event.filename, event.content_type) == (sha256(DATA), "a film.mp4", "video/mp4")
            records = [record for record in await desk.records(url) if isinstance(record, Progressed)]
            assert [record.outcome for record in records] == ["ok"] * 4

    run(body())


def send_some(url: str, offset: int, data: bytes, *, announced: int, reset: bool) -> None:
    """Begin a PATCH, send some bytes, and let the connection break: closed in order, or reset."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port)) as line:
        head = (
            f"PATCH {parts.path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {announced}\r\n\r\n"
        )
        line.sendall(head.encode() + data)
        if reset:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def has_outcomes(outcomes: Callable[[], Awaitable[list[str]]], count: int) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether so many requests have come to their end."""

    async def has() -> bool:
        return len(await outcomes()) == count

    return has


@pytest.mark.parametrize("reset", [False, True])
def test_dropped_connection_keeps_what_came_and_no_lock(tmp_path: Path, reset: bool) -> None:
    """When a connection breaks in mid PATCH, what came is recorded, and the next request goes on at once."""

    async def body() -> None:
        async with serving(tmp_path) as desk, listening(desk) as endpoint:
            answer = await desk.client.post(endpoint, headers={"Upload-Length": str(len(DATA))})
            url = str(answer.url.join(answer.headers["location"]))
            offset = 0

            async def outcomes() -> list[str]:
                return [record.outcome for record in await desk.records(url) if isinstance(record, Progressed)]

            for cut in range(1, 4):
                piece = DATA[offset : offset + 200_000]
                await asyncio.to_thread(send_some, url, offset, piece, announced=len(DATA) - offset, reset=reset)
                if not reset:  # a reset may take back what the server had not read yet, all of it even
                    await until(has_outcomes(outcomes, cut))
                offset = await desk.offset(url)
                assert reset or offset == cut * 200_000
            await asyncio.to_thread(upload_rest, endpoint, DATA, 1 << 20, url)
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]
            assert reset or (await outcomes())[:3] == ["disconnected"] * 3

    run(body())


def test_silent_connection_is_given_up_for_a_new_one(tmp_path: Path) -> None:
    """A connection that says nothing more does not keep its client from going on over another."""

    async def body() -> None:
        async with serving(tmp_path) as desk, listening(desk) as endpoint:
            answer = await desk.client.post(endpoint, headers={"Upload-Length": str(len(DATA))})
            url = str(answer.url.join(answer.headers["location"]))
            parts = urlsplit(url)
            assert parts.port is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
            writer.write(
                f"PATCH {parts.path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Length: {len(DATA)}\r\nContent-Type: application/offset+octet-stream\r\n\r\n".encode()
            )
            writer.write(DATA[:100_000])
            await until(lambda: desk.parts() and (desk.directory / desk.parts()[0]).stat().st_size == 100_000)
            await asyncio.to_thread(upload_rest, endpoint, DATA, 1 << 20, url)
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]
            assert (await reader.readline()).startswith(b"HTTP/1.1 423")
            writer.close()
            await writer.wait_closed()

    run(body())


def send_all(url: str, offset: int, data: bytes) -> bytes:
    """Send a PATCH with all of its body before a look at the answer; return the answer's first line."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as line:
        head = (
            f"PATCH {parts.path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: {offset}\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        line.sendall(head.encode())
        line.sendall(data)
        return line.makefile("rb").readline()


@pytest.mark.parametrize("size_bytes", [500_000, 32 << 20])
def test_refused_body_gets_its_answer(tmp_path: Path, size_bytes: int) -> None:
    """A client whose body is refused reads the answer, also when it goes on sending for long."""

    async def body() -> None:
        async with serving(tmp_path) as desk, listening(desk) as endpoint:
            answer = await desk.client.post(endpoint, headers={"Upload-Length": str(size_bytes + 5)})
            url = str(answer.url.join(answer.headers["location"]))
            line = await asyncio.to_thread(send_all, url, 5, bytes(size_bytes))
            assert line.startswith(b"HTTP/1.1 409")

    run(body())


@contextmanager
def server_process(data: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server program; yield its process and its endpoint; kill it with -9 at the end."""
    command = [sys.executable, "-m", "tests.services.uploads.server_program", str(data), str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        try:
            assert endpoint.startswith("http://"), "the server did not start"
            yield process, endpoint
        finally:
            process.send_signal(signal.SIGKILL)


async def blobs_of(data: Path) -> list[str]:
    """Return the blobs of all finished uploads of a closed directory, after a look at their bytes."""
    async with serving(data) as desk:
        events = await desk.completed()
        for event in events:
            assert sha256(desk.blobs.path(event.blob).read_bytes()) == event.blob
        assert desk.parts() == []
        return [event.blob for event in events]


def test_tuspy_resumes_after_kill(tmp_path: Path) -> None:
    """The server is killed with -9 between and in the middle of requests; tuspy resumes each time; one event."""
    data = tmp_path / "data"
    url = None
    for kill in range(3):
        with server_process(data) as (_process, endpoint):
            if url is not None:
                url = endpoint + "/" + url.rpartition("/")[2]
            upload = uploader(endpoint, DATA, 200_000, url)
            for _chunk in range(2):
                upload.upload_chunk()  # type: ignore[no-untyped-call]
            url = upload.url
            assert url is not None
            assert upload.offset >= (kill + 1) * 400_000
            # The process dies in the middle of this one.
            send_some(url, upload.offset, DATA[upload.offset : upload.offset + 100_000], announced=200_000, reset=False)
    with server_process(data) as (_process, endpoint):
        assert url is not None
        upload = uploader(endpoint, DATA, 1 << 20, endpoint + "/" + url.rpartition("/")[2])
        assert upload.offset >= 1_200_000
        upload.upload()
    assert run(blobs_of(data)) == [sha256(DATA)]


@pytest.mark.parametrize("kill", [False, True])
def test_tus_js_client(tmp_path: Path, kill: bool) -> None:
    """tus-js-client uploads; also when the server is killed with -9 under it and comes back at the same address."""
    data, file = tmp_path / "data", tmp_path / "film"
    content = DATA * (8 if kill else 1)
    file.write_bytes(content)
    module = node_modules() / "tus-js-client" / "lib.esm" / "node" / "index.js"
    program = [node_program(), str(Path(__file__).with_name("tus_client.mjs")), str(module)]
    with server_process(data) as (_process, endpoint):
        client = subprocess.Popen([*program, endpoint, str(file), str(400_000)], stdout=subprocess.PIPE, text=True)
        if kill:
            parts = data / "services" / "uploads"
            wait_until(lambda: any(part.stat().st_size > 1_000_000 for part in parts.glob("*.part")), 30)
        else:
            assert client.wait(60) == 0
    if kill:
        port = urlsplit(endpoint).port
        assert port is not None
        with server_process(data, port):
            assert client.wait(60) == 0
    assert client.stdout is not None
    with client.stdout:
        assert client.stdout.read().startswith("http://")
    assert run(blobs_of(data)) == [sha256(content)]
