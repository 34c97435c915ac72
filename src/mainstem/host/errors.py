"""Errors of the rooms that touch the operating system."""

from __future__ import annotations

from pathlib import Path

from mainstem.base.errors import MainstemError


class ProcessError(MainstemError):
    """Base of what can go wrong with a child process. None is left running."""

    code = "process"


class ProcessNotStartedError(ProcessError):
    """The program does not exist or could not be started."""

    code = "process-not-started"

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(f"{program} was not started: {reason}.")


class ProcessTimeoutError(ProcessError):
    """The program ran longer than allowed and was killed."""

    code = "process-timeout"

    def __init__(self, program: str, timeout_s: float, stderr: str) -> None:
        said = f" The last it said: {stderr[-500:]}" if stderr else ""
        super().__init__(f"{program} ran longer than {timeout_s:g} s and was killed.{said}")


class ProcessOutputError(ProcessError):
    """The program wrote more than allowed and was killed."""

    code = "process-output"

    def __init__(self, program: str, stdout_max_bytes: int) -> None:
        super().__init__(f"{program} wrote more than {stdout_max_bytes:,} bytes and was killed.")


class ProcessFailedError(ProcessError):
    """The program ended with an exit code other than 0, or by a signal.

    Attributes:
        exit_code: Its exit code; a negative number is the signal that ended it.
        stderr: The end of what it wrote to standard error.
    """

    code = "process-failed"

    def __init__(self, program: str, exit_code: int, stderr: str) -> None:
        how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"exited with {exit_code}"
        super().__init__(f"{program} {how}. The last it said: {stderr[-1000:] or '(nothing)'}")
        self.exit_code = exit_code
        self.stderr = stderr


class BlobNotFoundError(MainstemError):
    """The store holds no blob of that hash.

    Attributes:
        sha256: The hash that was asked for.
    """

    code = "blob-not-found"

    def __init__(self, directory: Path, sha256: str) -> None:
        super().__init__(f"{directory} holds no blob {sha256}. It was removed, or never put there.")
        self.sha256 = sha256


class BlobChangedError(MainstemError):
    """A file was written to while it was put into the store; no blob came of it."""

    code = "blob-changed"
