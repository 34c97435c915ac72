"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading

_START_NS = 1_800_000_000_000_000_000


class SimulatedClock:
    """A :class:`mainstem.host.clock.Clock` whose time is advanced by hand.

    Sleepers wake in the order of their wake times (of equal ones: in the order in which they fell asleep). They may
    sleep on different event loops; ``advance`` may be called from any thread.
    """

    def __init__(self, *, time_ns: int = _START_NS) -> None:
        self._guard = threading.Lock()
        self._monotonic_ns = 0
        self._wall_ahead_ns = time_ns
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<SimulatedClock at {self.monotonic_s():.6f} s, {self.sleepers} asleep>"

    def time_ns(self) -> int:
        """Return the wall clock's nanoseconds since 1970; at the beginning a fixed moment in the year 2027."""
        return self._wall_ahead_ns + self._monotonic_ns

    def monotonic_s(self) -> float:
        """Return the seconds that were advanced so far."""
        return self._monotonic_ns / 1e9

    @property
    def sleepers(self) -> int:
        """How many calls of :meth:`sleep` have not been woken."""
        with self._guard:
            return sum(not future.done() for _wake_ns, _order, _loop, future in self._sleepers)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or (negative) back, as an administrator or a time server does. Nobody wakes."""
        with self._guard:
            self._wall_ahead_ns += round(seconds * 1e9)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake those whose time has come, in order. They run when their event loop next gets to run.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not run backwards: advance({seconds}); jump_wall moves the wall clock")
        due: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        with self._guard:
            self._monotonic_ns += round(seconds * 1e9)
            while self._sleepers and self._sleepers[0][0] <= self._monotonic_ns:
                _wake_ns, _order, loop, future = heapq.heappop(self._sleepers)
                due.append((loop, future))
        for loop, future in due:
            if not loop.is_closed():  # a closed loop's sleepers are gone already
                loop.call_soon_threadsafe(_wake, future)

    async def sleep(self, duration_s: float) -> None:
        """Return once ``duration_s`` seconds were advanced; at once (after one turn of the loop) when not positive."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._guard:
            wake_ns = self._monotonic_ns + round(duration_s * 1e9)
            heapq.heappush(self._sleepers, (wake_ns, next(self._order), loop, future))
        await future

    async def run_for(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Advance in steps, letting the event loop's other tasks run in between, so that they may sleep again."""
        left_s = seconds
        while left_s > 0:
            self.advance(min(step_s, left_s))
            left_s -= step_s
            for _turn in range(3):
                await asyncio.sleep(0)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():  # a cancelled sleeper is done
        future.set_result(None)
