"""The caller's trace, kept in a host's ASGI application: what a request causes is in the trace of the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mainstem.trace.context import new_trace, parse_traceparent, use_trace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Traced:
    """ASGI middleware: an HTTP request works under the trace of its ``traceparent`` header, or under a new one.

    Events and runs that the request causes carry that trace. The request itself leaves no record. Source: W3C Trace
    Context, section 3.2; a header that is none counts as absent.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def __repr__(self) -> str:
        return f"<Traced {self._app!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (or whatever else the server has)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        with use_trace(parse_traceparent(header.decode("latin-1")) or new_trace()):
            await self._app(scope, receive, send)
