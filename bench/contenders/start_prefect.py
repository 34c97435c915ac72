"""Prefect with its ephemeral server from process start until one flow with one task has run; then it stays up."""

from __future__ import annotations

import os
import time

from bench.child import linger, read_task, report

work = read_task()
os.environ |= {
    "PREFECT_HOME": work["directory"],
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
}

from prefect import flow, task  # type: ignore[import-not-found]  # noqa: E402 (importing is part of what is measured)


def job(number: int) -> int:
    """Return the number."""
    return number


def run_job(number: int) -> int:
    """Run the task in a flow."""
    result: int = task(job)(number)
    return result


if flow(run_job)(7) != 7:
    raise RuntimeError("the job's result is not what it returned")
report(time.monotonic() - work["spawned_at_s"], pid=os.getpid())
linger()
