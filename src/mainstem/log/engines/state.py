"""The local directory of an application whose log is on a server: blobs, page state, services' files.

It belongs to one log, and to one process at a time: page state that was made from another log would show what never
happened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec

from mainstem.host.lock import LockHeldError, RecordLock, lock_owner_pid
from mainstem.log.errors import LogError

_LOCK_NAME = "state.lock"
_FILE_NAME = "log.json"


class StateInUseError(LogError):
    """Another process uses the state directory; nothing was changed."""

    code = "state-in-use"


class StateOfAnotherLogError(LogError):
    """The state directory was made for another log; nothing was changed."""

    code = "state-of-another-log"


def state_owner_pid(path: Path) -> int:
    """Return the id of the process that holds a state directory; 0 when none does, or it is none."""
    return lock_owner_pid(path / _LOCK_NAME)


class _LogOfState(msgspec.Struct):
    """What the file says: which log the directory belongs to.

    Attributes:
        id: What tells the log from any other.
        address: Where it was, for whoever looks.
    """

    id: str
    address: str


class StateDirectory:
    """Held by one process, from :meth:`take` to :meth:`release`."""

    def __init__(self, path: Path, lock: RecordLock) -> None:
        self._path = path
        self._lock = lock

    def __repr__(self) -> str:
        return f"<StateDirectory {self._path}>"

    @classmethod
    def take(cls, path: Path, log_id: str, address: str) -> Self:
        """Take the directory for a log, making it where there is none.

        Raises:
            StateInUseError: Another process, or this one, holds it.
            StateOfAnotherLogError: It belongs to another log.
        """
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = RecordLock(path / _LOCK_NAME)
        except LockHeldError as held:
            raise StateInUseError(
                f"{path} is in use by process {held.owner_pid}: one application at a time keeps its state there. "
                "Nothing was changed. Give this one a state_directory of its own."
            ) from None
        try:
            cls._check_log(path, log_id, address)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @staticmethod
    def _check_log(path: Path, log_id: str, address: str) -> None:
        file = path / _FILE_NAME
        if (path / "log" / "log.meta").exists():
            other = f"the embedded log in {path / 'log'}"
        elif file.exists():
            known = msgspec.json.decode(file.read_bytes(), type=_LogOfState)
            if known.id == log_id:
                return
            other = f"the log {known.id} at {known.address}"
        else:
            fresh = file.with_name(file.name + ".new")
            fresh.write_bytes(msgspec.json.encode(_LogOfState(log_id, address)))
            fresh.replace(file)
            return
        raise StateOfAnotherLogError(
            f"{path} holds the state of {other}, and was to be used for the log {log_id} at {address}. Nothing was "
            "changed. Name another state_directory."
        )

    def release(self) -> None:
        """Let go of it. Idempotent."""
        self._lock.release()
