"""Where benches work: everything below ``.cache`` of the project, so that all contenders share one file system."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The project."""

_WORK = ROOT / ".cache" / "bench"
VENVS = ROOT / ".cache" / "bench-venvs"
CLIPS = ROOT / ".cache" / "bench-clips"


@contextlib.contextmanager
def work_directory(prefix: str) -> Iterator[Path]:
    """Make a directory for one contender's data and remove it afterwards."""
    _WORK.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=prefix + "-", dir=_WORK))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def socket_directory() -> Iterator[Path]:
    """Make a directory for Unix sockets, whose paths end at 108 bytes, wherever the project lies."""
    path = Path(tempfile.mkdtemp(prefix="msb-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def environment(*, ours: bool) -> dict[str, str]:
    """Return the environment of a child: only what it needs, so that all contenders get the same."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "MAINSTEM_FFMPEG")
    child = {name: os.environ[name] for name in kept if name in os.environ}
    if ours:
        child["PYTHONPATH"] = str(ROOT / "src")
    return child
