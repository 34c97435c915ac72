"""Steps that run in worker processes: found there by their names in this module."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from mainstem.bus import Bus
from mainstem.flow import Flow, Retry, current_run
from mainstem.flow.process_protocol import FRAME_MAX_BYTES
from mainstem.host.clock import SystemClock
from mainstem.trace.context import current_trace
from tests.flow.support import App

flow = Flow(Bus(SystemClock()), SystemClock())


@flow.step(executor="process")
def count(number: int) -> tuple[int, str, int]:
    """Count, and tell where."""
    if number < 0:
        raise ValueError("negative")
    logging.getLogger("counting").warning("counting to %d", number)
    here, trace = current_run(), current_trace()
    assert here is not None
    assert trace is not None
    return os.getpid(), trace.traceparent, here.attempt


@flow.step(executor="process", retry=Retry(max_attempts=2, base_s=0.0))
def die_once(marker: str) -> int:
    """Kill the own process the first time."""
    here = current_run()
    assert here is not None
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return here.attempt


@flow.step(executor="process", timeout_s=0.5)
def hang() -> None:
    """Never return."""
    threading.Event().wait()


class Abort(BaseException):
    """What no ``except Exception`` catches."""


@flow.step(executor="process")
def misbehave(how: str, marker: str) -> str:
    """Note the call, and do what a worker process should outlive."""
    with Path(marker).open("a") as file:
        file.write(f"{os.getpid()}\n")
    match how:
        case "logs what is no text":
            logging.getLogger("a\udcff").warning("file %s", "b\udcff")
        case "logs what cannot be formatted":
            logging.raiseExceptions = False
            logging.getLogger("counting").warning("%d", "no number")
        case "exits":
            sys.exit("enough")
        case "aborts":
            raise Abort("enough")
        case "returns too much":
            return "x" * (FRAME_MAX_BYTES + 1)
        case "reads":
            return sys.stdin.read()
    return "well"


@flow.step(executor="process", timeout_s=30)
def answer(number: int) -> int:
    """Return what it is given."""
    return number


@flow.step(executor="process")
def sleep_for_ever(marker: str) -> None:
    """Say which process this is, and never return."""
    Path(marker).write_text(str(os.getpid()))
    threading.Event().wait()


@flow.workflow
async def sleeper(marker: str) -> None:
    """Have a worker work for ever."""
    await sleep_for_ever(marker)


@flow.workflow
async def work(number: int) -> tuple[int, str, int]:
    """Count in a process."""
    return await count(number)


@flow.workflow
async def dies(marker: str) -> int:
    """Have the worker die once."""
    return await die_once(marker)


@flow.workflow
async def misbehaves(how: str, marker: str) -> str:
    """Have a worker misbehave."""
    return await misbehave(how, marker)


@flow.workflow
async def takes_too_much() -> int:
    """Give a worker more than fits into a message."""
    return await answer("9" * (FRAME_MAX_BYTES + 1))  # type: ignore[arg-type]


@flow.workflow
async def answers(number: int) -> int:
    """Answer in a process."""
    return await answer(number)


@flow.workflow
async def hangs() -> None:
    """Have the worker hang."""
    await hang()


def declare(app: App) -> None:
    """Use these."""
    app.flow = flow
    app.work, app.dies, app.hangs, app.answers = work, dies, hangs, answers
    app.misbehaves, app.takes_too_much = misbehaves, takes_too_much
