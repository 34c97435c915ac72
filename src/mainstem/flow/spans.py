"""Spans of a run, derived from its records: so a replay never doubles them, and what a crash cut off is visible.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from mainstem.flow.history import RunFold, describe_pause, read_line, run_id_of
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
from mainstem.trace.spans import Span, SpanKind, SpanStatus, UnderWay

_NAME_MAX_CHARS = 200
_DETAIL_MAX_CHARS = 700

_RESTART_NS = 250_000_000
"""In less time no process begins a step, dies, and is started again: the next one only took up what was due."""

Unended = Literal["died", "may have died", "broken off", "running"]
"""What is known of an attempt without a record of its end; in the ``unended`` attribute of its span, beside ``key`` and
``attempt``.
"""


def run_spans(
    records: Iterable[StoredRecord], *, now_ns: int, under_way: Iterable[UnderWay] = (), queued: bool = False
) -> list[Span]:
    """Return the spans of one run.

    A step's start is seldom on record: an attempt without an end is known by a record of its start, by a line that was
    logged in it, by the process that carries it out (``under_way``), or by the number of the next one.

    Args:
        records: Those of ``$run.<id>`` and of ``$lines.<id>``, each stream in order. A journal without its beginning
            gives nothing.
        now_ns: The moment of looking: a sleep that ends later is still running.
        under_way: The attempts that the run's process is carrying out, where it can be asked.
        queued: The run's process, which was asked, says that it still waits for its turn.
    """
    journal: list[StoredRecord] = []
    lines: list[tuple[StoredRecord, LogLine]] = []
    for record in records:
        if record.stream.startswith(JOURNAL_PREFIX):
            journal.append(record)
        elif record.stream.startswith(LOG_LINES_PREFIX) and (logged := read_line(record.value)) is not None:
            lines.append((record, logged))
    if not journal:
        return []
    origin = parse_traceparent(journal[0].headers.get(TRACEPARENT))
    if origin is None:
        return []
    builder = _Builder(run_id_of(journal[0].stream), origin, now_ns)
    next_line = 0
    for record in journal:
        while next_line < len(lines) and lines[next_line][0].position < record.position:
            builder.open_by_line(*lines[next_line])
            next_line += 1
        builder.add(record)
    for line in lines[next_line:]:
        builder.open_by_line(*line)
    builder.open_under_way(under_way)
    builder.end(queued=queued)
    for line in lines:
        builder.add_line(*line)
    return builder.spans


def _pid(process: str) -> str:
    """Return the part of a process's name that a person knows: ``"6544@1795538598331628779"`` gives ``"6544"``."""
    return process.partition("@")[0]


class _Takeover(msgspec.Struct, frozen=True):
    """When an attempt may have run that the process before left no record of.

    Attributes:
        begin_ns: Not before the record in front, nor while the run only slept or waited for its time.
        retries: Nor before the time of the step's next attempt, by key.
    """

    begin_ns: int
    time_ns: int
    position: int
    retries: dict[str, int]


class _Builder:
    def __init__(self, run_id: str, origin: TraceContext, now_ns: int) -> None:
        self._fold = RunFold(run_id)
        self._trace_id = origin.trace_id
        self._parent_id = origin.span_id
        self._run_span_id = derived_span_id(origin.trace_id, "run", run_id)
        self._now_ns = now_ns
        self._begun: dict[tuple[str, int], tuple[int, int]] = {}
        self._positions: dict[str, dict[int, int]] = {}
        self._claims: list[_Takeover] = []
        self._last_ns = 0
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
        attributes: Mapping[str, str] | None = None,
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
                detail=detail[:_DETAIL_MAX_CHARS],
                position=position,
                attributes=attributes or {},
            )
        )

    def add(self, record: StoredRecord) -> None:
        """Take in the journal's next record."""
        self._add(record)
        self._last_ns = record.time_ns

    def _open(self, key: str, attempt: int, start_ns: int, position: int) -> None:
        """Note that an attempt began, if nothing is known of it yet."""
        known = self._positions.setdefault(key, {})
        if attempt not in known:
            known[attempt] = position
            self._begun[key, attempt] = start_ns, position

    def open_by_line(self, record: StoredRecord, line: LogLine) -> None:
        """Take in that a line was logged in an attempt: it had begun by then."""
        if line.step_key:
            self._open(line.step_key, line.attempt, line.time_ns, record.position)

    def open_under_way(self, under_way: Iterable[UnderWay]) -> None:
        """Take in what the run's process is doing now."""
        if self._fold.ending:
            return  # the question was asked a moment before the run ended
        for one in under_way:
            position = self._begun.get((one.key, one.attempt), (0, self._fold.position + 1))[1]
            self._open(one.key, one.attempt, one.started_ns, position)
            if (one.key, one.attempt) in self._begun:
                self._begun[one.key, one.attempt] = one.started_ns, position

    def _add(self, record: StoredRecord) -> None:
        entry = self._fold.apply(record)
        if self._queued_ns and self._fold.in_turn and self._fold.begun:
            self._had_its_turn(record, entry)
        match entry:
            case None:
                if record.position == self._fold.unreadable:
                    now_ns, reason = record.time_ns, self._fold.reason
                    self._put("paused", "event", now_ns, now_ns, detail=reason, position=record.position)
            case Started():
                self._started_position = record.position
                if entry.kind == "job" or entry.in_turn:
                    self._queued_ns = max(record.time_ns, entry.not_before_ns)
                    if entry.not_before_ns > record.time_ns:
                        self._put("delay", "wait", record.time_ns, entry.not_before_ns, position=record.position)
            case StepStarted():
                self._open(entry.key, entry.attempt, record.time_ns, record.position)
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

    def _had_its_turn(self, record: StoredRecord, entry: JournalEntry | None) -> None:
        """The first thing that a run did is on record: until then it waited for its turn."""
        until_ns = record.time_ns
        if isinstance(entry, StepCompleted | StepFailed):
            until_ns = min(until_ns, entry.started_ns - entry.waited_ns)
        if until_ns > self._queued_ns:
            self._put("queue", "wait", self._queued_ns, until_ns, position=self._started_position)
        self._queued_ns = 0

    def _ended(self, record: StoredRecord, entry: StepCompleted | StepFailed) -> None:
        begun = self._begun.pop((entry.key, entry.attempt), None)
        self._positions.setdefault(entry.key, {}).setdefault(entry.attempt, record.position)
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
        position = begun[1] if begun is not None else record.position
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
        self._close(record.time_ns, "died")
        fold = self._fold
        begin_ns = max(self._last_ns, fold.wake_at_ns if fold.alone else 0, fold.not_before_ns)
        retries = {key: failing.retry_at_ns for key, failing in fold.retrying.items()}
        self._claims.append(_Takeover(begin_ns, record.time_ns, record.position, retries))
        self._put(
            "taken over",
            "event",
            record.time_ns,
            record.time_ns,
            detail=f"by process {_pid(entry.process)}",
            position=record.position,
        )

    def _close(self, at_ns: int, unended: Unended, prefix: str = "") -> None:
        """End the attempts under way (those of some branches) as what became of them, without a record of their end."""
        for key, attempt in [one for one in self._begun if one[0].startswith(prefix)]:
            start_ns, position = self._begun.pop((key, attempt))
            self._put_unended(key, attempt, unended, start_ns, max(at_ns, start_ns), position)

    def _put_unended(self, key: str, attempt: int, unended: Unended, start_ns: int, end_ns: int, position: int) -> None:
        status: SpanStatus = "error" if unended == "broken off" else "running" if unended == "running" else "died"
        detail = {
            "died": f"attempt {attempt} died with its process",
            "may have died": f"attempt {attempt} may have died with its process",
            "broken off": f"attempt {attempt} was broken off",
            "running": f"attempt {attempt}" if attempt > 1 else "",
        }[unended]
        self._put(
            key,
            "step",
            start_ns,
            end_ns,
            span_id=self._attempt_id(key, attempt),
            status=status,
            detail=detail,
            position=position,
            attributes={"key": key, "attempt": str(attempt), "unended": unended},
        )

    def _put_vanished(self) -> None:
        """Show the attempts that only the next one's number tells of: each may have died before a takeover."""
        for key, positions in self._positions.items():
            before = 1 << 63
            for attempt in range(max(positions, default=0), 0, -1):
                if attempt in positions:
                    before = positions[attempt]
                    continue
                claim = next((one for one in reversed(self._claims) if one.position < before), None)
                if claim is None:
                    break
                before = claim.position
                start_ns = max(claim.begin_ns, claim.retries.get(key, 0))
                if claim.time_ns - start_ns >= _RESTART_NS:
                    self._put_unended(key, attempt, "may have died", start_ns, claim.time_ns, claim.position)

    def _note(self, record: StoredRecord, entry: JournalEntry) -> None:
        name = detail = ""
        match entry:
            case RunPaused() | RunQuarantined():
                self._close(record.time_ns, "broken off")
                name, detail = self._fold.waiting, describe_pause(entry)
            case RunResumed():
                name, detail = "resumed", entry.reason
            case RunCancelled():
                name, detail = "cancelled", entry.reason
            case Released():
                self._close(record.time_ns, "broken off")
                name, detail = "released", f"by process {_pid(entry.process)}, which was shut down"
            case GatherFailed():
                self._close(record.time_ns, "broken off", f"{entry.key}[")
                name, detail = f"{entry.key} failed", f"by branch {entry.branch}"
        if name:
            self._put(name, "event", record.time_ns, record.time_ns, detail=detail, position=record.position)

    def end(self, *, queued: bool) -> None:
        """Close what is open, as of now, and put the run's own span first."""
        fold = self._fold
        is_queued = fold.state(self._now_ns) == "queued" and not self._begun
        if queued and is_queued:
            self._put("queue", "wait", self._queued_ns, 0, status="running", position=self._started_position)
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
            self._close(fold.ended_ns, "broken off")
        for (key, attempt), (start_ns, position) in self._begun.items():
            self._put_unended(key, attempt, "running", start_ns, 0, position)
        self._put_vanished()
        status: SpanStatus = "running"
        if fold.ending:
            status = "ok" if fold.ending == "completed" else "error"
        detail = fold.error.message if fold.error is not None else fold.reason
        if is_queued:
            detail = "queued" if queued else "queued: it waits for its turn, or is at its first step"
        self._put(
            fold.function or fold.run_id,
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
