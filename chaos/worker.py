"""One of the processes on a shared log: appends and follows, and writes down what it was told, line by line.

Its report is a file of JSON lines, each written at once, so that it survives the worker: ``["ack", key, position,
submitted_s]``, ``["unknown", key]``, ``["gap", expected, got]``. Times are of the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from mainstem.log import AppendOutcomeUnknownError, NotWrittenError, Record
from mainstem.log.shared import SharedLog, open_shared_log

_DEDUP_EVERY = 2


def _telling(path: str) -> Any:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(*fields: object) -> None:
        os.write(descriptor, json.dumps(fields).encode() + b"\n")

    return tell


async def _append(log: SharedLog, name: str, task: int, tell: Any) -> None:
    """Append for ever; every second record has a name, and so is retried by the log itself."""
    number = 0
    while True:
        number += 1
        key = f"{name}.{task}.{number}"
        dedup_id = key if number % _DEDUP_EVERY == 0 else None
        submitted_s = time.monotonic()
        try:
            position = await log.append(f"chaos.{name}.{task}", [Record(key.encode())], dedup_id=dedup_id)
        except AppendOutcomeUnknownError:
            tell("unknown", key)
        except NotWrittenError:
            await asyncio.sleep(0.01)
        else:
            tell("ack", key, position, submitted_s, time.monotonic())


async def _follow(log: SharedLog, tell: Any) -> None:
    """Follow the whole log: its positions are dense, so a gap or a repetition is seen at once."""
    expected = 1
    async for batch in log.tail(">"):
        for record in batch:
            if record.position != expected:
                tell("gap", expected, record.position)
            expected = record.position + 1


async def main(directory: str, name: str, tasks: int, report: str) -> None:
    """Work until the process is ended, or whoever started it is: then standard input ends."""
    tell = _telling(report)
    log = await open_shared_log(directory)
    tell("up", os.getpid())
    asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 1) or os._exit(1))
    await asyncio.gather(_follow(log, tell), *(_append(log, name, task, tell) for task in range(tasks)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
