"""The engine: which runs are resident, which wait for their time or their turn, and how an open run is taken over."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from mainstem.flow.errors import FlowStoppedError
from mainstem.flow.executors import Executors
from mainstem.flow.history import CLAIMS_MAX, History, RunFold
from mainstem.flow.inbox import Inbox
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    Claimed,
    JournalEntry,
    Released,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunQuarantined,
    RunResumed,
    Started,
)
from mainstem.flow.log_lines import RunLogHandler
from mainstem.flow.queues import Queue
from mainstem.flow.run import Body, Ending, Run, encode_entry, error_info, run_headers, run_trace
from mainstem.flow.timers import Timer, Timers
from mainstem.flow.writer import JournalLimits
from mainstem.host.clock import Clock
from mainstem.log.contract import ABOUT, TRACEPARENT, Log, Record, StoredRecord
from mainstem.log.errors import LogClosedError, LogError, NotWrittenError, PositionConflictError
from mainstem.trace.context import TraceContext, new_trace, parse_traceparent

_logger = logging.getLogger(__name__)

_RESUMING_MAX = 64
_READ_RECORDS = 10_000
_RETRY_S = 1.0
_LOST_MAX = 1000
_SETTLE_S = 1.0
"""So long, or for the time of grace, the end waits for what is on its way to the disk."""


class Plan(msgspec.Struct, frozen=True):
    """How runs of one function are carried out: what the engine knows of workflows and jobs.

    Attributes:
        body: Makes what a run does from its first journal entry.
        queue: Where its runs wait for a place; ``None`` for at once.
    """

    body: Callable[[Started], Body]
    queue: Queue | None = None


class Engine:
    """Runs of one log, from :meth:`start` to :meth:`stop`.

    Attributes:
        active: Attempts at steps under way.
        context: Context variables as they were at the start; each run begins with a copy.
        idle: Set when there are none, while draining.
        draining: No new call of workflow code begins any more.
        failure: Why the log was lost, if it was.
        limits: What one record and one commit may hold.
    """

    def __init__(self, log: Log, clock: Clock, random_source: random.Random, executors: Executors) -> None:
        self.log = log
        self.limits = JournalLimits.of(log.traits)
        self.clock = clock
        self.random = random_source
        self.executors = executors
        self.loop = asyncio.get_running_loop()
        self.timers = Timers(clock, clock.monotonic_s, 1.0)
        self.wall_timers = Timers(clock, clock.time_ns, 1e-9)
        self.context = contextvars.copy_context()
        self.plans: dict[str, Plan] = {}
        self.runs: dict[str, Run] = {}
        self.active = 0
        self.idle = asyncio.Event()
        self.draining = False
        self.failure: Exception | None = None
        self._process = f"{os.getpid()}@{clock.time_ns()}"
        self._watchers: dict[str, list[asyncio.Future[JournalEntry]]] = {}
        self._resuming = asyncio.Semaphore(_RESUMING_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._places: dict[str, Queue] = {}
        self._waiting: dict[str, Timer | None] = {}  # runs that wait for their time (their timer) or their turn
        self._claiming: dict[str, asyncio.Future[None]] = {}
        self._lost: dict[str, Exception] = {}
        self._inbox = Inbox(self)
        self._log_handler = RunLogHandler(self.loop)

    def __repr__(self) -> str:
        return f"<Engine {'draining' if self.draining else 'running'}, {len(self.runs)} runs resident>"

    # ---- life

    async def start(self) -> None:
        """Take over what earlier processes left open, and begin."""
        logging.getLogger().addHandler(self._log_handler)
        end = self.log.end_position
        folds = await self._open_runs(end)
        wishes = await self._inbox.unread(folds, end)
        for fold in folds.values():
            if fold.run_id not in wishes:
                self._settle(fold)
        self._inbox.begin(end)
        for run_id, messages in wishes.items():
            for position, message in messages:
                self._inbox.deal_with(run_id, position, message)

    async def stop(self, grace_s: float) -> None:
        """Let steps under way finish for ``grace_s`` seconds, then leave all runs open for the next start."""
        self.draining = True
        until_s = self.loop.time() + grace_s
        self._inbox.end()
        for plan in self.plans.values():
            if plan.queue is not None:
                plan.queue.close()
        if self.active and self.failure is None:
            try:
                async with asyncio.timeout(grace_s):
                    await self.idle.wait()
            except TimeoutError:
                # They are cancelled below; the next process starts them again.
                _logger.warning(
                    "%d steps did not end within %s s; they are started again by the next process", self.active, grace_s
                )
        runs = list(self.runs.values())
        # On a full disk this may never come: the runs stay open anyway, and what is missing is done again.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(max(until_s, self.loop.time() + _SETTLE_S)):
                await asyncio.gather(*(run.journal.settle() for run in runs))
        for run in runs:
            run.stop(Ending(Released(self._process) if run.claims or run.pending else None))
        waiting = [run.task for run in runs if run.task is not None] + [*self._tasks, *self._starting]
        for task in self._tasks:
            task.cancel()
        await self._await_ends(waiting, max(grace_s, _SETTLE_S))
        for run in runs:
            if run.journal.stalled:
                run.journal.abandon()
        self.timers.close()
        self.wall_timers.close()
        for watchers in self._watchers.values():
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_exception(
                        FlowStoppedError("the application stopped before the run ended; it goes on at the next start.")
                    )
                    watcher.exception()
        self._watchers.clear()
        logging.getLogger().removeHandler(self._log_handler)

    async def _await_ends(self, tasks: list[asyncio.Task[None]], for_s: float) -> None:
        """Wait for what was cancelled; what cannot be written, and code that does not heed it, is left behind."""
        if not tasks:
            return
        _done, left = await asyncio.wait(tasks, timeout=for_s)
        if not left:
            return
        for run in list(self.runs.values()):
            run.journal.abandon()
        _done, left = await asyncio.wait(left, timeout=_SETTLE_S)
        for task in left:
            _logger.error("%s was cancelled and goes on all the same; it is left behind", task.get_name())

    @property
    def is_stopping(self) -> bool:
        """Whether no run goes on in this process: it was told to stop, lost its log, or its event loop is closed."""
        return self.draining or self.failure is not None or self._inbox.is_cancelled

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something of the engine's own in the background, to be cancelled at the end."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def starting(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return a task that makes a run exist and begins it; it ends whatever becomes of whoever awaits it."""
        task = self.loop.create_task(coroutine)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self.failure is None:
            _logger.error("a run could not be taken over", exc_info=error)

    # ---- new runs

    def begin_new(
        self, run_id: str, started: Started, position: int, origin: TraceContext, about: tuple[str, ...]
    ) -> None:
        """Carry out a run whose first record this process has just made durable."""
        plan = self.plans[started.function]
        now_ns = self.clock.time_ns()

        def begin() -> None:
            self._begin(run_id, started, plan, position, origin, about, None, now_ns)

        self._begin_at(max(started.not_before_ns, now_ns), run_id, plan, begin)

    def _begin_at(self, due_ns: int, run_id: str, plan: Plan, begin: Callable[[], None]) -> None:
        """Begin with a run when its time has come, and then its turn; unless it is cancelled before."""
        if due_ns > self.clock.time_ns():
            self._waiting[run_id] = self.wall_timers.at(due_ns, lambda: self._begin_in_turn(run_id, plan, begin))
        else:
            self._begin_in_turn(run_id, plan, begin)

    def _begin_in_turn(self, run_id: str, plan: Plan, begin: Callable[[], None]) -> None:
        queue = plan.queue
        if queue is None:
            self._waiting.pop(run_id, None)
            if not self.draining:
                begin()
            return

        def take() -> bool:
            if self.draining or run_id not in self._waiting:
                return False
            del self._waiting[run_id]
            self._places[run_id] = queue
            begin()
            return True

        self._waiting[run_id] = None
        queue.add(take)

    def _wait_no_longer(self, run_id: str) -> None:
        timer = self._waiting.pop(run_id, None)
        if timer is not None:
            self.wall_timers.cancel(timer)

    def _begin(
        self,
        run_id: str,
        started: Started,
        plan: Plan,
        position: int,
        origin: TraceContext,
        about: tuple[str, ...],
        history: History | None,
        began_ns: int,
    ) -> None:
        self._lost.pop(run_id, None)
        run = Run(
            self,
            run_id,
            function=started.function,
            kind=started.kind,
            position=position,
            trace=run_trace(origin, run_id),
            about=about,
            history=history,
        )
        self.runs[run_id] = run
        if started.timeout_s:
            limit = TimeoutError(f"the run did not end within {started.timeout_s:g} s")
            timer = self.wall_timers.at(
                began_ns + round(started.timeout_s * 1e9), lambda: run.stop(Ending(RunFailed(error_info(limit))))
            )
            run.begin(plan.body(started))
            if run.task is not None:
                run.task.add_done_callback(lambda _task: self.wall_timers.cancel(timer))
            return
        run.begin(plan.body(started))

    # ---- runs that end

    def ends(self, run: Run) -> None:
        """The run's code has ended; its last record is about to be written."""
        queue = self._places.pop(run.id, None)
        if queue is not None:
            queue.release()

    def ended(self, run: Run, final: JournalEntry | None) -> None:
        """The run is no longer resident; ``final`` is durable."""
        del self.runs[run.id]
        if run.ending is not None and run.ending.error is not None:
            while len(self._lost) >= _LOST_MAX:
                del self._lost[next(iter(self._lost))]
            self._lost[run.id] = run.ending.error
            for watcher in self._watchers.pop(run.id, ()):
                if not watcher.done():
                    watcher.set_exception(run.ending.error)
        if final is None or isinstance(final, Released):
            return
        if isinstance(final, RunFailed):
            _logger.warning("run %s of %s failed: %s: %s", run.id, run.function, final.error.type, final.error.message)
        elif isinstance(final, RunPaused):
            _logger.error(
                "run %s is paused: %s Recorded: %s. Called: %s.", run.id, final.reason, final.recorded, final.called
            )
        self.tell(run.id, final)

    def tell(self, run_id: str, final: JournalEntry) -> None:
        """Tell those who wait for a run how it ended (or why it waits)."""
        for watcher in self._watchers.pop(run_id, ()):
            if not watcher.done():
                watcher.set_result(final)

    def watch(self, run_id: str) -> asyncio.Future[JournalEntry]:
        """Return a future of the run's final entry (or of the one that made it wait for a decision)."""
        watcher: asyncio.Future[JournalEntry] = self.loop.create_future()
        self._watchers.setdefault(run_id, []).append(watcher)
        return watcher

    def why_lost(self, run_id: str) -> Exception | None:
        """Return why nobody here will hear of an open run's end: its journal was lost to another writer, or the whole
        log was.
        """
        if self.failure is not None:
            return FlowStoppedError(f"the log was lost, the run goes on at the next start: {self.failure}")
        return self._lost.get(run_id)

    def unwatch(self, run_id: str, watcher: asyncio.Future[JournalEntry]) -> None:
        """Forget a future of :meth:`watch`."""
        watchers = self._watchers.get(run_id)
        if watchers and watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[run_id]

    def journal_lost(self, run: Run, error: Exception) -> None:
        """A run's journal could not be written: fenced, or the log's life in this process has ended."""
        if (isinstance(error, LogError) and not isinstance(error, (NotWrittenError,))) or isinstance(
            error, LogClosedError
        ):
            self._lose_log(error)
        else:
            _logger.error("run %s: %s", run.id, error)

    def _lose_log(self, error: Exception) -> None:
        if self.failure is not None or self.draining:
            return
        self.failure = error
        _logger.critical("all runs are stopped, they go on at the next start: the log was lost: %s", error)
        for run in list(self.runs.values()):
            run.stop(Ending(None, error))
        for watchers in self._watchers.values():
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_exception(
                        FlowStoppedError(f"the log was lost, the run goes on at the next start: {error}")
                    )
        self._watchers.clear()

    # ---- retries give their place in the queue to others

    async def wait_for_retry(self, run: Run, retry_at_ns: int) -> None:
        """Wait until a failed step's next attempt; a job gives its place in the queue back meanwhile."""
        queue = self._places.get(run.id) if run.kind == "job" else None
        if queue is not None:
            del self._places[run.id]
            queue.release()
        with run.asleep():
            await self._wait_at_most(retry_at_ns)
        if queue is None:
            return
        place: asyncio.Future[None] = self.loop.create_future()

        def take() -> bool:
            if place.done():
                return False
            self._places[run.id] = queue
            place.set_result(None)
            return True

        queue.add(take)
        await place

    async def _wait_at_most(self, until_ns: int) -> None:
        """Wait until a moment of the wall clock, but no longer than it is now until then: a clock set back holds
        nothing up.
        """
        left_s = (until_ns - self.clock.time_ns()) * 1e-9
        if left_s <= 0:
            return
        due: asyncio.Future[None] = self.loop.create_future()

        def come() -> None:
            if not due.done():
                due.set_result(None)

        on_wall = self.wall_timers.at(until_ns, come)
        on_monotonic = self.timers.at(self.clock.monotonic_s() + left_s, come)
        try:
            await due
        finally:
            self.wall_timers.cancel(on_wall)
            self.timers.cancel(on_monotonic)

    # ---- runs that earlier processes left open

    async def _open_runs(self, end: int) -> dict[str, RunFold]:
        folds: dict[str, RunFold] = {}
        async for record in self.records(JOURNAL_PREFIX + ">", end):
            run_id = record.stream[len(JOURNAL_PREFIX) :]
            fold = folds.get(run_id)
            if fold is None:
                fold = folds[run_id] = RunFold(run_id)
            fold.apply(record)
            if fold.ending:
                del folds[run_id]
        # One journal that this version cannot read, as a newer one may have written it, holds up no other.
        for run_id in [one.run_id for one in folds.values() if one.unreadable]:
            fold = folds[run_id] = (await self.history(run_id)).fold
            if fold.ending:
                del folds[run_id]  # something was written behind its end
            else:
                _logger.error("run %s is set aside: %s", run_id, fold.reason)
        return folds

    async def records(self, pattern: str, end: int) -> AsyncIterator[StoredRecord]:
        """Yield the log's records of a pattern up to a position."""
        after = 0
        while after < end:
            batch = await self.log.read(pattern, after, _READ_RECORDS)
            if not batch:
                return
            for record in batch:
                if record.position > end:
                    return
                yield record
            after = batch[-1].position

    def _settle(self, fold: RunFold) -> None:
        """Decide what becomes of an open run: wait for its time, for its turn, for a decision, or go on now."""
        if fold.waiting:
            return
        run_id, plan = fold.run_id, self.plans.get(fold.function)
        due_ns = fold.wake_at_ns if fold.alone else 0
        if fold.kind == "job":
            due_ns = max([fold.not_before_ns, *(one.retry_at_ns for one in fold.retrying.values())])
        if fold.deadline_ns:
            due_ns = min(due_ns, fold.deadline_ns)
        if plan is not None:
            self._begin_at(due_ns, run_id, plan, lambda: self.spawn(self.take_over(run_id)))
        else:
            self.spawn(self.take_over(run_id))

    async def resume(self, run_id: str, resumed: RunResumed) -> None:
        """Have a run that waits for a decision tried again, in its turn, and one that was lost to another writer; any
        other goes on as it did.
        """
        history = await self.history(run_id)
        fold = history.fold
        if self._set_aside(fold) or not fold.is_open or run_id in self.runs or resumed.message <= fold.position:
            return
        if not fold.waiting:
            if self._lost.pop(run_id, None) is not None:
                self._settle(fold)
            return
        headers = _headers_of(history)
        try:
            position = await self._append(run_id, [resumed], fold.position, headers)
        except PositionConflictError as conflict:
            _logger.warning("run %s: something else wrote to its journal, it is not resumed: %s", run_id, conflict)
        except LogClosedError as error:
            self._lose_log(error)
        except NotWrittenError as error:
            _logger.warning("run %s could not be resumed, trying again: %s", run_id, error)
            self.timers.at(self.clock.monotonic_s() + _RETRY_S, lambda: self.spawn(self.resume(run_id, resumed)))
        else:
            value = encode_entry(resumed)
            fold.apply(StoredRecord(position, JOURNAL_PREFIX + run_id, self.clock.time_ns(), value, b"", headers))
            self._settle(fold)

    def _set_aside(self, fold: RunFold) -> bool:
        """Tell that an open run cannot be read, if it cannot."""
        if not fold.unreadable or fold.ending:
            return False
        _logger.error("run %s is set aside: %s", fold.run_id, fold.reason)
        self.tell(fold.run_id, RunPaused(fold.reason))
        return True

    async def take_over(self, run_id: str) -> None:
        """Make an open run ours, durably, and go on with it."""
        begun = False
        try:
            async with self._resuming:
                begun = await self._take_over(run_id)
        except PositionConflictError as conflict:
            _logger.warning("run %s: something else wrote to its journal; it is left alone: %s", run_id, conflict)
        except LogClosedError as error:
            self._lose_log(error)
        except NotWrittenError as error:
            _logger.warning("run %s could not be taken over, trying again: %s", run_id, error)
            self.timers.at(self.clock.monotonic_s() + _RETRY_S, lambda: self.spawn(self.take_over(run_id)))
            begun = True  # it keeps its place
        finally:
            if not begun and (queue := self._places.pop(run_id, None)) is not None:
                queue.release()

    async def _take_over(self, run_id: str) -> bool:
        history = await self.history(run_id)
        fold, started = history.fold, history.started
        if self._set_aside(fold) or started is None or fold.ending or fold.waiting:
            return False
        if self.draining or run_id in self.runs or run_id in self._claiming:
            return False
        plan = self.plans.get(fold.function)
        stop: JournalEntry | None = None
        if plan is None:
            stop = RunPaused(
                f"No {fold.kind} named {fold.function} is registered.",
                recorded=fold.function,
                called=", ".join(sorted(self.plans)[:10]),
            )
        elif fold.claims_in_vain >= CLAIMS_MAX:
            stop = RunQuarantined(fold.claims_in_vain)
        entry = stop or Claimed(self._process, fold.claims_in_vain + 1)
        claimed = self._claiming[run_id] = self.loop.create_future()
        try:
            position = await self._append(run_id, [entry], fold.position, _headers_of(history))
            if stop is not None or plan is None:
                _logger.error("run %s of %s waits for a decision: %s", run_id, fold.function, stop)
                self.tell(run_id, entry)
                return False
            if self.draining:
                return False
            fold.claims += 1
            self._begin(run_id, started, plan, position, _origin_of(history), fold.about, history, fold.started_ns)
            return True
        finally:
            del self._claiming[run_id]
            claimed.set_result(None)

    async def claimed(self, run_id: str) -> None:
        """Return when a run is not being taken over at this moment: it is resident then, or not."""
        if (claimed := self._claiming.get(run_id)) is not None:
            await asyncio.wait([claimed])

    async def history(self, run_id: str) -> History:
        """Read a run's journal."""
        records: list[StoredRecord] = []
        stream = JOURNAL_PREFIX + run_id
        after = 0
        while batch := await self.log.read(stream, after, _READ_RECORDS):
            records.extend(batch)
            after = batch[-1].position
        return History(run_id, records)

    async def end_dormant(self, run_id: str, cancelled: RunCancelled) -> bool:
        """Write the end of a run that is not resident; return whether it has ended, or the wish is not for it. It is
        ``False`` for a run that is resident by now, or about to be.

        Raises:
            PositionConflictError: Something else wrote to its journal at this moment.
            NotWrittenError: It could not be written.
        """
        history = await self.history(run_id)
        fold = history.fold
        if not fold.is_open or cancelled.message <= fold.inbox_position:
            return True
        if run_id in self.runs or run_id in self._claiming:
            return False
        self._wait_no_longer(run_id)
        await self._append(run_id, [cancelled], fold.position, _headers_of(history))
        self.tell(run_id, cancelled)
        return True

    async def _append(
        self, run_id: str, entries: list[JournalEntry], expected_position: int, headers: Mapping[str, str]
    ) -> int:
        records = [Record(encode_entry(entry), b"", headers) for entry in entries]
        return await self.log.append(
            JOURNAL_PREFIX + run_id, records, expected_position=expected_position, use_reserve=True
        )


def _origin_of(history: History) -> TraceContext:
    return parse_traceparent(history.started_headers.get(TRACEPARENT)) or new_trace()


def _headers_of(history: History) -> Mapping[str, str]:
    return run_headers(run_trace(_origin_of(history), history.fold.run_id), history.fold.about)


def started_record(started: Started, origin: TraceContext, about: tuple[str, ...]) -> Record:
    """Return the first record of a journal."""
    headers = {TRACEPARENT: origin.traceparent}
    if about:
        headers[ABOUT] = " ".join(about)
    return Record(encode_entry(started), b"", headers)
