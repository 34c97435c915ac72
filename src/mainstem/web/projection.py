"""The page state: a disposable SQLite file, made from the log, in one thread away from the event loop.

The position up to which records were taken in is written in the transaction that takes them in, so a crash at any
moment leaves a state that fits its position. A schema of another version, a damaged file, or a log that is shorter than
the state: the file is thrown away and made again from the log. A disk that is full, or fails, damages nothing: it is
waited for, however long it takes. A record that a panel cannot take is left out of that panel. Execution never reads
the page state.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from mainstem.base.names import matcher
from mainstem.log.contract import ReadableLog, StoredRecord
from mainstem.ui.panel import Panel
from mainstem.web.errors import UnavailableError

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

BATCH_MAX_RECORDS = 4_000
"""Most records that one transaction takes in."""

REBUILDS_MAX = 3
"""How often a running projection makes a damaged page state anew, without getting further, before it gives up."""

RETRY_FIRST_S = 0.1
"""Pause before the page state is tried again, where the disk was at fault; it doubles from one failure to the next."""

RETRY_MAX_S = 5.0
"""Longest such pause."""

_FORMAT = 1
_PAUSE_WATCHED_S = 0.1
_PAUSE_ALONE_S = 1.0
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
    }
)
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR})
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"


def is_passing(error: BaseException) -> bool:
    """Tell whether an error is the disk's and says nothing about the file: it is full, failing, or not to be opened."""
    return isinstance(error, OSError) or _code_of(error) in _PASSING


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that the file is no page state: torn, of another format, without a table."""
    return _code_of(error) in _DAMAGE


def _code_of(error: BaseException) -> int:
    """Return SQLite's primary result code (the low byte of the extended one); 0 for any other error."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF if isinstance(error, sqlite3.Error) else 0


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
        self.skipped: Counter[str] = Counter()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._db is not None

    @property
    def db(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._db is not None, "the page state is opened before it is used"
        return self._db

    def open(self, end_position: int) -> None:
        """Open the file, or make it anew where it cannot serve a log that ends at ``end_position``.

        Raises:
            sqlite3.Error, OSError: The disk is at fault; the file stays as it is, and is not open.
        """
        try:
            if self._open_existing(end_position):
                return
            reason = "it is of another version, or not of this log"
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                self.close()
                raise
            reason = str(error)
        if self._path.exists():
            _logger.info("%s is made again from the log: %s", self._path, reason)
        self.make_anew()

    def _open_existing(self, end_position: int) -> bool:
        if not self._path.exists():
            return False
        self._connect()
        meta = dict(self.db.execute("SELECT name, value FROM meta"))
        self.position = int(meta["position"])
        return meta["version"] == self._version() and self.position <= end_position

    def _connect(self) -> None:
        # One thread uses it at a time; sqlite3's own check would forbid closing it elsewhere at the end.
        db = self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        # Synced when the write-ahead file is folded in, not at each commit: a power cut takes the latest transactions
        # with their positions, and leaves no damage that nobody would notice.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA cache_size = -4096")

    def _version(self) -> str:
        parts = [f"{_FORMAT}", *(f"{panel.name}:{panel.version}:{panel.schema}" for panel in self._panels)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def make_anew(self) -> None:
        """Throw the file away and make an empty one, at position 0."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self.position = 0
        try:
            self._connect()
            self.db.executescript("BEGIN;" + _META + "".join(panel.schema for panel in self._panels))
            self.db.executemany("INSERT INTO meta VALUES (?, ?)", [("position", "0"), ("version", self._version())])
            self.db.execute("COMMIT")
        except BaseException:
            self.close()
            raise
        self.skipped.clear()

    def apply(self, records: Sequence[StoredRecord]) -> set[str]:
        """Take records in, as one transaction; return the topics that changed.

        A record that a panel cannot take is left out of that panel, and counted in :attr:`skipped`.

        Raises:
            sqlite3.Error: The disk or the file is at fault; nothing was taken in.
        """
        topics: set[str] = set()
        position = records[-1].position
        skipped: Counter[str] = Counter()
        db = self.db
        db.execute("BEGIN")
        try:
            for panel, matchers in zip(self._panels, self._matchers, strict=True):
                matching = [record for record in records if any(matches(record.stream) for matches in matchers)]
                if matching:
                    topics |= self._apply_to(panel, matching, skipped)
            db.execute("UPDATE meta SET value = ? WHERE name = 'position'", (str(position),))
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one to be told
                db.execute("ROLLBACK")
            raise
        self.position = position
        self.skipped.update(skipped)
        return topics

    def _apply_to(self, panel: Panel, records: Sequence[StoredRecord], skipped: Counter[str]) -> set[str]:
        """Have a panel take records in: all at once, or, where that fails, each that it can take."""
        db = self.db
        db.execute("SAVEPOINT panel")
        try:
            topics = panel.apply(db, records)
        except Exception as error:
            if is_passing(error) or is_damage(error):
                raise
            # Payloads are strangers': one that a panel did not foresee must not hide all that comes after it.
            db.execute("ROLLBACK TO panel")
            db.execute("RELEASE panel")
            if len(records) > 1:
                return set().union(*(self._apply_to(panel, [record], skipped) for record in records))
            skipped[panel.name] += 1
            if self.skipped[panel.name] + skipped[panel.name] == 1:
                _logger.warning(
                    "the panel %r cannot take record %d of %r (%r); it is left out of that panel's pages, and so are "
                    "others like it, which are counted and not told again",
                    panel.name,
                    records[0].position,
                    records[0].stream,
                    error,
                )
            return set()
        db.execute("RELEASE panel")
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
        self._stopped = False
        self._missed = 0
        self._hurry = asyncio.Event()
        self._advanced = asyncio.Condition()
        self._error: BaseException | None = None
        self._rebuilds = 0
        self._rebuilt_until = 0
        self._retry_s = RETRY_FIRST_S
        self.watched: Callable[[], bool] = lambda: False

    @property
    def position(self) -> int:
        """Position up to which records are taken in."""
        return self._state.position

    @property
    def error(self) -> BaseException | None:
        """What keeps the page state from following the log, if anything does: pages show what was known until then."""
        return self._error

    @property
    def is_behind(self) -> bool:
        """Whether someone waited for records in vain, and they are not taken in yet: there are more than can be."""
        return self.position < self._missed

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many records each panel could not take, since this page state was opened."""
        return self._state.skipped

    async def start(self) -> None:
        """Open the page state and begin to follow the log; where the disk is at fault, :attr:`error` says so."""
        try:
            await self._open()
        except (sqlite3.Error, OSError) as error:
            await self._stumbled(error)
        self._task = asyncio.create_task(self._follow(), name="mainstem pages")

    async def stop(self) -> None:
        """Stop following, and close the file. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])  # its cancellation is not taken for ours, nor ours for its
            self._task = None
        if not self._stopped:
            self._stopped = True
            closed = asyncio.get_running_loop().run_in_executor(self._thread, self._state.close)
            self._thread.shutdown(wait=False)  # takes nothing more in, and does what it was given
            await closed

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Return what ``work`` returns, run in the page state's thread between two transactions.

        Raises:
            UnavailableError: The page state cannot be read at present.
        """
        if self._stopped:
            raise UnavailableError("The application is being stopped; the page state is closed.")

        def in_thread() -> _T:
            if not self._state.is_open:
                raise UnavailableError(f"The page state is not there at present ({self._error}); it is tried again.")
            try:
                return work(self._state.db)
            except sqlite3.Error as error:
                if not is_passing(error):
                    raise
                raise UnavailableError(f"The page state cannot be read at present ({error}).") from error

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
            self._missed = max(self._missed, position)
            return False
        return self.position >= position

    async def _open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._state.open, self._log.end_position)

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    if not self._state.is_open:
                        await self._open()
                        self._error = None
                    await self._follow_from(self.position)
                except (sqlite3.Error, OSError) as error:
                    await self._mend(error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _logger.exception("the pages no longer follow the log; they show what was known until now")
            await self._stumbled(error)

    async def _mend(self, error: sqlite3.Error | OSError) -> None:
        """Wait where the disk was at fault; make the page state anew where it is damaged."""
        if is_passing(error):
            if self._error is None:
                _logger.warning("the page state cannot be written (%s); pages are old until it can", error)
            await self._stumbled(error)
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
            return
        self._rebuilds += 1
        self._rebuilt_until = self._log.end_position
        if self._rebuilds > REBUILDS_MAX:
            raise error  # it is no damage to a file, it comes again
        _logger.warning("the page state is damaged (%s); it is made again from the log", error)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._state.make_anew)
        except (sqlite3.Error, OSError) as also:
            if not is_passing(also):
                raise
            await self._mend(also)

    async def _stumbled(self, error: BaseException) -> None:
        """Tell those who wait that the page state does not get further at present."""
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
        self._error, self._retry_s = None, RETRY_FIRST_S
        if self.position >= self._rebuilt_until:
            self._rebuilds = 0
        async with self._advanced:
            self._advanced.notify_all()
        self._on_change(self.position, topics)

    async def _pause(self) -> None:
        """Let records gather: they are taken in together, at most ten times a second."""
        with suppress(TimeoutError):  # nobody was in a hurry
            async with asyncio.timeout(_PAUSE_WATCHED_S if self.watched() else _PAUSE_ALONE_S):
                await self._hurry.wait()
        self._hurry.clear()
