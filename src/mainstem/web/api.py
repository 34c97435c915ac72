"""The HTTP API: JSON of what the pages show, and the two things that can be done to a run.

    GET  api/runs?state=failed&search=…&page=2&limit=50
    GET  api/runs/{id}
    GET  api/traces/{trace id, run id or upload id}
    POST api/runs/{id}/cancel, api/runs/{id}/resume     {"reason": "…"}

Errors have one shape: ``{"error": {"code", "message", "try"}}``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_stream
from mainstem.flow.handles import send_wish
from mainstem.flow.history import RunFold
from mainstem.flow.journal import JOURNAL_PREFIX, LOG_LINES_PREFIX, InboxMessage
from mainstem.host.clock import Clock
from mainstem.log.contract import TRACEPARENT, Log, StoredRecord
from mainstem.trace.context import current_trace, parse_traceparent, use_trace
from mainstem.trace.spans import UnderWay
from mainstem.web.answers import json_response
from mainstem.web.errors import BadRequestError, NotFoundError, UnavailableError
from mainstem.web.panels import records as kept
from mainstem.web.panels.runs import (
    FILTERS,
    PAGE_ROWS,
    find_run,
    list_runs,
    page_number,
    queued_of_trace,
    records_of_trace,
)
from mainstem.web.projection import Projection
from mainstem.web.security import check_intended

LIMIT_MAX: Final = 200
"""Most runs in one answer."""

FRESH_WITHIN_S: Final = 2.0
"""How long an answer waits for the page state to reach the log's end."""

_BODY_MAX_BYTES: Final = 16 * 1024


class _Wish(msgspec.Struct):
    reason: str = ""


class Api:
    """The handlers, with what they read and write.

    Args:
        log: Where wishes go.
        projection: What is read.
        clock: The time of what still runs.
        under_way: Returns the attempts that are being carried out for a run.
        at_work: Returns the ids of the runs that have had their turn.
    """

    def __init__(
        self,
        log: Log,
        projection: Projection,
        clock: Clock,
        under_way: Callable[[str], Sequence[UnderWay]],
        at_work: Callable[[], frozenset[str]],
    ) -> None:
        self._log = log
        self._projection = projection
        self._clock = clock
        self._under_way = under_way
        self._at_work = at_work

    def routes(self) -> Sequence[Route]:
        """Return the API's routes."""
        return (
            Route("/runs", self.runs, methods=["GET"]),
            Route("/runs/{run_id}", self.run, methods=["GET"]),
            Route("/runs/{run_id}/cancel", self.cancel, methods=["POST"]),
            Route("/runs/{run_id}/resume", self.resume, methods=["POST"]),
            Route("/traces/{name}", self.trace, methods=["GET"]),
        )

    async def runs(self, request: Request) -> Response:
        """List runs, newest first."""
        query = dict(request.query_params)
        state, search = query.get("state", ""), query.get("search", "")
        if state not in FILTERS:
            raise BadRequestError(f"{state[:40]!r} is no state: expected one of {', '.join(FILTERS[1:])}.")
        limit = query.get("limit", str(PAGE_ROWS))
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= LIMIT_MAX):
            raise BadRequestError(f"limit is {limit[:40]!r}: expected 1 to {LIMIT_MAX}.")
        offset = (page_number(query) - 1) * int(limit)
        now_ns = self._clock.time_ns()
        await self._is_fresh()  # what is listed is of the position beside it
        at_work = self._at_work()
        found = await self._projection.run(
            lambda db: list_runs(db, state=state, search=search, offset=offset, limit=int(limit), at_work=at_work)
        )
        runs = [run.summary(now_ns, at_work=run.run_id in at_work) for run in found]
        return json_response({"runs": runs, "position": self._projection.position})

    async def run(self, request: Request) -> Response:
        """Describe one run: its summary, the attempts under way, its journal's entries and its log lines."""
        run_id = request.path_params["run_id"]
        is_fresh = await self._is_fresh()

        def load(db: sqlite3.Connection) -> tuple[RunFold | None, Sequence[StoredRecord], Sequence[StoredRecord]]:
            return (
                find_run(db, run_id),
                kept.of_stream(db, JOURNAL_PREFIX + run_id),
                kept.of_stream(db, LOG_LINES_PREFIX + run_id),
            )

        run, entries, lines = await self._projection.run(load)
        if run is None:
            raise self._missing(f"run {run_id[:128]!r}", is_fresh=is_fresh)
        return json_response(
            {
                "run": run.summary(self._clock.time_ns(), at_work=run_id in self._at_work()),
                "under_way": self._under_way(run_id),
                "entries": [_as_json(record) for record in entries],
                "lines": [_as_json(record) for record in lines],
                "position": self._projection.position,
            }
        )

    async def trace(self, request: Request) -> Response:
        """List the spans of a trace, which may be named by a run's or an upload's id."""
        from mainstem.web.trace_view import trace_spans  # noqa: PLC0415 (brings the uploads, which a start does not need)

        name = request.path_params["name"]
        is_fresh = await self._is_fresh()
        at_work = self._at_work()

        def load(db: sqlite3.Connection) -> tuple[str, Sequence[StoredRecord], Sequence[str], Sequence[str]]:
            run = find_run(db, name)
            first = kept.first_of_stream(db, f"$upload.{name}")
            trace_id = run.trace_id if run else kept.trace_of(first) if first else name
            trace_id = trace_id or name
            queued = queued_of_trace(db, trace_id, at_work)
            return trace_id, records_of_trace(db, trace_id), kept.group_names(db), queued

        trace_id, records, groups, queued = await self._projection.run(load)
        if not records:
            raise self._missing(f"trace, run or upload {name[:128]!r}", is_fresh=is_fresh)
        spans = trace_spans(records, now_ns=self._clock.time_ns(), groups=groups, queued=queued)
        return json_response({"trace_id": trace_id, "spans": spans})

    async def cancel(self, request: Request) -> Response:
        """Ask that a run be cancelled."""
        return await self._wish(request, "cancel")

    async def resume(self, request: Request) -> Response:
        """Ask that a paused or quarantined run be tried again."""
        return await self._wish(request, "resume")

    async def _wish(self, request: Request, wish: Literal["cancel", "resume"]) -> Response:
        check_intended(request.headers)
        run_id = request.path_params["run_id"]
        reason = await _reason(request)
        run = await self._find(run_id)
        if run is None:
            raise NotFoundError(f"There is no run {run_id[:128]!r}. Nothing was changed.")
        if run.ending:
            raise BadRequestError(f"The run {run_id} has ended already: {run.ending}. Nothing was changed.")
        if wish == "resume" and run.unreadable:
            raise BadRequestError(f"The run {run_id} cannot be resumed. {run.reason}")
        with use_trace(parse_traceparent(request.headers.get(TRACEPARENT)) or current_trace()):
            position = await send_wish(self._log, run_id, InboxMessage(wish, reason))
        return json_response({"run_id": run_id, "wish": wish, "position": position}, status=202)

    async def _find(self, run_id: str) -> RunFold | None:
        """Return a run from the page state, or from the log itself where the page state is behind it."""
        with suppress(UnavailableError):  # the log is asked then
            if await self._is_fresh():
                return await self._projection.run(lambda db: find_run(db, run_id))
        return await _fold(self._log, run_id)

    async def _is_fresh(self) -> bool:
        """Let the page state reach the log's present end, so that whoever wrote finds it; tell whether it did.

        Raises:
            UnavailableError: It does not follow the log at all.
        """
        is_fresh = await self._projection.caught_up(self._log.end_position, FRESH_WITHIN_S)
        if not is_fresh and self._projection.error:
            raise UnavailableError("The page state no longer follows the log; the application's log says why.")
        return is_fresh

    def _missing(self, what: str, *, is_fresh: bool) -> NotFoundError | UnavailableError:
        if is_fresh:
            return NotFoundError(f"There is no {what}.")
        return UnavailableError.behind(what, self._projection.position, self._log.end_position)


async def _fold(log: Log, run_id: str) -> RunFold | None:
    """Return a run as its journal tells it; ``None`` without a journal, or where the id is no name."""
    try:
        check_stream(JOURNAL_PREFIX + run_id)
    except InvalidArgumentError:
        return None  # a pattern, perhaps, which would be others' journals
    fold, after = RunFold(run_id), 0
    while records := await log.read(JOURNAL_PREFIX + run_id, after):
        for record in records:
            fold.apply(record)
        after = records[-1].position
    return fold if after else None


async def _reason(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_MAX_BYTES:
            raise BadRequestError(f"The request is longer than {_BODY_MAX_BYTES} bytes. Nothing was changed.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json" or not body:
        return ""
    try:
        return msgspec.json.decode(body, type=_Wish).reason[:1000]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(f"The request's body is not what was expected: {error}. Nothing was changed.") from None


def _as_json(record: StoredRecord) -> dict[str, Any]:
    try:
        value: Any = msgspec.json.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = record.value.decode("utf-8", "replace")  # cut, nested too deeply, or never JSON
    return {"position": record.position, "time_ns": record.time_ns, "value": value}
