"""Random histories: nothing acknowledged is lost, nothing unsubmitted appears, nothing shown vanishes."""

from __future__ import annotations

import os

import pytest

from tests.sim.history import run_history

FIRST = int(os.environ.get("FIRST", "0"))
SEEDS = int(os.environ.get("SEEDS", "100"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_history(seed: int) -> None:
    """A log on a failing disk keeps all its promises over several lives."""
    run_history(seed)


def test_same_seed_same_history() -> None:
    """A seed tells the whole history: a second run tells the same story."""
    assert [run_history(seed) for seed in range(5)] == [run_history(seed) for seed in range(5)]


@pytest.mark.parametrize("seed", [100551, 101311, 104633])
def test_a_roll_that_died_behind_an_orderly_end(seed: int) -> None:
    """These once left an empty next segment behind, which chained to an end that the log no longer had."""
    run_history(seed)
