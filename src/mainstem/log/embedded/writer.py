"""The thread that writes and syncs, and the rule for when it is not needed."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

Done = Callable[[Any, BaseException | None], None]


class WriterThread:
    """Runs one job after the other outside the event loop, and reports each on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Run ``job`` in the thread, then ``done(result, error)`` on the event loop."""
        if not self._started:
            self._started = True
            self._thread.start()
        self._jobs.put((job, done))

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result, error = job(), None
            except BaseException as raised:  # noqa: BLE001 - reported to whoever waits: nothing ends this thread silently
                result, error = None, raised
            if self._loop.is_closed():
                return  # nobody is left to be told
            self._loop.call_soon_threadsafe(done, result, error)

    def stop(self) -> None:
        """End the thread behind the jobs that it has; does not wait."""
        if self._started:
            self._jobs.put(None)


class InlinePolicy:
    """Tells when a sync may be done on the event loop: one caller waits, and the disk was fast of late.

    A hand-over to a thread and back costs a lone appender a good part of a fast sync. A slow sync on the loop would
    stall everything, so one slow sync ends it, until the disk was fast for a while; each relapse makes that while
    longer.
    """

    def __init__(self, sync_max_s: float, alone_after_commits: int, probation_syncs: int = 16) -> None:
        self._sync_max_s = sync_max_s
        self._alone_after_commits = alone_after_commits
        self._needed_syncs = probation_syncs
        self._missing_syncs = 0
        self._lone_commits = 0

    def allows(self, calls: int) -> bool:
        """Tell whether a commit of so many calls may be written inline."""
        return calls == 1 and self._missing_syncs == 0

    def allows_at_once(self, callers: int) -> bool:
        """Tell whether a call need not wait for the loop's next turn, where others could join it.

        So it is when it is the only one inside, and the latest commits had one call each.
        """
        return callers == 1 and self._missing_syncs == 0 and self._lone_commits >= self._alone_after_commits

    def observe(self, sync_s: float, calls: int) -> None:
        """Take in how long a sync took, inline or not, and how many calls shared it."""
        self._lone_commits = self._lone_commits + 1 if calls == 1 else 0
        if sync_s > self._sync_max_s:
            if self._missing_syncs == 0:
                self._needed_syncs = min(self._needed_syncs * 2, 1 << 16)
            self._missing_syncs = self._needed_syncs
        elif self._missing_syncs:
            self._missing_syncs -= 1
