"""``python -m chaos``: processes on one log under load, whose leader is killed or stopped over and over.

Prints one line of JSON: ``{"acknowledged", "found", "lost", "duplicated", "unknown", "gaps", "died", "leaders_killed",
"leaders_stopped", "takeover_p50_s", "takeover_p99_s"}``; exits 1 unless nothing is lost, duplicated or out of order,
and no worker died by itself.

A takeover is measured from the kill to the first acknowledgement of an append that was submitted after it.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import json
import math
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mainstem.log import open_log, owner_pid

_STOPPED_S = 4.0
_LEADER_WITHIN_S = 20.0
_LOOK_BEHIND = 10_000


class Swarm:
    """The workers, and what is done to their leaders."""

    def __init__(self, directory: Path, workers: int, tasks: int, seed: int) -> None:
        self.log_directory = directory / "log"
        self._reports = directory / "reports"
        self._reports.mkdir()
        self._workers = workers
        self._tasks = tasks
        self._random = random.Random(seed)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._started = 0
        self.kills_s: list[float] = []
        self.stops_s: list[float] = []
        self.died = 0

    async def start_worker(self) -> None:
        """Start one more."""
        self._started += 1
        name = f"w{self._started}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.worker", str(self.log_directory), name, str(self._tasks),
            str(self._reports / f"{name}.jsonl"), stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._processes[process.pid] = process

    async def run(self, seconds: float, every_s: float) -> None:
        """Start all workers, and hurt a leader every so often."""
        for _worker in range(self._workers):
            await self.start_worker()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            await asyncio.sleep(every_s)  # sleeps: the load is to go on for so long
            leader = await self._leader()
            if self._random.random() < 0.7:
                await self._kill(leader)
            else:
                await self._stop(leader)

    async def _leader(self) -> asyncio.subprocess.Process:
        until_s = time.monotonic() + _LEADER_WITHIN_S
        while (pid := owner_pid(self.log_directory)) not in self._processes:
            if time.monotonic() > until_s:
                raise RuntimeError(f"no worker has led the log for {_LEADER_WITHIN_S:g} s")
            await asyncio.sleep(0.005)  # sleeps: polls a lock
        return self._processes[pid]

    async def _kill(self, leader: asyncio.subprocess.Process) -> None:
        self.kills_s.append(time.monotonic())
        leader.send_signal(signal.SIGKILL)
        await leader.wait()
        del self._processes[leader.pid]
        await self.start_worker()

    async def _stop(self, leader: asyncio.subprocess.Process) -> None:
        """Stop it for longer than the others are patient, and wake it up."""
        self.stops_s.append(time.monotonic())
        leader.send_signal(signal.SIGSTOP)
        await asyncio.sleep(_STOPPED_S)  # sleeps: that is how long it is stopped
        leader.send_signal(signal.SIGCONT)

    async def end(self) -> None:
        """End all workers, as crashes do."""
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            else:
                self.died += 1  # by itself, which none is to do
        for process in self._processes.values():
            await process.wait()

    def lines(self) -> list[list[object]]:
        """Return what all workers wrote down."""
        found: list[list[object]] = []
        for path in self._reports.iterdir():
            whole = path.read_bytes().rpartition(b"\n")[0]  # the last line may have been cut off by a kill
            found += [json.loads(line) for line in whole.splitlines()]
        return found


async def judge(swarm: Swarm) -> dict[str, object]:
    """Compare what the workers were told with what is there."""
    lines = swarm.lines()
    acknowledged = {str(line[1]): line[2] for line in lines if line[0] == "ack"}
    unknown = {str(line[1]) for line in lines if line[0] == "unknown"}
    found: dict[str, int] = {}
    copies: Counter[str] = Counter()
    log = await open_log(swarm.log_directory)
    after = 0
    while records := await log.read(">", after, 10_000):
        for record in records:
            key = record.value.decode()
            copies[key] += 1
            found.setdefault(key, record.position)
        after = records[-1].position
    await log.close()
    lost = [key for key, position in acknowledged.items() if found.get(key) != position]
    return {
        "acknowledged": len(acknowledged),
        "found": len(found),
        "lost": len(lost),
        "duplicated": sum(count > 1 for count in copies.values()),
        "unknown": len(unknown),
        "gaps": sum(line[0] == "gap" for line in lines),
        "died": swarm.died,
        "leaders_killed": len(swarm.kills_s),
        "leaders_stopped": len(swarm.stops_s),
        **_takeovers(swarm, lines),
    }


def _takeovers(swarm: Swarm, lines: list[list[object]]) -> dict[str, float]:
    """Return how long it took after each kill until an append that was submitted after it was acknowledged."""
    times = sorted((float(str(line[3])), float(str(line[4]))) for line in lines if line[0] == "ack")
    takeovers = []
    for killed_s in swarm.kills_s:
        behind = times[bisect.bisect(times, (killed_s, math.inf)) :][:_LOOK_BEHIND]
        if behind:
            takeovers.append(min(answered_s for _submitted_s, answered_s in behind) - killed_s)
    takeovers.sort()
    if not takeovers:
        return {}
    return {
        "takeover_p50_s": round(takeovers[len(takeovers) // 2], 3),
        "takeover_p99_s": round(takeovers[int(len(takeovers) * 0.99)], 3),
    }


async def main(arguments: argparse.Namespace) -> int:
    """Run it, judge it, print the line."""
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        swarm = Swarm(Path(directory), arguments.workers, arguments.tasks, arguments.seed)
        try:
            await swarm.run(arguments.seconds, arguments.every)
        finally:
            await swarm.end()
        result = await judge(swarm)
    print(json.dumps(result))
    wrong = any(result[name] for name in ("lost", "duplicated", "gaps", "died"))
    return 0 if result["acknowledged"] and not wrong else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two blows")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=16, help="appends that each worker has under way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", default=None, help="where the log is to be made; by default a temporary one")
    sys.exit(asyncio.run(main(parser.parse_args())))
