"""One execution of a run in this process: its place, its history, its journal, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from mainstem.base.text import message_of, recordable
from mainstem.bus.events import Outgoing, publish_hook
from mainstem.flow.branch import Branch, current_branch, scope
from mainstem.flow.errors import CallInterruptedError, StepFailedError, type_name
from mainstem.flow.history import History, Past, split_key
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    ErrorInfo,
    JournalEntry,
    Rested,
    RunFailed,
    RunPaused,
)
from mainstem.flow.publishing import publish_from
from mainstem.flow.writer import RunJournal
from mainstem.log.contract import ABOUT, TRACEPARENT
from mainstem.trace.context import TraceContext, use_trace
from mainstem.ui.format import shorten

if TYPE_CHECKING:
    from mainstem.flow.engine import Engine

_logger = logging.getLogger(__name__)

encode_entry = msgspec.json.Encoder().encode
"""Return a journal entry's bytes."""

_TRACEBACK_MAX_CHARS = 16 << 10
_MESSAGE_MAX_CHARS = 16 << 10
_SAID_MAX_CHARS = 500
_REST_AFTER_S = 0.05
_INTERRUPTED_GRACE_S = 1.0
"""So long after it interrupted a call of its own the run's code may clean up."""

PASSED_ON = (KeyboardInterrupt, GeneratorExit)
"""What is nobody's failure: the process is told to end, the event loop is gone."""

Body = Callable[["Run"], Coroutine[Any, Any, JournalEntry]]
"""What a run does: returns its final entry."""


class Ending(msgspec.Struct, frozen=True):
    """Why a run is being stopped from outside of its code.

    Attributes:
        entry: What is written when its code has ended; ``None`` leaves the run open for the next owner.
        error: Why its journal was lost.
    """

    entry: JournalEntry | None
    error: Exception | None = None


class Run:
    """A resident run.

    Attributes:
        past: What the journal holds and the code has not called yet, by key.
        uncalled: The same keys by branch; see :class:`mainstem.flow.history.History`.
        constructs: Calls of ``gather`` and ``map`` under way.
        ending: Set when the run is to stop: every call of its code then raises ``CancelledError``.
        begun: Its task has had its first turn: only then can a cancel reach the code, and its end be written.
        claims: How often the run was taken over.
        final: The last record that it left, once it is no longer resident.
        heard: Position of the last wish that was answered, or of the run's beginning: earlier ones are not for it.
        sleepers: Sleeps, back-offs and waits for other runs under way.
        pending: Calls under way (steps, sleeps, gathers).
        abandoned: Calls of ``gather`` and ``map`` whose branches were cancelled: what is recorded there need not come.
        refused: Calls of its code that were refused since it is being stopped.
        revived: Prefixes of branches of those that are carried out all the same, to fail as they did before.
        under_way: Number and start (wall clock, ns) of the attempts that are being carried out, by key.
    """

    __slots__ = (
        "abandoned",
        "about",
        "begun",
        "claims",
        "constructs",
        "ending",
        "engine",
        "final",
        "function",
        "headers",
        "heard",
        "id",
        "journal",
        "kind",
        "line_count",
        "line_timer",
        "past",
        "pending",
        "refused",
        "rest_noted",
        "rest_timer",
        "revived",
        "root",
        "sleepers",
        "task",
        "trace",
        "uncalled",
        "under_way",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        run_id: str,
        *,
        function: str,
        kind: str,
        position: int,
        trace: TraceContext,
        about: tuple[str, ...],
        history: History | None,
    ) -> None:
        self.engine = engine
        self.id = run_id
        self.function = function
        self.kind = kind
        self.trace = trace
        self.about = about
        self.headers = run_headers(trace, about)
        self.journal = RunJournal(
            engine.log,
            engine.clock,
            run_id,
            JOURNAL_PREFIX + run_id,
            position,
            self.headers,
            self._journal_lost,
            on_refused=self._journal_refused,
            limits=engine.limits,
        )
        self.past: dict[str, Past] = history.keys if history is not None else {}
        self.uncalled: dict[str, set[str]] = history.uncalled if history is not None else {}
        self.claims = history.fold.claims if history is not None else 0
        self.root = Branch(self, "", None, passed=0)
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.ending: Ending | None = None
        self.final: JournalEntry | None = None
        self.pending = 0
        self.sleepers = 0
        self.refused = 0
        self.rest_noted = self.rest_timer = False
        self.heard = history.fold.inbox_position if history is not None else position
        self.constructs = 0
        self.abandoned: set[str] = set()
        self.revived: set[str] = set()
        self.line_count = 0
        self.line_timer = False
        self.under_way: dict[str, tuple[int, int]] = {}

    def __repr__(self) -> str:
        state = "ending" if self.ending else "replaying" if self.uncalled else "live"
        return f"<Run {self.id} of {self.function}, {state}, {self.pending} calls under way>"

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Count a sleep (or a back-off) of a pending call while it lasts; a run that was taken over and does nothing
        else soon is noted to be well.
        """
        self.sleepers += 1
        if self.claims and not self.rest_noted and not self.rest_timer:
            self.rest_timer = True
            self.engine.loop.call_later(_REST_AFTER_S, self._note_rest)
        try:
            yield
        finally:
            self.sleepers -= 1

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """Count a call that waits for another run while it lasts: a sleep as any other."""
        self.pending += 1
        try:
            with self.asleep():
                yield
        finally:
            self.pending -= 1

    def _note_rest(self) -> None:
        self.rest_timer = False
        calm = self.pending - self.constructs == self.sleepers and self.sleepers > 0
        if calm and not self.rest_noted and self.ending is None and not self.engine.draining:
            self.rest_noted = True
            self.journal.put_soon(encode_entry(Rested()))

    # ---- life

    def begin(self, body: Body) -> None:
        """Start the run's task, in the engine's context: nothing of whoever happened to start it leaks into it."""
        context = self.engine.context.copy()
        self.task = self.engine.loop.create_task(self._live(body), name=f"run {self.id}", context=context)

    def stop(self, ending: Ending) -> None:
        """Have the run's code cancelled, and ``ending`` written then; the first reason counts."""
        if self.ending is None:
            self.ending = ending
            if self.task is not None and self.begun:
                self.task.cancel()

    def check_interrupted(self, branch: Branch, key: str) -> None:
        """Look who cancelled a call, out of which ``CancelledError`` comes: if it was the run's own code, no history
        can tell whether it did, and the run fails.

        Raises:
            CallInterruptedError: It was.
        """
        task = asyncio.current_task()
        if task is None or not task.cancelling() or self.task is None or self.task.done():
            return
        here = current_branch() or branch  # what is awaited in a branch of a gather was called in front of it
        if self.ending is not None or self.engine.is_stopping or self.is_abandoned(here.prefix):
            return
        error = CallInterruptedError(key)
        ending = Ending(RunFailed(error_info(error)))
        if task is not here.task:
            self.stop(ending)  # a task of the code's own: that of the run is to hear of it
            return
        self.ending = ending  # whoever catches the error gets no further call
        self.engine.loop.call_later(_INTERRUPTED_GRACE_S, self.task.cancel)
        raise error from None

    def _journal_lost(self, error: Exception) -> None:
        self.ending = None  # whatever it was about to write, it no longer can
        self.stop(Ending(None, error))
        self.engine.journal_lost(self, error)

    def _journal_refused(self, error: Exception) -> None:
        self.stop(Ending(RunFailed(error_info(error))))

    async def park(self) -> None:
        """Wait to be cancelled."""
        await self.engine.loop.create_future()

    async def pause(self, reason: str, *, recorded: str = "", called: str = "") -> None:
        """Stop because the history does not fit the code; never returns."""
        self.stop(Ending(RunPaused(reason, recorded, called)))
        await self.park()

    async def pause_over(self, error: BaseException, left: list[str]) -> NoReturn:
        """Stop because the code raised where its history goes on; never returns."""
        self.stop(Ending(self._misfit(error, left)))
        await self.park()
        raise asyncio.CancelledError

    def _misfit(self, error: BaseException, left: list[str]) -> RunPaused:
        _logger.error("run %s: its code raises before it has called %s", self.id, _some_of(left), exc_info=error)
        info = error_info(error)
        return RunPaused(
            f"{self.function} raised before it called what its history holds.",
            recorded=_some_of(left),
            called=shorten(f"raised {info.type}: {info.message}", _SAID_MAX_CHARS),
        )

    async def _live(self, body: Body) -> None:
        self.begun = True
        if self.ending is not None:  # stopped before its first turn
            await self._end(None, None)
        else:
            await self._execute(body)

    async def _execute(self, body: Body) -> None:
        final: JournalEntry | None = None
        error: BaseException | None = None
        self.root.task = asyncio.current_task()
        scope.set(self.root)
        publish_hook.set(_publish_hook)
        try:
            with use_trace(self.trace):
                final = await body(self)
                if self.ending is None and (left := self.left_over()):
                    await self.pause(
                        f"{self.function} returned without calling what its history holds.",
                        recorded=_some_of(left),
                        called="nothing more",
                    )
        except asyncio.CancelledError as cancelled:
            error = cancelled
        except BaseException as raised:  # noqa: BLE001 (the user's code: whatever it is, the run has failed)
            error = raised
        await self._end(final, error)
        if isinstance(error, PASSED_ON):
            raise error

    async def _end(self, final: JournalEntry | None, error: BaseException | None) -> None:
        """Write how the run ended, and tell the engine. A cancel that comes now is too late."""
        if self.ending is not None:
            final = self.ending.entry
            if isinstance(error, CallInterruptedError) and isinstance(final, RunFailed):
                final = RunFailed(error_info(error))  # the same, with the place in the code
        elif isinstance(error, asyncio.CancelledError) and self.task is not None and self.task.cancelling():
            final = None  # the event loop is being shut down: the run stays open
        elif isinstance(error, PASSED_ON):
            final = None
        elif error is not None and (left := self.left_over()):
            final = self._misfit(error, left)
        elif error is not None:
            step = (error.key, error.attempt) if isinstance(error, StepFailedError) else ("", 0)
            final = RunFailed(error_info(error), *step)
        self.engine.ends(self)
        written: JournalEntry | None = None
        try:
            written = await self._write_end(final) if final is not None else None
        finally:
            self.final = written
            self.engine.ended(self, written)

    async def _write_end(self, final: JournalEntry) -> JournalEntry | None:
        """Write the last entry; return it, or ``None`` when the journal was lost."""
        # Put before anything is awaited, so that a job's result and its end are one commit.
        stopped = self.ending is not None
        try:
            waiter = self.journal.put_last(encode_entry(final), alone=stopped)
        except Exception as error:  # noqa: BLE001 (a result over the limit, text that is no UTF-8: that failed the run)
            final = RunFailed(error_info(error))
            waiter = self.journal.put_last(encode_entry(final), alone=stopped)
        while True:
            while not waiter.done():
                with suppress(asyncio.CancelledError):  # told too late: the ending is on its way to the disk
                    await asyncio.wait([waiter])
            if waiter.cancelled():
                return None
            if (refused := waiter.exception()) is None:
                return final
            # What was to be written ahead of it is not there: so this is not how the run ended.
            final = RunFailed(error_info(refused))
            waiter = self.journal.put_last(encode_entry(final), alone=True)

    def is_abandoned(self, prefix: str) -> bool:
        """Tell whether a branch belongs to one that was cancelled."""
        while prefix:
            construct = prefix[: prefix.rindex("[")]
            if construct in self.abandoned and prefix not in self.revived:
                return True
            prefix = split_key(construct)[0]
        return False

    def left_over(self, within: str = "") -> list[str]:
        """Return the recorded keys that the code did not call, but for those in branches that were cancelled.

        Args:
            within: Prefix of a branch: only keys of it and of those in it.
        """
        return sorted(
            prefix + local
            for prefix, locals_ in self.uncalled.items()
            if prefix.startswith(within) and not self.is_abandoned(prefix)
            for local in locals_
        )


def _some_of(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def run_headers(trace: TraceContext, about: tuple[str, ...]) -> Mapping[str, str]:
    """Return the headers of a run's records."""
    headers = {TRACEPARENT: trace.traceparent}
    if about:
        headers[ABOUT] = " ".join(about)
    return headers


def run_trace(origin: TraceContext, run_id: str) -> TraceContext:
    """Return the context of a run's own span, from that of whoever started it."""
    return origin.child("run", run_id)


def _publish_hook(event: Outgoing) -> Coroutine[Any, Any, int] | None:
    branch = current_branch()
    return publish_from(branch, event) if branch is not None else None


def error_info(error: BaseException) -> ErrorInfo:
    """Return an exception as it is recorded; never raises, whatever the exception's own methods do."""
    if isinstance(error, StepFailedError):
        return error.error
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 (the user's class: what it is called is known all the same)
        text = f"(its traceback cannot be shown: {type(broken).__name__})"
    if len(text) > _TRACEBACK_MAX_CHARS:
        text = text[: _TRACEBACK_MAX_CHARS // 2] + "\n...\n" + text[-_TRACEBACK_MAX_CHARS // 2 + 8 :]
    message = message_of(error, _MESSAGE_MAX_CHARS)
    return ErrorInfo(recordable(type_name(type(error)), _MESSAGE_MAX_CHARS), message, recordable(text, len(text)))
