"""The attempts of a run's steps, as its journal tells them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from mainstem.flow.history import decode_entry
from mainstem.flow.journal import Claimed, StepCompleted, StepFailed, StepStarted
from mainstem.log import StoredRecord

Outcome = Literal["running", "ok", "failed", "died"]
"""What became of an attempt; ``died``: its process ended, and another one took the run over."""


class Attempt(msgspec.Struct):
    """One attempt of one step.

    Attributes:
        key: The step's place in the run, such as ``map#1[3]/encode#1``.
        attempt: Its number, from 1.
        outcome: See :data:`Outcome`.
        started_ns: Wall-clock time at which its work began.
        ended_ns: Wall-clock time of its end; 0 while it runs, and for one that died.
        waited_ns: How long it waited for its turn before.
        message: Why it failed, and when the next attempt comes.
    """

    key: str
    attempt: int
    outcome: Outcome
    started_ns: int
    ended_ns: int = 0
    waited_ns: int = 0
    message: str = ""


def attempts_of(records: Iterable[StoredRecord]) -> list[Attempt]:
    """Return the attempts in a run's journal, in the order in which they began.

    Attempts that died without a record of their start (steps are recorded at their end, unless declared otherwise) show
    only in the number of the next one.
    """
    attempts: dict[tuple[str, int], Attempt] = {}
    for record in records:
        entry = decode_entry(record.value)
        if isinstance(entry, Claimed):
            for attempt in attempts.values():
                if attempt.outcome == "running":
                    attempt.outcome = "died"
        elif isinstance(entry, StepStarted):
            attempts[entry.key, entry.attempt] = Attempt(entry.key, entry.attempt, "running", record.time_ns)
        elif isinstance(entry, StepCompleted | StepFailed):
            attempts[entry.key, entry.attempt] = _ended(entry, record.time_ns)
    return sorted(attempts.values(), key=lambda attempt: attempt.started_ns)


def _ended(entry: StepCompleted | StepFailed, ended_ns: int) -> Attempt:
    failed = isinstance(entry, StepFailed)
    message = f"{entry.error.type}: {entry.error.message}" if isinstance(entry, StepFailed) else ""
    outcome: Outcome = "failed" if failed else "ok"
    return Attempt(entry.key, entry.attempt, outcome, entry.started_ns, ended_ns, entry.waited_ns, message)
