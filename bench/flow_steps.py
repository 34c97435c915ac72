"""``flow.steps.c64``, ``flow.steps.c1``: durable steps that do nothing.

A step counts when its result is durable and the workflow goes on; starts and ends of runs cost time but count nothing,
for everyone. DBOS is measured on SQLite and on PostgreSQL, each with workflows of plain functions (in threads) and of
coroutines; the better counts.

The raw limit is a bare loop of write and ``fdatasync`` of what one commit of steps carries: 200 B, about the size of a
step's record, for as many steps as can wait at the same time (one a run).
"""

from __future__ import annotations

from bench.model import Bench, Contender
from bench.peers.postgres import postgres_server

_MODULES = "bench.contenders"
_STEP_BYTES = 200
_MODES = (("functions", "sync"), ("coroutines", "async"))


def _contenders(runs: int) -> tuple[Contender, ...]:
    module = f"{_MODULES}.flow_dbos"
    raw_work = {"commit_bytes": _STEP_BYTES * runs, "weight": runs}
    return (
        Contender("ours", "mainstem", f"{_MODULES}.flow_mainstem"),
        *(Contender("peer", "dbos-sqlite", module, name, venv="dbos", work={"mode": mode}) for name, mode in _MODES),
        *(
            Contender(
                "peer",
                "dbos-postgresql",
                module,
                name,
                venv="dbos",
                work={"mode": mode, "pool": 64},
                server=postgres_server,
            )
            for name, mode in _MODES
        ),
        *(
            Contender("limit", "raw-fdatasync", f"{_MODULES}.raw", name, work={**raw_work, "mode": mode})
            for name, mode in (("append", "append"), ("overwrite written zeros", "overwrite"))
        ),
    )


_SETTINGS = {
    "durability": "a step's result is durable before the workflow goes on; same file system",
    "dbos": (
        "as documented, on asyncio's own loop where ours runs on uvloop; on PostgreSQL a pool of 64 connections; "
        "SQLite as DBOS opens it"
    ),
    "postgresql": "Debian's, its defaults: fsync on, synchronous_commit on; Unix socket",
}

STEPS_C64 = Bench(
    name="flow.steps.c64",
    unit="steps/s",
    better="higher",
    contenders=_contenders(64),
    work={"runs": 64, "steps_per_run": 10},
    settings={
        **_SETTINGS,
        "work": "64 runs of 10 no-op steps each at once, the next one started as soon as one ends",
        "raw": f"a commit carries 64 times {_STEP_BYTES} B and counts as 64 steps",
    },
    seconds=5.0,
)

STEPS_C1 = Bench(
    name="flow.steps.c1",
    unit="steps/s",
    better="higher",
    contenders=_contenders(1),
    work={"runs": 1, "steps_per_run": 1000},
    settings={
        **_SETTINGS,
        "work": "one run of 1,000 no-op steps alone, the next one started as soon as it ends",
        "raw": f"a commit carries {_STEP_BYTES} B",
    },
    seconds=5.0,
)

FLOW_STEPS = (STEPS_C64, STEPS_C1)
