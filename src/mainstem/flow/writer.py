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
from mainstem.log.contract import Append, Log, Record
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

_BATCH_MAX_BYTES = 12 << 20
_BATCH_MAX_ENTRIES = 16_384
_FULL_RETRY_MAX_S = 5.0

_encode = msgspec.json.Encoder().encode


class _Entry:
    """One journal record that waits to be written, with the event that goes with it."""

    __slots__ = ("event", "published", "size_bytes", "value", "waiter")

    def __init__(
        self,
        value: bytes,
        waiter: asyncio.Future[int] | None,
        published: Published | None = None,
        event: Record | None = None,
    ) -> None:
        self.value = value
        self.waiter = waiter
        self.published = published
        self.event = event
        self.size_bytes = len(value) + (len(event.value) if event is not None else 0)


class RunJournal:
    """Appends to ``$run.<id>``, each time on condition that nobody else did.

    Attributes:
        position: Position of the journal's last durable record.
        stalled: Why nothing can be written at the moment (a full disk), or an empty string.
    """

    __slots__ = (
        "_clock", "_headers", "_lines", "_log", "_loop", "_lost", "_on_lost", "_pending", "_run_id", "_stream", "_task",
        "position", "stalled",
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
    ) -> None:
        self._log = log
        self._clock = clock
        self._run_id = run_id
        self._stream = stream
        self._headers = headers
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._pending: list[_Entry] = []
        self._lines: list[Record] = []
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        self.position = position
        self.stalled = ""

    def __repr__(self) -> str:
        return f"<RunJournal {self._stream} at {self.position}, {len(self._pending)} pending>"

    def put(self, value: bytes) -> asyncio.Future[int]:
        """Write an entry; the future gives its position once it is durable. It is cancelled when the journal is lost.

        Raises:
            ValueTooLargeError: The entry is larger than 8 MiB; nothing was written.
        """
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._add(_Entry(value, waiter))
        return waiter

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
        self._lines.append(Record(_encode(line), b"", self._headers))

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
        if entry.size_bytes > ENTRY_MAX_BYTES:
            raise ValueTooLargeError(
                f"run {self._run_id}: a value of {entry.size_bytes} bytes is over the limit of {ENTRY_MAX_BYTES} "
                "bytes. It was not written. Keep it as a blob and pass its id on."
            )
        if self._lost:
            if entry.waiter is not None:
                entry.waiter.cancel()
            return
        self._pending.append(entry)
        if self._task is None:
            self._task = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._pending or self._lines:
                entries, lines = self._take(), self._lines
                self._lines = []
                try:
                    last = await self._append(entries, lines)
                except (LogError, InvalidArgumentError, OSError) as error:
                    self._lose(error, entries)
                    return
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
            if count and (size + entry.size_bytes > _BATCH_MAX_BYTES or count == _BATCH_MAX_ENTRIES):
                break
            size += entry.size_bytes
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
        plain = not lines and all(entry.event is None for entry in entries)
        appends = [] if plain else self._together(entries, lines)
        delay_s = 0.1
        while True:
            try:
                if plain:
                    records = [Record(entry.value, b"", headers) for entry in entries]
                    last = await self._log.append(self._stream, records, expected_position=self.position)
                else:
                    answers = await self._log.append_many(appends)
                    last = answers[-1] if entries else 0
            except (PositionConflictError, LogClosedError, AppendOutcomeUnknownError):
                raise
            except NotWrittenError as error:
                # A full disk: the run stays where it is, visibly, and goes on when there is room.
                if not self.stalled:
                    _logger.warning("run %s: nothing can be written, trying again: %s", self._run_id, error)
                self.stalled = str(error)
                await self._clock.sleep(delay_s)
                delay_s = min(delay_s * 2, _FULL_RETRY_MAX_S)
            else:
                self.stalled = ""
                return last

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

    def _lose(self, error: Exception, entries: list[_Entry]) -> None:
        self._lost = True
        if isinstance(error, PositionConflictError):
            error = RunFencedError(
                f"run {self._run_id}: its journal is at position {error.actual}, this process wrote {error.expected} "
                "last. Something else writes to it; this process stopped working on the run and wrote nothing."
            )
        for entry in (*entries, *self._pending):
            if entry.waiter is not None:
                entry.waiter.cancel()
        self._pending.clear()
        self._lines.clear()
        self._on_lost(error)
