"""The ``mainstem`` command: run an application, and see what became of everything in its log.

``command.py`` reads the command line. It is imported when it is first used: ``child.py``, the application's own process
under ``mainstem dev``, has no command line to read, and starts the sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstem.cli.command import COMMANDS, main

__all__ = ["COMMANDS", "main"]


def __getattr__(name: str) -> object:
    """Import what reads the command line when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mainstem.cli import command  # noqa: PLC0415 (that is the purpose)

    return getattr(command, name)
