"""Our workflows: no-op steps in concurrent runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.child import Meter, Task, check_count, linger, report, run
from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.host.clock import SystemClock
from mainstem.log import open_log


async def main(task: Task) -> None:
    """Run steps for the given time and report steps a second."""
    clock = SystemClock()
    bus = Bus(clock)
    flow = Flow(bus, clock)
    meters: list[Meter] = []

    @flow.step
    async def noop(number: int) -> int:
        return number

    @flow.workflow
    async def steps(count: int) -> bool:
        meter = meters[0]
        for number in range(count):
            await noop(number)
            if not meter.tick():
                return False
        return True

    log = await open_log(Path(task["directory"]) / "log")
    await bus.start(log)
    await flow.start(log)
    meters.append(Meter(task))

    async def client() -> None:
        while await (await steps.start(task["steps_per_run"])).result(timeout_s=60):
            pass

    await asyncio.gather(*(client() for _ in range(task["runs"])))
    check_count(log.end_position, meters[0].total(), "the log")
    last = (await log.read("$run.>", 0, 2))[-1]
    await flow.stop()
    await bus.stop()
    await log.close()
    headers = sum(len(name) + len(value) + 6 for name, value in last.headers.items())
    report(meters[0].per_second(), step_bytes=len(last.value) + headers)
    linger()


if __name__ == "__main__":
    run(main)
