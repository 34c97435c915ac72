"""The page state: a disposable SQLite file, made from the log, in one thread away from the event loop.

The position up to which records were taken in is written in the transaction that takes them in, so a crash at any
moment leaves a state that fits its position. A schema of another version, a damaged file, or a log that is shorter than
the state: the file is thrown away and made again from the log. Execution never reads it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mainstem.base.names import matcher
from mainstem.log.contract import ReadableLog, StoredRecord
from mainstem.ui.panel import Panel

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

BATCH_MAX_RECORDS = 4_000
"""Most records that one transaction takes in."""

REBUILDS_MAX = 3
"""How often a running projection makes a damaged page state anew before it gives up."""

_FORMAT = 1
_PAUSE_WATCHED_S = 0.1
_PAUSE_ALONE_S = 1.0
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


class PageState:
    """The SQLite file. Every method runs in the projection's thread.

    Args:
        path: The file.
        panels: What is projected into it.
    """

    def __init__(self, path: Path, panels: Sequence[Panel]) -> None:
        self._path = path
        self._panels = panels
        self._matchers = [[matcher(pattern) for pattern in panel.patterns] for panel in panels]
        self._db: sqlite3.Connection | None = None
        self.position = 0

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._db is not None, "the page state is opened before it is used"
        return self._db

    def open(self, end_position: int) -> None:
        """Open the file, or make it anew where it cannot serve a log that ends at ``end_position``."""
        try:
            if self._open_existing(end_position):
                return
            reason = "it is of another version, or not of this log"
        except sqlite3.DatabaseError as error:
            reason = str(error)
        if self._path.exists():
            _logger.info("%s is made again from the log: %s", self._path, reason)
        self.make_anew()

    def _open_existing(self, end_position: int) -> bool:
        if not self._path.exists():
            return False
        self._db = self._connect()
        meta = dict(self.db.execute("SELECT name, value FROM meta"))
        self.position = int(meta["position"])
        return meta["version"] == self._version() and self.position <= end_position

    def _connect(self) -> sqlite3.Connection:
        # One thread uses it at a time; sqlite3's own check would forbid closing it elsewhere at the end.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        # Synced when the write-ahead file is folded in, not at each commit: a power cut takes the latest transactions
        # with their positions, and leaves no damage that nobody would notice.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA cache_size = -4096")
        return db

    def _version(self) -> str:
        parts = [f"{_FORMAT}", *(f"{panel.name}:{panel.version}:{panel.schema}" for panel in self._panels)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def make_anew(self) -> None:
        """Throw the file away and make an empty one, at position 0."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._db = self._connect()
        self.db.executescript(_META + "".join(panel.schema for panel in self._panels))
        self.db.executemany("INSERT INTO meta VALUES (?, ?)", [("position", "0"), ("version", self._version())])
        self.position = 0

    def apply(self, records: Sequence[StoredRecord]) -> set[str]:
        """Take records in, as one transaction; return the topics that changed."""
        topics: set[str] = set()
        position = records[-1].position
        db = self.db
        db.execute("BEGIN")
        try:
            for panel, matchers in zip(self._panels, self._matchers, strict=True):
                matching = [record for record in records if any(matches(record.stream) for matches in matchers)]
                if matching:
                    topics |= panel.apply(db, matching)
            db.execute("UPDATE meta SET value = ? WHERE name = 'position'", (str(position),))
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one to be told
                db.execute("ROLLBACK")
            raise
        self.position = position
        return topics

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._db is not None:
            self._db.close()
            self._db = None


class Projection:
    """Keeps the page state behind the log, and runs what reads it.

    It is not in a hurry: while nobody looks, it takes records in once a second, so that it costs little.

    Args:
        log: Where the records are.
        path: The page state's file.
        panels: What is projected.
        on_change: Called on the event loop after each transaction with the position and the topics that changed.
    """

    def __init__(
        self,
        log: ReadableLog,
        path: Path,
        panels: Sequence[Panel],
        on_change: Callable[[int, set[str]], None],
    ) -> None:
        self._log = log
        self._state = PageState(path, panels)
        self._on_change = on_change
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mainstem-pages")
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._advanced = asyncio.Condition()
        self._error: BaseException | None = None
        self._rebuilds = 0
        self.watched: Callable[[], bool] = lambda: False

    @property
    def position(self) -> int:
        """Position up to which records are taken in."""
        return self._state.position

    @property
    def error(self) -> BaseException | None:
        """What ended the projection, if anything did: pages then show what was known until then."""
        return self._error

    async def start(self) -> None:
        """Open the page state and begin to follow the log."""
        await self.run(lambda _db: None, opening=True)
        self._task = asyncio.create_task(self._follow(), name="mainstem pages")

    async def stop(self) -> None:
        """Stop following, and close the file. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):  # that it ended is what was wanted
                await self._task
            self._task = None
        await asyncio.get_running_loop().run_in_executor(self._thread, self._state.close)
        self._thread.shutdown(wait=False)

    async def run(self, work: Callable[[sqlite3.Connection], _T], *, opening: bool = False) -> _T:
        """Return what ``work`` returns, run in the page state's thread between two transactions."""
        end_position = self._log.end_position

        def in_thread() -> _T:
            if opening:
                self._state.open(end_position)
            return work(self._state.db)

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_thread)

    async def caught_up(self, position: int, timeout_s: float) -> bool:
        """Wait until records up to ``position`` are taken in; return whether they are, within ``timeout_s``."""
        if self.position >= position:
            return True
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s), self._advanced:
                await self._advanced.wait_for(lambda: self.position >= position or self._error is not None)
        except TimeoutError:
            return False
        return self.position >= position

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    await self._follow_from(self.position)
                except sqlite3.DatabaseError as error:
                    self._rebuilds += 1
                    if self._rebuilds > REBUILDS_MAX:
                        raise  # it is no damage to a file, it comes again
                    _logger.warning("the page state is damaged (%s); it is made again from the log", error)
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._state.make_anew)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _logger.exception("the pages no longer follow the log; they show what was known until now")
            self._error = error
            async with self._advanced:
                self._advanced.notify_all()

    async def _follow_from(self, position: int) -> None:
        tail = self._log.tail(">", position)
        waiting: list[StoredRecord] = []
        try:
            async for batch in tail:
                waiting.extend(batch)
                if len(waiting) < BATCH_MAX_RECORDS and waiting[-1].position >= self._log.end_position:
                    await self._take_in(waiting)
                    waiting = []
                    await self._pause()
                elif len(waiting) >= BATCH_MAX_RECORDS:
                    await self._take_in(waiting)
                    waiting = []
        finally:
            close = getattr(tail, "aclose", None)
            if close is not None:
                await close()

    async def _take_in(self, records: Sequence[StoredRecord]) -> None:
        topics = await asyncio.get_running_loop().run_in_executor(self._thread, self._state.apply, records)
        async with self._advanced:
            self._advanced.notify_all()
        self._on_change(self.position, topics)

    async def _pause(self) -> None:
        """Let records gather: they are taken in together, at most ten times a second."""
        with suppress(TimeoutError):  # nobody was in a hurry
            async with asyncio.timeout(_PAUSE_WATCHED_S if self.watched() else _PAUSE_ALONE_S):
                await self._hurry.wait()
        self._hurry.clear()
