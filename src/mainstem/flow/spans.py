"""Spans of a run, derived from its records: so a replay never doubles them, and what a crash cut off is visible.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mainstem.flow.history import RunFold, describe_pause, run_id_of
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    LOG_LINES_PREFIX,
    Claimed,
    GatherFailed,
    JournalEntry,
    LogLine,
    Published,
    Released,
    RunCancelled,
    RunPaused,
    RunQuarantined,
    RunResumed,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerSet,
)
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.trace.context import TraceContext, derived_span_id, parse_traceparent
from mainstem.trace.spans import Span, SpanKind, SpanStatus

_NAME_MAX_CHARS = 200

_line_decoder = msgspec.json.Decoder(LogLine)


def run_spans(records: Iterable[StoredRecord], *, now_ns: int) -> list[Span]:
    """Return the spans of one run.

    Args:
        records: Those of ``$run.<id>`` and of ``$lines.<id>``, each stream in order. A journal without its beginning
            gives nothing.
        now_ns: The moment of looking: a sleep that ends later is still running.
    """
    journal: list[StoredRecord] = []
    lines: list[StoredRecord] = []
    for record in records:
        if record.stream.startswith(JOURNAL_PREFIX):
            journal.append(record)
        elif record.stream.startswith(LOG_LINES_PREFIX):
            lines.append(record)
    if not journal:
        return []
    origin = parse_traceparent(journal[0].headers.get(TRACEPARENT))
    if origin is None:
        return []
    builder = _Builder(run_id_of(journal[0].stream), origin, now_ns)
    for record in journal:
        builder.add(record)
    builder.end()
    for record in lines:
        builder.add_line(record, _line_decoder.decode(record.value))
    return builder.spans


def _pid(process: str) -> str:
    """Return the part of a process's name that a person knows: ``"6544@1795538598331628779"`` gives ``"6544"``."""
    return process.partition("@")[0]


class _Builder:
    def __init__(self, run_id: str, origin: TraceContext, now_ns: int) -> None:
        self._fold = RunFold(run_id)
        self._trace_id = origin.trace_id
        self._parent_id = origin.span_id
        self._run_span_id = derived_span_id(origin.trace_id, "run", run_id)
        self._now_ns = now_ns
        self._begun: dict[tuple[str, int], tuple[StoredRecord, StepStarted]] = {}
        self._sleeps: list[tuple[StoredRecord, TimerSet]] = []
        self._retries: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._queued_ns = 0
        self._started_position = 0
        self.spans: list[Span] = []

    def _attempt_id(self, key: str, attempt: int) -> str:
        return derived_span_id(self._trace_id, "step", self._fold.run_id, key, str(attempt))

    def _put(
        self,
        name: str,
        kind: SpanKind,
        start_ns: int,
        end_ns: int,
        *,
        span_id: str = "",
        parent_id: str = "",
        status: SpanStatus = "ok",
        detail: str = "",
        position: int = 0,
    ) -> None:
        self.spans.append(
            Span(
                trace_id=self._trace_id,
                span_id=span_id,
                parent_id=parent_id or self._run_span_id,
                name=name[:_NAME_MAX_CHARS],
                kind=kind,
                start_ns=start_ns,
                end_ns=end_ns,
                status=status,
                detail=detail[:_NAME_MAX_CHARS],
                position=position,
            )
        )

    def add(self, record: StoredRecord) -> None:
        """Take in the journal's next record."""
        entry = self._fold.apply(record)
        match entry:
            case Started():
                self._started_position = record.position
                if entry.kind == "job":
                    self._queued_ns = max(record.time_ns, entry.not_before_ns)
                    if entry.not_before_ns > record.time_ns:
                        self._put("delay", "wait", record.time_ns, entry.not_before_ns, position=record.position)
            case StepStarted():
                self._begun[entry.key, entry.attempt] = (record, entry)
            case StepCompleted() | StepFailed():
                self._ended(record, entry)
            case TimerSet():
                self._sleeps.append((record, entry))
            case Published():
                self._put(
                    f"publish {entry.stream}",
                    "event",
                    record.time_ns,
                    record.time_ns,
                    position=record.position - entry.ahead,
                )
            case Claimed():
                self._taken_over(record, entry)
            case _:
                self._note(record, entry)

    def _ended(self, record: StoredRecord, entry: StepCompleted | StepFailed) -> None:
        begun = self._begun.pop((entry.key, entry.attempt), None)
        # A wall clock may have gone back in between; a span never ends before it starts.
        start_ns = min(entry.started_ns, record.time_ns)
        span_id = self._attempt_id(entry.key, entry.attempt)
        detail = f"attempt {entry.attempt}" if entry.attempt > 1 else ""
        status: SpanStatus = "ok"
        if isinstance(entry, StepFailed):
            status = "error"
            detail = f"attempt {entry.attempt}: {entry.error.type}: {entry.error.message}"
        retry = self._retries.pop((entry.key, entry.attempt), None)
        if retry is not None:
            self._put("retry", "wait", retry[0], max(retry[0], start_ns), parent_id=span_id, position=retry[2])
        elif self._queued_ns and start_ns > self._queued_ns:  # what the attempt itself says of its waiting is in it
            self._put("queue", "wait", self._queued_ns, start_ns, parent_id=span_id, position=self._started_position)
        elif entry.waited_ns:
            self._put("turn", "wait", start_ns - entry.waited_ns, start_ns, parent_id=span_id, position=record.position)
        self._queued_ns = 0
        position = begun[0].position if begun is not None else record.position
        self._put(
            entry.key,
            "step",
            start_ns,
            record.time_ns,
            span_id=span_id,
            status=status,
            detail=detail,
            position=position,
        )
        if isinstance(entry, StepFailed) and entry.retry_at_ns:
            self._retries[entry.key, entry.attempt + 1] = (record.time_ns, entry.retry_at_ns, record.position)

    def _taken_over(self, record: StoredRecord, entry: Claimed) -> None:
        """What had begun and not ended died with its process."""
        self._died(record.time_ns)
        self._put(
            "taken over",
            "event",
            record.time_ns,
            record.time_ns,
            detail=f"by process {_pid(entry.process)}",
            position=record.position,
        )

    def _died(self, at_ns: int) -> None:
        for (key, attempt), (begun, _entry) in self._begun.items():
            self._put(
                key,
                "step",
                begun.time_ns,
                max(at_ns, begun.time_ns),
                span_id=self._attempt_id(key, attempt),
                status="died",
                detail=f"attempt {attempt} died with its process",
                position=begun.position,
            )
        self._begun.clear()

    def _note(self, record: StoredRecord, entry: JournalEntry) -> None:
        name = detail = ""
        match entry:
            case RunPaused() | RunQuarantined():
                name, detail = self._fold.waiting, describe_pause(entry)
            case RunResumed():
                name, detail = "resumed", entry.reason
            case RunCancelled():
                name, detail = "cancelled", entry.reason
            case Released():
                name, detail = "released", f"by process {_pid(entry.process)}, which was shut down"
            case GatherFailed():
                name, detail = f"{entry.key} failed", f"by branch {entry.branch}"
        if name:
            self._put(name, "event", record.time_ns, record.time_ns, detail=detail, position=record.position)

    def end(self) -> None:
        """Close what is open, as of now, and put the run's own span first."""
        fold = self._fold
        for record, timer in self._sleeps:
            until_ns = min(timer.wake_at_ns, fold.ended_ns) if fold.ended_ns else timer.wake_at_ns
            name = timer.key
            running = until_ns > self._now_ns
            end_ns = 0 if running else max(record.time_ns, until_ns)
            self._put(
                name, "wait", record.time_ns, end_ns, status="running" if running else "ok", position=record.position
            )
        for begin_ns, retry_at_ns, position in self._retries.values():
            running = not fold.ending and retry_at_ns > self._now_ns
            self._put("retry", "wait", begin_ns, 0 if running else max(begin_ns, retry_at_ns), position=position)
        if fold.ending:
            self._died(fold.ended_ns)
        for (key, attempt), (begun, _entry) in self._begun.items():
            self._put(
                key,
                "step",
                begun.time_ns,
                0,
                span_id=self._attempt_id(key, attempt),
                status="running",
                detail=f"attempt {attempt}" if attempt > 1 else "",
                position=begun.position,
            )
        status: SpanStatus = "running"
        if fold.ending:
            status = "ok" if fold.ending == "completed" else "error"
        detail = fold.error.message if fold.error is not None else fold.reason
        self._put(
            fold.function,
            "run",
            fold.started_ns,
            fold.ended_ns,
            span_id=self._run_span_id,
            parent_id=self._parent_id,
            status=status,
            detail=detail,
            position=self._started_position,
        )
        self.spans.insert(0, self.spans.pop())

    def add_line(self, record: StoredRecord, line: LogLine) -> None:
        """Put a log line below the attempt, or the run, in which it was logged."""
        self._put(
            line.message,
            "log",
            line.time_ns,
            line.time_ns,
            parent_id=self._attempt_id(line.step_key, line.attempt) if line.step_key else "",
            status="error" if line.level in ("ERROR", "CRITICAL") else "ok",
            detail=line.level,
            position=record.position,
        )
