"""What every call of workflow code does first: look into the history, and stop the run where it does not fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from mainstem.flow.branch import Branch
    from mainstem.flow.history import Past


async def enter(branch: Branch, key: str, kind: str, called: str) -> Past | None:
    """Return what is on record for a call, or ``None`` when it is new.

    Stops the run, and never returns, when something else is on record there, or when the call is new although the branch still has
    recorded calls that were not made. Raises ``CancelledError`` when the run is being stopped.
    """
    run = branch.run
    if run.ending is not None:
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
    left = run.uncalled.get(branch.prefix)
    if left and not any(branch.prefix.startswith(abandoned) for abandoned in run.abandoned):
        names = sorted(branch.prefix + local for local in left)
        await mismatch(branch, key, ", ".join(names[:5]), called)
    return None


async def mismatch(branch: Branch, key: str, recorded: str, called: str) -> NoReturn:
    """Stop the run: its history does not fit its code at ``key``."""
    run = branch.run
    await run.pause(f"The code of {run.function} no longer fits the run's history at {key}.", recorded=recorded, called=called)
    raise asyncio.CancelledError
