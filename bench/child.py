"""What passes between the runner and a contender: one line of JSON each way.

The contender reads its task from standard input, works, prints ``{"value": …, "details": {…}}`` as its only line on
standard output, and ends when standard input does. Only the standard library is imported here: peers run in
environments of their own, and start-up time is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Task = dict[str, Any]


def read_task() -> Task:
    """Return what is wanted: ``directory``, ``seconds``, ``spawned_at_s`` (monotonic) and the bench's own keys."""
    task: Task = json.loads(sys.stdin.readline())
    return task


def report(value: float, **details: Any) -> None:
    """Print the result. Standard output belongs to this line alone: redirect what a library prints."""
    # The descriptor, not sys.stdout: a library may have replaced or silenced that.
    os.write(1, json.dumps({"value": value, "details": details}).encode() + b"\n")


def linger() -> None:
    """Wait until the runner closes standard input."""
    while sys.stdin.readline():
        pass


def run(main: Callable[[Task], Coroutine[Any, Any, None]]) -> None:
    """Read the task and run a contender's coroutine, on uvloop where the environment has it."""
    task = read_task()
    factory: Callable[[], asyncio.AbstractEventLoop]
    try:
        from uvloop import new_event_loop as factory
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(task))


def cpu_s() -> float:
    """Return the processor time of this process and of its children that have ended, in seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


class Meter:
    """Counts what completes within a window of time that opens after a warm-up.

    Workers look at the clock themselves: one that never lets the event loop run would starve a timer.
    """

    def __init__(self, task: Task) -> None:
        self.seconds = float(task["seconds"])
        warmup_s = min(1.0, self.seconds / 4)
        self._begin_s = time.perf_counter() + warmup_s
        self._end_s = self._begin_s + self.seconds
        self._in_window = itertools.count()  # next() of it is atomic, so threads may share a meter
        self._all = itertools.count()

    def tick(self) -> bool:
        """Count one completion; return whether to go on."""
        now_s = time.perf_counter()
        next(self._all)
        if now_s >= self._end_s:
            return False
        if now_s >= self._begin_s:
            next(self._in_window)
        return True

    def total(self) -> int:
        """Everything counted, warm-up included. Call it once, at the end."""
        return next(self._all)

    def per_second(self, weight: int = 1) -> float:
        """Completions a second within the window, each counting ``weight``. Call it once, at the end."""
        return next(self._in_window) * weight / self.seconds


async def keep_doing(operation: Callable[[int], Awaitable[object]], tasks: int, meter: Meter) -> None:
    """Run an operation over and over in concurrent tasks, each awaiting one at a time, until the meter's window ends.

    Args:
        operation: Called with the number of its task.
        tasks: How many at once.
        meter: Counts completions.
    """

    async def worker(index: int) -> None:
        await operation(index)
        while meter.tick():
            await operation(index)

    await asyncio.gather(*(worker(index) for index in range(tasks)))


def check_count(found: int, acknowledged: int, where: str) -> None:
    """Refuse a figure whose work is not all there.

    Raises:
        RuntimeError: Fewer are stored than were acknowledged.
    """
    if found < acknowledged:
        raise RuntimeError(f"{where} holds {found} of {acknowledged} acknowledged records")
