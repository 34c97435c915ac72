"""The service's edge: what becomes of a body that is not wanted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from mainstem.services.uploads import Uploads, asgi
from mainstem.services.uploads.asgi import TusApplication
from mainstem.services.uploads.errors import UploadOffsetError
from tests.services.uploads.helpers import listening, serving
from tests.support import run

PIECE = b"x" * 65_536


class Exchange:
    """One request that is refused at its first piece, and what the server saw and said in which order."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.happened: list[str] = []
        self.headers: dict[str, str] = {}

    async def receive(self) -> MutableMapping[str, Any]:
        """Give the next piece of the body; who never stops reading gets the connection's end at last."""
        if not self.left:
            return {"type": "http.disconnect"}
        self.left -= 1
        self.happened.append("piece")
        return {"type": "http.request", "body": PIECE, "more_body": self.left > 0}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take note of the answer."""
        self.happened.append(message["type"])
        if message["type"] == "http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}


async def refuse(request: Request, receive: Receive) -> Response:
    """Read one piece, then refuse."""
    await receive()
    raise UploadOffsetError("no")


def exchange(pieces: int) -> Exchange:
    """Let a body of so many pieces be refused."""
    it = Exchange(pieces)
    scope = {"type": "http", "method": "PATCH", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}
    run(TusApplication(refuse, frozenset())(scope, it.receive, it.send))
    return it


@pytest.mark.parametrize("pieces", [1, 2, 10])
def test_a_small_rest_is_read_before_the_answer(pieces: int) -> None:
    """A client that is still sending a little is let finish, so that it can read the answer; the connection stays."""
    done = exchange(pieces)
    assert done.happened == ["piece"] * pieces + ["http.response.start", "http.response.body"]
    assert "connection" not in done.headers


def test_a_large_rest_is_not_worth_reading() -> None:
    """Of a large body little more is read before the answer, and the answer says that the connection ends."""
    done = exchange(1000)
    before = done.happened.index("http.response.start")
    assert before <= 2 + (1 << 20) // len(PIECE)
    assert done.headers["connection"] == "close"


def test_a_client_that_is_still_sending_reads_the_answer() -> None:
    """The answer's end, with which the connection ends, waits for the body's."""
    done = exchange(1000)
    assert done.happened.count("piece") == 1000
    assert done.happened[-1] == "http.response.body" and done.happened.count("http.response.body") == 2
    begun = done.happened.index("http.response.body")
    assert begun < done.happened.index("piece", begun)


@pytest.mark.parametrize("limit", ["_LINGER_MAX_S", "_LINGER_SILENCE_MAX_S"])
def test_nobody_is_waited_for_for_ever(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing more, or never ends, gets the end of its connection."""
    monkeypatch.setattr(asgi, limit, 0.05)
    monkeypatch.setattr(asgi, "_DRAIN_MAX_S", 0.05)

    async def receive() -> MutableMapping[str, Any]:
        if limit == "_LINGER_SILENCE_MAX_S" and it.headers:
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # sleeps: the server gives way at each message
        return {"type": "http.request", "body": PIECE, "more_body": True}

    it = Exchange(0)
    scope = {"type": "http", "method": "PATCH", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}
    run(TusApplication(refuse, frozenset())(scope, receive, it.send), timeout_s=10)
    assert it.happened[-1] == "http.response.body"


def test_a_refusal_in_the_middle_of_a_large_body_arrives(tmp_path: Path) -> None:
    """Over a real connection, a client that sends all of its body before it reads gets the refusal, and no reset."""

    async def main() -> None:
        async with serving(tmp_path, Uploads()) as desk, listening(desk) as address:
            place = urlsplit(address)
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            size = 16 << 20
            head = (
                f"PATCH {place.path}/nobody HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            )
            writer.write(
                f"{head}Content-Type: application/offset+octet-stream\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            for _ in range(size // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 404 ") and b"connection: close" in answer.lower()
            assert code_in(answer) == "upload-not-found"
            writer.close()

    run(main())


def code_in(answer: bytes) -> str:
    """Return the code in a refusal, as it came over the wire."""
    body = re.search(rb"\{.*\}", answer, re.DOTALL)
    assert body is not None
    return str(msgspec.json.decode(body[0])["error"]["code"])
