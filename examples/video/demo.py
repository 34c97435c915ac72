"""What ``make run`` shows: a broken upload becomes adaptive video, through a kill -9, traced end to end.

It starts ``app.py`` as a server, uploads a clip through a connection that is cut twice, kills the server in the middle
of the encoding and starts it again, waits for the playlist, decodes all of it and compares it with the clip, and prints
where the time went. The last line is one JSON object (``report.py``); where anything is wrong, the exit code is 1.

Environment:
    VIDEO: path of a clip to take instead of the built-in one.
    ONCE: end when all is done, also on a terminal, where it otherwise goes on serving until Ctrl-C.
    OUT: directory for what runs leave (data, the server's output, the fetched video), ``out`` otherwise; the latest few
        are kept.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from examples.video.clip import ClipError, default_clip
from examples.video.progress import Screen
from examples.video.report import Report, faults
from examples.video.run import Demonstration, DemonstrationError
from mainstem.log import owner_pid

ROOT = Path(__file__).parents[2]
"""The project's directory: clips are kept in ``.cache/demo``, and each run has a directory of its own in ``out``."""

_RUNS_KEPT = 3


def choose_clip() -> Path:
    """Return the clip that ``VIDEO`` names, or the built-in one.

    Raises:
        ClipError: There is no such file.
    """
    named = os.environ.get("VIDEO", "")
    if not named:
        return default_clip(ROOT / ".cache" / "demo")
    clip = Path(named).expanduser()
    if not clip.is_file():
        raise ClipError(f"VIDEO={named}: there is no such file")
    return clip


def new_directory() -> Path:
    """Make a directory for this run, and remove those of earlier runs but the latest few."""
    out = Path(os.environ.get("OUT") or ROOT / "out").absolute()
    for old in sorted(path for path in out.glob("????????-??????-*") if path.is_dir())[:-_RUNS_KEPT]:
        if not owner_pid(old / "data" / "log"):  # a run that still serves keeps its directory
            shutil.rmtree(old)
    directory = out / f"{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    directory.mkdir(parents=True)
    return directory


async def demonstrate(screen: Screen, *, once: bool) -> int:
    """Do it all; return the exit code. On a terminal, and unless ``once``, go on serving until Ctrl-C."""
    began_s = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: the server is a child, and must not be left behind
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    report = Report()
    demonstration: Demonstration | None = None
    try:
        try:
            clip = choose_clip()
            directory = new_directory()
            demonstration = Demonstration(screen, clip, directory, report)
            await demonstration.run()
            wrong = faults(report, demonstration.problems, workers=demonstration.workers)
        except (ClipError, DemonstrationError, OSError) as error:  # a directory that takes nothing, a full disk
            wrong = [str(error)]
        report.ok = not wrong
        report.wall_s = round(time.monotonic() - began_s, 1)
        for sentence in wrong:
            screen.line(f"\nNot good: {sentence}")
        screen.line()
        screen.line(msgspec.json.encode(report).decode())
        if demonstration is not None and report.playlist and screen.is_terminal and not once:
            with suppress(asyncio.CancelledError):  # Ctrl-C is how this is meant to end
                await serve(demonstration, report, screen)
            screen.line()
    finally:
        if demonstration is not None:
            await demonstration.close()
    return 0 if report.ok else 1


async def serve(demonstration: Demonstration, report: Report, screen: Screen) -> None:
    """Go on serving until Ctrl-C; a server that ends by itself was not good."""
    try:
        await demonstration.serve_until_interrupted()
    except DemonstrationError as error:
        report.ok = False
        screen.line(f"\nNot good: {error}")


def main() -> int:
    """Run the demonstration; return the exit code."""
    screen = Screen()
    once = os.environ.get("ONCE", "") not in ("", "0")
    try:
        return asyncio.run(demonstrate(screen, once=once))
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.line("\nInterrupted.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
