"""What the command can fail with, and the exit code of each failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, Self

from mainstem.base.errors import InvalidArgumentError, MainstemError

if TYPE_CHECKING:
    from pathlib import Path

EXIT_OK: Final = 0
"""Everything asked for was done, and nothing bad was found."""

EXIT_FAILED: Final = 1
"""Damage was found, or the work failed."""

EXIT_USAGE: Final = 2
"""The command line makes no sense; nothing was done."""

EXIT_NOT_FOUND: Final = 3
"""What was named does not exist: a run, a trace, a log."""

EXIT_NEEDS_APPLICATION: Final = 4
"""The command changes something, and no running application could be reached."""

EXIT_INTERRUPTED: Final = 130
"""Ended by Ctrl-C (128 and the signal's number, as shells have it)."""

EXIT_BROKEN_PIPE: Final = 141
"""The reader of the output went away (128 and the signal's number)."""


class CommandError(MainstemError):
    """Base of the command's own errors; each knows its exit code."""

    code = "command"
    exit_code: ClassVar[int] = EXIT_FAILED


class UsageError(CommandError):
    """The arguments do not go together; nothing was done."""

    code = "usage"
    exit_code = EXIT_USAGE


class NotFoundError(CommandError):
    """What was named is not in the log."""

    code = "not-found"
    exit_code = EXIT_NOT_FOUND


class ApplicationNeededError(CommandError):
    """The command changes something, which only a running application can do; nothing was changed."""

    code = "application-needed"
    exit_code = EXIT_NEEDS_APPLICATION


class ApplicationRefusedError(CommandError):
    """The running application answered that it will not do it."""

    code = "application-refused"


class ApplicationLoadError(CommandError):
    """The file holds no application, or cannot be imported."""

    code = "application-load"

    @classmethod
    def hides_module(cls, path: Path) -> Self:
        """Return the error for a file that is named like a module of Python or of the command."""
        return cls(
            f"{path}: a module {path.stem!r} exists already, which this file would hide.",
            try_command=f"mv {path} app.py",
        )


class TargetExistsError(CommandError):
    """``mainstem new`` was told to write where something is already; nothing was changed."""

    code = "target-exists"


class OperatingSystemError(CommandError):
    """The operating system refused a file or an address: no permission, no space, no such place."""

    code = "operating-system"


_NOT_FOUND_CODES = frozenset({"log-not-found"})


def exit_code_of(error: MainstemError) -> int:
    """Return the exit code that an error ends the command with."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, InvalidArgumentError):
        return EXIT_USAGE
    return EXIT_NOT_FOUND if error.code in _NOT_FOUND_CODES else EXIT_FAILED
