"""Publishing from workflow code: the event goes in one commit with the run's record of it, so exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mainstem.base.codec import digest
from mainstem.bus.events import Outgoing
from mainstem.flow.journal import Published
from mainstem.flow.replay import enter, mismatch

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from mainstem.flow.branch import Branch


def publish_from(branch: Branch, event: Outgoing) -> Coroutine[Any, Any, int]:
    """Take the call's key now, and return what publishes the event when awaited."""
    return _publish(branch, branch.take("publish"), event)


async def _publish(branch: Branch, key: str, event: Outgoing) -> int:
    run = branch.run
    fingerprint = digest(b"\0".join((event.stream.encode(), event.key, event.value)))
    past = await enter(branch, key, "published", f"publish to {event.stream}")
    if past is not None:
        if past.digest != fingerprint or past.name != event.stream:
            await mismatch(
                branch, key, f"an event to {past.name} with digest {past.digest}", f"{event.stream}, {fingerprint}"
            )
        if not event.durable:
            return 0
        branch.passed = max(branch.passed, past.claims)
        return past.event_position
    record = event.record(run.trace.traceparent, run.about)
    waiter = run.journal.publish(Published(key, event.stream, fingerprint), record, wait=event.durable)
    if waiter is None:
        return 0
    run.pending += 1
    try:
        position = await waiter
    except asyncio.CancelledError:
        run.check_interrupted(branch, key)
        raise
    finally:
        run.pending -= 1
    branch.passed = run.claims
    return position
