"""A bad connection: a TCP proxy that passes bytes on at a limited rate, and cuts the line at given byte counts."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

_PIECE_BYTES = 8 << 10
_BUFFER_BYTES = 16 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Passes connections on to a server, and breaks them off, both ways and without a farewell, at given byte counts.

    Args:
        port: Port of the server, on 127.0.0.1.
        cut_at_bytes: Counts of bytes from clients to the server, over all connections, at which the line is cut.
        rate_bytes_per_s: Most bytes a second from clients to the server.
    """

    def __init__(self, port: int, cut_at_bytes: Sequence[int], rate_bytes_per_s: float) -> None:
        self._server_port = port
        self._cuts_left = sorted(cut_at_bytes)
        self._rate_bytes_per_s = rate_bytes_per_s
        self._listener: asyncio.Server | None = None
        self._open_ends: set[asyncio.StreamWriter] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.cuts = 0
        self.forwarded_bytes = 0

    @property
    def port(self) -> int:
        """The proxy's own port."""
        if self._listener is None:
            raise RuntimeError("the proxy is not started: expected 'async with CuttingProxy(...)'")
        return int(self._listener.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        # Small buffers: what lies in them when the line is cut has to be sent again.
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._listener = await asyncio.start_server(self._accept, sock=listener, limit=_PIECE_BYTES)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._listener is not None
        self._listener.close()
        for end in self._open_ends:
            _break_off(end)
        await self._idle.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._open_ends.add(writer)
        self._idle.clear()
        try:
            with suppress(OSError):  # the server or the client went away: the line is closed for the other one, too
                answers, upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
                ends.add(upstream)
                self._open_ends.add(upstream)
                await self._pass_on(reader, upstream, answers, writer)
        finally:
            for end in ends:
                _break_off(end)
            self._open_ends -= ends
            if not self._open_ends:
                self._idle.set()

    async def _pass_on(
        self,
        requests: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
        downstream: asyncio.StreamWriter,
    ) -> None:
        """Pass bytes on in both directions until either ends, or a cut is due."""
        tasks = [
            asyncio.ensure_future(self._forward_requests(requests, upstream)),
            asyncio.ensure_future(_forward(answers, downstream)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward_requests(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Return when the client ended, or when the line is to be cut."""
        while piece := await source.read(_PIECE_BYTES):
            if self._cuts_left and self.forwarded_bytes + len(piece) >= self._cuts_left[0]:
                piece = piece[: self._cuts_left.pop(0) - self.forwarded_bytes]
                self.cuts += 1
                self.forwarded_bytes += len(piece)
                target.write(piece)
                await target.drain()
                return
            self.forwarded_bytes += len(piece)
            target.write(piece)
            await target.drain()
            await asyncio.sleep(len(piece) / self._rate_bytes_per_s)


async def _forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE_BYTES):
        target.write(piece)
        await target.drain()


def _break_off(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, as a dead line looks from both of its ends."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):  # it is closed already, which is what this is for
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
