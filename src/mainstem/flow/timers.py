"""One heap of moments and what happens then; one sleeping task, whatever their number. The clock is an argument."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from types import TracebackType
from typing import Self

from mainstem.host.clock import Clock

_LONGEST_SLEEP_S = 30.0
"""A wall clock may jump: it is looked at so often at least."""

_COMPACT_MIN = 1024


class Timer:
    """A moment and what happens then, until it is cancelled."""

    __slots__ = ("action", "at", "order")

    def __init__(self, at: float, order: int, action: Callable[[], None]) -> None:
        self.at = at
        self.order = order
        self.action: Callable[[], None] | None = action

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.order) < (other.at, other.order)


class Timers:
    """Calls back at given moments. Moments are numbers of ``now``: wall-clock nanoseconds, or monotonic seconds."""

    def __init__(self, clock: Clock, now: Callable[[], float], unit_s: float) -> None:
        self._clock = clock
        self._now = now
        self._unit_s = unit_s
        self._heap: list[Timer] = []
        self._order = 0
        self._cancelled = 0
        self._sleeper: asyncio.Task[None] | None = None
        self._sleeps_until = float("inf")
        self._closed = False

    def __repr__(self) -> str:
        return f"<Timers {len(self._heap) - self._cancelled} set>"

    def at(self, moment: float, action: Callable[[], None]) -> Timer:
        """Call ``action`` at ``moment``, or soon when that is past."""
        self._order += 1
        timer = Timer(moment, self._order, action)
        heapq.heappush(self._heap, timer)
        if moment < self._sleeps_until:
            self._sleep_anew()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Do not call; harmless after it was called."""
        if timer.action is not None:
            timer.action = None
            self._cancelled += 1
            if self._cancelled > _COMPACT_MIN and self._cancelled * 2 > len(self._heap):
                self._heap = [one for one in self._heap if one.action is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    async def wait_until(self, moment: float) -> None:
        """Return at ``moment``, at once when it is past."""
        if moment <= self._now():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.at(moment, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            self.cancel(timer)

    def _sleep_anew(self) -> None:
        if self._closed:
            return
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._sleeps_until = self._heap[0].at if self._heap else float("inf")
        self._sleeper = asyncio.get_running_loop().create_task(self._run()) if self._heap else None

    async def _run(self) -> None:
        while self._heap:
            self._sleeps_until = self._heap[0].at
            left_s = (self._sleeps_until - self._now()) * self._unit_s
            if left_s > 0:
                await self._clock.sleep(min(left_s, _LONGEST_SLEEP_S))
            now = self._now()
            while self._heap and self._heap[0].at <= now:
                timer = heapq.heappop(self._heap)
                action, timer.action = timer.action, None
                if action is None:
                    self._cancelled -= 1
                else:
                    action()
        self._sleeper = None
        self._sleeps_until = float("inf")

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._heap.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()


class TimeLimit:
    """``with TimeLimit(timers, what) as limit``: at the moment that the body gives to :meth:`begin` its task is
    cancelled, and that becomes a ``TimeoutError``.

    As ``asyncio.timeout``, but with the time of a :class:`Timers`.
    """

    __slots__ = ("_before", "_expired", "_task", "_timer", "_timers", "_what")

    def __init__(self, timers: Timers, what: str) -> None:
        self._timers = timers
        self._what = what
        self._timer: Timer | None = None
        self._expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a running task")
        self._task = task
        self._before = task.cancelling()
        return self

    def begin(self, moment: float) -> None:
        """Let the body go on until ``moment``; it takes the place of an earlier one."""
        self._forget()
        self._timer = self._timers.at(moment, self._expire)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timers.cancel(self._timer)
            self._timer = None

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._forget()
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError(self._what)
