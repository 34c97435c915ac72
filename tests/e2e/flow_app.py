"""A process full of durable work, for ``test_kill9_flow.py``, which kills it again and again.

``python -m tests.e2e.flow_app DIRECTORY [ADDRESS]`` prints ``ready`` when it works and ``finished`` when nothing is
left to do. The log is in the directory, or on the NATS server of the address. Each execution of a step is a line in
``steps.txt``, synced before the step goes on, so that the journal can be compared with what really happened.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mainstem.bus import Bus, Event, Retry
from mainstem.flow import Flow, RunHandle, RunPausedError, current_run
from mainstem.host.clock import SystemClock
from mainstem.log import Log, open_log
from mainstem.log.engines.nats import open_nats_log
from tests.e2e.flow_app_facts import ROUNDS, RUNS

DONE_STREAM = "work.done"

directory = Path(sys.argv[1])
clock = SystemClock()
bus = Bus(clock)
flow = Flow(bus, clock)
finished = asyncio.Event()


class Notes:
    """A file to which lines are appended, each synced before the call returns."""

    def __init__(self, name: str) -> None:
        self._fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, *words: object) -> None:
        """Append one line."""
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())
        os.fdatasync(self._fd)


steps = Notes("steps.txt")
events = Notes("events.txt")


def note_step() -> int:
    """Note that an attempt begins; return its number."""
    here = current_run()
    assert here is not None
    steps.add(here.run_id, here.step_key, here.attempt)
    return here.attempt


@flow.step
async def square(number: int) -> int:
    """A step that takes a moment."""
    note_step()
    await clock.sleep(0.005)
    return number * number


@flow.step(retry=Retry(max_attempts=100, base_s=0.01, max_s=0.02))
def unreliable(number: int) -> int:
    """A step that fails at first, in a thread."""
    if note_step() < 3:
        raise OSError("not yet")
    return number + 1


@flow.step(record_start=True)
async def exact(number: int) -> int:
    """A step whose starts are on record."""
    note_step()
    return number


@flow.workflow
async def work(number: int) -> int:
    """Every kind of durable call, in many rounds."""
    total = 0
    for one in range(ROUNDS):
        squares = await flow.map(square, [number, one, one + 1], max_concurrency=2)
        total += sum(squares)
        if one % 10 == 0:
            total += await unreliable(one)
        a, b = await flow.gather(exact(one), square(one))
        total += a + b
        await flow.sleep(0.1)
        await bus.publish(DONE_STREAM, {"number": number, "round": one}, key=str(number))
    handle = await mail.enqueue(number, id=f"mail-{number}")
    assert handle.id == f"mail-{number}"
    return total


@flow.job(queue="mail", concurrency=2, retry=Retry(max_attempts=100, base_s=0.01, max_s=0.02))
def mail(number: int) -> str:
    """A job that fails at first."""
    if note_step() < 2:
        raise OSError("not yet")
    return f"sent {number}"


@flow.workflow(on="work.>")
async def follow(event: dict[str, int]) -> int:
    """A run for each event."""
    return await square(event["round"])


@bus.subscribe(DONE_STREAM, group="audit", start="beginning")
async def audit(event: Event[dict[str, int]]) -> None:
    """A subscriber that notes what it saw."""
    events.add(event.position, event.value["number"], event.value["round"])


def expected(number: int) -> int:
    """What a run of :func:`work` returns."""
    return sum(
        number * number + one * one + (one + 1) ** 2 + (one + 1 if one % 10 == 0 else 0) + one + one * one
        for one in range(ROUNDS)
    )


async def outcome(handle: RunHandle[Any]) -> Any:
    """Return a run's result. One that was killed three times without progress is quarantined: someone decides that it
    goes on.
    """
    while True:
        try:
            return await handle.result()
        except RunPausedError:
            assert (await handle.status()).state == "quarantined"
            await handle.resume("the test goes on")


async def main() -> None:
    """Work until everything is done."""
    log: Log = await (open_nats_log(sys.argv[2]) if len(sys.argv) > 2 else open_log(directory / "log"))
    await flow.start(log)
    await bus.start(log)
    handles = [await work.start(number, id=f"work-{number}") for number in range(RUNS)]
    print("ready", flush=True)
    results = await asyncio.gather(*map(outcome, handles))
    assert results == [expected(number) for number in range(RUNS)]
    for number in range(RUNS):
        assert await outcome(flow.handle(f"mail-{number}")) == f"sent {number}"
    for record in await log.read(DONE_STREAM, limit=RUNS * ROUNDS):
        await outcome(flow.handle(f"follow@{record.position}"))
    while any(group.lag for group in bus.groups()):
        await clock.sleep(0.02)
    await bus.stop()
    await flow.stop()
    await log.close()
    print("finished", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
