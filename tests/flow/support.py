"""What the tests of workflows share: an application over one directory, that can be crashed and started again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.flow.engine import Engine
from mainstem.flow.history import decode_entry
from mainstem.flow.journal import JOURNAL_PREFIX, JournalEntry
from mainstem.flow.run import Ending
from mainstem.host.clock import Clock, SystemClock
from mainstem.log import Log, open_log


class App:
    """Bus and flow over one log; declarations are attributes that a ``declare`` function sets."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self.log = log
        self.clock = clock
        self.bus = Bus(clock)
        self.flow = Flow(self.bus, clock)
        self.seen: list[Any] = []

    if TYPE_CHECKING:  # what a test declares it keeps as attributes

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    async def entries(self, run_id: str) -> list[JournalEntry]:
        """Return a run's journal."""
        return [decode_entry(record.value) for record in await self.log.read(JOURNAL_PREFIX + run_id, limit=65_536)]

    async def types(self, run_id: str) -> list[str]:
        """Return the types of the entries of a run's journal."""
        return [type(entry).__name__ for entry in await self.entries(run_id)]

    @property
    def engine(self) -> Engine:
        """What carries the runs out."""
        engine = self.flow.engine
        assert engine is not None
        return engine

    async def crash(self) -> None:
        """End without a word in the log, as a killed process does."""
        for one in list(self.engine.runs.values()):
            one.stop(Ending(None))
        await self.bus.stop(grace_s=0.0)
        await self.flow.stop(grace_s=0.0)


@asynccontextmanager
async def running(
    directory: Path, declare: Callable[[App], object], *, clock: Clock | None = None
) -> AsyncIterator[App]:
    """Run an application; at the end of the block it is stopped in order, unless it was crashed."""
    clock = clock or SystemClock()
    log = await open_log(directory / "log", clock=clock)
    app = App(log, clock)
    declare(app)
    try:
        await app.flow.start(log)
        await app.bus.start(log)
        yield app
    finally:
        await app.bus.stop(grace_s=1.0)
        await app.flow.stop(grace_s=1.0)
        await log.close()


def keys_of(entries: Sequence[JournalEntry]) -> list[str]:
    """Return the keys of entries that have one."""
    return [entry.key for entry in entries if hasattr(entry, "key")]
