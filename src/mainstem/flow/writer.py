"""The one writer of a run's journal: one append in flight, and what arrives meanwhile goes together in the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.errors import RunFencedError, ValueTooLargeError
from mainstem.flow.journal import LOG_LINES_PREFIX, LogLine, Published
from mainstem.host.clock import Clock
from mainstem.log.contract import Append, Log, Record, Traits
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogError,
    NotWrittenError,
    PositionConflictError,
)

_logger = logging.getLogger(__name__)

ENTRY_MAX_BYTES = 8 << 20
"""Largest entry of a journal, and largest event that a workflow publishes."""

_HEADERS_MAX_BYTES = 16 << 10
_PUBLISHED_OVERHEAD_BYTES = 192
"""What an event's entry holds beside its key and its stream's name, at most."""

_LINES_BATCH_MAX_BYTES = 1 << 20
_LINES_WAITING_MAX_BYTES = 4 << 20
_FULL_RETRY_MIN_S = 0.1
_FULL_RETRY_MAX_S = 5.0

_encode = msgspec.json.Encoder().encode


class JournalLimits(msgspec.Struct, frozen=True):
    """What one record, and one commit, of a journal may hold on the engine at hand.

    Attributes:
        entry_max_bytes: Largest entry.
        batch_max_bytes: Most bytes of entries and events in a commit, keys and headers included, unless one alone is
            larger. The rest of what an engine takes is for log lines.
        batch_max_entries: Most entries in a commit, each of which may come with an event.
        batch_max_lines: Most log lines in a commit.
    """

    entry_max_bytes: int = ENTRY_MAX_BYTES
    batch_max_bytes: int = 12 << 20
    batch_max_entries: int = 16_384
    batch_max_lines: int = 32_767

    @classmethod
    def of(cls, traits: Traits) -> JournalLimits:
        """Return what fits into an engine's batches and records, with the headers of a run."""
        record_max_bytes = traits.max_record_bytes or traits.max_batch_bytes
        return cls(
            min(ENTRY_MAX_BYTES, record_max_bytes - _HEADERS_MAX_BYTES),
            traits.max_batch_bytes * 3 // 4,
            traits.max_batch_records // 4,
            traits.max_batch_records // 2 - 1,
        )


class _Entry:
    """One journal record that waits to be written, with the event that goes with it.

    Attributes:
        size_bytes: Of the larger of the two records' values.
        event_bytes: All of the event, and of the entry that is made of :attr:`published`.
    """

    __slots__ = ("event", "event_bytes", "last", "published", "size_bytes", "value", "waiter")

    def __init__(
        self,
        value: bytes,
        waiter: asyncio.Future[int] | None,
        published: Published | None = None,
        event: Record | None = None,
        *,
        last: bool = False,
    ) -> None:
        self.last = last
        self.value = value
        self.waiter = waiter
        self.published = published
        self.event = event
        self.size_bytes = len(value)
        self.event_bytes = 0
        if event is not None and published is not None:
            self.size_bytes = len(event.value)
            self.event_bytes = len(event.value) + len(event.key) + _headers_bytes(event.headers)
            self.event_bytes += len(published.key.encode()) + len(published.stream) + _PUBLISHED_OVERHEAD_BYTES


def _headers_bytes(headers: Mapping[str, str]) -> int:
    return len(_encode(dict(headers))) if headers else 0


class RunJournal:
    """Appends to ``$run.<id>``, each time on condition that nobody else did.

    Attributes:
        position: Position of the journal's last durable record.
        stalled: Why nothing can be written at the moment (a full disk), or an empty string.
    """

    __slots__ = (
        "_clock", "_delay_s", "_ending", "_headers", "_headers_bytes", "_limits", "_lines", "_lines_bytes",
        "_lines_dropped", "_log", "_loop", "_lost", "_on_lost", "_on_refused", "_only_last", "_pausing", "_pending",
        "_refused", "_run_id", "_stream", "_task", "position", "stalled",
    )  # fmt: skip

    def __init__(
        self,
        log: Log,
        clock: Clock,
        run_id: str,
        stream: str,
        position: int,
        headers: Mapping[str, str],
        on_lost: Callable[[Exception], None],
        *,
        on_refused: Callable[[Exception], None] | None = None,
        limits: JournalLimits | None = None,
    ) -> None:
        """Make the writer of a journal whose last record is at ``position``.

        Args:
            log: The log.
            clock: For the pauses while nothing can be written.
            run_id: The run.
            stream: The journal.
            position: Position of its last record.
            headers: Of all records.
            on_lost: Called when nothing can be written any more.
            on_refused: Called when the log does not take what it was given, today or ever. Nothing was written, and
                only the run's last entry is taken from then on.
            limits: What one record and one commit may hold.
        """
        self._log = log
        self._limits = limits or JournalLimits.of(log.traits)
        self._clock = clock
        self._run_id = run_id
        self._stream = stream
        self._headers = headers
        self._headers_bytes = _headers_bytes(headers)
        self._on_lost = on_lost
        self._on_refused = on_refused or on_lost
        self._loop = asyncio.get_running_loop()
        self._pending: list[_Entry] = []
        self._lines: list[Record] = []
        self._lines_bytes = 0
        self._lines_dropped = 0
        self._delay_s = _FULL_RETRY_MIN_S
        self._pausing: asyncio.Task[None] | None = None
        self._ending = False
        self._only_last = False
        self._task: asyncio.Task[None] | None = None
        self._lost = self._refused = False
        self.position = position
        self.stalled = ""

    def __repr__(self) -> str:
        return f"<RunJournal {self._stream} at {self.position}, {len(self._pending)} pending>"

    def put(self, value: bytes) -> asyncio.Future[int]:
        """Write an entry; the future gives its position once it is durable. It is cancelled when the journal is lost.

        Raises:
            ValueTooLargeError: The entry is larger than the engine takes; nothing was written.
        """
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._add(_Entry(value, waiter))
        return waiter

    async def write(self, value: bytes) -> None:
        """Write an entry and return once it is durable; else as :meth:`put`.

        Where nothing else is on its way and the log can, it is written here and now: a task and its turns of the event
        loop would cost a lone run a third of its speed.
        """
        if not self._write_now(value):
            await self.put(value)

    def _write_now(self, value: bytes) -> bool:
        if (
            self._task is not None
            or self._pending
            or self._lines
            or self._lost
            or self._refused
            or len(value) > self._limits.entry_max_bytes
        ):
            return False
        try:
            position = self._log.append_now(
                self._stream, (Record(value, b"", self._headers),), expected_position=self.position
            )
        except (PositionConflictError, LogClosedError, AppendOutcomeUnknownError) as error:
            self._lose(error, [])
            return False
        except (NotWrittenError, InvalidArgumentError):
            return False  # a full disk, or what the log does not take: the writer's task knows what to do then
        if position is None:
            return False
        self.position = position
        return True

    def put_last(self, value: bytes, *, alone: bool) -> asyncio.Future[int]:
        """Write the run's last entry, into the space that is kept back on a full disk too. The future raises what the
        log says where it does not take this entry, or one ahead of it; another last one may be put then.

        Args:
            value: The entry.
            alone: What could not be written until now is given up for it: the run's code was stopped from outside.

        Raises:
            ValueTooLargeError: The entry is larger than the engine takes; nothing was written.
        """
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._add(_Entry(value, waiter, last=True))
        self._ending = True
        self._only_last = alone
        if self.stalled:
            self._give_up_the_rest()
        if self._pausing is not None:
            self._pausing.cancel()
        return waiter

    def abandon(self) -> None:
        """Give up what could not be written; whoever waits for it is cancelled."""
        self._lost = True
        self._forget(self._pending)
        self._pending = []
        self._drop_lines()
        if self._pausing is not None:
            self._pausing.cancel()

    def put_soon(self, value: bytes) -> None:
        """Write an entry with the next append, without waiting for it."""
        self._add(_Entry(value, None))

    def publish(self, published: Published, event: Record, *, wait: bool) -> asyncio.Future[int] | None:
        """Write an event and its entry, in one commit; the future gives the event's position."""
        waiter: asyncio.Future[int] | None = self._loop.create_future() if wait else None
        self._add(_Entry(b"", waiter, published, event))
        return waiter

    def add_line(self, line: LogLine) -> None:
        """Keep a log line for the next append; :meth:`flush` sees to it that there is one."""
        value = _encode(line)
        if self._lines_bytes + len(value) > _LINES_WAITING_MAX_BYTES:
            self._lines_dropped += 1
            return
        self._lines_bytes += len(value)
        self._lines.append(Record(value, b"", self._headers))

    def flush(self) -> None:
        """Begin to write what is kept, unless an append is in flight."""
        if self._task is None and not self._lost and (self._pending or self._lines):
            self._task = self._loop.create_task(self._write())

    async def settle(self) -> None:
        """Return once everything that was put is durable (or the journal is lost)."""
        self.flush()
        while self._task is not None:
            await asyncio.wait([self._task])

    def _add(self, entry: _Entry) -> None:
        limit = self._limits.entry_max_bytes
        if entry.size_bytes > limit or entry.event_bytes > limit + _HEADERS_MAX_BYTES:
            raise ValueTooLargeError(
                f"run {self._run_id}: a value of {entry.size_bytes} bytes (with key and headers "
                f"{entry.event_bytes or entry.size_bytes}) is over the limit of {limit} bytes. It was not written. "
                "Keep it as a blob and pass its id on."
            )
        if self._lost or (self._refused and not entry.last):
            self._forget([entry])
            return
        self._pending.append(entry)
        if self._task is None:
            self._task = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while (self._pending or self._lines) and not self._lost:
                entries, lines, ending = self._take(), self._take_lines(), self._ending
                try:
                    last = await self._append(entries, lines)
                except (PositionConflictError, LogClosedError, AppendOutcomeUnknownError) as error:
                    self._lose(error, entries)
                    return
                except NotWrittenError as error:
                    self._put_back(entries, lines)
                    if self._ending == ending:
                        await self._stall(error)
                    continue
                except (LogError, InvalidArgumentError, OSError) as error:
                    if lines:  # they are worth no run: it is tried again without them
                        _logger.warning("run %s: %d log lines are dropped: %s", self._run_id, len(lines), error)
                        self._pending[:0] = entries
                    elif isinstance(error, InvalidArgumentError) and not self._refused:
                        self._refuse(error, entries)
                    else:
                        self._lose(error, entries)
                    continue
                except Exception as error:  # noqa: BLE001 (a fault of ours: nobody may wait for ever, nor go on)
                    self._lose(error, entries)
                    return
                self.stalled, self._delay_s = "", _FULL_RETRY_MIN_S
                if entries:
                    self.position = last
                    self._tell(entries, last)
        finally:
            self._task = None

    def _take(self) -> list[_Entry]:
        pending = self._pending
        if len(pending) == 1:
            self._pending = []
            return pending
        size = count = 0
        for entry in pending:
            entry_bytes = len(entry.value) + self._headers_bytes + entry.event_bytes
            full = size + entry_bytes > self._limits.batch_max_bytes or count == self._limits.batch_max_entries
            if count and full:
                break
            size += entry_bytes
            count += 1
        self._pending = pending[count:]
        return pending[:count]

    @staticmethod
    def _tell(entries: list[_Entry], last: int) -> None:
        position = last - len(entries)
        for entry in entries:
            position += 1
            waiter = entry.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(position - entry.published.ahead if entry.published is not None else position)

    async def _append(self, entries: list[_Entry], lines: list[Record]) -> int:
        headers = self._headers
        reserve = self._ending
        if not lines and all(entry.event is None for entry in entries):
            records = [Record(entry.value, b"", headers) for entry in entries]
            return await self._log.append(self._stream, records, expected_position=self.position, use_reserve=reserve)
        answers = await self._log.append_many(self._together(entries, lines), use_reserve=reserve)
        return answers[-1] if entries else 0

    def _put_back(self, entries: list[_Entry], lines: list[Record]) -> None:
        self._pending[:0] = entries
        self._lines[:0] = lines
        self._lines_bytes += sum(len(line.value) for line in lines)
        if self._lost:
            self.abandon()
        elif self._ending:
            self._give_up_the_rest()

    async def _stall(self, error: NotWrittenError) -> None:
        """A full disk: the run stays where it is, which is logged, and goes on when there is room."""
        if not self.stalled:
            _logger.warning("run %s: nothing can be written, trying again: %s", self._run_id, error)
        self.stalled = str(error)
        if self._lost:
            return
        self._pausing = self._loop.create_task(self._pause())
        try:
            await asyncio.wait([self._pausing])
        finally:
            self._pausing = None
        self._delay_s = min(self._delay_s * 2, _FULL_RETRY_MAX_S)

    async def _pause(self) -> None:
        await self._clock.sleep(self._delay_s)

    def _give_up_the_rest(self) -> None:
        """Drop what is of less worth than the run's last entry."""
        self._drop_lines()
        if self._only_last:
            self._forget([entry for entry in self._pending if not entry.last])
            self._pending = [entry for entry in self._pending if entry.last]

    @staticmethod
    def _forget(entries: list[_Entry]) -> None:
        for entry in entries:
            if entry.waiter is not None:
                entry.waiter.cancel()

    def _drop_lines(self) -> None:
        self._lines.clear()
        self._lines_bytes = self._lines_dropped = 0

    def _take_lines(self) -> list[Record]:
        """Take as many lines as go into one commit; when all are taken, one more tells of those that were dropped."""
        lines, size_bytes = self._lines, 0
        room_bytes = min(_LINES_BATCH_MAX_BYTES, self._limits.batch_max_bytes // 4)
        for count, line in enumerate(lines):
            with_headers = size_bytes + len(line.value) + (count + 1) * self._headers_bytes
            if count and (with_headers > room_bytes or count == self._limits.batch_max_lines):
                self._lines = lines[count:]
                self._lines_bytes -= size_bytes
                return lines[:count]
            size_bytes += len(line.value)
        self._lines, self._lines_bytes = [], 0
        if self._lines_dropped:
            told = LogLine(
                self._clock.time_ns(), "WARNING", "mainstem", f"{self._lines_dropped} lines of this run were dropped"
            )
            self._lines_dropped = 0
            lines.append(Record(_encode(told), b"", self._headers))
        return lines

    def _together(self, entries: list[_Entry], lines: list[Record]) -> list[Append]:
        """Return the appends of one commit: events by stream, then log lines, then the journal, which so knows where
        its events lie.
        """
        streams: dict[str, list[_Entry]] = {}
        for entry in entries:
            if entry.published is not None:
                streams.setdefault(entry.published.stream, []).append(entry)
        ahead = sum(map(len, streams.values())) + len(lines)
        appends: list[Append] = []
        places: dict[int, int] = {}
        for stream, published in streams.items():
            appends.append(Append(stream, [entry.event for entry in published if entry.event is not None]))
            for entry in published:
                places[id(entry)] = ahead
                ahead -= 1
        if lines:
            appends.append(Append(LOG_LINES_PREFIX + self._run_id, lines))
        for index, entry in enumerate(entries):
            if entry.published is not None:
                entry.published = msgspec.structs.replace(entry.published, ahead=places[id(entry)] + index)
                entry.value = _encode(entry.published)
        if entries:
            records = [Record(entry.value, b"", self._headers) for entry in entries]
            appends.append(Append(self._stream, records, self.position))
        return appends

    def _refuse(self, error: InvalidArgumentError, entries: list[_Entry]) -> None:
        """Give up what the log does not take, and what came behind it: the run has failed, and its end can be told."""
        given_up, self._pending, self._refused = [*entries, *self._pending], [], True
        for entry in given_up:
            if entry.last and entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_exception(error)
        self._forget(given_up)
        self._on_refused(error)

    def _lose(self, error: Exception, entries: list[_Entry]) -> None:
        self._lost = True
        if isinstance(error, PositionConflictError):
            error = RunFencedError(
                f"run {self._run_id}: its journal is at position {error.actual}, this process wrote {error.expected} "
                "last. Something else writes to it; this process stopped working on the run and wrote nothing."
            )
        self._forget([*entries, *self._pending])
        self._pending.clear()
        self._drop_lines()
        self._on_lost(error)
