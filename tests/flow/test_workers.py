"""Worker processes of a script: their log lines reach the console and the run once each, and the guard is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mainstem import Mainstem
from mainstem.flow import StartedInWorkerError
from mainstem.flow.branch import Attempt, RunFace, scope
from tests.support import run

ROOT = Path(__file__).resolve().parents[2]

_SCRIPT = """
import asyncio, logging, sys
from mainstem import Mainstem
logging.basicConfig(level=logging.INFO, format="console %(levelname)s %(message)s", stream=sys.stderr)
ms = Mainstem("data")

@ms.step(executor="process")
def count(number: int) -> int:
    logging.getLogger("counting").info("counting to %d", number)
    logging.getLogger("counting").debug("not this")
    return number

@ms.workflow
async def work() -> int:
    return await count(3)

async def main() -> None:
    async with ms:
        try:
            handle = await work.start(id="r")
            print("result", await handle.result())
        except Exception as error:
            print(error)
    async with ms:
        lines = await ms.log.read("$lines.r")
        print(*[line.value.decode() for line in lines], sep="\\n")
"""


def outcome(directory: Path, ending: str) -> subprocess.CompletedProcess[str]:
    script = directory / "script.py"
    script.write_text(_SCRIPT + ending)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, str(script)],
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_lines_of_a_worker_are_shown_and_kept_once(tmp_path: Path) -> None:
    """What a step in a process logs at the application's level is on its console once, and once beside the run."""
    done = outcome(tmp_path, '\nif __name__ == "__main__":\n    asyncio.run(main())\n')
    assert "result 3" in done.stdout, done.stderr
    assert done.stderr.count("counting to 3") == 1
    assert "console INFO counting to 3" in done.stderr
    assert done.stdout.count("counting to 3") == 1
    assert "not this" not in done.stdout + done.stderr


def test_a_script_without_the_guard_is_told_of_it(tmp_path: Path) -> None:
    """A worker that loads a script which starts the application says what is missing."""
    done = outcome(tmp_path, "\nasyncio.run(main())\n")
    assert "StartedInWorkerError" in done.stdout, done.stderr
    assert 'if __name__ == "__main__":' in done.stdout


def test_nothing_is_opened_in_a_worker(tmp_path: Path) -> None:
    """Within an attempt that a worker carries out, starting an application is refused before its directory is made."""

    async def scenario() -> None:
        scope.set(Attempt(RunFace("r", "work"), "count#1", 1))
        with pytest.raises(StartedInWorkerError):
            await Mainstem(tmp_path / "data").start()
        assert not (tmp_path / "data").exists()

    run(scenario())
