"""The log's contract: what every engine offers, and nothing that only one of them can.

A **log** holds **records** in named **streams**. Each record has a **position**, one number for the whole log, from 1,
strictly increasing. A **commit** is a set of records over any number of streams that becomes durable as one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import msgspec

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
"""The headers of a record that has none."""

TRACEPARENT = "traceparent"
"""Header with the W3C trace context of what wrote the record."""

ABOUT = "about"
"""Header with the entities that the record is about, separated by spaces: ``"order:1234 customer:7"``."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """What a caller appends: a value, and optionally a key and headers.

    Attributes:
        value: The payload, up to the engine's ``max_record_bytes`` together with key and headers.
        key: Groups records whose order matters to each other; empty for none.
        headers: Short text fields, such as the trace context.
    """

    value: bytes
    key: bytes = b""
    headers: Mapping[str, str] = NO_HEADERS


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A durable record, as it is read back.

    Attributes:
        position: Its place in the whole log, from 1.
        stream: Name of its stream.
        time_ns: Wall-clock time of its commit in nanoseconds since 1970; informative, never an order.
        value: The payload.
        key: The key, empty for none.
        headers: The headers.
    """

    position: int
    stream: str
    time_ns: int
    value: bytes
    key: bytes = b""
    headers: Mapping[str, str] = NO_HEADERS


class Append(msgspec.Struct, frozen=True):
    """The records for one stream within an ``append_many``.

    Attributes:
        stream: Dotted name, 1 to 255 bytes.
        records: One or more records.
        expected_position: Position of the stream's last record; ``0`` demands an empty stream; ``None`` nothing.
    """

    stream: str
    records: Sequence[Record]
    expected_position: int | None = None


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do, with numbers where they are limits.

    Attributes:
        name: The engine's name, for messages.
        conditional_append: Whether ``expected_position`` is honoured.
        atomic_streams: Whether one ``append_many`` may cover several streams.
        max_batch_records: Most records of one call.
        max_batch_bytes: Most bytes of one call, over values, keys and headers.
        max_record_bytes: Most bytes of one record; 0 where ``max_batch_bytes`` is the only limit.
        dedup_window_calls: How many of the latest calls with a ``dedup_id`` are remembered; 0 where the window is of
            time.
        dedup_window_s: How long a ``dedup_id`` is remembered; 0 where the window is counted in calls.
        single_owner: Whether the engine lets one process at a time append. Where it does not, those who take work over
            have to fence the others themselves, by an append with ``expected_position``.
        verified_sync: Whether the engine itself knows that what it answers was synced. ``False`` where a server's
            setting decides, which the engine cannot see: its documentation says which.
    """

    name: str
    conditional_append: bool
    atomic_streams: bool
    max_batch_records: int
    max_batch_bytes: int
    dedup_window_calls: int
    dedup_window_s: float
    max_record_bytes: int = 0
    single_owner: bool = True
    verified_sync: bool = True


class LogStats(msgspec.Struct, frozen=True):
    """How much a log holds.

    Attributes:
        end_position: Position of the last durable record.
        record_count: Records that are retained.
        stream_count: Streams with at least one of them.
        segment_count: Files that hold them; 0 where an engine has none of its own.
        size_bytes: Space that they take.
    """

    end_position: int
    record_count: int
    stream_count: int
    segment_count: int
    size_bytes: int


@runtime_checkable
class ReadableLog(Protocol):
    """The half of the contract that needs no owner: reading what is durable."""

    @property
    def end_position(self) -> int:
        """Position of the last durable record of the whole log; 0 when there is none.

        Where several processes append, it is the last one that this process has seen: at opening, in its own appends,
        and in what it read.
        """
        ...

    async def read(self, pattern: str, after: int = 0, limit: int = 1000) -> Sequence[StoredRecord]:
        """Return durable records of matching streams with a position greater than ``after``, in order.

        Args:
            pattern: A stream's name, or a pattern with ``*`` (one token) and a final ``>`` (the rest). ``>`` alone
                matches every stream, the system's included.
            after: Position to continue from; 0 for the beginning.
            limit: Most records to return, 1 to 65,536. Fewer may come back (an answer is bounded in bytes too); none
                come back only when no matching record is behind ``after``.

        Raises:
            InvalidArgumentError: The pattern or a number is malformed.
            LogCorruptError: A record on disk no longer has the bytes that were acknowledged.
            LogUnreachableError: A remote engine's server did not answer in time.
        """
        ...

    def tail(self, pattern: str, after: int = 0) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of durable records after ``after``, then live ones for ever; no gap, no duplicate.

        A batch has 1 to 1,000 records. Closing the iterator (or cancelling the task) ends it. While a remote engine's
        server is away, it waits.
        """
        ...

    async def last(self, stream: str) -> StoredRecord | None:
        """Return the last durable record of one stream; ``None`` when none is retained."""
        ...

    async def stats(self) -> LogStats:
        """Return how much the log holds."""
        ...


@runtime_checkable
class Log(ReadableLog, Protocol):
    """One log, as an engine offers it to its single owner."""

    @property
    def traits(self) -> Traits:
        """What this engine can do."""
        ...

    async def append(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int:
        """Append records to one stream; return the position of the last one, once all are durable.

        If the await is cancelled, the records are wholly present or wholly absent and the caller cannot tell which:
        retry with the same ``dedup_id``.

        Args:
            stream: Dotted name, 1 to 255 bytes, e.g. ``"orders.created"``.
            records: 1 to 65,536 records, 16 MiB together, or what the engine's :attr:`traits` say.
            expected_position: Position of the stream's last record; ``0`` demands an empty stream; ``None`` nothing.
            dedup_id: Names the call, 1 to 255 characters. A repeated call with the same name gets the first one's
                answer, also when ``expected_position`` no longer fits.
            use_reserve: Whether the space that is kept back on a full disk may be used: only for what helps to get
                work finished or removed (claims, cancels, trims).

        Raises:
            PositionConflictError: ``expected_position`` is not the stream's last position; nothing written.
            LogFullError: No space is left outside the reserve; nothing written.
            NotWrittenError: The write did not begin.
            AppendOutcomeUnknownError: The write or its sync failed; the records may or may not be there.
        """
        ...

    def append_now(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int | None:
        """Append as :meth:`append` does, where the records can be durable before this call returns.

        ``None`` says that nothing was written, since others wait, the disk is slow, or the event loop is owed a turn:
        await :meth:`append` instead. An engine that has to wait for every append always returns it.
        """
        ...

    async def append_many(
        self, appends: Sequence[Append], *, dedup_id: str | None = None, use_reserve: bool = False
    ) -> tuple[int, ...]:
        """Append to several streams as one atomic commit; return each append's last position.

        All conditions hold, or nothing is written. Limits, errors and cancellation are those of :meth:`append`.
        """
        ...

    async def close(self) -> None:
        """Finish what is in flight, mark the log as cleanly closed and let go of it. Idempotent."""
        ...
