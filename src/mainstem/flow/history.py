"""What a run is and has done, folded from its journal. Pure: records in, state out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from mainstem.base.codec import NotDecodableError
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    Claimed,
    ErrorInfo,
    GatherFailed,
    JournalEntry,
    LogLine,
    Published,
    Released,
    Rested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunQuarantined,
    RunResumed,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerSet,
    Trigger,
)
from mainstem.log.contract import ABOUT, TRACEPARENT, StoredRecord
from mainstem.trace.context import parse_traceparent
from mainstem.ui.format import shorten

State = Literal[
    "scheduled",
    "queued",
    "running",
    "sleeping",
    "retrying",
    "completed",
    "failed",
    "cancelled",
    "paused",
    "quarantined",
]
"""What a run is doing, or how it ended. A job, and a run of a workflow with a limit, is ``queued`` until something of
it is on record, or under way in a process that can be asked.
"""

ENDED: frozenset[State] = frozenset(("completed", "failed", "cancelled"))
"""The states from which nothing follows."""

CLAIMS_MAX = 3
"""After this many takeovers without progress a run is quarantined."""

_entry_decoder: msgspec.json.Decoder[JournalEntry] = msgspec.json.Decoder(JournalEntry)
_line_decoder = msgspec.json.Decoder(LogLine)
_BRANCH_PATH = re.compile(r"(?:[^/\[]+\[[0-9]+\]/)+")
_REASON_MAX_CHARS = 200


def decode_entry(value: bytes) -> JournalEntry:
    """Return a journal record's entry.

    Raises:
        NotDecodableError: It is none that this version knows: no JSON of ours, nested too deeply, of another type.
    """
    try:
        entry = _entry_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotDecodableError(f"expected a journal's entry: {error}") from error
    key: str = getattr(entry, "key", "")
    if "/" in key and _BRANCH_PATH.fullmatch(split_key(key)[0]) is None:
        raise NotDecodableError(f"expected a journal's entry: {shorten(key, 100)!r} is no key")
    return entry


def read_entry(value: bytes) -> JournalEntry | None:
    """Return a journal record's entry; ``None`` for what :func:`decode_entry` refuses (the run's fold says it)."""
    try:
        return decode_entry(value)
    except NotDecodableError:
        return None


def read_line(value: bytes) -> LogLine | None:
    """Return a log line of a run; ``None`` for what is none of ours: its stream's own page shows it all the same."""
    try:
        return _line_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run in one line, for lists.

    Attributes:
        state: See :data:`State`.
        started_ns: When it was started (or its job enqueued).
        ended_ns: When it ended; 0 while it is open.
        steps: Steps that completed.
        failures: Attempts that failed.
        claims: How often it was taken over by another process.
        wake_at_ns: When it wakes, is tried again, or may begin; 0 when that is not what it waits for.
        message: Why it failed, was cancelled, paused or quarantined, or what is being retried: a sentence.
        position: Position of its last record.
    """

    run_id: str
    function: str
    kind: str
    queue: str
    state: State
    started_ns: int
    ended_ns: int
    steps: int
    failures: int
    claims: int
    wake_at_ns: int
    message: str
    trace_id: str
    about: tuple[str, ...]
    trigger: Trigger | None
    position: int


class Failing(msgspec.Struct, frozen=True):
    """A step whose last attempt failed and that will be tried again."""

    attempt: int
    retry_at_ns: int
    error: ErrorInfo


class RunFold(msgspec.Struct):
    """A run's state, one record after the other; small, and itself JSON, so that a projection can keep it.

    Attributes:
        timeout_s: Limit of the whole run from its start; 0 for none.
        in_turn: Its workflow limits how many runs are carried out at once.
        begun: Something that its code did is on record.
        retrying: Steps that wait for their next attempt, by key.
        wake_at_ns: End of the sleep that was recorded last, while nothing followed it.
        alone: Nothing but that sleep was under way.
        claims: Takeovers in all.
        claims_in_vain: Takeovers since the last sign of progress.
        inbox_position: Position of the last wish that was answered, or of the beginning: earlier ones were for another.
        unreadable: Position of the first record that this version cannot read; 0 for none. The run is then paused, and
            of what follows only its end counts.
    """

    run_id: str
    function: str = ""
    kind: str = ""
    queue: str = ""
    not_before_ns: int = 0
    timeout_s: float = 0.0
    in_turn: bool = False
    begun: bool = False
    trigger: Trigger | None = None
    trace_id: str = ""
    about: tuple[str, ...] = ()
    started_ns: int = 0
    ended_ns: int = 0
    ending: Literal["", "completed", "failed", "cancelled"] = ""
    waiting: Literal["", "paused", "quarantined"] = ""
    error: ErrorInfo | None = None
    failed_step: str = ""
    failed_attempt: int = 0
    reason: str = ""
    steps: int = 0
    failures: int = 0
    claims: int = 0
    claims_in_vain: int = 0
    retrying: dict[str, Failing] = {}
    wake_at_ns: int = 0
    alone: bool = False
    inbox_position: int = 0
    unreadable: int = 0
    position: int = 0

    @property
    def deadline_ns(self) -> int:
        """When the run is out of time, wall clock; 0 for never."""
        return self.started_ns + round(self.timeout_s * 1e9) if self.timeout_s else 0

    @property
    def is_open(self) -> bool:
        """Whether the run has begun and not ended."""
        return bool(self.function or self.unreadable) and not self.ending

    def apply(self, record: StoredRecord) -> JournalEntry | None:
        """Take in the next record of the journal; return its entry, or ``None`` if this version cannot read it."""
        self.position = record.position
        try:
            entry = decode_entry(record.value)
        except NotDecodableError as error:
            self._set_aside(record, error)
            return None
        match entry:
            case Started():
                self._begin(record, entry)
            case Claimed():
                self.claims += 1
                self.claims_in_vain = entry.claim
            case Released() | Rested():
                self.claims_in_vain = 0
            case RunCompleted() | RunFailed() | RunCancelled():
                self._end(record, entry)
            case _ if self.unreadable:
                pass  # what it means depends on what could not be read
            case RunPaused() | RunQuarantined():
                self.waiting = "paused" if isinstance(entry, RunPaused) else "quarantined"
                self.reason = describe_pause(entry)
            case RunResumed():
                self.waiting, self.reason, self.claims_in_vain = "", "", 0
                self.inbox_position = max(self.inbox_position, entry.message)
            case _:
                self._advance(entry)
        return entry

    def _set_aside(self, record: StoredRecord, error: NotDecodableError) -> None:
        """Note that a record cannot be read; behind the run's end that changes nothing any more."""
        if self.ending or self.unreadable:
            return
        self.unreadable, self.waiting = record.position, "paused"
        self.reason = (
            f"This version cannot read {record.stream} position {record.position}: "
            f"{shorten(error.message, _REASON_MAX_CHARS).rstrip('.')}. A newer mainstem wrote it, or something else "
            "did. Nothing of the run is carried out, and its journal is left as it is. "
            "Start the version that wrote it, or cancel the run."
        )
        if not self.function:
            self._know(record)

    def _know(self, record: StoredRecord) -> None:
        """Take what the first record's headers tell."""
        context = parse_traceparent(record.headers.get(TRACEPARENT))
        self.started_ns, self.inbox_position = record.time_ns, record.position
        self.trace_id = context.trace_id if context else ""
        self.about = tuple(record.headers.get(ABOUT, "").split())

    def _begin(self, record: StoredRecord, entry: Started) -> None:
        self.function, self.kind, self.queue = entry.function, entry.kind, entry.queue
        self.not_before_ns, self.trigger, self.in_turn = entry.not_before_ns, entry.trigger, entry.in_turn
        self.timeout_s = entry.timeout_s
        self._know(record)

    def _end(self, record: StoredRecord, entry: RunCompleted | RunFailed | RunCancelled) -> None:
        self.ended_ns, self.waiting, self.retrying, self.wake_at_ns, self.alone = record.time_ns, "", {}, 0, False
        self.reason = ""
        match entry:
            case RunCompleted():
                self.ending = "completed"
            case RunFailed():
                self.ending, self.error = "failed", entry.error
                self.failed_step, self.failed_attempt = entry.step_key, entry.attempt
            case RunCancelled():
                self.ending, self.reason = "cancelled", entry.reason
                self.inbox_position = max(self.inbox_position, entry.message)

    def _advance(self, entry: JournalEntry) -> None:
        self.wake_at_ns, self.alone, self.begun = 0, False, True
        if not isinstance(entry, StepStarted):
            self.claims_in_vain = 0
        match entry:
            case StepCompleted():
                self.steps += 1
                self.retrying.pop(entry.key, None)
            case StepFailed():
                self.failures += 1
                if entry.retry_at_ns:
                    self.retrying[entry.key] = Failing(entry.attempt, entry.retry_at_ns, entry.error)
                else:
                    self.retrying.pop(entry.key, None)
            case TimerSet():
                self.wake_at_ns, self.alone = entry.wake_at_ns, entry.alone

    def state(self, now_ns: int, *, at_work: bool = False) -> State:
        """Return what the run is doing, as far as its journal tells; ``at_work`` says that its process carries it out,
        which no record tells before the first attempt has ended.
        """
        if self.ending:
            return self.ending
        if self.waiting:
            return self.waiting
        if any(failing.retry_at_ns > now_ns for failing in self.retrying.values()):
            return "retrying"
        if self.wake_at_ns > now_ns:
            return "sleeping"
        if self.not_before_ns > now_ns and not self.claims:
            return "scheduled"
        takes_turns = self.kind == "job" or self.in_turn
        return "queued" if takes_turns and not (self.begun or self.claims or at_work) else "running"

    def summary(self, now_ns: int, *, at_work: bool = False) -> RunSummary:
        """Return the run in one line, as of a moment; ``at_work`` as for :meth:`state`."""
        state = self.state(now_ns, at_work=at_work)
        wake_at_ns = {
            "sleeping": self.wake_at_ns,
            "retrying": min((one.retry_at_ns for one in self.retrying.values()), default=0),
            "scheduled": self.not_before_ns,
        }.get(state, 0)
        return RunSummary(
            run_id=self.run_id,
            function=self.function,
            kind=self.kind,
            queue=self.queue,
            state=state,
            started_ns=self.started_ns,
            ended_ns=self.ended_ns,
            steps=self.steps,
            failures=self.failures,
            claims=self.claims,
            wake_at_ns=wake_at_ns,
            message=describe_failure(self),
            trace_id=self.trace_id,
            about=self.about,
            trigger=self.trigger,
            position=self.position,
        )


def fold_run(run_id: str, records: Iterable[StoredRecord]) -> RunFold:
    """Return a run's state from all records of its journal."""
    fold = RunFold(run_id)
    for record in records:
        fold.apply(record)
    return fold


def run_id_of(stream: str) -> str:
    """Return the id of the run whose journal a stream is."""
    return stream.removeprefix(JOURNAL_PREFIX)


def describe_pause(entry: RunPaused | RunQuarantined) -> str:
    """Return a sentence: why the run waits for a decision."""
    if isinstance(entry, RunQuarantined):
        return f"It was taken over {entry.claims} times and made no progress; each time the process ended."
    difference = f" Recorded: {entry.recorded}. Called: {entry.called}." if entry.recorded or entry.called else ""
    return entry.reason + difference


def describe_failure(run: RunFold) -> str:
    """Return a sentence for a run with trouble: what failed, at which attempt, why, and what happens next. Empty when
    all is well.
    """
    if run.ending == "failed" and run.error is not None:
        return (
            f"{_what_failed(run)}: {_sentence(run.error)} The run has ended; nothing is tried again. "
            "Once the cause is mended, start it again under a new id."
        )
    if run.ending == "cancelled":
        return f"It was cancelled: {(run.reason or 'no reason was given').rstrip('.')}."
    if run.unreadable:
        return run.reason
    if run.waiting:
        return f"{run.reason} It waits for a decision; nothing happens until it is resumed or cancelled."
    if run.retrying:
        key, failing = min(run.retrying.items(), key=lambda item: item[1].retry_at_ns)
        others = f" (and {len(run.retrying) - 1} more)" if len(run.retrying) > 1 else ""
        return (
            f"Step {key} failed at attempt {failing.attempt}{others}: {_sentence(failing.error)} "
            f"Attempt {failing.attempt + 1} follows by itself."
        )
    return ""


def _what_failed(run: RunFold) -> str:
    if not run.failed_step:
        return f"{run.function} raised an error"
    which = {0: "for good", 1: "at its only attempt"}.get(
        run.failed_attempt, f"at attempt {run.failed_attempt}, its last"
    )
    return f"Step {run.failed_step} failed {which}"


def _sentence(error: ErrorInfo) -> str:
    return f"{error.type}: {shorten(error.message, 600).rstrip('.')}."


# ---- replay


class Past(msgspec.Struct, eq=False):
    """What the journal holds about one key.

    Attributes:
        kind: What wrote it.
        attempt: Number of the last attempt that is on record; 0 for none.
        under_way: That attempt's start is on record and its end is not.
        spent: Attempts that are known to have begun and to have come to nothing: they failed, or their start is on
            record and another attempt's after it. What a process may have begun and left no record of is not counted.
        claims: Takeovers of the run before the last record of the key.
        result: The result, once there is one.
        error: The last failure.
        retry_at_ns: Time of the next attempt; 0 after a failure means that it was final.
        wake_at_ns: End of a sleep.
        event_position: Position of a published event.
        branch: The branch whose error a ``gather`` raised.
    """

    kind: Literal["step", "timer", "published", "gather"]
    name: str
    digest: str = ""
    attempt: int = 0
    under_way: bool = False
    spent: int = 0
    claims: int = 0
    result: msgspec.Raw | None = None
    error: ErrorInfo | None = None
    retry_at_ns: int = 0
    wake_at_ns: int = 0
    event_position: int = 0
    branch: int = 0


class History:
    """A journal prepared for replay.

    Attributes:
        fold: The run's state.
        started: The first record's entry.
        last_entry: The last one's, or of the run's end; of a run that cannot be read, that it is paused.
        keys: What is on record, by key.
        uncalled: Keys that the code has not called yet, by the prefix of their branch, without that prefix; ``gather``
            and ``map`` count as called keys of the branch in which they were made.
    """

    def __init__(self, run_id: str, records: Iterable[StoredRecord]) -> None:
        self.fold = RunFold(run_id)
        self.started: Started | None = None
        self.last_entry: JournalEntry | None = None
        self.started_headers: dict[str, str] = {}
        self.keys: dict[str, Past] = {}
        self.uncalled: dict[str, set[str]] = {}
        for record in records:
            self._apply(record)

    def _apply(self, record: StoredRecord) -> None:
        fold, had_ended = self.fold, bool(self.fold.ending)
        entry = fold.apply(record)
        if not had_ended:
            self.last_entry = RunPaused(fold.reason) if fold.unreadable and not fold.ending else entry
        if entry is None or fold.unreadable:
            return
        if isinstance(entry, Started):
            self.started, self.started_headers = entry, dict(record.headers)
            return
        key = getattr(entry, "key", None)
        if key is None:
            return
        past = self.keys.get(key)
        if past is None:
            past = self.keys[key] = Past(_kind_of(entry), getattr(entry, "name", ""))
            self._expect(key)
        past.claims = self.fold.claims
        _update(past, entry, record.position)

    def _expect(self, key: str) -> None:
        prefix, local = split_key(key)
        self.uncalled.setdefault(prefix, set()).add(local)
        while prefix:
            construct = prefix[: prefix.rindex("[")]
            prefix, local = split_key(construct)
            self.uncalled.setdefault(prefix, set()).add(local)


def split_key(key: str) -> tuple[str, str]:
    """Return a key's branch prefix and the rest: ``map#1[17]/charge#1`` gives ``("map#1[17]/", "charge#1")``."""
    end = key.rfind("/") + 1
    return key[:end], key[end:]


def _kind_of(entry: Any) -> Literal["step", "timer", "published", "gather"]:
    match entry:
        case TimerSet():
            return "timer"
        case Published():
            return "published"
        case GatherFailed():
            return "gather"
    return "step"


def _update(past: Past, entry: JournalEntry, position: int) -> None:
    match entry:
        case StepStarted():
            past.spent += past.under_way
            past.digest, past.attempt, past.under_way = entry.digest, entry.attempt, True
        case StepCompleted():
            past.digest, past.attempt, past.under_way = entry.digest, entry.attempt, False
            past.result = entry.result
        case StepFailed():
            past.digest, past.attempt, past.under_way = entry.digest, entry.attempt, False
            past.error, past.retry_at_ns = entry.error, entry.retry_at_ns
            past.spent += 1
        case TimerSet():
            past.wake_at_ns = entry.wake_at_ns
        case Published():
            past.digest, past.name, past.event_position = entry.digest, entry.stream, position - entry.ahead
        case GatherFailed():
            past.branch = entry.branch
