"""The Celery application that ``start_celery`` starts a worker for."""

from __future__ import annotations

import os
import time

from celery import Celery  # type: ignore[import-not-found]

_URL = f"redis+socket://{os.environ['BENCH_REDIS_SOCKET']}"

app = Celery("bench", broker=_URL, backend=_URL)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


def job() -> float:
    """Return the monotonic time at which it ran."""
    return time.monotonic()


job_task = app.task(name="bench.job")(job)
