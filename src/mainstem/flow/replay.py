"""What every call of workflow code does first: look into the history, and stop the run where it does not fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from mainstem.flow.history import split_key

if TYPE_CHECKING:
    from mainstem.flow.branch import Branch
    from mainstem.flow.history import Past


_REFUSED_AT_ONCE = 100
_REFUSED_PAUSE_S = 0.05


async def enter(branch: Branch, key: str, kind: str, called: str) -> Past | None:
    """Return what is on record for a call, or ``None`` when it is new.

    Stops the run, and never returns, when something else is on record there, or when the call is new although the
    branch still has recorded calls that were not made. Raises ``CancelledError`` when the run is being stopped.
    """
    run = branch.run
    if run.ending is not None:
        # Code that catches this, too, and calls again must not keep the event loop to itself.
        run.refused += 1
        await asyncio.sleep(_REFUSED_PAUSE_S if run.refused > _REFUSED_AT_ONCE else 0)
        raise asyncio.CancelledError
    if run.engine.draining:
        await run.park()
    if not run.past:
        return None
    past = run.past.pop(key, None)
    if past is not None:
        if past.kind != kind:
            await mismatch(branch, key, f"a {past.kind} named {key}", called)
        return past
    if kind != "gather":  # what succeeded of those is on record in its branches only
        await _refuse_new_call(branch, key, called)
    return None


async def _refuse_new_call(branch: Branch, key: str, called: str) -> None:
    """Stop the run when its history went on behind this place: in this branch, or in one that waits for it."""
    if not branch.run.is_abandoned(branch.prefix) and (names := left_behind(branch)):
        await mismatch(branch, key, ", ".join(names[:5]), called)


def left_behind(branch: Branch) -> list[str]:
    """Return recorded keys that were not called yet: of the branch, or else of the nearest one that waits for it."""
    uncalled = branch.run.uncalled
    prefix = branch.prefix
    while True:
        if left := uncalled.get(prefix):
            return sorted(prefix + local for local in left)
        if not prefix:
            return []
        prefix = split_key(prefix[: prefix.rindex("[")])[0]


async def mismatch(branch: Branch, key: str, recorded: str, called: str) -> NoReturn:
    """Stop the run: its history does not fit its code at ``key``."""
    run = branch.run
    await run.pause(
        f"The code of {run.function} no longer fits the run's history at {key}.", recorded=recorded, called=called
    )
    raise asyncio.CancelledError
