"""A dashboard over a real log, asked without a server; and records as the other rooms write them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from mainstem.bus import GroupStatus
from mainstem.flow.journal import ErrorInfo, JournalEntry, RunFailed, Started, StepCompleted, StepFailed
from mainstem.host.clock import SystemClock
from mainstem.log import TRACEPARENT, EmbeddedLog, Record, open_log
from mainstem.web.application import Dashboard

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT_VALUE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
HEADERS = {TRACEPARENT: TRACEPARENT_VALUE}


@asynccontextmanager
async def dashboard(
    directory: Path,
    *,
    token: str | None = None,
    groups: Callable[[], Sequence[GroupStatus]] = tuple,
) -> AsyncIterator[tuple[Dashboard, EmbeddedLog, httpx.AsyncClient]]:
    """Yield a running dashboard, its log and a client on this machine."""
    log = await open_log(directory / "log")
    board = Dashboard(log, directory, clock=SystemClock(), token=token, groups=groups)
    await board.start()
    transport = httpx.ASGITransport(app=board.asgi)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield board, log, client
    finally:
        await board.stop()
        await log.close()


def entry(value: JournalEntry, headers: Mapping[str, str] = HEADERS) -> Record:
    """Return a journal's record."""
    return Record(msgspec.json.encode(value), headers=headers)


def started(function: str = "fulfil") -> Record:
    """Return the first record of a run."""
    return entry(Started(function, "workflow", msgspec.Raw(b'{"args":[{"id":1234}],"kwargs":{}}')))


def completed(key: str = "charge#1") -> Record:
    """Return a step's result."""
    return entry(StepCompleted(key, key.partition("#")[0], 1, "0" * 16, msgspec.Raw(b'"<receipt>"'), 1))


def failed_run(message: str = "no <postcode>") -> list[Record]:
    """Return the records of a run whose step failed at its second attempt."""
    error = ErrorInfo("ValueError", message, "Traceback …")
    return [
        started("deliver"),
        completed(),
        entry(StepFailed("ship#1", "ship", 1, "0" * 16, error, 1, retry_at_ns=2)),
        entry(StepFailed("ship#1", "ship", 2, "0" * 16, error, 1)),
        entry(RunFailed(error, "ship#1", 2)),
    ]
