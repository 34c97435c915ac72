"""The overview: does it work, how fast, what failed, how much is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from mainstem.flow.history import RunFold
from mainstem.log.contract import StoredRecord
from mainstem.ui.charts import bars
from mainstem.ui.format import format_bytes, format_count, format_many, format_rate, shorten
from mainstem.ui.html import EMPTY, Child, Html, el
from mainstem.ui.panel import Fragment, GroupFacts, Page, PageRequest, PageView
from mainstem.ui.parts import card, link, metric, notice, table
from mainstem.web.panels import records as kept
from mainstem.web.panels.runs import count_states, list_runs, reason, runs_table

CHART_BUCKETS: Final = 60
"""Intervals that a chart shows: ten minutes."""

_RATE_BUCKETS: Final = 6
_TROUBLE: Final = ("failed", "quarantined", "paused", "retrying")


class OverviewPanel:
    """Shows the other panels' tables at one glance."""

    name = "overview"
    version = 1
    patterns: Sequence[str] = ()
    schema = ""

    def apply(self, _db: sqlite3.Connection, _records: Sequence[StoredRecord]) -> set[str]:
        """Project nothing of its own."""
        return set()

    def pages(self) -> Sequence[Page]:
        """Return the overview, which is the dashboard's root."""
        return (Page("", render_overview, nav="Overview", icon="overview"),)


def render_overview(db: sqlite3.Connection, request: PageRequest) -> PageView:
    """Render the overview."""
    open_runs = list_runs(db, state="open", limit=8)
    latest = list_runs(db, limit=8)
    return PageView(
        "Overview",
        (
            Fragment("health", _health(db, request), live=True),
            Fragment("metrics", _metrics(db, request), label="Figures"),
            Fragment(
                "open-runs",
                _runs_card("Open runs", open_runs, request, "open", "Nothing is under way."),
                label="Open runs",
            ),
            Fragment(
                "latest-runs", _runs_card("Latest runs", latest, request, "", _first_words()), label="Latest runs"
            ),
            Fragment("groups", _groups(request.facts.groups), label="Consumer groups"),
        ),
        frozenset({"runs", "streams", "tick"}),
    )


def _health(db: sqlite3.Connection, request: PageRequest) -> Html:
    counts = count_states(db)
    parts: list[Child] = []
    for state in _TROUBLE:
        if counts.get(state):
            many = f"{format_many(counts[state], 'run')} {state}"
            parts.append(link(request.base, "runs", many, query={"state": state}))
    dead = sum(group.dead for group in request.facts.groups)
    if dead:
        parts.append(
            link(
                request.base,
                "streams",
                format_many(dead, "dead letter"),
                query={"system": "1", "search": "$dead."},
            )
        )
    stopped = [group for group in request.facts.groups if group.failure]
    if stopped:
        parts.append(f"{format_many(len(stopped), 'consumer group')} stopped")
    if not parts:
        return el("p", "No failure is on record." if counts else "", class_="dim")
    tone = "bad" if counts.get("failed") or counts.get("quarantined") or dead or stopped else "warn"
    words: list[Child] = [part for pair in zip(parts, [", "] * (len(parts) - 1) + ["."], strict=True) for part in pair]
    return notice(
        tone,
        el("p", words),
        _latest_failure(db, request) if counts.get("failed") else None,
        [_stopped(group) for group in stopped],
    )


def _stopped(group: GroupFacts) -> Html:
    why = shorten(group.failure, 300).rstrip(".")
    return el("p", f"Group {group.name} handles no events until the application is started again: {why}.")


def _latest_failure(db: sqlite3.Connection, request: PageRequest) -> Html:
    run = list_runs(db, state="failed", limit=1)[0]
    return el(
        "p",
        "The latest is ",
        link(request.base, f"runs/{run.run_id}", shorten(run.run_id, 60)),
        f": {reason(run, '')}",
        class_="latest",
    )


def _metrics(db: sqlite3.Connection, request: PageRequest) -> Html:
    now_ns = request.facts.now_ns
    at_work = request.facts.at_work
    series = {
        name: kept.counts_of(db, name, now_ns, CHART_BUCKETS)
        for name in ("events", "started", "completed", "failed", "steps")
    }
    counts = count_states(db, at_work)
    open_count = sum(count for state, count in counts.items() if state not in {"completed", "failed", "cancelled"})
    ended = [done + failed for done, failed in zip(series["completed"], series["failed"], strict=True)]
    facts = request.facts
    waiting = sum(counts.get(state, 0) for state in ("sleeping", "scheduled", "queued", "retrying"))
    return el(
        "div",
        metric("Events", _rate(series["events"]), "last minute", chart=_chart("Events", series["events"])),
        metric("Steps", _rate(series["steps"]), "last minute", chart=_chart("Steps", series["steps"])),
        metric(
            "Runs ended",
            _rate(ended),
            f"{sum(series['completed']):,} completed, {sum(series['failed']):,} failed in 10 min",
            chart=_chart("Runs ended", ended, series["failed"]),
        ),
        metric(
            "Open runs",
            link(
                request.base,
                "runs",
                format_count(open_count),
                query={"state": "open"},
                aria_label=f"Open runs: {open_count:,}",
            ),
            f"{waiting:,} of them wait" if waiting else "none of them waits",
        ),
        metric(
            "Failed runs",
            link(
                request.base,
                "runs",
                format_count(counts.get("failed", 0)),
                query={"state": "failed"},
                aria_label=f"Failed runs: {counts.get('failed', 0):,}",
            ),
            "on record",
            tone="bad" if counts.get("failed") else "",
        ),
        metric(
            "Log",
            format_bytes(facts.size_bytes),
            f"{format_many(facts.record_count, 'record')} in {format_many(facts.stream_count, 'stream')}, "
            f"position {facts.end_position:,}",
        ),
        class_="metrics",
    )


def _rate(series: Sequence[int]) -> str:
    return format_rate(sum(series[-_RATE_BUCKETS:]) / (_RATE_BUCKETS * kept.BUCKET_S))


def _chart(name: str, series: Sequence[int], bad: Sequence[int] = ()) -> Html:
    drawn = bars(
        series,
        f"{name} in the last ten minutes: {sum(series):,}, at most {max(series):,} in {kept.BUCKET_S} s",
        bad=bad,
    )
    scale = el("div", el("span", "10 min ago"), el("span", "now"), class_="scale", aria_hidden="true")
    return el("div", drawn, scale, class_="chart")


def _runs_card(title: str, runs: Sequence[RunFold], request: PageRequest, state: str, empty: Child) -> Html:
    more = link(request.base, "runs", "All", query={"state": state}, aria_label=f"All of: {title}") if runs else None
    return card(title, runs_table(runs, request, title, empty=empty), aside=more)


def _first_words() -> Html:
    return el(
        "p",
        "No run yet. Define a workflow with ",
        el("code", "@ms.workflow()"),
        " and start one with ",
        el("code", "await workflow.start(…)"),
        ": it appears here by itself.",
    )


def _groups(groups: Sequence[GroupFacts]) -> Html:
    if not groups:
        return EMPTY
    columns = (
        ("Group", ""),
        ("Reads", "wide"),
        ("Position", "number"),
        ("Lag", "number"),
        ("In flight", "number"),
        ("Retrying", "number"),
        ("Dead", "number"),
    )
    cells: list[Sequence[Child]] = [
        (
            el("span", group.name, class_="mono"),
            el("span", group.pattern, class_="mono dim"),
            f"{group.position:,}",
            f"{group.lag:,}",
            f"{group.in_flight:,}",
            f"{group.retrying:,}",
            el("span", f"{group.dead:,}", class_="bad-text" if group.dead else "dim"),
        )
        for group in groups
    ]
    return card("Consumer groups", table("Consumer groups", columns, cells))
