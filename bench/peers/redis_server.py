"""Redis as a durable log: its append-only file synced before each answer."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.model import BenchError, Work
from bench.workspace import socket_directory

_START_S = 20.0


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[Work]:
    """Run a Redis server for a turn; yields ``{"redis_socket": path}``.

    Raises:
        BenchError: There is no ``redis-server``, or it did not come up.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("redis-server is not installed (Debian's package redis-server)")
    data = directory / "redis"
    data.mkdir(exist_ok=True)
    with socket_directory() as sockets:
        path = sockets / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(path),
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "always",
            # In the peer's favour: neither snapshots nor rewrites of the file while it is measured.
            "save": "",
            "auto-aof-rewrite-percentage": "0",
            "daemonize": "no",
            "logfile": str(data / "redis.log"),
        }
        argv = [program, *(part for name, value in options.items() for part in (f"--{name}", value))]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_for_answer(process, path, data / "redis.log")
            yield {"redis_socket": str(path)}
        finally:
            process.terminate()
            process.wait()


def _wait_for_answer(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:  # not listening yet: try again
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            if client.recv(16).startswith(b"+PONG"):
                return
        if process.poll() is not None or time.monotonic() > deadline_s:
            text = log.read_text()[-2000:] if log.exists() else ""
            raise BenchError(f"redis-server did not answer within {_START_S:g} s (exit code {process.poll()}):\n{text}")
        time.sleep(0.02)
