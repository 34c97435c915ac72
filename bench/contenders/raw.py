"""The machine's own limit: a loop of write and ``fdatasync`` with nothing around it."""

from __future__ import annotations

import os
from pathlib import Path

from bench.child import Meter, Task, linger, read_task, report

_FILE_BYTES = 64 << 20


def overwrite(path: Path, commit: bytes, task: Task) -> Meter:
    """Write commits one after the other over a file of written zeros, from the start again when it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(_FILE_BYTES >> 20):
        os.write(descriptor, bytes(1 << 20))
    os.fsync(descriptor)
    offset, last = 0, _FILE_BYTES - len(commit)
    meter, going = Meter(task), True
    while going:
        os.pwrite(descriptor, commit, offset)
        os.fdatasync(descriptor)
        offset = offset + len(commit) if offset + len(commit) <= last else 0
        going = meter.tick()
    os.close(descriptor)
    return meter


def append(path: Path, commit: bytes, task: Task) -> Meter:
    """Append commits to a file that grows with each."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    meter, going = Meter(task), True
    while going:
        os.write(descriptor, commit)
        os.fdatasync(descriptor)
        going = meter.tick()
    os.close(descriptor)
    return meter


def main(task: Task) -> None:
    """Measure one of the two."""
    commit = os.urandom(task["commit_bytes"])
    measure = {"append": append, "overwrite": overwrite}[task["mode"]]
    meter = measure(Path(task["directory"]) / "raw", commit, task)
    report(meter.per_second(task["weight"]))
    linger()


if __name__ == "__main__":
    main(read_task())
