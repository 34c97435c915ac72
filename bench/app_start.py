"""``app.start``: from process start until one job has run, and what the process uses when it then has nothing to do.

Every contender starts on the state of an earlier start, which is not counted, and with its byte code compiled. Ours
imports, opens its log, serves the dashboard (one page is fetched) and runs a job. The peers do less or have help: DBOS
serves no dashboard; the Celery worker finds Redis running and its task queued; Prefect's ephemeral server is what it
starts by itself.

In the last round each stays up for ``--seconds`` with nothing to do: resident memory, CPU and wake-ups (voluntary
context switches) of all its processes are under ``idle`` in its details. Redis, which Celery needs, is not counted.
"""

from __future__ import annotations

from bench.model import Bench, Contender
from bench.peers.redis_server import redis_server

_MODULES = "bench.contenders"

APP_START = (
    Bench(
        name="app.start",
        unit="s",
        better="lower",
        contenders=(
            Contender("ours", "mainstem", f"{_MODULES}.start_mainstem"),
            Contender("peer", "dbos-sqlite", f"{_MODULES}.start_dbos", venv="dbos"),
            Contender("peer", "celery-redis", f"{_MODULES}.start_celery", venv="celery", server=redis_server),
            Contender("peer", "prefect-ephemeral", f"{_MODULES}.start_prefect", venv="prefect"),
        ),
        work={},
        settings={
            "work": "process start until one job has run, on the state of an earlier start",
            "ours": "import, open, dashboard answering, one job; one process, without the supervisor of `mainstem dev`",
            "dbos": "SQLite, start_workflow and its result; no dashboard",
            "celery": "worker --pool=solo, no gossip, mingle or heartbeat; Redis up and the task queued before",
            "prefect": "a flow of one task with the ephemeral server, database migrated before",
            "idle": "in the last round, for --seconds: all processes of the contender, without Redis",
        },
        seconds=60.0,
        keeps_directory=True,
        idles=True,
    ),
)
