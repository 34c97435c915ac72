"""Errors of the bus."""

from __future__ import annotations

from mainstem.base.errors import MainstemError


class BusError(MainstemError):
    """Base of the bus's errors."""

    code = "bus"


class BusNotStartedError(BusError):
    """Something was published, or asked of a group, before the application was started (or after it was stopped)."""

    code = "bus-not-started"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the application is not running. Nothing was written. Start it with the web application's "
            "lifespan (FastAPI(lifespan=ms.lifespan)), or with 'async with ms:'."
        )


class DuplicateGroupError(BusError):
    """Two subscriptions have the same group name; a group has one handler."""

    code = "bus-duplicate-group"


class SubscribedTooLateError(BusError):
    """A subscription was declared while the application runs; declare it at import time."""

    code = "bus-subscribed-too-late"


class GroupFencedError(BusError):
    """Another process moved the group's cursor: it owns the group now, and this one stopped working for it."""

    code = "bus-group-fenced"
