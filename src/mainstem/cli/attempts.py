"""The attempts of a run's steps, as its journal tells them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from mainstem.flow.history import read_entry
from mainstem.flow.journal import JOURNAL_PREFIX, StepCompleted, StepFailed
from mainstem.flow.spans import run_spans
from mainstem.log import StoredRecord

Outcome = Literal["running", "ok", "failed", "died", "broken off"]
"""What became of an attempt; ``died``: its process ended, and another one took the run over; ``broken off``: its run,
branch or process ended in order before it did.
"""

_OUTCOMES: Final[dict[str, Outcome]] = {
    "running": "running",
    "died": "died",
    "may have died": "died",
    "broken off": "broken off",
}


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


def attempts_of(records: Iterable[StoredRecord], *, now_ns: int = 0) -> list[Attempt]:
    """Return the attempts of a run, in the order in which they began.

    Args:
        records: Those of ``$run.<id>`` and of ``$lines.<id>``, each stream in order; without the lines an attempt that
            did not end may show only once the next one has.
        now_ns: The moment of looking.
    """
    listed = list(records)
    attempts: list[Attempt] = []
    for record in listed:
        entry = read_entry(record.value) if record.stream.startswith(JOURNAL_PREFIX) else None
        if isinstance(entry, StepCompleted | StepFailed):
            attempts.append(_ended(entry, record.time_ns))
    for span in run_spans(listed, now_ns=now_ns):
        unended = span.attributes.get("unended")
        if unended:
            key, attempt = span.attributes["key"], int(span.attributes["attempt"])
            message = "" if unended in ("running", "died") else unended
            attempts.append(Attempt(key, attempt, _OUTCOMES[unended], span.start_ns, message=message))
    return sorted(attempts, key=lambda attempt: attempt.started_ns)


def _ended(entry: StepCompleted | StepFailed, ended_ns: int) -> Attempt:
    failed = isinstance(entry, StepFailed)
    message = f"{entry.error.type}: {entry.error.message}" if isinstance(entry, StepFailed) else ""
    outcome: Outcome = "failed" if failed else "ok"
    return Attempt(entry.key, entry.attempt, outcome, entry.started_ns, ended_ns, entry.waited_ns, message)
