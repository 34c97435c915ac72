"""The records of a run's journal, ``$run.<id>``: what a run is, in the order in which it came to be.

Each is JSON with a ``type``. Times are those of the record, but for the start of work, which is carried here because a
step costs one commit: its result. ``key`` is a step's identity within its run: branch path, name and occurrence, such
as ``map#1[17]/charge#1``.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

JOURNAL_PREFIX = "$run."
"""Streams of journals are this prefix and the run's id."""

INBOX_PREFIX = "$inbox."
"""Streams of what others want of a run: this prefix and the run's id."""

LOG_LINES_PREFIX = "$lines."
"""Streams of a run's log lines: this prefix and the run's id."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number or a time in nanoseconds, as journals have them; anything else was not written by mainstem."""


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """An exception, as it is recorded: its type's name, its message, and its traceback as text of at most 16 KiB."""

    type: str
    message: str
    traceback: str = ""


class Trigger(msgspec.Struct, frozen=True):
    """The event that started a run."""

    stream: str
    position: Count


class Started(msgspec.Struct, frozen=True, omit_defaults=True, tag="started"):
    """The run exists. First record of every journal; its header carries the trace context of whoever started it.

    Attributes:
        function: Name of the workflow or job.
        kind: Which of the two it is.
        arguments: JSON object ``{"args": [...], "kwargs": {...}}``.
        queue: The job's queue.
        not_before_ns: Wall-clock time before which it does not run (a job's delay); 0 for at once.
        trigger: The event that started it.
        timeout_s: Limit of the whole run from its start; 0 for none.
        in_turn: The workflow limits how many of its runs are carried out at once: this one may wait for its turn.
    """

    function: str
    kind: Literal["workflow", "job"]
    arguments: msgspec.Raw
    queue: str = ""
    not_before_ns: Count = 0
    trigger: Trigger | None = None
    timeout_s: float = 0.0
    in_turn: bool = False


class Claimed(msgspec.Struct, frozen=True, tag="claimed"):
    """A process took an unfinished run over after its previous process ended. Synced before anything resumes.

    Attributes:
        process: ``"<pid>@<start time ns>"`` of the new owner.
        claim: How often the run was taken over, from 1, without a step's result in between.
    """

    process: str
    claim: Count


class StepStarted(msgspec.Struct, frozen=True, tag="step_started"):
    """An attempt begins; only written for steps declared with ``record_start=True``."""

    key: str
    name: str
    attempt: Count
    digest: str


class StepCompleted(msgspec.Struct, frozen=True, omit_defaults=True, tag="step_completed"):
    """A step's result: the one commit that a step costs.

    Attributes:
        digest: Of the call's arguments, 16 hexadecimal digits.
        started_ns: Wall-clock time at which this attempt's work began.
        waited_ns: How long the call waited for its turn before that (concurrency limits, a busy pool).
    """

    key: str
    name: str
    attempt: Count
    digest: str
    result: msgspec.Raw
    started_ns: Count
    waited_ns: Count = 0


class StepFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag="step_failed"):
    """An attempt failed.

    Attributes:
        retry_at_ns: Wall-clock time of the next attempt; 0 when there is none and the error is raised into the
            workflow.
    """

    key: str
    name: str
    attempt: Count
    digest: str
    error: ErrorInfo
    started_ns: Count
    waited_ns: Count = 0
    retry_at_ns: Count = 0


class TimerSet(msgspec.Struct, frozen=True, omit_defaults=True, tag="timer_set"):
    """A durable sleep began; it ends at ``wake_at_ns``, whatever process is there then.

    Attributes:
        alone: Nothing else of the run was under way: after a restart it need not be taken over before it wakes.
    """

    key: str
    wake_at_ns: Count
    alone: bool = False


class Published(msgspec.Struct, frozen=True, omit_defaults=True, tag="published"):
    """An event of the run, written in the same commit to its own stream.

    Attributes:
        ahead: The event's position is this many before the position of this record.
    """

    key: str
    stream: str
    digest: str
    ahead: Count = 0


class GatherFailed(msgspec.Struct, frozen=True, tag="gather_failed"):
    """A ``gather`` or ``map`` ended with the error of one branch, the others were cancelled: on replay that branch
    fails again.

    Attributes:
        branch: Index of the branch whose error it was.
    """

    key: str
    branch: Count


class RunCompleted(msgspec.Struct, frozen=True, tag="completed"):
    """The run returned. Final."""

    result: msgspec.Raw


class RunFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag="failed"):
    """The run raised. Final.

    Attributes:
        step_key: The step whose error ended the run, if it was a step's.
        attempt: That step's last attempt; 0 if it was no step's (or an older version wrote it).
    """

    error: ErrorInfo
    step_key: str = ""
    attempt: Count = 0


class RunCancelled(msgspec.Struct, frozen=True, omit_defaults=True, tag="cancelled"):
    """The run was cancelled. Final.

    Attributes:
        message: Position of the wish in the run's inbox.
    """

    reason: str
    message: Count = 0


class RunPaused(msgspec.Struct, frozen=True, omit_defaults=True, tag="paused"):
    """The run's history does not fit its code; it waits for a decision.

    Attributes:
        reason: A sentence.
        recorded: What the history holds at that place.
        called: What the code did there.
    """

    reason: str
    recorded: str = ""
    called: str = ""


class RunResumed(msgspec.Struct, frozen=True, omit_defaults=True, tag="resumed"):
    """Someone decided that a paused or quarantined run is to be tried again.

    Attributes:
        message: Position of the wish in the run's inbox.
    """

    reason: str
    message: Count = 0


class Released(msgspec.Struct, frozen=True, tag="released"):
    """A process that was shut down in order let go of the run in mid work; the next one takes it over, and that is no
    sign of trouble.
    """

    process: str


class Rested(msgspec.Struct, frozen=True, tag="rested"):
    """After a takeover every branch of the run only sleeps, as before: a restart now is no sign of trouble."""


class RunQuarantined(msgspec.Struct, frozen=True, tag="quarantined"):
    """The run was taken over too often without progress; it waits for a decision, and the application came up without
    it.
    """

    claims: Count


JournalEntry = (
    Started
    | Claimed
    | StepStarted
    | StepCompleted
    | StepFailed
    | TimerSet
    | Published
    | GatherFailed
    | Released
    | Rested
    | RunCompleted
    | RunFailed
    | RunCancelled
    | RunPaused
    | RunResumed
    | RunQuarantined
)
"""Any record of a journal."""


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of Python's logging, written beside the run in whose context it was logged (``$lines.<id>``).

    Attributes:
        time_ns: Wall-clock time of the line.
        level: ``"INFO"`` and so on.
        logger: Name of the logger.
        message: The formatted message, at most 16 KiB.
        step_key: The step in which it was logged, if any.
        attempt: That step's attempt.
    """

    time_ns: Count
    level: str
    logger: str
    message: str
    step_key: str = ""
    attempt: Count = 0


class InboxMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wish to a run, in ``$inbox.<id>``; the run's only writer turns it into a journal record."""

    wish: Literal["cancel", "resume"]
    reason: str = ""
