"""A handle to a run: wait for its result, look at its state, cancel or resume it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mainstem.base.codec import decode, encode
from mainstem.bus.events import current_traceparent
from mainstem.flow.branch import current_branch
from mainstem.flow.errors import (
    FlowNotStartedError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunPausedError,
)
from mainstem.flow.history import RunFold, RunSummary, describe_failure
from mainstem.flow.journal import INBOX_PREFIX, InboxMessage, RunCancelled, RunCompleted, RunFailed
from mainstem.log.contract import NO_HEADERS, TRACEPARENT, Log, Record

if TYPE_CHECKING:
    from mainstem.flow.engine import Engine
    from mainstem.flow.flow import Flow
    from mainstem.flow.functions import RecordedFunction

R = TypeVar("R")


class RunHandle(Generic[R]):
    """A run, by its id.

    Attributes:
        id: The run's id; its journal is ``$run.<id>``.
    """

    def __init__(self, flow: Flow, run_id: str, recorded: RecordedFunction | None = None) -> None:
        self._flow = flow
        self._recorded = recorded
        self.id = run_id

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    def _engine(self, what: str) -> Engine:
        engine = self._flow.engine
        if engine is None:
            raise FlowNotStartedError(f"{what} of run {self.id}")
        return engine

    async def result(self, *, timeout_s: float | None = None) -> R:
        """Wait for the run's end and return what it returned.

        Raises:
            RunFailedError: It failed; the message says which step, at which attempt, and why.
            RunCancelledError: It was cancelled.
            RunPausedError: It waits for a decision.
            RunNotFoundError: There is no such run.
            TimeoutError: It did not end within ``timeout_s``; it goes on.
            FlowStoppedError: The application stopped first, or lost its log; the run goes on at the next start.
            RunFencedError: Something else writes to the run's journal; this process hears of it no more.
        """
        engine = self._engine("result")
        watcher = engine.watch(self.id)
        try:
            if self.id not in engine.runs:
                await self._look_back(engine, watcher)
                if not watcher.done() and (lost := engine.why_lost(self.id)) is not None:
                    raise lost
            branch = current_branch()
            try:
                with branch.run.awaiting() if branch is not None else nullcontext():
                    async with asyncio.timeout(timeout_s):
                        final = await watcher
            except TimeoutError:
                raise TimeoutError(f"run {self.id} did not end within {timeout_s} s; it goes on") from None
        finally:
            engine.unwatch(self.id, watcher)
        if isinstance(final, RunCompleted):
            return self._decode(final)
        raise await self._explain(engine, final)

    async def _look_back(self, engine: Engine, watcher: asyncio.Future[Any]) -> None:
        """Answer from the log, if the run has ended (or waits for a decision) already."""
        history = await engine.history(self.id)
        fold = history.fold
        if history.started is None and not fold.unreadable:
            raise RunNotFoundError(self.id)
        if fold.waiting and not fold.unreadable and await self._is_wished_for(engine, fold.position):
            return  # someone has decided: the engine is about to go on with it
        if (fold.ending or fold.waiting) and not watcher.done():
            watcher.set_result(history.last_entry)

    async def _is_wished_for(self, engine: Engine, behind: int) -> bool:
        last = await engine.log.last(INBOX_PREFIX + self.id)
        return last is not None and last.position > behind

    def _decode(self, final: RunCompleted) -> R:
        value: R = decode(final.result) if self._recorded is None else self._recorded.decode_result(final.result)
        return value

    async def _explain(self, engine: Engine, final: object) -> Exception:
        if isinstance(final, RunCancelled):
            return RunCancelledError(self.id, final.reason)
        fold = (await engine.history(self.id)).fold
        if isinstance(final, RunFailed):
            return RunFailedError(self.id, final.error, f"run {self.id}: {describe_failure(fold)}")
        return _paused(fold)

    async def status(self) -> RunSummary:
        """Return the run in one line, from its journal.

        Raises:
            RunNotFoundError: There is no such run.
        """
        engine = self._engine("status")
        history = await engine.history(self.id)
        if history.started is None and not history.fold.unreadable:
            raise RunNotFoundError(self.id)
        return history.fold.summary(engine.clock.time_ns(), at_work=self.id in engine.runs)

    async def cancel(self, reason: str = "") -> None:
        """Ask for the run to be cancelled; returns once the wish is durable. A run that has ended stays as it is.

        Its code gets ``CancelledError`` where it waits, and may clean up; steps that were under way leave no result.
        """
        await send_wish(self._engine("cancel").log, self.id, InboxMessage("cancel", reason))

    async def resume(self, reason: str = "") -> None:
        """Ask for a paused or quarantined run to be tried again; returns once the wish is durable.

        Raises:
            RunPausedError: This version cannot read the run's journal. Nothing was written.
        """
        engine = self._engine("resume")
        fold = (await engine.history(self.id)).fold
        if fold.unreadable and not fold.ending:
            raise _paused(fold)
        await send_wish(engine.log, self.id, InboxMessage("resume", reason))


def _paused(fold: RunFold) -> RunPausedError:
    words = "" if fold.unreadable else " resume"
    return RunPausedError(
        fold.run_id, f"run {fold.run_id}: {describe_failure(fold)}", try_command=f"mainstem runs{words} {fold.run_id}"
    )


async def send_wish(log: Log, run_id: str, message: InboxMessage) -> int:
    """Put a wish into a run's inbox, in the trace of whoever wishes; return its position, once it is durable.

    Raises:
        LogError: It was not written.
    """
    traceparent = current_traceparent()
    headers = {TRACEPARENT: traceparent} if traceparent else NO_HEADERS
    return await log.append(INBOX_PREFIX + run_id, [Record(encode(message), b"", headers)], use_reserve=True)
