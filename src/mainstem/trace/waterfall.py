"""From spans to a waterfall: rows in the order of a tree, each with its place in time; and the same as text.

Pure. The dashboard draws rows as SVG, the command as text; both show the same rows. Waiting and work look different,
an attempt that died is visible as such, and a wait that belongs to a span is drawn in that span's row, in front of
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from mainstem.trace.spans import Span

ROWS_MAX: Final = 2_000
"""Most rows of a waterfall; what is beyond is counted, not shown."""

DEPTH_MAX: Final = 64
"""Deepest nesting that is followed; deeper spans stand at this depth."""


class Row(msgspec.Struct, frozen=True):
    """One row of a waterfall.

    Attributes:
        span: What is shown.
        depth: How deep it stands in the tree, from 0.
        waits: Waiting that belongs to the span, drawn in front of it: start and end in nanoseconds.
        end_ns: Where its bar ends: the span's end, or the waterfall's where it still runs.
    """

    span: Span
    depth: int
    waits: tuple[tuple[int, int], ...]
    end_ns: int

    @property
    def start_ns(self) -> int:
        """Where its bar begins, waiting included."""
        return min([self.span.start_ns, *(start for start, _end in self.waits)])

    @property
    def waited_ns(self) -> int:
        """How long it waited."""
        return sum(end - start for start, end in self.waits)

    @property
    def worked_ns(self) -> int:
        """How long it lasted, without the waiting in front of it."""
        return self.end_ns - self.span.start_ns


class Waterfall(msgspec.Struct, frozen=True):
    """Rows, and the time that they cover.

    Attributes:
        start_ns: The earliest start.
        end_ns: The latest end; now, where something still runs.
        rows: In the order of the tree, siblings by start.
        left_out: Number of rows beyond :data:`ROWS_MAX`.
    """

    start_ns: int
    end_ns: int
    rows: Sequence[Row]
    left_out: int = 0

    @property
    def duration_ns(self) -> int:
        """Its length, at least a nanosecond."""
        return max(1, self.end_ns - self.start_ns)


def build_waterfall(spans: Iterable[Span], now_ns: int) -> Waterfall:
    """Return the waterfall of spans, given in any order.

    A span whose parent is not among them (a caller elsewhere) is a root. A wait whose parent is a step goes into that
    step's row.

    Args:
        spans: Of one trace, or of several that are to be seen together.
        now_ns: Wall-clock time; where the bars of running spans end.
    """
    everything = sorted(spans, key=lambda span: (span.start_ns, span.position))
    if not everything:
        return Waterfall(now_ns, now_ns, ())
    start_ns = everything[0].start_ns
    running = any(span.end_ns == 0 for span in everything)
    ends = [time_ns for span in everything for time_ns in (span.start_ns, span.end_ns)]
    end_ns = max(*ends, now_ns if running else 0)
    by_id = {span.span_id: span for span in reversed(everything) if span.span_id}
    waits: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in everything:
        parent = by_id.get(span.parent_id)
        if span.kind == "wait" and parent is not None and parent.kind == "step":
            waits[span.parent_id].append((span.start_ns, span.end_ns or end_ns))
        elif span.span_id and by_id[span.span_id] is not span:
            continue  # the same span, told by two records: the earlier one stands for it
        else:
            children[span.parent_id if parent is not None and parent is not span else ""].append(span)
    rows = _rows(children, waits, end_ns)
    return Waterfall(start_ns, end_ns, rows[:ROWS_MAX], max(0, len(rows) - ROWS_MAX))


def _rows(
    children: Mapping[str, Sequence[Span]], waits: Mapping[str, Sequence[tuple[int, int]]], end_ns: int
) -> list[Row]:
    """Walk the tree from its roots, without recursion: depth is a stranger's to choose."""
    rows: list[Row] = []
    waiting = [(span, 0) for span in reversed(children.get("", ()))]
    while waiting:
        span, depth = waiting.pop()
        rows.append(Row(span, depth, tuple(waits.get(span.span_id, ())) if span.span_id else (), span.end_ns or end_ns))
        if span.span_id:
            below = min(depth + 1, DEPTH_MAX)
            waiting += [(child, below) for child in reversed(children.get(span.span_id, ()))]
    return rows


WORK, WAIT, RUNNING, DIED, ERROR, EVENT, LINE, RUN = "█", "░", "▶", "✗", "!", "◆", "·", "━"
"""The signs of a bar: work, waiting, still running, died, failed, an event, a log line, a run as a whole."""

LEGEND: Final = "  ".join(
    (
        f"{WORK} work",
        f"{WAIT} waiting",
        f"{RUN} run",
        f"{DIED} died",
        f"{ERROR} failed",
        f"{RUNNING} running",
        f"{EVENT} event",
        f"{LINE} log line",
    )
)
"""What the signs mean."""

Paint = Callable[[str, str], str]
"""Given a piece of text and what it is, returns it as the terminal shows it.

What it is: ``work``, ``wait``, ``died``, ``error``, ``running``, ``name`` or ``dim``.
"""


def render_text(waterfall: Waterfall, width: int, paint: Paint | None = None) -> list[str]:
    """Return a waterfall as lines of text.

    Each line has the name (indented by depth), the bar, the duration, and the detail, which is cut where the line
    ends. Text of strangers is expected to be printable already.

    Args:
        waterfall: What to show.
        width: Characters of a line, 60 or more to be readable.
        paint: Colours pieces of a line; default: none.
    """
    colour = paint if paint is not None else lambda text, _what: text
    names = ["  " * row.depth + row.span.name for row in waterfall.rows]
    lengths = [len(name) for row, name in zip(waterfall.rows, names, strict=True) if row.span.kind != "log"]
    name_width = min(max([4, *lengths]), max(16, width * 3 // 8))
    bar_width = max(10, width * 3 // 10)
    lines = []
    for row, name in zip(waterfall.rows, names, strict=True):
        if row.span.kind == "log":
            lines.append(_log_line(row, waterfall, name_width + 2 + bar_width, colour))
            continue
        bar = _bar(row, waterfall, bar_width, colour)
        took = "" if row.span.kind in ("event", "log") else short_duration(row.worked_ns)
        detail = _detail(row)
        room = max(0, width - name_width - bar_width - 8 - 6)
        lines.append(
            f"{colour(_cut(name, name_width).ljust(name_width), _name_style(row.span))}  {bar}  {took:>8}"
            f"  {colour(_cut(detail, room), 'dim')}".rstrip()
        )
    if waterfall.left_out:
        lines.append(f"… and {waterfall.left_out:,} more {'row' if waterfall.left_out == 1 else 'rows'}")
    return lines


def _log_line(row: Row, waterfall: Waterfall, width: int, colour: Paint) -> str:
    """Return a log line, which takes the place of name and bar, with when it was, and its level where that matters."""
    text = _cut("  " * row.depth + f"{LINE} {row.span.name}", width).ljust(width)
    when = "+" + short_duration(row.span.start_ns - waterfall.start_ns)
    level = "" if row.span.detail in ("INFO", "DEBUG") else row.span.detail
    return f"{colour(text, 'error' if row.span.status == 'error' else 'dim')}  {when:>8}  {level}".rstrip()


def short_duration(duration_ns: int) -> str:
    """Return a duration of at most eight characters: ``840 µs``, ``12.3 ms``, ``4.56 s``, ``200 s``."""
    if duration_ns < 1_000_000:
        return f"{max(0, duration_ns) // 1000} µs"
    value, unit = (duration_ns / 1e6, "ms") if duration_ns < 999_500_000 else (duration_ns / 1e9, "s")
    decimals = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}"


def _detail(row: Row) -> str:
    parts = [f"waited {short_duration(row.waited_ns)}"] if row.waits else []
    if row.span.status == "died" and "died" not in row.span.detail:
        parts.append("died")
    if row.span.detail:
        parts.append(row.span.detail)
    return ", ".join(parts)


def _name_style(span: Span) -> str:
    return {"error": "error", "died": "died"}.get(span.status, "dim" if span.kind in ("log", "wait") else "name")


def _bar(row: Row, waterfall: Waterfall, width: int, colour: Paint) -> str:
    """Return the cells of a row's bar: waiting in front, then work, with a sign at its end for how it ended."""
    cells = [" "] * width
    kinds = [""] * width

    def fill(start_ns: int, end_ns: int, sign: str, kind: str) -> int:
        first = min(width - 1, (start_ns - waterfall.start_ns) * width // waterfall.duration_ns)
        last = min(width - 1, max(first, ((end_ns - waterfall.start_ns) * width - 1) // waterfall.duration_ns))
        for cell in range(first, last + 1):
            cells[cell], kinds[cell] = sign, kind
        return last

    for start_ns, end_ns in row.waits:
        fill(start_ns, end_ns, WAIT, "wait")
    span = row.span
    signs = {"wait": (WAIT, "wait"), "event": (EVENT, "name"), "run": (RUN, "work")}
    sign, kind = signs.get(span.kind, (WORK, "work"))
    last = fill(span.start_ns, row.end_ns, sign, kind)
    if span.status in ("died", "error", "running") and span.kind != "event":
        cells[last] = {"died": DIED, "error": ERROR, "running": RUNNING}[span.status]
        kinds[last] = span.status
        if span.status == "died":
            kinds = ["died" if kind == "work" else kind for kind in kinds]
    return _painted(cells, kinds, colour)


def _painted(cells: Sequence[str], kinds: Sequence[str], colour: Paint) -> str:
    pieces = []
    begin = 0
    for end in range(1, len(cells) + 1):
        if end == len(cells) or kinds[end] != kinds[begin]:
            text = "".join(cells[begin:end])
            pieces.append(colour(text, kinds[begin]) if kinds[begin] else text)
            begin = end
    return "".join(pieces)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
