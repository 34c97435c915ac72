"""Queues: so many at once, so many in a period, first come first served."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.timers import Timer, Timers

_RATE = re.compile(r"\s*(\d+)\s*/\s*(s|m|h|d)\s*")
_PERIODS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE_MAX = 100_000


class RateLimit(msgspec.Struct, frozen=True):
    """At most ``count`` starts in any ``period_s`` seconds (a sliding window; it begins anew when the process does)."""

    count: int
    period_s: float


def parse_rate(text: str) -> RateLimit:
    """Return the rate in ``"100/m"`` (``s``, ``m``, ``h`` or ``d``).

    Raises:
        InvalidArgumentError: It is no rate, or more than 100,000 a period.
    """
    match = _RATE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= _RATE_MAX:
        raise InvalidArgumentError(f"rate_limit={text!r}: expected 1 to {_RATE_MAX} per s, m, h or d, such as '100/m'.")
    return RateLimit(int(match[1]), _PERIODS_S[match[2]])


class Window:
    """Pure: decides when the next start may be."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._starts: deque[float] = deque(maxlen=limit.count)

    def next_s(self, now_s: float) -> float:
        """Return the monotonic time of the next allowed start; ``now_s`` or earlier means at once."""
        if len(self._starts) < self._limit.count:
            return now_s
        return self._starts[0] + self._limit.period_s

    def start(self, now_s: float) -> None:
        """Note a start."""
        self._starts.append(now_s)


class Queue:
    """Hands out places. Who waits is a function that is called with a place, and answers whether it took it."""

    def __init__(
        self, name: str, concurrency: int, rate: RateLimit | None, timers: Timers, now_s: Callable[[], float]
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.rate = rate
        self.running = 0
        self._window = Window(rate) if rate is not None else None
        self._waiting: deque[Callable[[], bool]] = deque()
        self._timers = timers
        self._now_s = now_s
        self._timer: Timer | None = None
        self._open = True

    def __repr__(self) -> str:
        return f"<Queue {self.name}: {self.running} of {self.concurrency} running, {len(self._waiting)} waiting>"

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def add(self, take: Callable[[], bool]) -> None:
        """Wait for a place."""
        self._waiting.append(take)
        self._hand_out()

    def release(self) -> None:
        """Give a place back."""
        self.running -= 1
        self._hand_out()

    def close(self) -> None:
        """Hand out no more."""
        self._open = False

    def _hand_out(self) -> None:
        while self._open and self._waiting and self.running < self.concurrency and self._timer is None:
            if self._window is not None:
                now_s = self._now_s()
                next_s = self._window.next_s(now_s)
                if next_s > now_s:
                    self._timer = self._timers.at(next_s, self._period_over)
                    return
            self.running += 1
            if not self._waiting.popleft()():
                self.running -= 1
            elif self._window is not None:
                self._window.start(self._now_s())

    def _period_over(self) -> None:
        self._timer = None
        self._hand_out()
