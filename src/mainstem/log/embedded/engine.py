"""The embedded engine: one process, one directory, one frame and one sync for all who wait at that moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mainstem.base.names import check_stream
from mainstem.host import forks
from mainstem.host.clock import Clock
from mainstem.host.disk import Buffer, Disk, File
from mainstem.log.contract import NO_HEADERS, Append, LogStats, Record, StoredRecord, Traits
from mainstem.log.embedded.budget import ByteBudget
from mainstem.log.embedded.calls import Answer, Call, Waiter, encode_call
from mainstem.log.embedded.commit import CommitPlan, LonePlan
from mainstem.log.embedded.layout import LogSettings, epoch_name
from mainstem.log.embedded.recovery import Recovered, TornTail
from mainstem.log.embedded.rolling import NO_ROOM, Rolling
from mainstem.log.embedded.segment import OpenSegment
from mainstem.log.embedded.store import CommitStore
from mainstem.log.embedded.writer import InlinePolicy, WriterThread
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogDeposedError,
    LogFullError,
    PositionConflictError,
)
from mainstem.log.frame import (
    COMMIT,
    HEADER_BYTES,
    Commit,
    FrameHeader,
    encode_headers,
    encode_one,
    frame_bytes,
)

_logger = logging.getLogger(__name__)

_TAIL_BATCH_RECORDS = 1000
_TURN_S = 0.001
"""Callers who never have to wait give others a turn of the event loop this often."""
_CALL_S = _TURN_S / 16
"""What a call counts for in that, beside its sync."""


class EmbeddedLog:
    """The log of one directory, owned by this process; see :class:`mainstem.log.contract.Log`. Made by ``open_log``.

    Belongs to the event loop that it was opened on. A child that was forked from here cannot use it.

    Attributes:
        torn: The unfinished write that opening found and set aside, or ``None``.
        sync_count: Number of commits since opening.
    """

    def __init__(self, disk: Disk, clock: Clock, directory: Path, settings: LogSettings, recovered: Recovered) -> None:
        self._disk = disk
        self._clock = clock
        self._directory = directory
        self._settings = settings
        self._lock = recovered.lock
        self._log_id = recovered.log_id
        self._epoch = recovered.epoch
        self._successor = directory / epoch_name(recovered.epoch + 1)
        self._manifest = recovered.manifest
        # Threads of the log's own: asyncio's few may all be busy with what waits for the log.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="mainstem-log-io")
        self._store = CommitStore(
            disk, directory, recovered.manifest, recovered.index, settings.cache_bytes, self._threads
        )
        self._rolling = Rolling(disk, clock, directory, settings, recovered, self._threads)
        self._index = recovered.index
        self.torn: TornTail | None = recovered.torn
        self.sync_count = 0
        self._loop = asyncio.get_running_loop()
        self._pid, self._forks = os.getpid(), forks.count
        self._queue: deque[Call] = deque()
        self._budget = ByteBudget(settings.pending_max_bytes)
        self._inline = InlinePolicy(settings.inline_sync_max_s, settings.alone_after_commits)
        self._writer = WriterThread(self._loop, "mainstem-log")
        self._busy = False
        self._flush_due = False
        self._callers = 0
        self._kept_loop_s = 0.0
        self._failure: BaseException | None = None
        self._closing = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._advanced: asyncio.Future[None] | None = None
        self._close_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "poisoned" if self._failure else "busy" if self._busy else "idle"
        return f"<EmbeddedLog {self._directory} at {self.end_position}, {state}, {len(self._queue)} waiting>"

    @property
    def traits(self) -> Traits:
        """What this engine can do."""
        return self._settings.traits

    @property
    def end_position(self) -> int:
        """Position of the last durable record; 0 when there is none."""
        return self._index.end_position

    @property
    def settings(self) -> LogSettings:
        """Its sizes and limits."""
        return self._settings

    @property
    def epoch(self) -> int:
        """The epoch that this owner claimed."""
        return self._epoch

    @property
    def failure(self) -> BaseException | None:
        """What ended the log's life in this process, a failed write or another owner; ``None`` while it lives."""
        return self._failure

    # ---- reading

    async def read(self, pattern: str, after: int = 0, limit: int = 1000) -> Sequence[StoredRecord]:
        """Return durable records; see :meth:`mainstem.log.contract.ReadableLog.read`."""
        self._check_readable()
        return await self._store.read(pattern, after, limit)

    async def tail(self, pattern: str, after: int = 0) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of durable records for ever; see :meth:`mainstem.log.contract.ReadableLog.tail`.

        Raises:
            LogClosedError: The log was closed, or its life ended by an error of the disk.
        """
        while True:
            self._check_readable()
            seen = self.end_position
            records = await self._store.read(pattern, after, _TAIL_BATCH_RECORDS)
            if records:
                after = records[-1].position
                yield records
                continue
            after = max(after, seen)
            if self.end_position == seen:
                self._check_open()
                await self._next_commit()

    def _next_commit(self) -> asyncio.Future[None]:
        if self._advanced is None or self._advanced.done():
            self._advanced = self._loop.create_future()
        # Shielded: one tail that is cancelled must not cancel the signal of the others.
        return asyncio.shield(self._advanced)

    def _wake_tails(self) -> None:
        if self._advanced is not None and not self._advanced.done():
            self._advanced.set_result(None)

    async def last(self, stream: str) -> StoredRecord | None:
        """Return the last durable record of one stream, or ``None``."""
        position = self._index.last_position(check_stream(stream))
        self._check_readable()
        if not position:
            return None
        return (await self._store.read(stream, position - 1, 1))[0]

    async def stats(self) -> LogStats:
        """Return the log's size in records, streams and bytes."""
        index, rolling = self._index, self._rolling
        return LogStats(self.end_position, index.records, index.stream_count, rolling.active.number, rolling.size_bytes)

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
        """Append to one stream; see :meth:`mainstem.log.contract.Log.append`."""
        self._check_open()
        self._callers += 1
        try:
            if len(records) == 1 and dedup_id is None:
                position = self._commit_one(self._callers, stream, records[0], expected_position, use_reserve)
                if position is not None:
                    if self._owes_a_turn():
                        await asyncio.sleep(0)
                    return position
            call = encode_call(((stream, records, expected_position),), dedup_id, use_reserve, self._settings)
            return (await self._commit(call))[-1]
        finally:
            self._callers -= 1

    def append_now(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int | None:
        """Append without waiting, where that can be; see :meth:`mainstem.log.contract.Log.append_now`."""
        self._check_open()
        if self._callers or not self._may_commit_alone(1) or self._owes_a_turn():
            return None
        if len(records) == 1 and dedup_id is None:
            return self._commit_one(1, stream, records[0], expected_position, use_reserve)
        call = encode_call(((stream, records, expected_position),), dedup_id, use_reserve, self._settings)
        if not self._commit_alone(call):
            return None
        if call.error is not None:
            raise call.error
        return call.answer[-1]

    async def append_many(
        self, appends: Sequence[Append], *, dedup_id: str | None = None, use_reserve: bool = False
    ) -> tuple[int, ...]:
        """Append to several streams at once; see :meth:`mainstem.log.contract.Log.append_many`."""
        self._check_open()
        rows = [(item.stream, item.records, item.expected_position) for item in appends]
        self._callers += 1
        try:
            return await self._commit(encode_call(rows, dedup_id, use_reserve, self._settings))
        finally:
            self._callers -= 1

    async def commit(self, call: Call) -> Answer:
        """Commit a call that was encoded before; as :meth:`append_many`."""
        self._check_open()
        call.error = None  # it may have been refused elsewhere
        self._callers += 1
        try:
            return await self._commit(call)
        finally:
            self._callers -= 1

    async def _commit(self, call: Call) -> Answer:
        if self._may_commit_alone(self._callers) and self._commit_alone(call):
            if self._owes_a_turn():
                await asyncio.sleep(0)
            if call.error is not None:
                raise call.error
            return call.answer
        future: asyncio.Future[Answer] = self._loop.create_future()
        if self._budget.take_now(call.size_bytes):
            self._enqueue(call, future)
        else:
            await self.wait_for_memory(call, future)
        return await future

    def submit(self, call: Call, waiter: Waiter) -> bool:
        """Let a call wait for its commit; ``False`` when too much waits already: :meth:`wait_for_memory` instead.

        Raises:
            LogClosedError: The log is closed or its life has ended; nothing was written.
        """
        self._check_open()
        if not self._budget.take_now(call.size_bytes):
            return False
        self._enqueue(call, waiter)
        return True

    async def wait_for_memory(self, call: Call, waiter: Waiter) -> None:
        """Let a call wait for its commit, once there is room for it among what waits.

        Raises:
            LogClosedError: The log was closed or its life ended meanwhile; nothing was written.
        """
        await self._budget.take(call.size_bytes)
        try:
            self._check_open()
        except LogClosedError:
            self._budget.give_back(call.size_bytes)
            raise
        self._enqueue(call, waiter)

    def _enqueue(self, call: Call, waiter: Waiter) -> None:
        call.future = waiter
        self._queue.append(call)
        if not self._busy and not self._flush_due:
            self._flush_due = True
            self._idle.clear()
            self._loop.call_soon(self._flush)

    def _check_readable(self) -> None:
        """Reading goes on after a failed write, and ends with the log."""
        if self._closed:
            raise LogClosedError(f"{self._directory}: the log is closed.")

    def _check_open(self) -> None:
        if self._failure is None and not self._closing and self._forks == forks.count:
            return
        if self._failure is not None:
            raise LogClosedError(
                f"{self._directory}: an earlier write failed ({self._failure}), which ended the log's life in this "
                "process. Nothing was written. Acknowledged records are safe; start the process again.",
                try_command=f"mainstem log verify {self._directory}",
            )
        if self._closing:
            raise LogClosedError(f"{self._directory}: the log is closed. Nothing was written.")
        raise LogClosedError(
            f"{self._directory}: the log was opened by process {self._pid} and cannot be used in a forked child. "
            "Nothing was written."
        )

    # ---- committing: one frame at a time; while it is written, the next one's calls gather

    def _may_commit_alone(self, callers: int) -> bool:
        """Tell whether a call need not wait for the loop's next turn, where others could join it."""
        return not (self._busy or self._flush_due or self._queue) and self._inline.allows_at_once(callers)

    def _commit_one(
        self, callers: int, stream: str, record: Record, expected_position: int | None, use_reserve: bool
    ) -> int | None:
        """Commit one record in its caller's own turn: the same as :meth:`_commit_alone`, in half the time.

        Return its position, or ``None`` where it needs more, or is refused: the longer way says why.
        """
        if not self._may_commit_alone(callers):
            return None
        check_stream(stream)
        value, key = record.value, record.key
        if type(value) is not bytes or type(key) is not bytes:
            return None
        headers = encode_headers(record.headers) if record.headers is not NO_HEADERS else b""
        if len(value) + len(key) + len(headers) > self._settings.append_max_bytes:
            return None
        index = self._index
        if expected_position is not None and (actual := index.last_position(stream)) != expected_position:
            raise PositionConflictError(stream, expected_position, actual)
        body = encode_one(stream, key, headers, value)
        if frame_bytes(len(body)) > self._room_bytes(with_reserve=use_reserve):
            return None
        position = index.end_position + 1
        self._write_inline(LonePlan(stream, position), (), body)
        if self._failure is not None:
            raise self._unknown_outcome(position, self._failure)
        return position

    def _commit_alone(self, call: Call) -> bool:
        """Commit one call in its caller's own turn, without a future or a hand-over; ``False`` where it needs more."""
        plan = CommitPlan(self._index)
        plan.add(call)
        if plan.record_count == 0:
            return True
        rows = plan.stream_of_record()
        body = plan.encode(rows)
        if frame_bytes(len(body)) > self._room_bytes(with_reserve=call.use_reserve):
            return False
        self._write_inline(plan, rows, body)
        return True

    def _owes_a_turn(self) -> bool:
        """Tell whether callers who never had to wait have kept the event loop to themselves for long enough."""
        self._kept_loop_s += _CALL_S
        if self._kept_loop_s < _TURN_S:
            return False
        self._kept_loop_s = 0.0
        return True

    def _flush(self) -> None:
        self._flush_due = False
        while self._queue and not self._busy and self._failure is None:
            calls = self._take_calls()
            plan = CommitPlan(self._index)
            try:
                for call in calls:
                    plan.add(call)
                rows = plan.stream_of_record()
                body = plan.encode(rows) if plan.record_count else b""
            except Exception as error:
                self._queue.extendleft(reversed(calls))
                self._poison(error, None)
                raise
            if plan.record_count == 0:
                self._answer(plan)
            elif frame_bytes(len(body)) <= self._room_bytes(with_reserve=all(call.use_reserve for call in calls)):
                self._write(plan, rows, body)
            elif self._rolling.is_full:
                self._refuse_for_lack_of_room(calls)
            else:
                self._queue.extendleft(reversed(calls))
                self._roll(frame_bytes(len(body)))
        if not self._queue and not self._busy:
            self._idle.set()

    def _take_calls(self) -> list[Call]:
        """Take waiting calls for one frame; those whose caller has gone are dropped, wholly absent."""
        calls: list[Call] = []
        size = 0
        while self._queue and (not calls or size + self._queue[0].size_bytes <= self._settings.commit_max_bytes):
            call = self._queue.popleft()
            if call.abandoned:
                self._budget.give_back(call.size_bytes)
                continue
            calls.append(call)
            size += call.size_bytes
        return calls

    def _room_bytes(self, *, with_reserve: bool) -> int:
        rolling = self._rolling
        return rolling.room_bytes(with_reserve=with_reserve and rolling.is_full)

    def _refuse_for_lack_of_room(self, calls: Sequence[Call]) -> None:
        """Refuse what may not use the reserve; what may goes back to the queue, unless it does not fit there either."""
        favoured = [call for call in calls if call.use_reserve]
        refused = calls if len(favoured) == len(calls) else [call for call in calls if not call.use_reserve]
        for call in refused:
            call.error = LogFullError(
                f"{self._directory}: the disk has no room for a further segment of "
                f"{self._rolling.next_size_bytes} bytes. Nothing was written; "
                "reading goes on.",
                try_command=f"df -h {self._directory}",
            )
            self._settle(call)
        if refused is not calls:
            self._queue.extendleft(reversed(favoured))

    def _write(self, plan: CommitPlan, rows: Sequence[int], body: bytes) -> None:
        if self._inline.allows(plan.accepted_count) and not self._queue:
            self._write_inline(plan, rows, body)
            return
        file, (header, buffers) = self._rolling.active.file, self._next_frame(plan, body)
        self._busy = True

        def done(sync_s: float, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._poison(error, plan)
            else:
                self._committed(plan, rows, header, body, sync_s)
            self._flush()

        self._writer.submit(lambda: self._write_and_sync(file, header.offset, buffers), done)

    def _write_inline(self, plan: CommitPlan | LonePlan, rows: Sequence[int], body: bytes) -> None:
        header, buffers = self._next_frame(plan, body)
        try:
            sync_s = self._write_and_sync(self._rolling.active.file, header.offset, buffers)
        except BaseException as error:
            self._poison(error, plan)
            if not isinstance(error, Exception):
                raise  # an interrupt: the caller's business, once everyone who waits was told
        else:
            self._kept_loop_s += sync_s
            self._committed(plan, rows, header, body, sync_s)

    def _next_frame(self, plan: CommitPlan | LonePlan, body: bytes) -> tuple[FrameHeader, list[bytes]]:
        return self._rolling.active.next_frame(
            COMMIT, body, plan.first_position, plan.record_count, self._clock.time_ns()
        )

    def _write_and_sync(self, file: File, offset: int, buffers: Sequence[Buffer]) -> float:
        began_s = self._clock.monotonic_s()
        try:
            file.write_at(offset, buffers)
            file.sync()
            self._check_not_deposed()
        except OSError:
            # Linux keeps showing what it failed to sync, and lets a later sync by anyone else "succeed": a reader
            # beside us would show a record that a power cut takes back. Without its header nobody takes the frame for
            # one.
            with contextlib.suppress(OSError):  # the disk may be gone altogether; the failure at hand is what counts
                file.write_at(offset, [bytes(HEADER_BYTES)])
            raise
        return self._clock.monotonic_s() - began_s

    def look_for_successor(self) -> None:
        """End the log's life in this process if another one has taken it over."""
        if self._failure is None and not self._closing and self._disk.exists(self._successor):
            self._poison(LogDeposedError(str(self._directory)), None)
            self._flush()

    def _check_not_deposed(self) -> None:
        """Look, behind each sync, whether another process has taken the log over.

        Where none has, nothing can take the synced records back: whoever takes the log over from now on finds them.
        """
        if self._disk.exists(self._successor):
            raise LogDeposedError(str(self._directory))

    def _committed(
        self, plan: CommitPlan | LonePlan, rows: Sequence[int], header: FrameHeader, body: bytes, sync_s: float
    ) -> None:
        active = self._rolling.active
        active.advance(header)
        self.sync_count += 1
        self._inline.observe(sync_s, plan.accepted_count)
        self._store.add(header, Commit(header, body, plan.names), rows, plan.named)
        self._answer(plan)
        self._wake_tails()
        # In good time, and not at the first record.
        if active.end_offset * 2 >= active.size_bytes and not self._closing:
            self._rolling.prepare(self._prepared)

    def _answer(self, plan: CommitPlan | LonePlan) -> None:
        for call in plan.calls:
            self._settle(call)

    def _settle(self, call: Call) -> None:
        if call.future is not None:  # else it is written in its caller's own turn, and took no memory
            self._budget.give_back(call.size_bytes)
            call.settle()

    def _unknown_outcome(self, position: int, cause: BaseException) -> AppendOutcomeUnknownError:
        return AppendOutcomeUnknownError(
            f"{self._directory}: writing at position {position} failed ({cause}); the records may be there or not. "
            "Start the process again and retry with the same dedup_id.",
            try_command=f"mainstem log verify {self._directory}",
        )

    def _poison(self, cause: BaseException, plan: CommitPlan | LonePlan | None) -> None:
        """End the log's life in this process: after a failed write or sync nobody can say what the disk holds."""
        self._failure = cause
        if not isinstance(cause, LogDeposedError):
            _logger.critical("log %s: a write failed, nothing more is accepted: %r", self._directory, cause)
        if plan is not None:
            # Repeats and conflicts too: what they are told may rest on this very commit, so it is as unknown.
            for call in plan.calls:
                call.error = self._unknown_outcome(plan.first_position, cause)
                self._settle(call)
        while self._queue:
            call = self._queue.popleft()
            call.error = LogClosedError(f"{self._directory}: an earlier write failed ({cause}). Nothing was written.")
            self._settle(call)
        self._wake_tails()
        self._idle.set()

    # ---- segments

    def _roll(self, needed_bytes: int) -> None:
        """Go on in a new segment, in the writer's thread; then flush again."""
        self._busy = True
        self._rolling.when_prepared(lambda: self._start_roll(needed_bytes))

    def _start_roll(self, needed_bytes: int) -> None:
        def done(result: OpenSegment | OSError | None, error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._poison(error, None)
            elif isinstance(result, OpenSegment):
                self._rolling.stepped(result)
            elif isinstance(result, OSError) and result.errno in NO_ROOM:
                self._rolling.found_no_room(result)
            elif result is not None:
                self._poison(result, None)
            self._flush()

        self._writer.submit(self._rolling.step(needed_bytes, self._index.end_position + 1), done)

    def _prepared(self) -> None:
        if self._queue and not self._busy:
            self._flush()

    # ---- closing

    async def close(self) -> None:
        """Finish what is in flight, mark the log as cleanly closed and let go of it.

        Idempotent; cancelling it stops nothing. In a forked child it does nothing: file and lock are the parent's.
        """
        if self._closed or self._forks != forks.count:
            return
        self._closing = True
        if self._close_task is None:
            self._close_task = self._loop.create_task(self._finish())
        # Shielded: were the file let go of in mid write, that write could hit whoever opens the log next.
        await asyncio.shield(self._close_task)

    async def _finish(self) -> None:
        await self._idle.wait()
        await self._rolling.settled()
        self._wake_tails()
        try:
            if self._failure is None:
                await self._loop.run_in_executor(self._threads, self._rolling.write_last)
        finally:
            self._closed = True
            try:
                self._rolling.active.file.close()
            finally:  # some file systems report late errors here; the lock must not stay for that
                await self._store.close()
                self._writer.stop()
                self._threads.shutdown(wait=False)
                self._lock.release()
