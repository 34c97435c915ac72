"""What others want of runs: reads ``$inbox.>`` and has the engine, the only writer of journals, act on it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from mainstem.flow.history import RunFold
from mainstem.flow.journal import INBOX_PREFIX, InboxMessage, RunCancelled, RunResumed
from mainstem.flow.run import Ending, Run
from mainstem.log.errors import LogClosedError, PositionConflictError

if TYPE_CHECKING:
    from mainstem.flow.engine import Engine

_logger = logging.getLogger(__name__)

_ANSWERED_MAX = 10_000
_TRIES_MAX = 10


class Inbox:
    """The wishes to all runs of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._cancelled: dict[str, None] = {}

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

    def was_answered(self, run_id: str) -> bool:
        """Tell whether a run that waits for its turn was cancelled meanwhile."""
        return run_id in self._cancelled

    def deal_with(self, run_id: str, position: int, message: InboxMessage) -> None:
        """Act on a wish."""
        run = self._engine.runs.get(run_id)
        if message.wish == "cancel":
            cancelled = RunCancelled(message.reason, position)
            if run is not None:
                self._stop(run, cancelled)
            else:
                self._engine.spawn(self._cancel(run_id, cancelled))
        elif run is None:
            self._engine.spawn(self._engine.take_over(run_id, RunResumed(message.reason, position)))

    @staticmethod
    def _stop(run: Run, cancelled: RunCancelled) -> None:
        if cancelled.message > run.heard:
            run.stop(Ending(cancelled))

    def _remember(self, run_id: str) -> None:
        if len(self._cancelled) >= _ANSWERED_MAX:
            del self._cancelled[next(iter(self._cancelled))]
        self._cancelled[run_id] = None

    async def _cancel(self, run_id: str, cancelled: RunCancelled) -> None:
        """Cancel a run that was not resident a moment ago."""
        for _try in range(_TRIES_MAX):
            fold = (await self._engine.history(run_id)).fold
            run = self._engine.runs.get(run_id)
            if run is not None:
                self._stop(run, cancelled)
                return
            if not fold.is_open or cancelled.message <= fold.inbox_position:
                return  # the wish came before the run did
            self._remember(run_id)
            try:
                await self._engine.end_dormant(run_id, cancelled)
            except PositionConflictError:
                continue  # it is being taken over at this moment: look again
            return
        _logger.error("run %s could not be cancelled: something else keeps writing to its journal", run_id)
