"""The service's edge: answers and refusals as HTTP has them, unread bodies, pages of other origins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mainstem.services.uploads.errors import UploadError
from mainstem.services.uploads.headers import TUS_VERSION

_DRAIN_MAX_BYTES = 1 << 20
_DRAIN_MAX_S = 1.0
_LINGER_MAX_S = 30.0
_LINGER_SILENCE_MAX_S = 5.0

_REQUEST_FIELDS = (
    "Content-Type, Tus-Resumable, Upload-Checksum, Upload-Length, Upload-Metadata, Upload-Offset, "
    "X-HTTP-Method-Override, Traceparent"
)
_ANSWER_FIELDS = (
    "Location, Retry-After, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, "
    "Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)

Answer = Callable[[Request, Receive], Awaitable[Response]]
"""What answers a request, or raises :class:`UploadError`."""


class TusApplication:
    """An ASGI application around what answers the protocol's requests.

    Args:
        answer: Answers a request, reading its body by the ``receive`` that it is given.
        allowed_origins: Origins whose pages may upload. To others a browser shows nothing: every request of the
            protocol carries a header field that a page may only send to another origin after asking (Fetch,
            "CORS-preflight").
    """

    def __init__(self, answer: Answer, allowed_origins: frozenset[str]) -> None:
        self._answer = answer
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        body = _ObservedBody(receive)
        request = Request(scope, receive)
        try:
            response = await self._answer(request, body.receive)
        except UploadError as error:
            response = _refusal(error)
            if not await body.drain() and scope.get("http_version", "1.1").startswith("1"):
                # More of the body is on its way than is worth waiting for: the connection cannot be used again.
                response.headers["Connection"] = "close"
                send = body.lingering(send)
        response.headers["Tus-Resumable"] = TUS_VERSION
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        self._share(request, response)
        await response(scope, receive, send)

    def _share(self, request: Request, response: Response) -> None:
        """Let pages of the allowed origins see the answer."""
        if not self._allowed_origins:
            return
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("origin")
        if origin not in self._allowed_origins:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = _ANSWER_FIELDS
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            response.headers["Access-Control-Allow-Methods"] = "POST, HEAD, PATCH, DELETE, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = _REQUEST_FIELDS
            response.headers["Access-Control-Max-Age"] = "86400"


class _ObservedBody:
    """ASGI's ``receive`` that remembers whether the body's end was seen."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next message."""
        message = await self._receive()
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def drain(self) -> bool:
        """Read what is left of a small body, and tell whether its end came: the connection can then be used again."""
        left_bytes = _DRAIN_MAX_BYTES
        try:
            async with asyncio.timeout(_DRAIN_MAX_S):
                while not self._ended and left_bytes > 0:
                    left_bytes -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return False  # a slow client: it is answered now
        return self._ended

    def lingering(self, send: Send) -> Send:
        """Return a ``send`` that ends the answer once the client has stopped sending, or has had time enough for it.

        The server closes the connection at the answer's end. Where bytes are still coming that is a reset, which takes
        the answer with it before the client has read it (RFC 9112, 9.6).
        """

        async def send_and_linger(message: MutableMapping[str, Any]) -> None:
            is_end = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not is_end:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):  # who still sends now has not read the answer, and will not
                async with asyncio.timeout(_LINGER_MAX_S):
                    while not self._ended:
                        async with asyncio.timeout(_LINGER_SILENCE_MAX_S):
                            await self.receive()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        return send_and_linger


def _refusal(error: UploadError) -> Response:
    content = msgspec.json.encode({"error": {"code": error.code, "message": error.message}})
    return Response(content, status_code=error.status, headers=error.headers, media_type="application/json")
