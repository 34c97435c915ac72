"""The bus: publish, subscribe, consumer groups with retries and dead letters.

Where to look: ``bus.py`` is the face; ``group.py`` is one group at work; ``lanes.py`` decides which event may go;
``cursors.py`` is what a group writes; ``retry.py`` is when it tries again.

    bus = Bus(SystemClock())

    @bus.subscribe("orders.>", group="audit")
    async def audit(event: Event[Order]) -> None: ...

    await bus.start(log)
    await bus.publish("orders.created", Order(id=1), about=["order:1"])
"""

from mainstem.bus.bus import Bus
from mainstem.bus.cursors import CursorRecord, DeadLetter, FailedAttempts
from mainstem.bus.errors import (
    BusError,
    BusNotStartedError,
    DuplicateGroupError,
    GroupFencedError,
    SubscribedTooLateError,
)
from mainstem.bus.events import Event
from mainstem.bus.group import GroupStatus
from mainstem.bus.retry import NO_RETRY, Retry

__all__ = [
    "NO_RETRY",
    "Bus",
    "BusError",
    "BusNotStartedError",
    "CursorRecord",
    "DeadLetter",
    "DuplicateGroupError",
    "Event",
    "FailedAttempts",
    "GroupFencedError",
    "GroupStatus",
    "Retry",
    "SubscribedTooLateError",
]
