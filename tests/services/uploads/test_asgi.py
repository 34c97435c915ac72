"""The service's edge: what becomes of a body that is not wanted."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from mainstem.services.uploads.asgi import TusApplication
from mainstem.services.uploads.errors import UploadOffsetError
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
