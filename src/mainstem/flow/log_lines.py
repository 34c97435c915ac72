"""Python's logging, kept beside the run in whose context it was written (``$lines.<id>``)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mainstem.base.text import recordable
from mainstem.flow.branch import Attempt, Branch, RunFace, scope
from mainstem.flow.journal import LogLine

if TYPE_CHECKING:
    from mainstem.flow.run import Run

LINE_MAX_CHARS = 16 << 10
"""Longest message that is kept; the rest is cut off."""

LINES_MAX = 10_000
"""Most lines that are kept of a run in one process; then one more says that there were more."""

_KEPT = "mainstem_kept"
"""Mark of a record that came from a worker process and is among the run's lines already."""

LINES_WAIT_S = 0.25
"""A line is written with the run's next record, after this time at the latest."""


class RunLogHandler(logging.Handler):
    """Added to the root logger while the application runs. It changes neither levels nor formats of other handlers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line, if it was logged by a run's code; may be called from any thread."""
        here = scope.get()
        if getattr(record, _KEPT, False):
            return
        if here is None or (record.name.startswith("mainstem.") and not record.name.startswith("mainstem.services.")):
            return  # not a run's, or of the rooms below, which would write a line about writing the line
        run = here.run
        if isinstance(run, RunFace):
            return  # a worker process, which has a handler of its own
        if not isinstance(here, Attempt) and run.uncalled:
            return  # workflow code that is being replayed: its lines were kept the first time
        try:
            self._keep(run, here, record)
        except Exception:  # noqa: BLE001 (a message that cannot be formatted, a loop that closes: as logging does it)
            self.handleError(record)

    def _keep(self, run: Run, here: Branch | Attempt, record: logging.LogRecord) -> None:
        message, level, name = (
            recordable(text, LINE_MAX_CHARS) for text in (self.format(record), record.levelname, record.name)
        )
        key, attempt = (here.key, here.number) if isinstance(here, Attempt) else ("", 0)
        line = LogLine(run.engine.clock.time_ns(), level, name, message, key, attempt)
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            add_line(run, line)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(add_line, run, line)


def add_line(run: Run, line: LogLine) -> None:
    """Keep a line of a run, within the limits; on the event loop only."""
    run.line_count += 1
    if run.line_count > LINES_MAX:
        if run.line_count > LINES_MAX + 1:
            return
        line = LogLine(
            line.time_ns, "WARNING", "mainstem", f"further lines of this run are dropped: {LINES_MAX} were kept"
        )
    if not run.line_timer:
        run.line_timer = True
        run.engine.loop.call_later(LINES_WAIT_S, _flush, run)
    run.journal.add_line(line)


def _flush(run: Run) -> None:
    run.line_timer = False
    run.journal.flush()


def keep_line(line: LogLine) -> None:
    """Keep a line that came from a worker process, for the run whose step is waiting for that worker, and hand it to
    the application's own handlers (console, file).
    """
    here = scope.get()
    if here is not None and not isinstance(here.run, RunFace):
        add_line(here.run, line)
    logger = logging.getLogger(line.logger)
    level = logging.getLevelNamesMapping().get(line.level, logging.INFO)
    if logger.isEnabledFor(level):
        record = logger.makeRecord(line.logger, level, "", 0, line.message, (), None, extra={_KEPT: True})
        record.created, record.msecs = line.time_ns / 1e9, line.time_ns // 1_000_000 % 1000
        logger.handle(record)
