"""DBOS on SQLite from process start until one workflow has run; then it stays up."""

from __future__ import annotations

import os
import time

from bench.child import linger, read_task, report

task = read_task()

from dbos import DBOS  # type: ignore[import-not-found]  # noqa: E402 (importing is part of what is measured)

from bench.contenders.flow_dbos import launch  # noqa: E402


def job(number: int) -> int:
    """Return the number."""
    return number


launch(task)
workflow = DBOS.workflow(name="job")(job)
DBOS.launch()
if DBOS.start_workflow(workflow, 7).get_result() != 7:
    raise RuntimeError("the job's result is not what it returned")
report(time.monotonic() - task["spawned_at_s"], pid=os.getpid())
linger()
DBOS.destroy()
