"""A bound on bytes that wait: those who would go over it wait their turn, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """At most ``max_bytes`` are out at once; a single request larger than that is let through alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.used_bytes = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __repr__(self) -> str:
        return f"<ByteBudget {self.used_bytes}/{self._max_bytes} bytes, {len(self._waiters)} waiting>"

    def _fits(self, size: int) -> bool:
        return self.used_bytes == 0 or self.used_bytes + size <= self._max_bytes

    def take_now(self, size: int) -> bool:
        """Take ``size`` bytes if that needs no waiting; tell whether it did."""
        if self._waiters or not self._fits(size):
            return False
        self.used_bytes += size
        return True

    async def take(self, size: int) -> None:
        """Take ``size`` bytes, waiting for them; a cancelled wait takes nothing."""
        if self.take_now(size):
            return
        future = asyncio.get_running_loop().create_future()
        waiter = (size, future)
        self._waiters.append(waiter)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give_back(size)  # granted in the very moment of the cancellation
            else:
                if waiter in self._waiters:  # a grant to others may have passed over it already
                    self._waiters.remove(waiter)
                self._grant()
            raise

    def give_back(self, size: int) -> None:
        """Return ``size`` bytes, and let those in who fit now."""
        self.used_bytes -= size
        self._grant()

    def _grant(self) -> None:
        while self._waiters:
            size, future = self._waiters[0]
            if future.done():
                self._waiters.popleft()
                continue
            if not self._fits(size):
                return
            self._waiters.popleft()
            self.used_bytes += size
            future.set_result(None)
