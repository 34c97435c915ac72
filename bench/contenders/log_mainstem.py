"""Our log: concurrent tasks awaiting appends."""

from __future__ import annotations

import os
from pathlib import Path

from bench.child import Meter, Task, check_count, keep_doing, linger, report, run
from mainstem.log import Record, open_log


async def main(task: Task) -> None:
    """Append for the given time and report appends (of all their records) a second."""
    directory = Path(task["directory"]) / "log"
    log = await open_log(directory)
    records = [Record(os.urandom(task["value_bytes"])) for _ in range(task["records"])]
    streams = [f"bench.{index}" for index in range(task["tasks"])]
    meter = Meter(task)
    await keep_doing(lambda index: log.append(streams[index], records), task["tasks"], meter)
    check_count(log.end_position, meter.total() * len(records), "the log")
    await log.close()
    report(meter.per_second(len(records)))
    linger()


if __name__ == "__main__":
    run(main)
