"""The page of one run: what it is about, what went wrong, its timeline, steps, inputs, result and log lines."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from mainstem.flow.history import RunFold, read_entry, read_line
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    LOG_LINES_PREFIX,
    ErrorInfo,
    JournalEntry,
    LogLine,
    RunCompleted,
    RunFailed,
    Started,
    StepCompleted,
    StepFailed,
)
from mainstem.flow.spans import run_spans
from mainstem.log.contract import StoredRecord
from mainstem.trace.spans import Span
from mainstem.trace.waterfall import build_waterfall
from mainstem.ui.format import age_element, format_duration, shorten, time_element
from mainstem.ui.html import Child, Html, el
from mainstem.ui.icons import icon
from mainstem.ui.panel import Fragment, PageRequest, PageView
from mainstem.ui.parts import (
    address,
    card,
    code_block,
    entities,
    facts,
    json_block,
    link,
    notice,
    one_line,
    pill,
    scrolling,
    table,
)
from mainstem.web.panels import records as kept
from mainstem.web.waterfall_view import waterfall_table

STEPS_SHOWN: Final = 200
"""Latest attempts that the table of steps shows."""

_STEPS_IN_FULL: Final = 60
_UNDER_WAY_SHOWN: Final = 8
_UNENDED: Final = {
    "running": ("running", ""),
    "died": ("died", "its process ended before it did"),
    "may have died": ("died", "it left no record: it may have died with its process"),
    "broken off": ("cancelled", "it was broken off"),
}

LINES_SHOWN: Final = 300
"""Latest log lines that are shown."""

_TONES: Final = {"failed": "bad", "quarantined": "bad", "retrying": "warn", "paused": "warn"}


def render_run(db: sqlite3.Connection, request: PageRequest, run: RunFold) -> PageView:
    """Render one run."""
    records = kept.of_stream(db, JOURNAL_PREFIX + run.run_id)
    line_records = kept.of_stream(db, LOG_LINES_PREFIX + run.run_id)
    lines = _lines(line_records[-LINES_SHOWN:])
    entries = _entries(records)
    now_ns = request.facts.now_ns
    state = run.state(now_ns, at_work=run.run_id in request.facts.at_work)
    spans = run_spans(
        [*records, *line_records], now_ns=now_ns, under_way=request.facts.under_way, queued=state == "queued"
    )
    waterfall = build_waterfall([span for span in spans if span.kind != "log"], now_ns)
    fragments = [
        Fragment("opening", _opening(request, run, state), live=True),
        Fragment("facts", _facts(request, run)),
        Fragment(
            "timeline",
            card("Timeline", waterfall_table(waterfall, "Steps and waiting of this run, in time")),
            label="Timeline",
        ),
        Fragment("steps", _steps(entries, spans), label="Steps"),
        Fragment("values", _values(entries), label="Input and result"),
        Fragment("lines", _log(lines), label="Log lines"),
    ]
    title = el("span", run.function, class_="dim") if run.function else ""
    return PageView(
        run.run_id,
        fragments,
        # What is under way is on no record: an open run's page is looked at again as time goes on.
        frozenset({"run:" + run.run_id, "stream:" + LOG_LINES_PREFIX + run.run_id}) | _ticks(run),
        title,
        [("Runs", "runs")],
    )


def _ticks(run: RunFold) -> frozenset[str]:
    return frozenset() if run.ending else frozenset({"tick"})


def _entries(records: Sequence[StoredRecord]) -> list[tuple[StoredRecord, JournalEntry]]:
    entries = []
    for record in records:
        entry = read_entry(record.value)
        if entry is not None:  # the opening says of the others, and the stream's own page shows them all the same
            entries.append((record, entry))
    return entries


def _lines(records: Sequence[StoredRecord]) -> list[LogLine]:
    return [line for record in records if (line := read_line(record.value)) is not None]


def _opening(request: PageRequest, run: RunFold, state: str) -> Html:
    message = run.summary(request.facts.now_ns).message
    retry_at_ns = min((one.retry_at_ns for one in run.retrying.values()), default=0)
    when: Child = (" It begins ", age_element(retry_at_ns, request.facts.now_ns), ".") if retry_at_ns else None
    sentence = notice(_TONES.get(state, "calm"), el("p", message, when)) if message else None
    return el(
        "div", el("div", pill(state), _buttons(request, run, state), class_="state-line"), sentence, class_="opening"
    )


def _buttons(request: PageRequest, run: RunFold, state: str) -> Html | None:
    if run.ending or not request.facts.writable:
        return None

    def button(action: str, words: str, picture: str, question: str) -> Html:
        return el(
            "button",
            icon(picture),
            words,
            type="button",
            class_="button",
            hx_post=address(request.base, f"api/runs/{run.run_id}/{action}"),
            hx_swap="none",
            hx_confirm=question or None,
        )

    return el(
        "div",
        button("resume", "Resume", "play", "") if state in {"paused", "quarantined"} and not run.unreadable else None,
        button("cancel", "Cancel run", "stop", f"Cancel {run.run_id}? It ends, and nothing of it is tried again."),
        class_="buttons",
    )


def _facts(request: PageRequest, run: RunFold) -> Html:
    base = request.base
    now_ns = request.facts.now_ns
    trigger = (
        link(
            base,
            f"streams/{run.trigger.stream}",
            f"{run.trigger.stream} @ {run.trigger.position}",
            query={"before": str(run.trigger.position + 1)},
        )
        if run.trigger
        else None
    )
    return facts(
        [
            ("Running now", _under_way(request)),
            ("Queue", run.queue),
            ("Started by", trigger),
            ("About", entities(base, run.about) if run.about else None),
            ("Began", time_element(run.started_ns)),
            ("Ended", time_element(run.ended_ns) if run.ended_ns else None),
            ("Took" if run.ended_ns else "So far", format_duration(max(0, (run.ended_ns or now_ns) - run.started_ns))),
            ("Wakes", age_element(run.wake_at_ns, now_ns) if run.wake_at_ns > now_ns else None),
            ("Steps done", f"{run.steps:,}"),
            ("Failed attempts", f"{run.failures:,}" if run.failures else None),
            ("Taken over", f"{run.claims:,} times" if run.claims > 1 else "once" if run.claims else None),
            (
                "Trace",
                link(base, f"traces/{run.trace_id}", run.trace_id[:16] + "…", class_="mono") if run.trace_id else None,
            ),
            (
                "Journal",
                link(
                    base,
                    f"streams/{JOURNAL_PREFIX}{run.run_id}",
                    f"{JOURNAL_PREFIX}{run.run_id}",
                    class_="mono entity",
                    title=f"{JOURNAL_PREFIX}{run.run_id}",
                ),
            ),
        ]
    )


def _under_way(request: PageRequest) -> Child:
    now_ns = request.facts.now_ns
    shown = [
        f"{one.key}, attempt {one.attempt}, since {format_duration(max(0, now_ns - one.started_ns))}"
        for one in request.facts.under_way[:_UNDER_WAY_SHOWN]
    ]
    more = len(request.facts.under_way) - len(shown)
    return "; ".join(shown) + (f"; and {more:,} more" if more else "") or None


def _steps(entries: Sequence[tuple[StoredRecord, JournalEntry]], spans: Sequence[Span]) -> Html:
    rows: list[tuple[int, Sequence[Child]]] = []
    for record, entry in entries:
        match entry:
            case StepCompleted():
                took_ns = record.time_ns - entry.started_ns
                shown_result = el("code", one_line(bytes(entry.result)), class_="value")
                rows.append(_step_row("completed", entry, record, took_ns, shown_result))
            case StepFailed():
                rows.append(
                    _step_row(
                        "retrying" if entry.retry_at_ns else "failed",
                        entry,
                        record,
                        record.time_ns - entry.started_ns,
                        _error(entry.error),
                    )
                )
    rows += [_unended_row(span) for span in spans if "unended" in span.attributes]
    rows.sort(key=lambda row: row[0])
    columns = (
        ("State", ""),
        ("Step", "named"),
        ("Attempt", "number"),
        ("Result", "wide"),
        ("Queued", "number"),
        ("Took", "number"),
        ("At", ""),
    )
    left_out = max(0, len(rows) - STEPS_SHOWN)
    more = el("p", f"{left_out:,} earlier attempts are not shown here.", class_="dim") if left_out else None
    shown = table(
        "Steps of this run, by time of their end",
        columns,
        [cells for _time, cells in rows[-STEPS_SHOWN:]],
        empty=el("p", "No step has begun yet."),
    )
    return card("Steps", more, scrolling(shown, "Steps") if len(rows) > _STEPS_IN_FULL else shown)


def _unended_row(span: Span) -> tuple[int, Sequence[Child]]:
    """Return the row of an attempt whose end is not on record."""
    state, why = _UNENDED[span.attributes["unended"]]
    time_ns = span.end_ns or span.start_ns
    return time_ns, _cells(state, state, span.attributes["key"], span.attributes["attempt"], why, 0, 0, time_ns)


def _step_row(
    state: str, entry: StepCompleted | StepFailed, record: StoredRecord, took_ns: int, shown: Child
) -> tuple[int, Sequence[Child]]:
    tone, word = ("failed", "failed") if state == "retrying" else (state, state)
    cells = _cells(tone, word, entry.key, str(entry.attempt), shown, entry.waited_ns, took_ns, record.time_ns)
    return record.time_ns, cells


def _cells(
    tone: str, word: str, key: str, attempt: str, shown: Child, waited_ns: int, took_ns: int, time_ns: int
) -> Sequence[Child]:
    return (
        pill(tone, word),
        el("span", key, class_="mono"),
        attempt,
        shown,
        format_duration(waited_ns) if waited_ns else el("span", "–", class_="dim"),
        format_duration(max(0, took_ns)) if took_ns else el("span", "–", class_="dim"),
        time_element(time_ns, with_date=False),
    )


def _error(error: ErrorInfo) -> Html:
    head = f"{error.type}: {shorten(error.message, 300)}"
    if not error.traceback:
        return el("span", head, class_="bad-text")
    return el(
        "details",
        el("summary", head, class_="bad-text"),
        code_block(error.traceback, "Traceback"),
    )


def _values(entries: Sequence[tuple[StoredRecord, JournalEntry]]) -> Html:
    boxes = []
    for _record, entry in entries:
        match entry:
            case Started():
                boxes.append(card("Input", json_block(bytes(entry.arguments), "Input")))
            case RunCompleted():
                boxes.append(card("Result", json_block(bytes(entry.result), "Result")))
            case RunFailed() if entry.error.traceback:
                boxes.append(card("Error", code_block(entry.error.traceback, "Traceback of the run's error")))
            case _:
                continue
    return el("div", boxes, class_="columns")


def _log(lines: Sequence[LogLine]) -> Html:
    if not lines:
        return card("Log lines", el("div", "Nothing was logged while it ran.", class_="empty"))
    items = [
        el(
            "li",
            time_element(line.time_ns, with_date=False),
            el("span", line.level, class_=f"level {line.level.lower()}" if line.level.isalpha() else "level"),
            el("span", f"{line.step_key} ", class_="dim mono") if line.step_key else None,
            el("span", line.message, class_="message"),
        )
        for line in lines
    ]
    return card("Log lines", el("ol", items, class_="lines", tabindex=0, aria_label="Log lines"))
