"""``log.append.c100``, ``log.append.c1``, ``log.batch``: durable appends.

Every figure is of *acknowledged and durable* appends: Redis with its append-only file synced before each answer, SQLite
with WAL and ``synchronous=FULL``, ours. Peers run as a program uses them that awaits single appends: Redis with a
connection a task, SQLite with a commit an append, in a writer thread or in the loop's own; the faster counts. Each also
runs behind a group commit written by hand in the bench (all commands that wait travel together, all inserts that wait
share a commit): what a program would have to build around them to get what ours does by itself. Those are printed among
the variants, with their ratio.

The raw limit is a bare loop of write and ``fdatasync`` of the bytes that one commit carries: the callers' values alone,
without any framing, for as many appends as can wait at the same time (one a task); the faster of appending to a file
and overwriting one that was written with zeros.
"""

from __future__ import annotations

from bench.model import Bench, Contender
from bench.peers.redis_server import redis_server

_MODULES = "bench.contenders"
_FSYNC = "all durable before acknowledged; same file system"


def _raw(commit_bytes: int, weight: int) -> tuple[Contender, ...]:
    work = {"commit_bytes": commit_bytes, "weight": weight}
    return tuple(
        Contender("limit", "raw-fdatasync", f"{_MODULES}.raw", variant, work={**work, "mode": mode})
        for variant, mode in (("append", "append"), ("overwrite written zeros", "overwrite"))
    )


def _redis(variant: str, mode: str, *, counts: bool = True) -> Contender:
    return Contender(
        "peer",
        "redis-aof-always",
        f"{_MODULES}.log_redis",
        variant,
        venv="redis",
        work={"mode": mode},
        server=redis_server,
        counts=counts,
    )


def _sqlite(variant: str, mode: str, *, counts: bool = True) -> Contender:
    return Contender("peer", "sqlite-wal-full", f"{_MODULES}.log_sqlite", variant, work={"mode": mode}, counts=counts)


_OURS = Contender("ours", "mainstem", f"{_MODULES}.log_mainstem")

APPEND_C100 = Bench(
    name="log.append.c100",
    unit="appends/s",
    better="higher",
    contenders=(
        _OURS,
        _redis("a connection a task", "connections"),
        _redis("group commit by hand: one connection, commands together", "pipeline", counts=False),
        _sqlite("a commit an append", "single"),
        _sqlite("a commit an append, in the loop's thread", "inline"),
        _sqlite("group commit by hand: a commit for all that wait", "grouped", counts=False),
        *_raw(commit_bytes=100 * 200, weight=100),
    ),
    work={"tasks": 100, "records": 1, "value_bytes": 200},
    settings={
        "work": "100 tasks, each awaiting single appends of 200 B to a stream of its own",
        "durability": _FSYNC,
        "redis": "appendonly yes, appendfsync always, XADD, no rewrite, Unix socket, redis-py with hiredis, uvloop",
        "sqlite": "journal_mode=WAL, synchronous=FULL, one INSERT a record; one writer thread, or the loop's own",
        "raw": "a commit carries 100 values of 200 B and counts as 100 appends",
    },
    seconds=5.0,
)

APPEND_C1 = Bench(
    name="log.append.c1",
    unit="appends/s",
    better="higher",
    contenders=(
        _OURS,
        _redis("a connection a task", "connections"),
        _sqlite("a commit an append", "inline"),
        *_raw(commit_bytes=200, weight=1),
    ),
    work={"tasks": 1, "records": 1, "value_bytes": 200},
    settings={
        **APPEND_C100.settings,
        "work": "one task awaiting single appends of 200 B",
        "sqlite": "journal_mode=WAL, synchronous=FULL, called in the loop's thread: no hand-over",
        "raw": "a commit carries one value of 200 B",
    },
    seconds=5.0,
)

BATCH = Bench(
    name="log.batch",
    unit="records/s",
    better="higher",
    contenders=(_OURS, *_raw(commit_bytes=100 * 100, weight=100)),
    work={"tasks": 1, "records": 100, "value_bytes": 100},
    settings={
        "work": "one task awaiting appends of 100 records of 100 B each",
        "durability": _FSYNC,
        "raw": "a commit carries 100 values of 100 B and counts as 100 records",
    },
    seconds=5.0,
)

LOG_APPEND = (APPEND_C100, APPEND_C1, BATCH)
