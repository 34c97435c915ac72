"""Durable sleep: the moment of waking is in the journal, so it holds whatever process is there then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.journal import TimerSet
from mainstem.flow.replay import enter
from mainstem.flow.run import encode_entry

if TYPE_CHECKING:
    from mainstem.flow.branch import Branch

SLEEP_MAX_S = 100 * 365 * 86_400.0
"""Longest sleep: a hundred years."""


def duration_s(seconds: float, minutes: float, hours: float, days: float) -> float:
    """Return a duration in seconds.

    Raises:
        InvalidArgumentError: It is negative, no number, or longer than a hundred years.
    """
    total_s = seconds + 60.0 * minutes + 3600.0 * hours + 86_400.0 * days
    if not 0.0 <= total_s <= SLEEP_MAX_S:
        raise InvalidArgumentError(f"sleep of {total_s} s: expected 0 to {SLEEP_MAX_S:.0f} s (a hundred years).")
    return total_s


async def sleep_in(branch: Branch, key: str, for_s: float) -> None:
    """Sleep within a run."""
    run = branch.run
    past = await enter(branch, key, "timer", f"sleep of {for_s} s")
    run.pending += 1
    try:
        if past is not None:
            wake_at_ns = past.wake_at_ns
            branch.passed = max(branch.passed, past.claims)
        else:
            wake_at_ns = run.engine.clock.time_ns() + round(for_s * 1e9)
            alone = await _is_alone(branch)
            await run.journal.write(encode_entry(TimerSet(key, wake_at_ns, alone)))
            branch.passed = run.claims
        with run.asleep():
            await run.engine.wall_timers.wait_until(wake_at_ns)
    except asyncio.CancelledError:
        run.check_interrupted(branch, key)
        raise
    finally:
        run.pending -= 1


async def _is_alone(branch: Branch) -> bool:
    """Tell whether nothing but a sleep that has just begun is under way in the run."""
    run = branch.run
    if asyncio.current_task() is not run.root.task:
        return False  # what awaits it, such as asyncio.gather(), may await other calls with it
    await asyncio.sleep(0)  # calls that were made before and given to tasks begin now, where they had not yet
    return run.pending == 1 and not run.constructs
