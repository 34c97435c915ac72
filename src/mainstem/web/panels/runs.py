"""Runs: the list with its filters."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mainstem.flow.history import ENDED, RunFold, RunSummary, run_id_of
from mainstem.flow.journal import JOURNAL_PREFIX
from mainstem.log.contract import StoredRecord
from mainstem.ui.format import age_element, format_duration, shorten
from mainstem.ui.html import Child, Html, el
from mainstem.ui.panel import Fragment, Page, PageRequest, PageView
from mainstem.ui.parts import address, link, pager, pill, search_form, table
from mainstem.web.panels import records as kept

PAGE_ROWS: Final = 50
"""Runs on one page of the list."""

OPEN_STATES: Final = ("running", "retrying", "sleeping", "scheduled", "queued", "paused", "quarantined")
"""States of runs that are not at their end."""

FILTERS: Final = ("", "open", *OPEN_STATES, "completed", "failed", "cancelled")
"""Values of the list's ``state`` parameter; empty for all, ``open`` for whatever has not ended."""

_decode_fold = msgspec.json.Decoder(RunFold).decode
_COUNTED: Final = {"started": "started", "completed": "completed", "failed": "failed", "step_completed": "steps"}


class RunsPanel:
    """Projects journals into one row a run."""

    name = "runs"
    version = 3
    patterns = (JOURNAL_PREFIX + ">",)
    schema = """
CREATE TABLE runs_run (
    run_id TEXT PRIMARY KEY, state TEXT NOT NULL, started_ns INTEGER NOT NULL, function TEXT NOT NULL,
    about TEXT NOT NULL, trace_id TEXT NOT NULL, fold BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX runs_by_state ON runs_run (state, started_ns);
CREATE INDEX runs_by_time ON runs_run (started_ns);
CREATE INDEX runs_by_trace ON runs_run (trace_id);
"""

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Fold journal entries into rows; the topics are ``runs`` and ``run:<id>``."""
        folds: dict[str, tuple[RunFold, int]] = {}
        counts: Counter[tuple[int, str]] = Counter()
        for record in records:
            run_id = run_id_of(record.stream)
            fold = folds[run_id][0] if run_id in folds else find_run(db, run_id) or RunFold(run_id)
            entry = fold.apply(record)
            folds[run_id] = fold, record.time_ns
            counted = _COUNTED.get(str(entry.__struct_config__.tag)) if entry is not None else None
            if counted:
                counts[record.time_ns // (kept.BUCKET_S * 1_000_000_000), counted] += 1
        db.executemany(
            "INSERT OR REPLACE INTO runs_run VALUES (?, ?, ?, ?, ?, ?, ?)",
            [_row(fold, time_ns) for fold, time_ns in folds.values()],
        )
        kept.count_in_buckets(db, counts)
        return {"runs", *("run:" + run_id for run_id in folds)}

    def pages(self) -> Sequence[Page]:
        """Return the list and the page of one run."""
        return (Page("runs", render_list, nav="Runs", icon="runs"), Page("runs/{run_id}", _render_one))


def _row(fold: RunFold, time_ns: int) -> tuple[object, ...]:
    about = " ".join(fold.about)
    return (
        fold.run_id,
        fold.state(time_ns),
        fold.started_ns,
        fold.function,
        about,
        fold.trace_id,
        msgspec.json.encode(fold),
    )


def find_run(db: sqlite3.Connection, run_id: str) -> RunFold | None:
    """Return a run."""
    found = db.execute("SELECT fold FROM runs_run WHERE run_id = ?", (run_id,)).fetchone()
    return _decode_fold(found[0]) if found else None


def list_runs(
    db: sqlite3.Connection,
    *,
    state: str = "",
    search: str = "",
    offset: int = 0,
    limit: int = PAGE_ROWS,
    at_work: frozenset[str] = frozenset(),
) -> list[RunFold]:
    """Return runs, newest first.

    Args:
        db: The page state.
        state: See :data:`FILTERS`.
        search: Part of an id, a function's name or an entity.
        offset: Runs to pass over.
        limit: Most runs.
        at_work: Ids of the runs that have had their turn, whatever their records say.
    """
    conditions, values = _conditions(state, search, at_work)
    rows = db.execute(
        f"SELECT fold FROM runs_run WHERE {conditions} ORDER BY started_ns DESC, run_id DESC LIMIT ? OFFSET ?",  # noqa: S608 (constants and ?)
        (*values, limit, offset),
    )
    return [_decode_fold(fold) for (fold,) in rows]


def runs_of_trace(db: sqlite3.Connection, trace_id: str) -> list[RunFold]:
    """Return the runs of a trace, oldest first."""
    rows = db.execute("SELECT fold FROM runs_run WHERE trace_id = ? ORDER BY started_ns", (trace_id,))
    return [_decode_fold(fold) for (fold,) in rows]


def queued_of_trace(db: sqlite3.Connection, trace_id: str, at_work: frozenset[str]) -> list[str]:
    """Return the ids of the runs of a trace that wait for their turn; ``at_work`` as for :func:`list_runs`."""
    rows = db.execute("SELECT run_id FROM runs_run WHERE trace_id = ? AND state = 'queued'", (trace_id,))
    return [run_id for (run_id,) in rows if run_id not in at_work]


def records_of_trace(db: sqlite3.Connection, trace_id: str) -> list[StoredRecord]:
    """Return the records of a trace in order, and with them what its runs' journals hold that names no trace and cannot
    be read.
    """
    records = {record.position: record for record in kept.of_trace(db, trace_id)}
    for run in runs_of_trace(db, trace_id) if records else ():
        if run.unreadable:
            records |= {record.position: record for record in kept.of_stream(db, JOURNAL_PREFIX + run.run_id)}
    return [records[position] for position in sorted(records)]


def _conditions(state: str, search: str, at_work: frozenset[str]) -> tuple[str, list[object]]:
    conditions, values = ["1"], list[object]()
    if state == "open":
        conditions.append(f"state NOT IN ({', '.join('?' * len(ENDED))})")
        values += sorted(ENDED)
    elif state in {"queued", "running"} and at_work:
        is_running = "(state = 'running' OR (state = 'queued' AND run_id IN (SELECT value FROM json_each(?))))"
        is_queued = "(state = 'queued' AND run_id NOT IN (SELECT value FROM json_each(?)))"
        conditions.append(is_running if state == "running" else is_queued)
        values.append(msgspec.json.encode(sorted(at_work)).decode())
    elif state:
        conditions.append("state = ?")
        values.append(state)
    if search:
        escaped = search[:200].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        conditions.append("(run_id LIKE ? ESCAPE '\\' OR function LIKE ? ESCAPE '\\' OR about LIKE ? ESCAPE '\\')")
        values += [f"%{escaped}%"] * 3
    return " AND ".join(conditions), values


def count_states(db: sqlite3.Connection, at_work: frozenset[str] = frozenset()) -> Mapping[str, int]:
    """Return how many runs are in each state; ``at_work`` as for :func:`list_runs`."""
    counts = Counter(dict(db.execute("SELECT state, count(*) FROM runs_run GROUP BY state")))
    if at_work and counts["queued"]:
        (moved,) = db.execute(
            "SELECT count(*) FROM runs_run WHERE state = 'queued' AND run_id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(sorted(at_work)).decode(),),
        ).fetchone()
        counts.update(queued=-moved, running=moved)
    return counts


def _render_one(db: sqlite3.Connection, request: PageRequest) -> PageView | None:
    from mainstem.web.panels.run_page import render_run  # noqa: PLC0415 (waterfall and charts: no start needs them)

    run = find_run(db, request.path["run_id"])
    return render_run(db, request, run) if run else None


def render_list(db: sqlite3.Connection, request: PageRequest) -> PageView:
    """Render the list of runs."""
    state = request.query.get("state", "")
    state = state if state in FILTERS else ""
    search = request.query.get("search", "")[:200]
    page = page_number(request.query)
    at_work = request.facts.at_work
    offset = (page - 1) * PAGE_ROWS
    rows = list_runs(db, state=state, search=search, offset=offset, limit=PAGE_ROWS + 1, at_work=at_work)
    query = {"state": state, "search": search}
    body = [
        runs_table(rows[:PAGE_ROWS], request, "Runs", empty=_empty(state, search)),
        pager(request.base, "runs", query, page, len(rows) > PAGE_ROWS),
    ]
    return PageView(
        "Runs",
        (
            Fragment("filters", _filters(db, request, state, search), label="Filters"),
            Fragment("runs", Html("".join(body)), label="Runs"),
        ),
        # That a run has its turn is on no record.
        frozenset({"runs", "tick"} if count_states(db).get("queued") else {"runs"}),
    )


def page_number(query: Mapping[str, str]) -> int:
    """Return the page that a query asks for, 1 to 10,000; whatever is no number is 1."""
    asked = query.get("page", "1")
    return min(max(int(asked), 1), 10_000) if asked.isascii() and asked.isdigit() and len(asked) < 6 else 1


def _empty(state: str, search: str) -> Html:
    if state or search:
        return el("p", "No run fits these filters.")
    return el("p", "No run yet. A run begins with ", el("code", "await workflow.start(…)"), ", an event, or a job.")


def _filters(db: sqlite3.Connection, request: PageRequest, state: str, search: str) -> Html:
    counts = count_states(db, request.facts.at_work)
    open_count = sum(count for name, count in counts.items() if name not in ENDED)
    tabs = [("", "All", sum(counts.values())), ("open", "Open", open_count)]
    tabs += [
        (name, name.capitalize(), counts.get(name, 0)) for name in FILTERS[2:] if counts.get(name) or name == state
    ]
    links = [
        link(
            request.base,
            "runs",
            name,
            el("span", f"{count:,}", class_="count number"),
            query={"state": value, "search": search},
            class_="tab",
            aria_current="page" if value == state else None,
        )
        for value, name, count in tabs
    ]
    hidden = ("state", state) if state else None
    form = search_form("runs", search, "Id, function, entity", address(request.base, "runs"), hidden)
    return el("div", el("nav", links, class_="tabs", aria_label="States"), form, class_="toolbar")


def _next(run: RunSummary, now_ns: int) -> Html | None:
    """Return when a run that waits for a time goes on."""
    words = {"scheduled": "begins", "sleeping": "wakes"}.get(run.state)
    return el("div", words, " ", age_element(run.wake_at_ns, now_ns), class_="wrong") if words else None


def reason(fold: RunFold, message: str) -> str:
    """Return what is wrong with a run in few words, the error first: where a list shows it, its end may be cut off."""
    if fold.ending != "failed" or fold.error is None:
        return shorten(message, 240)
    where = f" (step {shorten(fold.failed_step, 80)})" if fold.failed_step else ""
    return f"{fold.error.type}: {shorten(fold.error.message, 240)}{where}"


def runs_table(rows: Sequence[RunFold], request: PageRequest, caption: str, *, empty: Child = None) -> Html:
    """Return a table of runs, each with what is wrong with it."""
    now_ns = request.facts.now_ns

    def cells(fold: RunFold) -> Sequence[Child]:
        run = fold.summary(now_ns, at_work=fold.run_id in request.facts.at_work)
        return (
            pill(run.state),
            el(
                "div",
                link(request.base, f"runs/{run.run_id}", run.run_id, class_="main mono"),
                el("span", shorten(" ".join(run.about), 80), class_="about") if run.about else None,
                _next(run, now_ns),
                el("div", reason(fold, run.message), class_="wrong", title=shorten(run.message, 1000))
                if run.message
                else None,
            ),
            el("span", run.function, el("span", f" · {run.queue}", class_="dim") if run.queue else None),
            f"{run.steps:,}",
            el("span", f"{run.failures:,}", class_="bad-text" if run.failures else "dim"),
            age_element(run.started_ns, now_ns),
            format_duration(max(0, (run.ended_ns or now_ns) - run.started_ns)),
        )

    columns = (
        ("State", ""),
        ("Run", "wide"),
        ("Function", "named"),
        ("Steps", "number"),
        ("Failed attempts", "number"),
        ("Began", ""),
        ("Took", "number"),
    )
    return table(caption, columns, [cells(run) for run in rows], empty=empty)
