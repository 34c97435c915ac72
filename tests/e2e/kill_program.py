"""A program on a log that is killed at one of its system calls: ``python -m tests.e2e.kill_program DIRECTORY COUNT``.

It opens the log, appends the values that are missing up to ``COUNT``, closes it in good order, opens it again, appends
some more and closes it. Each value is announced before it is appended and once it is acknowledged, a line each. All of
it happens in one thread, so that the same calls come in the same order every time, and a call can be named by its
number.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainstem.log import LogSettings, Record, open_log
from mainstem.log.embedded import engine

SETTINGS = LogSettings(first_segment_bytes=4096, segment_max_bytes=4096, reserve_bytes=256)
MORE = 2
"""How many values are appended after the second opening."""

_SET_PTRACER = 0x59616D61
_ANYBODY = ctypes.c_ulong(-1)


class OneThreadLoop(asyncio.SelectorEventLoop):
    """An event loop that does at once what others hand to threads."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call the function now."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # handed to whoever awaits the future, as an executor does
            future.set_exception(error)
        return future


class OneThreadWriter:
    """Stands in for the log's writer thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, _name: str) -> None:
        self._loop = loop

    def submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Do the job now, and tell of it in the loop's next turn."""
        try:
            result, error = job(), None
        except Exception as raised:  # reported to ``done``, as the thread does
            result, error = None, raised
        self._loop.call_soon(done, result, error)

    def stop(self) -> None:
        """Nothing to stop."""


def value(number: int) -> bytes:
    """Return the value of one record."""
    return b"%d:" % number + bytes([33 + number]) * (300 + 97 * number % 500)


def _say(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


async def _append_up_to(directory: Path, count: int, more: int) -> None:
    log = await open_log(directory, settings=SETTINGS)
    for number in range(log.end_position, max(count, log.end_position + more)):
        _say("begun", number)
        position = await log.append("a", [Record(value(number))], dedup_id=f"call-{number}")
        assert position == number + 1
        _say("acknowledged", number)
    await log.close()


async def _work(directory: Path, count: int) -> None:
    await _append_up_to(directory, count, 0)
    await _append_up_to(directory, 0, MORE)


def main() -> None:
    """Wait for a line on standard input, then do the work."""
    engine.WriterThread = OneThreadWriter  # type: ignore[assignment, attr-defined]
    # Where only an ancestor may trace a process, let anybody (of this account) do so.
    ctypes.CDLL(None).prctl(_SET_PTRACER, _ANYBODY, 0, 0, 0)
    loop = OneThreadLoop()
    _say("ready", 0)
    sys.stdin.readline()
    loop.run_until_complete(_work(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
