"""Time, as an argument: the wall clock may jump, the monotonic clock never goes back."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where all times come from, so that a test can bring its own."""

    def time_ns(self) -> int:
        """Return wall-clock nanoseconds since 1970; may jump in either direction."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for measuring durations."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return after ``duration_s`` seconds of monotonic time."""
        ...


class SystemClock:
    """The machine's own clock."""

    # The functions themselves, with nothing around them: each append reads the clock three times.
    time_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.perf_counter)

    async def sleep(self, duration_s: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(duration_s)
