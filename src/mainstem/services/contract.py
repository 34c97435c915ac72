"""The shape of every service, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
from starlette.routing import BaseRoute

from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.host.blobs import BlobStore
from mainstem.host.clock import Clock
from mainstem.log.contract import Log

if TYPE_CHECKING:
    from mainstem.ui.panel import Panel


class ServiceContext(msgspec.Struct, frozen=True):
    """What a service works with, from :meth:`Service.start` to :meth:`Service.stop`.

    Attributes:
        directory: A directory of the service's own (it exists), for files that are neither log nor blob.
    """

    log: Log
    bus: Bus
    flow: Flow
    blobs: BlobStore
    clock: Clock
    directory: Path


class Service(Protocol):
    """An optional capability on top of log, bus and flow. Services never import each other; they meet in events."""

    @property
    def name(self) -> str:
        """Short name, the first part of its addresses: ``uploads``."""
        ...

    def register(self, flow: Flow, bus: Bus) -> None:
        """Declare workflows, steps and subscriptions. Called once, before the log is open."""
        ...

    async def start(self, context: ServiceContext) -> None:
        """Recover what a crash left and begin to serve. Called before workflows resume."""
        ...

    async def stop(self) -> None:
        """Finish or break off what is in flight. Idempotent."""
        ...

    def routes(self) -> Sequence[BaseRoute]:
        """Return ASGI routes, mounted under ``<prefix>/<name>``."""
        ...

    def panels(self) -> Sequence[Panel]:
        """Return what it shows on the dashboard."""
        ...
