"""One consumer group at work: reads ahead, hands events to the handler, and keeps its cursor in the log."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from mainstem.base.codec import NotDecodableError, decode, encode
from mainstem.base.names import is_system_stream
from mainstem.base.text import message_of
from mainstem.bus.cursors import DEAD_PREFIX, GROUP_PREFIX, Cursor, CursorRecord, FailedAttempts
from mainstem.bus.errors import GroupFencedError
from mainstem.bus.events import event_of
from mainstem.bus.lanes import Delivery, Lanes
from mainstem.bus.letters import LETTER_MAX_BYTES, letter_record
from mainstem.bus.retry import Retry
from mainstem.host.clock import Clock
from mainstem.host.threads import call_in_thread
from mainstem.log.contract import TRACEPARENT, Append, Log, Record, StoredRecord
from mainstem.log.errors import AppendOutcomeUnknownError, LogClosedError, NotWrittenError, PositionConflictError
from mainstem.trace.context import new_trace, parse_traceparent, use_trace

_logger = logging.getLogger(__name__)

READ_AHEAD_RECORDS = 1000
"""A group stops reading while this many of its events are unfinished."""

READ_AHEAD_BYTES = 16 << 20
"""A group stops reading while the events that wait for its handler are this large together."""

_CLAIM_TRIES = 10
_SETTLE_S = 1.0
_FULL_RETRY_S = 1.0
_LONGEST_SLEEP_S = 30.0


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """What was declared with ``subscribe``.

    Attributes:
        handler: Takes one event.
        annotation: Type of the event's value.
        own: Whether it is a part of mainstem: then its pattern may match the system's streams.
    """

    pattern: str
    group: str
    handler: Callable[[Any], Any]
    annotation: Any
    retry: Retry
    concurrency: int
    start: Literal["new", "beginning"]
    own: bool = False


class GroupStatus(msgspec.Struct, frozen=True):
    """How a group is doing.

    Attributes:
        position: Everything up to here is done.
        lag: Events that were read and are not done, plus, while the group is too busy to read on, the log's records
            behind the last one read (an upper bound: other streams' records are among them).
        in_flight: Events with the handler at this moment.
        retrying: Events that wait for their next attempt.
        dead: Events given up since the group began.
        failure: Why the group stopped working, or an empty string.
    """

    name: str
    pattern: str
    position: int
    lag: int
    in_flight: int
    retrying: int
    dead: int
    failure: str = ""


class ConsumerGroup:
    """Runs one subscription from :meth:`start` to :meth:`stop`."""

    def __init__(self, log: Log, clock: Clock, subscription: Subscription, random_source: random.Random) -> None:
        self._log = log
        self._clock = clock
        self._subscription = subscription
        self._random = random_source
        self._stream = GROUP_PREFIX + subscription.group
        self._lanes = Lanes(subscription.concurrency)
        self._cursor = Cursor(CursorRecord(subscription.pattern, 0))
        self._expected_position = 0
        self._letters: list[Record] = []
        traits = log.traits
        self._letters_max = max(1, min(traits.max_batch_records - 1, traits.max_batch_bytes // LETTER_MAX_BYTES))
        self._dirty = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._retry_set = asyncio.Event()
        self._saved = asyncio.Event()
        self._saved.set()
        self._services: list[asyncio.Task[None]] = []
        self._handling: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._context = contextvars.Context()
        self.failure = ""

    def __repr__(self) -> str:
        return f"<ConsumerGroup {self._subscription.group} {self._cursor!r} {self._lanes!r}>"

    def status(self) -> GroupStatus:
        """Return how the group is doing."""
        cursor, lanes = self._cursor, self._lanes
        behind = 0 if self._room.is_set() else max(0, self._log.end_position - cursor.read_after)
        return GroupStatus(
            self._subscription.group,
            self._subscription.pattern,
            cursor.position,
            cursor.open_count + behind,
            lanes.in_flight,
            lanes.retrying,
            cursor.dead,
            self.failure,
        )

    async def start(self) -> None:
        """Load the cursor, making it durable for a new group, and begin."""
        self._context = contextvars.copy_context()
        last = await self._log.last(self._stream)
        if last is None:
            begin = self._log.end_position if self._subscription.start == "new" else 0
            first = CursorRecord(self._subscription.pattern, begin)
            self._expected_position = await self._log.append(self._stream, [Record(encode(first))], expected_position=0)
            self._cursor = Cursor(first)
        else:
            try:
                await self._take_over(last)
            except NotDecodableError as error:
                # One cursor that this version cannot read holds up no start, and no other group.
                self.failure = (
                    f"this version cannot read {self._stream} position {last.position}: {error.message}. The group "
                    "handles nothing, and its cursor is left as it is. Start the version that wrote it, or append the "
                    "cursor before it once more."
                )
                _logger.critical("group %s is set aside: %s", self._subscription.group, self.failure)
                return
        for service in (self._read, self._save, self._retry_in_time):
            task = asyncio.create_task(service(), name=f"group {self._subscription.group}: {service.__name__}")
            task.add_done_callback(self._task_ended)
            self._services.append(task)

    async def _take_over(self, last: StoredRecord) -> None:
        """Go on from a saved cursor. Where another process may be at work on it, writing it again ends that."""
        for tries_left in reversed(range(_CLAIM_TRIES)):
            saved = msgspec.structs.replace(decode(last.value, CursorRecord), pattern=self._subscription.pattern)
            self._cursor, self._expected_position = Cursor(saved), last.position
            if self._log.traits.single_owner:
                return
            try:
                self._expected_position = await self._log.append(
                    self._stream, [Record(encode(saved))], expected_position=last.position
                )
            except PositionConflictError:
                if not tries_left:
                    raise
                # The other one saved its cursor at this moment; it holds more now.
                last = await self._log.last(self._stream) or last
            else:
                return

    async def stop(self, grace_s: float) -> None:
        """Give running handlers ``grace_s`` seconds, cancel what still runs, and save the cursor."""
        self._stopping = True
        await self._end_handlers(grace_s)
        if not self.failure and not self._saved.is_set():
            saver = self._services[1]
            waiter = asyncio.create_task(self._saved.wait())
            await asyncio.wait([saver, waiter], return_when=asyncio.FIRST_COMPLETED, timeout=max(grace_s, 1.0))
            waiter.cancel()
        for task in self._services:
            task.cancel()
        if self._services:
            await asyncio.wait(self._services)

    async def _end_handlers(self, grace_s: float) -> None:
        if self._handling:
            await asyncio.wait(self._handling, timeout=grace_s)
        for handling in self._handling:
            handling.cancel()
        if self._handling:
            _done, left = await asyncio.wait(self._handling, timeout=_SETTLE_S)
            for task in left:
                _logger.error(
                    "%s was cancelled and goes on all the same; it is left behind, and its event is handled again at "
                    "the next start", task.get_name(),
                )  # fmt: skip

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Stop working when a task of the group's own fails: what its handler does never comes this far."""
        self._handling.discard(task)
        if task.cancelled() or (error := task.exception()) is None or self.failure:
            return
        self.failure = f"{type(error).__name__}: {error}"
        if not isinstance(error, LogClosedError) or not self._stopping:
            _logger.critical("group %s stopped: %s", self._subscription.group, self.failure, exc_info=error)
        for other in (*self._services, *self._handling):
            other.cancel()

    # ---- reading

    async def _read(self) -> None:
        async with aclosing(self._log.tail(self._subscription.pattern, self._cursor.position)) as batches:
            async for batch in batches:
                for record in batch:
                    if self._is_ours(record.stream) and self._cursor.take_in(record.position):
                        await self._take_in(record)

    def _is_ours(self, stream: str) -> bool:
        """Patterns that begin with a wildcard do not see the system's streams."""
        return self._subscription.own or not is_system_stream(stream) or is_system_stream(self._subscription.pattern)

    async def _take_in(self, record: StoredRecord) -> None:
        earlier = self._cursor.attempts.get(record.position)
        delivery = Delivery(record, earlier.failed, earlier.retry_at_ns) if earlier else Delivery(record)
        self._lanes.add(delivery)
        if delivery.ready_at_ns:
            self._retry_set.set()
        self._hand_out()
        if not self._has_room():
            self._room.clear()
            await self._room.wait()

    def _has_room(self) -> bool:
        return self._cursor.open_count < READ_AHEAD_RECORDS and self._lanes.waiting_bytes < READ_AHEAD_BYTES

    # ---- handling

    def _hand_out(self) -> None:
        while not self._stopping and (delivery := self._lanes.take(self._clock.time_ns())) is not None:
            # In the context of the start: what one event's handler sets is not for the next one's to see.
            name = f"group {self._subscription.group}: the handler of position {delivery.record.position}"
            task = asyncio.create_task(self._handle(delivery), name=name, context=self._context.copy())
            self._handling.add(task)
            task.add_done_callback(self._task_ended)
        if self._has_room():
            self._room.set()

    async def _handle(self, delivery: Delivery) -> None:
        attempt = delivery.failed + 1
        error = await self._attempt(delivery.record, attempt)
        if error is None:
            self._cursor.finish(delivery.record.position)
            self._lanes.finish(delivery)
        else:
            self._failed(delivery, attempt, error)
        self._changed()

    async def _attempt(self, record: StoredRecord, attempt: int) -> Exception | None:
        """Have the handler called; return how it failed, if it did."""
        origin = parse_traceparent(record.headers.get(TRACEPARENT)) or new_trace()
        try:
            with use_trace(origin.child("group", self._subscription.group, str(record.position), str(attempt))):
                value = decode(record.value, self._subscription.annotation)
                await call(self._subscription.handler, event_of(record, value, attempt))
        except Exception as error:  # noqa: BLE001 (a handler's: whatever it is, the event has failed)
            return error
        except (KeyboardInterrupt, GeneratorExit):
            raise  # the process is being ended
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (self._stopping or (task and task.cancelling())):
                raise
            # The handler's own doing, such as sys.exit(): an error as any other, which ends neither loop nor process.
            raised = RuntimeError(f"the handler raised {type(error).__name__}: {message_of(error, 1000)}")
            raised.__cause__ = error
            return raised
        return None

    def _failed(self, delivery: Delivery, attempt: int, error: Exception) -> None:
        record, retry = delivery.record, self._subscription.retry
        if not isinstance(error, NotDecodableError) and retry.retries(error, attempt):
            retry_at_ns = self._clock.time_ns() + round(retry.delay_s(attempt, self._random) * 1e9)
            self._lanes.retry(delivery, retry_at_ns)
            self._cursor.fail(record.position, FailedAttempts(attempt, retry_at_ns))
            self._retry_set.set()
            _logger.warning(
                "group %s: attempt %d at the event at position %d of %s failed, it is tried again: %s: %s",
                self._subscription.group, attempt, record.position, record.stream,
                type(error).__name__, message_of(error, 1000),
            )  # fmt: skip
            return
        self._letters.append(letter_record(record, attempt, error))
        self._cursor.finish(record.position, dead=True)
        self._lanes.finish(delivery)
        _logger.error(
            "group %s: gave up the event at position %d of %s after %d attempts; it is in %s",
            self._subscription.group, record.position, record.stream, attempt, DEAD_PREFIX + self._subscription.group,
            exc_info=error,
        )  # fmt: skip

    def _changed(self) -> None:
        self._saved.clear()
        self._dirty.set()
        if self._lanes.retrying:
            self._retry_set.set()  # a due one may have found no free place; there may be one now
        self._hand_out()

    async def _retry_in_time(self) -> None:
        """Wake for retries; a new one that comes earlier ends the sleep."""
        while True:
            self._retry_set.clear()
            next_ns = self._lanes.next_retry_ns
            if next_ns is None:
                await self._retry_set.wait()
                continue
            left_s = (next_ns - self._clock.time_ns()) / 1e9
            if left_s <= 0:
                self._hand_out()
                if self._lanes.next_retry_ns == next_ns:  # no free place: the next that ends hands it out
                    await self._retry_set.wait()
                continue
            sleeping = asyncio.create_task(self._clock.sleep(min(left_s, _LONGEST_SLEEP_S)))
            waiting = asyncio.create_task(self._retry_set.wait())
            try:
                await asyncio.wait([sleeping, waiting], return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                waiting.cancel()

    # ---- the cursor

    async def _save(self) -> None:
        """Write the cursor, one append at a time: what was finished meanwhile goes with the next."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            letters, self._letters = self._letters, []
            while len(letters) > self._letters_max:
                # More than one commit holds. They go ahead of the cursor: if the process ends in between, those events
                # are given up a second time, and none of them is without a letter.
                await self._append([Append(DEAD_PREFIX + self._subscription.group, letters[: self._letters_max])])
                letters = letters[self._letters_max :]
            appends = [Append(self._stream, [Record(encode(self._cursor.record()))], self._expected_position)]
            if letters:
                appends.append(Append(DEAD_PREFIX + self._subscription.group, letters))
            self._expected_position = await self._append(appends)
            if not self._dirty.is_set():
                self._saved.set()

    async def _append(self, appends: list[Append]) -> int:
        while True:
            try:
                return (await self._log.append_many(appends))[0]
            except PositionConflictError as conflict:
                raise GroupFencedError(
                    f"group {self._subscription.group!r}: its cursor is at position {conflict.actual}, this process "
                    f"wrote {conflict.expected} last. Another process owns the group; this one stopped handling its "
                    "events."
                ) from conflict
            except (LogClosedError, AppendOutcomeUnknownError):
                raise
            except NotWrittenError as error:
                # A full disk: what was handled is not lost, only handled again if the process ends before there is
                # room.
                _logger.warning(
                    "group %s: its cursor could not be saved, trying again: %s", self._subscription.group, error
                )
                await self._clock.sleep(_FULL_RETRY_S)


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a coroutine function, or a plain one in a thread of its own: asyncio's few are for others."""
    target: Any = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(target):
        return await function(*arguments)
    result = await call_in_thread(function, *arguments, name="mainstem-handler")
    return await result if isinstance(result, Awaitable) else result
