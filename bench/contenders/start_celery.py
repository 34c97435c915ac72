"""A Celery worker on Redis from its start until one task has run; then it stays up.

Redis runs already and the task is queued already. The worker takes its fastest way up: one process, no gossip, no
mingling.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.child import linger, read_task, report

_ARGUMENTS = (
    "worker",
    "--pool=solo",
    "--without-gossip",
    "--without-mingle",
    "--without-heartbeat",
    "--loglevel=ERROR",
)


def main() -> None:
    """Queue the task, start the worker, report when the task ran."""
    task = read_task()
    os.environ["BENCH_REDIS_SOCKET"] = task["redis_socket"]
    from bench.contenders.celery_app import job_task

    queued = job_task.delay()
    begin_s = time.monotonic()
    argv = [sys.executable, "-m", "celery", "-A", "bench.contenders.celery_app", *_ARGUMENTS]
    worker = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        ran_at_s = queued.get(timeout=60)
        report(ran_at_s - begin_s, pid=worker.pid)
        linger()
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
