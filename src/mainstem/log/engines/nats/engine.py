"""The log on NATS JetStream: one stream of the server's, whose sequence is the position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from uuid import uuid4

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_pattern, check_stream
from mainstem.log.contract import Append, LogStats, Record, StoredRecord, Traits
from mainstem.log.engines.nats.address import NatsAddress
from mainstem.log.engines.nats.appending import Appender
from mainstem.log.engines.nats.calls import Limits, make_call
from mainstem.log.engines.nats.connection import NatsConnection
from mainstem.log.engines.nats.reading import StreamReader
from mainstem.log.engines.nats.tail import Tail
from mainstem.log.errors import LogClosedError, LogNotFoundError

READ_MAX_RECORDS = 65_536
"""Most records that one read returns."""


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine uses the server.

    Attributes:
        replicas: How many servers keep each record, where the stream is made: 1, 3 or 5.
        dedup_window_s: How long a call is remembered by its ``dedup_id``, where the stream is made.
        patience_s: How long a call goes on trying while the server is away. An append that was sent and not answered is
            sent again meanwhile, so this is less than the dedup window.
        answer_s: How long one answer may take, before it is asked for again.
        batch_max_records: The server's limit of messages in an atomic batch.
        batch_max_bytes: Most bytes of one call.
        batches_max: Most calls of several records under way at once; the server allows 50 for each stream, from all its
            clients.
        singles_max: Most other calls under way at once; more wait their turn.
    """

    replicas: int = 1
    dedup_window_s: float = 120.0
    patience_s: float = 60.0
    answer_s: float = 10.0
    batch_max_records: int = 1000
    batch_max_bytes: int = 8 << 20
    batches_max: int = 16
    singles_max: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.patience_s < self.dedup_window_s:
            raise InvalidArgumentError(
                f"patience_s={self.patience_s:g}: expected more than 0 and less than dedup_window_s="
                f"{self.dedup_window_s:g}, since what is sent again must still be remembered."
            )
        if self.replicas not in (1, 3, 5) or min(self.answer_s, self.batches_max, self.singles_max) <= 0:
            raise InvalidArgumentError(f"{self}: expected 1, 3 or 5 replicas, and numbers above 0.")


class NatsLog:
    """A log on NATS; see :class:`mainstem.log.contract.Log`. Made by ``open_nats_log``.

    Several processes may have it open. Belongs to the event loop that it was opened on.

    Attributes:
        id: What tells this log from any other, also from one of the same name made later.
    """

    def __init__(
        self,
        address: NatsAddress,
        settings: NatsSettings,
        connection: NatsConnection,
        reader: StreamReader,
        *,
        log_id: str,
        end_position: int,
        dedup_window_s: float,
    ) -> None:
        self.id = log_id
        self._address = address
        self._settings = settings
        self._connection = connection
        self._reader = reader
        self._dedup_window_s = dedup_window_s
        self._end_position = end_position
        self._appender = Appender(
            connection,
            reader,
            address,
            patience_s=settings.patience_s,
            answer_s=settings.answer_s,
            window_s=dedup_window_s,
            batches_max=settings.batches_max,
            singles_max=settings.singles_max,
        )
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    def __repr__(self) -> str:
        state = "closed" if self._closing else "up" if self._connection.is_up else "down"
        return f"<NatsLog {self._address} at {self._end_position}, {state}, {self._under_way} appends under way>"

    @property
    def _limits(self) -> Limits:
        return Limits(
            self._settings.batch_max_records, self._settings.batch_max_bytes, self._connection.message_max_bytes
        )

    @property
    def traits(self) -> Traits:
        """What this engine can do."""
        return Traits(
            name="nats",
            conditional_append=True,
            atomic_streams=True,
            max_batch_records=self._settings.batch_max_records,
            max_batch_bytes=self._settings.batch_max_bytes,
            dedup_window_calls=0,
            dedup_window_s=self._dedup_window_s,
            max_record_bytes=min(self._limits.record_max_bytes, self._settings.batch_max_bytes),
            single_owner=False,
            verified_sync=False,
        )

    @property
    def end_position(self) -> int:
        """The last position that this process has seen; see :class:`mainstem.log.contract.ReadableLog`."""
        return self._end_position

    def _seen(self, position: int) -> None:
        self._end_position = max(self._end_position, position)

    def _check_open(self) -> None:
        if self._closing:
            raise LogClosedError(f"{self._address}: the log is closed. Nothing was written.")

    # ---- reading

    async def read(self, pattern: str, after: int = 0, limit: int = 1000) -> Sequence[StoredRecord]:
        """Return durable records; see :meth:`mainstem.log.contract.ReadableLog.read`."""
        check_pattern(pattern)
        if after < 0 or not 1 <= limit <= READ_MAX_RECORDS:
            raise InvalidArgumentError(
                f"read(after={after}, limit={limit}): expected a position from 0 and 1 to {READ_MAX_RECORDS} records."
            )
        self._check_open()
        records = [one.record for one in await self._reader.page(pattern, after=after, limit=limit)]
        if records:
            self._seen(records[-1].position)
        return records

    async def tail(self, pattern: str, after: int = 0) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of durable records for ever; see :meth:`mainstem.log.contract.ReadableLog.tail`.

        It survives lost connections and restarts of the server, without a gap or a duplicate.

        Raises:
            LogClosedError: The log was closed.
            LogNotFoundError: The JetStream stream was deleted.
        """
        check_pattern(pattern)
        self._check_open()
        tail = Tail(
            self._connection,
            self._address.name,
            self._address.subjects,
            pattern,
            after,
            answer_s=self._settings.answer_s,
        )
        async with aclosing(tail.batches()) as batches:
            async for batch in batches:
                self._seen(batch[-1].position)
                yield batch

    async def last(self, stream: str) -> StoredRecord | None:
        """Return the last durable record of one stream, or ``None``."""
        check_stream(stream)
        self._check_open()
        found = await self._reader.last(stream)
        if found is None:
            return None
        self._seen(found.record.position)
        return found.record

    async def stats(self) -> LogStats:
        """Return the log's size in records, streams and bytes, as the server counts them."""
        self._check_open()
        info = await self._reader.info()
        if info.error is not None:
            raise LogNotFoundError(f"{self._address}: {info.error.description}.")
        self._seen(info.state.last_seq)
        state = info.state
        return LogStats(state.last_seq, state.messages, state.num_subjects, 0, state.bytes)

    # ---- appending

    async def append(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int:
        """Append to one stream; see :meth:`mainstem.log.contract.Log.append`. There is no reserve on NATS."""
        del use_reserve
        return (await self._append([(stream, records, expected_position)], dedup_id))[-1]

    def append_now(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int | None:
        """Return ``None``: every append has to wait for the server."""
        del stream, records, expected_position, dedup_id, use_reserve
        return None

    async def append_many(
        self, appends: Sequence[Append], *, dedup_id: str | None = None, use_reserve: bool = False
    ) -> tuple[int, ...]:
        """Append to several streams at once; see :meth:`mainstem.log.contract.Log.append_many`."""
        del use_reserve
        return await self._append([(one.stream, one.records, one.expected_position) for one in appends], dedup_id)

    async def _append(
        self, appends: Sequence[tuple[str, Sequence[Record], int | None]], dedup_id: str | None
    ) -> tuple[int, ...]:
        self._check_open()
        call = make_call(appends, dedup_id, uuid4().hex, self._limits)
        self._under_way += 1
        self._idle.clear()
        try:
            answer = await self._appender.append(call)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        self._seen(answer[-1])
        return answer

    async def close(self) -> None:
        """Finish what is in flight, while the server answers, and end the connection. Idempotent."""
        self._closing = True
        # What takes longer hears that its outcome is unknown.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.answer_s):
                await self._idle.wait()
        await self._connection.close()
