"""A small client for resumable uploads (tus 1.0): it counts every byte it sends, and goes on where the server says.

Source: https://tus.io/protocols/resumable-upload, "Core Protocol" and "Creation".
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import h11

from mainstem.trace.context import new_trace

_PIECE_BYTES = 8 << 10
_SEND_BUFFER_BYTES = 16 << 10
_PATIENCE = 20
_ANSWER_MAX_BYTES = 1 << 16


class UploadError(Exception):
    """The server refused, or the line broke too often without progress."""


class TusUpload:
    """One upload of a file.

    Args:
        endpoint: Address that creates uploads.
        path: The file.
        content_type: Told to the server.
        on_progress: Called with the number of bytes of the file that are on their way.
        on_break: Called after a break of the line with the offset, in bytes, from which the server wants to go on.

    Attributes:
        trace: The trace that begins with this upload; the creation carries its context (W3C ``traceparent``).
        url: The upload's address, once created.
        body_bytes_sent: Bytes of the file that were handed to a connection, those that a cut lost included.
    """

    def __init__(
        self,
        endpoint: str,
        path: Path,
        *,
        content_type: str,
        on_progress: Callable[[int], None] = lambda _sent: None,
        on_break: Callable[[int], None] = lambda _offset: None,
    ) -> None:
        self._endpoint = endpoint
        self._path = path
        self._content_type = content_type
        self._on_progress = on_progress
        self._on_break = on_break
        self.trace = new_trace()
        self.size_bytes = path.stat().st_size
        self.url = ""
        self.body_bytes_sent = 0

    @property
    def bytes_sent_again(self) -> int:
        """Bytes that were sent more than once, as of a finished upload."""
        return self.body_bytes_sent - self.size_bytes

    async def run(self) -> str:
        """Upload the whole file, going on after every break; return the upload's id.

        Raises:
            UploadError: The server refused, or nothing got through any more.
        """
        await self._create()
        offset, attempts = 0, 0
        while offset < self.size_bytes:
            try:
                offset = await self._send_from(offset)
                attempts = 0
            except (OSError, h11.RemoteProtocolError):
                # The line broke. Only the server knows how much it has: it is asked, and the upload goes on from there.
                attempts += 1
                before = offset
                offset = await self._ask_offset()
                self._on_break(offset)
                attempts = 0 if offset > before else attempts
            if attempts > _PATIENCE:
                raise UploadError(f"{self.url}: the line broke {attempts} times at byte {offset} without progress")
        return self.url.rstrip("/").rpartition("/")[2]

    async def _create(self) -> None:
        metadata = {"filename": self._path.name, "filetype": self._content_type}
        encoded = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items())
        headers = {
            "Upload-Length": str(self.size_bytes),
            "Upload-Metadata": encoded,
            "Content-Length": "0",
            "Traceparent": self.trace.traceparent,
        }
        status, answer = await self._post(headers)
        if status != 201 or "location" not in answer:
            raise UploadError(f"{self._endpoint} answered {status} to the creation of an upload, expected 201")
        self.url = urljoin(self._endpoint, answer["location"])

    async def _post(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        for _attempt in range(_PATIENCE):
            # Whether a broken request created an upload is not known; another one costs nothing, and the first expires.
            with suppress(OSError, h11.RemoteProtocolError):
                return await self._request("POST", self._endpoint, headers)
            await asyncio.sleep(0.1)
        raise UploadError(f"{self._endpoint} could not be reached, tried {_PATIENCE} times")

    async def _ask_offset(self) -> int:
        for _attempt in range(_PATIENCE):
            try:
                status, answer = await self._request("HEAD", self.url, {})
            except (OSError, h11.RemoteProtocolError):
                status, answer = (
                    0,
                    {},
                )  # no line yet: asked again after a moment, like a 423 (the old request still holds on)
            if status in (200, 204):
                return int(answer["upload-offset"])
            if status not in (0, 423):
                raise UploadError(f"{self.url} answered {status} when asked how much it has, expected 200")
            await asyncio.sleep(0.1)
        raise UploadError(f"{self.url} did not say how much it has, asked {_PATIENCE} times")

    async def _send_from(self, offset: int) -> int:
        headers = {
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(self.size_bytes - offset),
        }
        status, answer = await self._request("PATCH", self.url, headers, body_from=offset)
        if status != 204:
            raise UploadError(f"{self.url} answered {status} to bytes from {offset} on, expected 204")
        return int(answer["upload-offset"])

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], *, body_from: int | None = None
    ) -> tuple[int, dict[str, str]]:
        """Do one request on a connection of its own; return status and headers."""
        parts = urlsplit(url)
        line = socket.socket()
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(line, (parts.hostname, parts.port or 80))
            http = h11.Connection(h11.CLIENT)
            all_headers = {"Host": parts.netloc, "Tus-Resumable": "1.0.0", "Connection": "close", **headers}
            request = h11.Request(method=method, target=parts.path or "/", headers=list(all_headers.items()))
            await loop.sock_sendall(line, http.send(request) or b"")
            if body_from is not None:
                await self._send_body(line, http, body_from)
            await loop.sock_sendall(line, http.send(h11.EndOfMessage()) or b"")
            return await _answer(line, http)
        finally:
            line.close()

    async def _send_body(self, line: socket.socket, http: h11.Connection, offset: int) -> None:
        loop = asyncio.get_running_loop()
        with self._path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(_PIECE_BYTES):
                self.body_bytes_sent += len(piece)
                await loop.sock_sendall(line, http.send(h11.Data(data=piece)) or b"")
                offset += len(piece)
                self._on_progress(offset)


async def _answer(line: socket.socket, http: h11.Connection) -> tuple[int, dict[str, str]]:
    loop = asyncio.get_running_loop()
    received = 0
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event.status_code, {name.decode(): value.decode("latin-1") for name, value in event.headers}
        if event is not h11.NEED_DATA and not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("the server closed the line without an answer")
        data = await loop.sock_recv(line, 4096)
        received += len(data)
        if received > _ANSWER_MAX_BYTES:
            raise UploadError(f"the server's answer has more than {_ANSWER_MAX_BYTES} bytes")
        http.receive_data(data)
