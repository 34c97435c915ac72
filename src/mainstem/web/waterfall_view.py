"""A waterfall as a table with one line of SVG a row: the same rows that the command prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mainstem.trace.waterfall import Row, Waterfall
from mainstem.ui.charts import Segment, track
from mainstem.ui.format import format_duration, shorten
from mainstem.ui.html import Html, el
from mainstem.ui.parts import scrolling

_DEPTH_SHOWN: Final = 8
_SHORT_WAITS: Final = 200
_ROWS_DRAWN: Final = 240
_ROWS_IN_FULL: Final = 60
_WORDS: Final = {"ok": "", "error": "failed", "died": "its process died", "running": "running"}
_LEGEND: Final = (
    ("run", "run"),
    ("request", "request"),
    ("work", "work"),
    ("wait", "waiting"),
    ("error", "failed"),
    ("died", "died"),
    ("running", "running"),
    ("event", "event"),
    ("log", "log line"),
)


def waterfall_table(waterfall: Waterfall, caption: str) -> Html:
    """Return a waterfall; a sentence where it has no rows."""
    if not waterfall.rows:
        return el("div", "Nothing to draw yet.", class_="empty")
    long = [row for row in waterfall.rows if not _is_short_wait(row, waterfall)]
    rows = _rows_to_draw(long)
    left = waterfall.left_out + len(long) - len(rows)
    left_out = (
        el("p", f"{left:,} more rows are not drawn here; the command mainstem trace prints all.", class_="dim")
        if left
        else None
    )
    short = len(waterfall.rows) - len(long)
    least = format_duration(waterfall.duration_ns // _SHORT_WAITS)
    too_short = el("p", f"{short:,} waits of less than {least} are not drawn.", class_="dim") if short else None
    head = el(
        "tr",
        el("th", "What", scope="col"),
        el("th", _axis(waterfall.duration_ns), scope="col", class_="axis", aria_label="When"),
        el("th", "Took", scope="col", class_="number"),
    )
    kinds = {name for row in rows for segment in _segments(row, waterfall) for name in segment.class_.split()}
    drawn = el(
        "table",
        el("caption", caption, class_="hidden"),
        el("thead", head),
        el("tbody", [_line(row, waterfall) for row in rows]),
    )
    return el(
        "div",
        left_out,
        scrolling(drawn, caption) if len(rows) > _ROWS_IN_FULL else drawn,
        too_short,
        _legend(kinds),
        class_="waterfall",
    )


def _rows_to_draw(rows: Sequence[Row]) -> Sequence[Row]:
    """Return what a page can hold: all when they are few, else the tops, what went wrong, and the latest others."""
    if len(rows) <= _ROWS_DRAWN:
        return rows
    half = _ROWS_DRAWN // 2
    chosen = {index for index, row in enumerate(rows) if row.depth == 0 or row.span.status != "ok"}
    chosen = set(sorted(chosen)[:half]) | set(range(len(rows) - half, len(rows)))
    return [rows[index] for index in sorted(chosen)]


def _is_short_wait(row: Row, waterfall: Waterfall) -> bool:
    """Tell whether a row is a wait too short to be of interest here: mostly a client's pauses between its requests."""
    return row.span.kind == "wait" and row.span.status == "ok" and row.worked_ns * _SHORT_WAITS < waterfall.duration_ns


def _axis(duration_ns: int) -> Html:
    return el("div", [el("span", format_duration(duration_ns * part // 4) if part else "0") for part in range(5)])


def _legend(kinds: set[str]) -> Html:
    shown = [(class_, word) for class_, word in _LEGEND if class_ in kinds]
    return el(
        "div",
        [el("span", track_swatch(class_), word, class_="key") for class_, word in shown],
        class_="legend",
        aria_hidden="true",
    )


def track_swatch(class_: str) -> Html:
    """Return a small sample of how a kind of row is drawn."""
    shape = (
        el("circle", cx=7, cy=7, r=3, class_=class_)
        if class_ in {"event", "log"}
        else el("rect", x=0, y=2, width=14, height=10, rx=2, class_=class_)
    )
    return el("svg", shape, class_="track", width=14, height=14)


def _segments(row: Row, waterfall: Waterfall) -> list[Segment]:
    whole = waterfall.duration_ns
    span = row.span

    def place(start_ns: int, end_ns: int, class_: str) -> Segment:
        return Segment((start_ns - waterfall.start_ns) / whole, max(0, end_ns - start_ns) / whole, class_)

    waits = [place(start_ns, end_ns, "wait") for start_ns, end_ns in row.waits]
    if span.kind in {"event", "log"}:
        return [*waits, place(span.start_ns, span.start_ns, span.kind)]
    if span.kind == "wait":
        return [place(span.start_ns, row.end_ns, "wait")]
    look = {"error": "error", "died": "died", "running": "running"}.get(span.status, "")
    kind = {"run": "run", "request": "request"}.get(span.kind, "work")
    return [*waits, place(span.start_ns, row.end_ns, f"{kind} {look}".strip() if span.kind == "run" else look or kind)]


def _line(row: Row, waterfall: Waterfall) -> Html:
    span = row.span
    instant = span.kind in {"event", "log"}
    took = "" if instant else format_duration(max(0, row.worked_ns))
    word = _WORDS[span.status] if not instant else ""
    waited = f", waited {format_duration(row.waited_ns)}" if row.waited_ns else ""
    sentence = f"{span.name}: {took or 'an instant'}{waited}{', ' + word if word else ''}"
    depth = min(row.depth, _DEPTH_SHOWN)
    # Most log lines are INFO; what the status says is not said twice.
    is_plain = span.status == "died" or (span.kind == "log" and span.detail == "INFO")
    told = "" if is_plain else shorten(span.detail, 200)
    detail = el("span", told, class_="detail") if told else None
    status = el("span", word, class_=f"word {span.status}") if word else None
    what = el(
        "div",
        el("span", span.name, class_="name"),
        status,
        detail,
        class_="what",
        title=" ".join(part for part in (span.name, word, shorten(span.detail, 1000)) if part),
    )
    return el(
        "tr",
        el("th", what, scope="row", class_=f"depth-{depth} {span.kind}"),
        el("td", track(_segments(row, waterfall), sentence), class_="bar"),
        el("td", took, class_="number"),
    )
