"""Errors of the log. Before a write began it is :class:`NotWrittenError`; after it, the outcome is unknown."""

from __future__ import annotations

from mainstem.base.errors import MainstemError


class LogError(MainstemError):
    """Base of the log's errors."""

    code = "log"


class NotWrittenError(LogError):
    """The append failed before anything was written. It is safe to try again."""

    code = "log-not-written"


class PositionConflictError(NotWrittenError):
    """The stream's last position is not the expected one; nothing was written.

    Attributes:
        stream: The stream in question.
        expected: The position that the caller expected.
        actual: The stream's last durable position.
    """

    code = "log-position-conflict"

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(
            f"stream {stream!r}: expected its last position to be {expected}, it is {actual}. Nothing was written."
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class LogFullError(NotWrittenError):
    """The disk has no room for this append outside the reserve; nothing was written. Reading goes on."""

    code = "log-full"


class LogClosedError(NotWrittenError):
    """The log was closed, or an earlier error ended its life in this process; nothing was written."""

    code = "log-closed"


class LogUnreachableError(NotWrittenError):
    """A remote engine's server could not be reached, or did not answer in time; nothing was written."""

    code = "log-unreachable"


class UnsupportedByEngineError(NotWrittenError):
    """The engine, or the version of its server, cannot do this; nothing was written."""

    code = "log-unsupported"


class AppendOutcomeUnknownError(LogError):
    """The write or its sync failed, or a server's answer was lost: the records may be there or not. Retry with the same
    ``dedup_id``.
    """

    code = "log-outcome-unknown"


class LogDeposedError(LogError):
    """Another process took the log over, because this one did not answer for too long. It writes no more."""

    code = "log-deposed"

    def __init__(self, directory: str) -> None:
        super().__init__(
            f"{directory}: another process took the log over, since this one did not answer for too long. What was "
            "acknowledged is safe with it; this process writes nothing more. Start it again."
        )


class LogCorruptError(LogError):
    """Acknowledged bytes on disk are damaged or missing. Nothing was changed."""

    code = "log-corrupt"


class LogFormatError(LogError):
    """The directory was written by a version of mainstem that this one cannot read. Nothing was changed."""

    code = "log-format"


class LogInUseError(LogError):
    """Another process owns the log's directory.

    Attributes:
        owner_pid: Process id of the owner; 0 when it could not be told.
    """

    code = "log-in-use"

    def __init__(self, directory: str, owner_pid: int) -> None:
        owner = f"process {owner_pid}" if owner_pid else "another process"
        super().__init__(
            f"{directory} is in use by {owner}: one process owns a log at a time. Nothing was changed. Reading "
            "commands (mainstem runs, trace, tail, log stats) work beside it.",
            try_command="mainstem log stats " + directory,
        )
        self.owner_pid = owner_pid


class LogNotFoundError(LogError):
    """There is no log in the directory."""

    code = "log-not-found"
