"""The server process of the demonstration: started, killed with -9, started again, at one address."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mainstem.host.process import tied_to_this_process

_READY_WITHIN_S = 60
_STOP_WITHIN_S = 15
_COMPLAINT_MAX_BYTES = 2000


class ServerError(Exception):
    """The server did not come up, or went away when nobody had asked for it."""


class _Ready(msgspec.Struct, frozen=True):
    event: str
    url: str
    pid: int


class Server:
    """``mainstem dev app.py`` as a process of its own.

    Args:
        file: The application.
        log_file: Where what it prints goes.
        environment: Added to this process's own.
    """

    def __init__(self, file: Path, log_file: Path, environment: Mapping[str, str]) -> None:
        self._command = [sys.executable, "-m", "mainstem.cli", "dev", str(file), "--no-reload", "--json"]
        self._log_file = log_file
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0
        self.url = ""
        self.pid = 0

    async def start(self) -> None:
        """Start it, and return when it answers; the second time at the same address as the first.

        Raises:
            ServerError: It ended instead, or did not answer in time.
        """
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # Whatever ends the demonstration, kill -9 included, ends its server with it.
                *tied_to_this_process([*self._command, "--port", str(self.port)]),
                start_new_session=True,  # Ctrl-C is the demonstration's, which then ends the server in order
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _READY_WITHIN_S)
        except TimeoutError:
            await self.kill()
            raise ServerError(f"the server did not answer within {_READY_WITHIN_S} s{self._complaint()}") from None
        if not line.startswith(b'{"event":"ready"'):
            code = await self._process.wait()
            raise ServerError(f"the server ended with exit code {code} instead of answering{self._complaint(line)}")
        ready = msgspec.json.decode(line, type=_Ready)
        self.url, self.pid = ready.url, ready.pid
        self.port = int(ready.url.split("//", 1)[1].split("/", 1)[0].rpartition(":")[2])

    def check(self) -> None:
        """Raise if the server ended by itself.

        Raises:
            ServerError: It did.
        """
        if self._process is None or self._process.returncode is not None:
            code = None if self._process is None else self._process.returncode
            raise ServerError(f"the server ended by itself with exit code {code}{self._complaint()}")

    async def kill(self) -> None:
        """End it as a power cut would, with ``kill -9``."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end in order; kill it where it does not. Idempotent."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            await asyncio.wait_for(self._end(signal.SIGTERM), _STOP_WITHIN_S)
        except TimeoutError:
            await self.kill()

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()

    def _complaint(self, printed: bytes = b"") -> str:
        said = (printed + self._log_file.read_bytes())[-_COMPLAINT_MAX_BYTES:].decode(errors="replace").strip()
        return f"; it said:\n{said}" if said else ""
