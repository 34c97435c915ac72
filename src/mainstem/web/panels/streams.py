"""Streams: the list, and one stream with its latest records, live."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from mainstem.log.contract import StoredRecord
from mainstem.ui.format import age_element, format_bytes, format_many, time_element
from mainstem.ui.html import Child, Html, el
from mainstem.ui.panel import Fragment, Page, PageRequest, PageView
from mainstem.ui.parts import address, card, json_block, link, one_line, pager, search_form, table
from mainstem.web.panels import records as kept
from mainstem.web.panels.runs import page_number

PAGE_ROWS: Final = 100
"""Streams, or records, on one page."""


class StreamsPanel:
    """Shows what :mod:`.records` keeps, by stream."""

    name = "streams"
    version = 1
    patterns: Sequence[str] = ()
    schema = ""

    def apply(self, _db: sqlite3.Connection, _records: Sequence[StoredRecord]) -> set[str]:
        """Project nothing of its own."""
        return set()

    def pages(self) -> Sequence[Page]:
        """Return the list and the page of one stream."""
        return (Page("streams", render_list, nav="Streams", icon="streams"), Page("streams/{stream}", render_stream))


def render_list(db: sqlite3.Connection, request: PageRequest) -> PageView:
    """Render the list of streams: the application's own, or with ``system=1`` mainstem's too."""
    system = request.query.get("system") == "1"
    search = request.query.get("search", "")[:200]
    page = page_number(request.query)
    escaped = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = db.execute(
        "SELECT stream, count, size_bytes, last_position, last_ns FROM records_stream "
        "WHERE (? OR stream NOT LIKE '$%') AND stream LIKE ? ESCAPE '\\' ORDER BY last_position DESC LIMIT ? OFFSET ?",
        (system, f"%{escaped}%", PAGE_ROWS + 1, (page - 1) * PAGE_ROWS),
    ).fetchall()
    query = {"system": "1" if system else "", "search": search}
    columns = (
        ("Stream", "wide widest"),
        ("Records", "number"),
        ("Size", "number"),
        ("Last position", "number"),
        ("Last record", ""),
    )
    cells: list[Sequence[Child]] = [
        (
            link(request.base, f"streams/{stream}", stream, class_="main mono"),
            f"{count:,}",
            format_bytes(size_bytes),
            f"{last_position:,}",
            age_element(last_ns, request.facts.now_ns),
        )
        for stream, count, size_bytes, last_position, last_ns in rows[:PAGE_ROWS]
    ]
    empty = el("p", "No event yet. An event begins with ", el("code", 'await ms.publish("orders.created", order)'), ".")
    body = [
        table("Streams", columns, cells, empty=empty),
        pager(request.base, "streams", query, page, len(rows) > PAGE_ROWS),
    ]
    return PageView(
        "Streams",
        (
            Fragment("filters", _filters(request, system, search), label="Filters"),
            Fragment("list", Html("".join(body)), label="Streams"),
        ),
        frozenset({"streams"}),
    )


def _filters(request: PageRequest, system: bool, search: str) -> Html:
    tabs = [
        link(
            request.base,
            "streams",
            words,
            query={"system": value, "search": search},
            class_="tab",
            aria_current="page" if here else None,
        )
        for words, value, here in (("Events", "", not system), ("With mainstem's own", "1", system))
    ]
    hidden = ("system", "1") if system else None
    form = search_form("streams", search, "Part of a name", address(request.base, "streams"), hidden)
    return el("div", el("nav", tabs, class_="tabs", aria_label="Kinds of streams"), form, class_="toolbar")


def render_stream(db: sqlite3.Connection, request: PageRequest) -> PageView | None:
    """Render the latest records of a stream, newest first; with ``before`` those in front of a position."""
    stream = request.path["stream"]
    found = db.execute(
        "SELECT count, size_bytes, last_position FROM records_stream WHERE stream = ?", (stream,)
    ).fetchone()
    if found is None:
        return None
    asked = request.query.get("before", "")
    before = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 19 else 0
    records = kept.of_stream(db, stream, before=before, limit=PAGE_ROWS + 1)[::-1]
    items = [_record(request, record) for record in records[:PAGE_ROWS]]
    shown = el("ol", items, class_="records") if items else el("div", "No record of it is kept here.", class_="empty")
    older = (
        link(
            request.base,
            f"streams/{stream}",
            "Older records",
            query={"before": str(records[PAGE_ROWS - 1].position)},
            class_="button",
            rel="next",
        )
        if len(records) > PAGE_ROWS
        else None
    )
    newest = link(request.base, f"streams/{stream}", "Newest records", class_="button", rel="first") if before else None
    live = None if before else el("span", "live", class_="live-mark")
    count, size_bytes, last_position = found
    subtitle = el(
        "span",
        f"{format_many(count, 'record')} · {format_bytes(size_bytes)} · last position {last_position:,}",
        class_="dim number",
    )
    nav = el("nav", newest, older, class_="pager", aria_label="Pages") if newest or older else None
    return PageView(
        stream,
        (
            Fragment("counts", el("p", subtitle)),
            Fragment("records", card("Records, newest first", shown, nav, aside=live), label="Records", live=False),
        ),
        frozenset({"stream:" + stream} if not before else set[str]()),
        "",
        [("Streams", "streams")],
    )


def _record(request: PageRequest, record: StoredRecord) -> Html:
    trace_id = kept.trace_of(record)
    head = el(
        "summary",
        el("span", f"{record.position:,}", class_="position number"),
        time_element(record.time_ns, with_date=False),
        el("span", record.key.decode("utf-8", "replace"), class_="key-of") if record.key else None,
        el("code", one_line(record.value), class_="value"),
    )
    headers = [(name, el("code", value)) for name, value in sorted(record.headers.items())]
    extra = el(
        "dl",
        [el("div", el("dt", name), el("dd", value)) for name, value in headers],
        class_="facts small",
    )
    trace = el("p", link(request.base, f"traces/{trace_id}", "Show the whole trace")) if trace_id else None
    return el(
        "li",
        el(
            "details",
            head,
            json_block(record.value, f"Value at position {record.position}"),
            extra if headers else None,
            trace,
            id=f"record-{record.position}",
        ),
    )
