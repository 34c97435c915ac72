"""Promises about wishes, time limits and new code at a takeover, each with code that breaks it: its test notices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import RunFailedError
from mainstem.flow.engine import Engine
from mainstem.flow.history import RunFold
from mainstem.flow.journal import RunCancelled
from mainstem.flow.run import Run
from mainstem.flow.writer import JournalLimits
from tests.flow import test_deployments, test_refused, test_takeover_races
from tests.support import until

Check = Callable[[Path, pytest.MonkeyPatch], None]


def dormant_taken_for_ended(patch: pytest.MonkeyPatch) -> None:
    """A run that became resident while its end was to be written counts as ended."""
    real = Engine.end_dormant

    async def believed(self: Engine, run_id: str, cancelled: RunCancelled) -> bool:
        await real(self, run_id, cancelled)
        return True

    patch.setattr(Engine, "end_dormant", believed)


def conflict_taken_for_ended(patch: pytest.MonkeyPatch) -> None:
    """A cancel that meets another writer is given up."""
    patch.setattr("mainstem.flow.inbox._TRIES_MAX", 1)


def waiting_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A cancelled run stays where it waits for its time or its turn."""
    patch.setattr(Engine, "_wait_no_longer", lambda _self, _run_id: None)


def limits_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """With each takeover a run has all its time again."""
    real: Callable[..., None] = Engine._begin

    def anew(self: Engine, *what: Any) -> None:
        real(self, *what[:-1], self.clock.time_ns())

    patch.setattr(Engine, "_begin", anew)


def limits_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A run that sleeps has no time limit before it wakes."""
    patch.setattr(RunFold, "deadline_ns", 0)


def new_code_fails_the_run(patch: pytest.MonkeyPatch) -> None:
    """Code that raises where the history goes on ends the run."""
    patch.setattr(Run, "left_over", lambda _self, within="": [])


def commits_of_any_size(patch: pytest.MonkeyPatch) -> None:
    """Whatever waits to be written goes into one commit."""
    patch.setattr(JournalLimits, "of", classmethod(lambda cls, _traits: cls(batch_max_bytes=200 << 20)))


CASES: Sequence[tuple[Check, Callable[[pytest.MonkeyPatch], None]]] = (
    (test_takeover_races.test_a_run_that_becomes_resident_meanwhile_is_cancelled, dormant_taken_for_ended),
    (test_takeover_races.test_a_conflict_is_looked_at_again, conflict_taken_for_ended),
    (
        lambda path, _patch: test_takeover_races.test_cancelled_delayed_jobs_leave_nothing_behind(path),
        waiting_not_looked_at,
    ),
    (
        lambda path, _patch: test_takeover_races.test_a_time_limit_counts_from_the_start_of_the_run(path),
        limits_begin_anew,
    ),
    (
        lambda path, _patch: test_takeover_races.test_a_time_limit_holds_for_a_sleeper_across_restarts(path),
        limits_forgotten,
    ),
    (
        lambda path, _patch: test_deployments.test_a_new_version_that_raises_pauses_the_run(
            path, "top", "straight", "Recorded: charge#1"
        ),
        new_code_fails_the_run,
    ),
    (
        lambda path, _patch: test_refused.test_many_events_at_once_go_in_several_commits(path),
        commits_of_any_size,
    ),
)


@pytest.mark.parametrize(("check", "mutant"), CASES, ids=[mutant.__name__ for _check, mutant in CASES])
def test_mutant(
    check: Check,
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken code does not keep the promise, and its test notices."""
    monkeypatch.setattr(test_takeover_races, "until", functools.partial(until, timeout_s=0.5))
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, TimeoutError, RunFailedError)):
        check(tmp_path, monkeypatch)
