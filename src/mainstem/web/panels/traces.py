"""One trace, end to end: requests, waits, events, runs, steps and log lines in one waterfall."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from mainstem.log.contract import StoredRecord
from mainstem.ui.format import format_duration, shorten, time_element
from mainstem.ui.html import el
from mainstem.ui.panel import Fragment, Page, PageRequest, PageView
from mainstem.ui.parts import card, entities, facts, link
from mainstem.web.panels import records as kept
from mainstem.web.panels.runs import queued_of_trace, records_of_trace, runs_of_trace, runs_table

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


class TracesPanel:
    """Shows what :mod:`.records` keeps, by trace."""

    name = "traces"
    version = 1
    patterns: Sequence[str] = ()
    schema = ""

    def apply(self, _db: sqlite3.Connection, _records: Sequence[StoredRecord]) -> set[str]:
        """Project nothing of its own."""
        return set()

    def pages(self) -> Sequence[Page]:
        """Return the page of one trace."""
        return (Page("traces/{trace_id}", render_trace),)


def render_trace(db: sqlite3.Connection, request: PageRequest) -> PageView | None:
    """Render one trace."""
    # Imported with the first trace that is looked at, and not by every start: the uploads come with it.
    from mainstem.trace.waterfall import build_waterfall  # noqa: PLC0415
    from mainstem.web.trace_view import trace_spans  # noqa: PLC0415
    from mainstem.web.waterfall_view import waterfall_table  # noqa: PLC0415

    trace_id = request.path["trace_id"]
    records = records_of_trace(db, trace_id) if _TRACE_ID.fullmatch(trace_id) else []
    if not records:
        return None
    now_ns = request.facts.now_ns
    queued = queued_of_trace(db, trace_id, request.facts.at_work)
    waterfall = build_waterfall(trace_spans(records, now_ns=now_ns, groups=kept.group_names(db), queued=queued), now_ns)
    runs = runs_of_trace(db, trace_id)
    uploads = sorted({record.stream for record in records if record.stream.startswith("$upload.")})
    about = sorted({entity for record in records for entity in record.headers.get("about", "").split()})
    pairs = [
        ("Began", time_element(waterfall.start_ns)),
        ("Took", format_duration(waterfall.duration_ns)),
        ("About", entities(request.base, about[:20]) if about else None),
        ("Record" if len(records) == 1 else "Records", f"{len(records):,}"),
        (
            "Uploads",
            [
                link(
                    request.base,
                    f"uploads/{stream.removeprefix('$upload.')}",
                    stream.removeprefix("$upload."),
                    class_="mono entity",
                    title=stream.removeprefix("$upload."),
                )
                for stream in uploads
            ],
        ),
    ]
    fragments = [
        Fragment("facts", facts([(name, el("span", value)) for name, value in pairs if value])),
        Fragment(
            "waterfall",
            card("From the first record to the last", waterfall_table(waterfall, "The trace's spans, in time")),
            label="Waterfall",
        ),
    ]
    if runs:
        fragments.append(Fragment("runs", card("Runs", runs_table(runs, request, "Runs of this trace")), label="Runs"))
    return PageView(
        f"Trace of {shorten(waterfall.rows[0].span.name, 80)}" if waterfall.rows else "Trace",
        fragments,
        # That a run has its turn is on no record.
        frozenset({"trace:" + trace_id, "tick"} if queued else {"trace:" + trace_id}),
        el("span", trace_id, class_="mono dim"),
    )
