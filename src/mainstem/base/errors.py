"""The one base class of every error that mainstem raises on purpose."""

from __future__ import annotations

from typing import ClassVar


class MainstemError(Exception):
    """Base of all errors of mainstem.

    The message says what happened, where, what was expected and got, and what state remains. ``code`` is stable: it is
    the heading of the error in ``docs/errors.md`` and what ``--json`` output carries. ``try_command`` is one command
    that helps, or an empty string.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, try_command: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.try_command = try_command

    def __str__(self) -> str:
        if self.try_command:
            return f"{self.message}\n  try: {self.try_command}"
        return self.message


class InvalidArgumentError(MainstemError, ValueError):
    """A value from the caller is outside its documented limits; nothing was done."""

    code = "invalid-argument"


class MissingExtraError(MainstemError, ImportError):
    """An optional part of mainstem was used without its extra being installed."""

    code = "missing-extra"

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the extra '{extra}', which is not installed.",
            try_command=f"pip install 'mainstem[{extra}]'",
        )
