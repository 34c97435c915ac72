"""The demonstration's server process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mainstem.host.process import tied_to_this_process
from tests.support import ROOT, wait_until

APP = """
from mainstem import Mainstem

ms = Mainstem("data")
app = ms.asgi
"""
PARENT = """
import asyncio
from pathlib import Path
from examples.video.server import Server

async def main():
    server = Server(Path("app.py"), Path("server.log"), {})
    await server.start()
    print(server.pid, flush=True)
    await server.wait()

asyncio.run(main())
"""


def test_the_server_dies_with_a_killed_demonstration(tmp_path: Path) -> None:
    """A demonstration that is killed with -9 leaves no server behind."""
    (tmp_path / "app.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: is_gone(server), 10.0)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_tied_program_gets_its_arguments() -> None:
    """The program runs as if it had been called itself, with its arguments as they were."""
    command = tied_to_this_process([sys.executable, "-c", "import sys; print(sys.argv[1:])", "a b", "$HOME"])
    said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert said == "['a b', '$HOME']\n"
