"""Virtual environments of the peers: what they depend on must not enter ours."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from bench.model import BenchError
from bench.workspace import ROOT, VENVS

_STAMP = "requirements.sha256"


def requirements(name: str) -> Path:
    """Return the file that pins an environment."""
    return ROOT / "bench" / f"requirements-{name}.txt"


def python_of(name: str | None) -> str:
    """Return the interpreter of an environment, building it where it is missing or its pins have changed.

    Args:
        name: The environment, pinned by ``bench/requirements-NAME.txt``; ``None`` for the one that runs us.

    Raises:
        BenchError: It could not be built; what pip said is in the message.
    """
    if name is None:
        return sys.executable
    directory = VENVS / name
    wanted = hashlib.sha256(requirements(name).read_bytes() + sys.version.encode()).hexdigest()
    VENVS.mkdir(parents=True, exist_ok=True)
    with (VENVS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once build it once
        stamp = directory / _STAMP
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"building the environment of {name} (once)", file=sys.stderr, flush=True)
            _command(name, [sys.executable, "-m", "venv", "--clear", str(directory)])
            _command(
                name, [str(directory / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements(name))]
            )
            stamp.write_text(wanted)
    return str(directory / "bin" / "python")


def _command(name: str, argv: list[str]) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchError(
            f"the environment of {name} could not be built: {' '.join(argv)} ended with {result.returncode}:\n"
            + (result.stdout + result.stderr)[-4000:]
        )
