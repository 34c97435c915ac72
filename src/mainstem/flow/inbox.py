"""What others want of runs: reads ``$inbox.>`` and has the engine, the only writer of journals, act on it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from mainstem.flow.history import RunFold
from mainstem.flow.journal import INBOX_PREFIX, InboxMessage, RunCancelled, RunCompleted, RunFailed, RunResumed
from mainstem.flow.run import Ending, Run
from mainstem.log.errors import LogClosedError, NotWrittenError, PositionConflictError

if TYPE_CHECKING:
    from mainstem.flow.engine import Engine

_logger = logging.getLogger(__name__)

_TRIES_MAX = 10
_RETRY_S = 1.0


class Inbox:
    """The wishes to all runs of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None

    async def unread(self, folds: dict[str, RunFold], end: int) -> dict[str, list[tuple[int, InboxMessage]]]:
        """Return wishes to open runs that were not answered yet, by run."""
        wishes: dict[str, list[tuple[int, InboxMessage]]] = {}
        async for record in self._engine.records(INBOX_PREFIX + ">", end):
            run_id = record.stream[len(INBOX_PREFIX) :]
            fold = folds.get(run_id)
            if fold is not None and record.position > fold.inbox_position:
                message = self._decode(record.stream, record.position, record.value)
                wanted = message is not None and (
                    message.wish == "cancel" or (fold.waiting and record.position > fold.position)
                )  # a wish to resume counts behind the pause that it answers, which is then the journal's last record
                if message is not None and wanted:
                    wishes.setdefault(run_id, []).append((record.position, message))
        return wishes

    def begin(self, after: int) -> None:
        """Listen to what comes behind a position."""
        self._task = self._engine.loop.create_task(self._listen(after))

    def end(self) -> None:
        """Listen no longer."""
        if self._task is not None:
            self._task.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether the listening was cancelled: :meth:`end` does so, and a loop that is closed cancels all its tasks."""
        return self._task is None or self._task.cancelling() > 0

    async def _listen(self, after: int) -> None:
        try:
            async with aclosing(self._engine.log.tail(INBOX_PREFIX + ">", after)) as batches:
                async for batch in batches:
                    for record in batch:
                        message = self._decode(record.stream, record.position, record.value)
                        if message is not None:
                            self.deal_with(record.stream[len(INBOX_PREFIX) :], record.position, message)
        except LogClosedError as error:
            if not self._engine.draining:
                _logger.critical("wishes to runs are no longer heard: %s", error)

    @staticmethod
    def _decode(stream: str, position: int, value: bytes) -> InboxMessage | None:
        try:
            return msgspec.json.decode(value, type=InboxMessage)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _logger.warning(
                "%s position %d: not a wish that this version knows, passed over: %s", stream, position, error
            )
            return None

    def deal_with(self, run_id: str, position: int, message: InboxMessage) -> None:
        """Act on a wish."""
        run = self._engine.runs.get(run_id)
        if message.wish == "cancel":
            cancelled = RunCancelled(message.reason, position)
            if run is not None:
                _stop(run, cancelled)
            self._engine.spawn(self._cancel(run_id, cancelled))
        elif run is None:
            self._engine.spawn(self._engine.resume(run_id, RunResumed(message.reason, position)))

    async def _cancel(self, run_id: str, cancelled: RunCancelled) -> None:
        """See to it that a run ends, whether it is resident, dormant, or becomes the one or the other meanwhile."""
        conflicts = 0
        while conflicts < _TRIES_MAX:
            await self._engine.claimed(run_id)
            run = self._engine.runs.get(run_id)
            if run is not None:
                if await self._has_ended(run, cancelled):
                    return
                continue  # it was left open, or waits for a decision now
            try:
                if await self._engine.end_dormant(run_id, cancelled):
                    return
            except PositionConflictError:
                conflicts += 1  # it is being taken over at this moment, or something else writes: look again
            except LogClosedError:
                return  # the wish is on record: the next start answers it
            except NotWrittenError as error:
                _logger.warning("run %s could not be cancelled, trying again: %s", run_id, error)
                await self._engine.clock.sleep(_RETRY_S)
        _logger.error("run %s could not be cancelled: something else keeps writing to its journal", run_id)

    @staticmethod
    async def _has_ended(run: Run, cancelled: RunCancelled) -> bool:
        """Stop a resident run and wait for its end; tell whether nothing is left to do."""
        if run.task is None or not _stop(run, cancelled):
            return True
        await asyncio.wait([run.task])
        lost = run.ending is not None and run.ending.error is not None
        return lost or isinstance(run.final, (RunCompleted, RunFailed, RunCancelled))


def _stop(run: Run, cancelled: RunCancelled) -> bool:
    """Stop a run, if the wish is for it."""
    if cancelled.message <= run.heard:
        return False
    run.stop(Ending(cancelled))
    return True
