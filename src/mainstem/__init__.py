"""mainstem: one durable log, and bus, workflows, uploads, media and a dashboard on it.

    ms = Mainstem("data")

    @ms.step(retry=Retry(max_attempts=4))
    async def charge(order: Order) -> Receipt: ...

    @ms.workflow(on="orders.created")
    async def fulfil(order: Order) -> Receipt:
        return await charge(order)

The map, from the top down (each room imports only those below it): ``cli`` the command; ``testing`` for users' tests;
``app`` composes everything; ``web`` pages, API, live hub; ``services`` uploads and media; ``flow`` workflows, steps,
jobs; ``bus`` publish and subscribe; ``ui`` what pages are made of; ``log`` the one place where anything is kept;
``trace`` spans; ``host`` the operating system; ``base`` errors, names, ids.

Names are imported when they are first used: importing mainstem is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstem.app import AlreadyStartedError, Mainstem, NotStartedError
    from mainstem.base.errors import InvalidArgumentError, MainstemError
    from mainstem.bus import Event, Retry
    from mainstem.flow import RunHandle
    from mainstem.services.uploads import UploadCompleted, Uploads

__all__ = [
    "AlreadyStartedError",
    "Event",
    "InvalidArgumentError",
    "Mainstem",
    "MainstemError",
    "NotStartedError",
    "Retry",
    "RunHandle",
    "UploadCompleted",
    "Uploads",
]

_HOMES = {
    "AlreadyStartedError": "mainstem.app",
    "Event": "mainstem.bus",
    "InvalidArgumentError": "mainstem.base.errors",
    "Mainstem": "mainstem.app",
    "MainstemError": "mainstem.base.errors",
    "NotStartedError": "mainstem.app",
    "Retry": "mainstem.bus",
    "RunHandle": "mainstem.flow",
    "UploadCompleted": "mainstem.services.uploads",
    "Uploads": "mainstem.services.uploads",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mainstem' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
