"""A waterfall: spans in the order of their tree, each with its depth and its place in time; and its look in a terminal.

Pure. ``layout`` turns spans into rows, which the pages draw as bars and :func:`render_text` as characters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mainstem.trace.spans import Span, SpanStatus

DEPTH_MAX: Final = 12
"""Deeper spans are drawn at this depth."""

_BAR_CHARS: Final = {"work": "█", "wait": "░", "died": "▚", "error": "█", "running": "▓", "instant": "◆"}
_MARKS: Final[dict[SpanStatus, str]] = {"ok": " ", "error": "✗", "died": "†", "running": "…"}


class Row(msgspec.Struct, frozen=True):
    """One line of a waterfall.

    Attributes:
        span: The span.
        depth: Levels below the first one, 0 to :data:`DEPTH_MAX`.
        start: Where it begins between the waterfall's begin and end, 0 to 1.
        length: Its share of the whole, 0 to 1; 0 for an instant.
        duration_ns: Its length in time; of a running one until ``now_ns``.
    """

    span: Span
    depth: int
    start: float
    length: float
    duration_ns: int


class Waterfall(msgspec.Struct, frozen=True):
    """Rows, and the time between the first begin and the last end.

    Attributes:
        start_ns: Wall-clock time of the first begin.
        end_ns: Wall-clock time of the last end (``now_ns`` where something still runs).
    """

    rows: Sequence[Row]
    start_ns: int
    end_ns: int

    @property
    def duration_ns(self) -> int:
        """Time from the first begin to the last end."""
        return self.end_ns - self.start_ns


def layout(spans: Iterable[Span], *, now_ns: int) -> Waterfall:
    """Return the rows of a waterfall: parents before their children, siblings by time.

    A span whose parent is not among the spans (a request of another system began the trace), or that stands in a circle
    of parents, is drawn at the top.
    """
    ordered = sorted(spans, key=lambda span: (span.start_ns, span.position))
    if not ordered:
        return Waterfall((), now_ns, now_ns)
    start_ns = ordered[0].start_ns
    end_ns = max(max(_end_ns(span, now_ns) for span in ordered), start_ns + 1)
    whole = end_ns - start_ns
    return Waterfall(
        [
            Row(span, depth, (span.start_ns - start_ns) / whole, _length_ns(span, now_ns) / whole, _length_ns(span, now_ns))
            for span, depth in _tree(ordered)
        ],
        start_ns,
        end_ns,
    )


def _end_ns(span: Span, now_ns: int) -> int:
    return max(span.end_ns or now_ns, span.start_ns)


def _length_ns(span: Span, now_ns: int) -> int:
    return _end_ns(span, now_ns) - span.start_ns


def _tree(ordered: Sequence[Span]) -> list[tuple[Span, int]]:
    """Return the spans in drawing order with their depths; without recursion, since a stranger may have made the tree."""
    known = {span.span_id for span in ordered if span.span_id}
    children: dict[str, list[Span]] = defaultdict(list)
    roots: list[Span] = []
    for span in ordered:
        below = span.parent_id in known and span.parent_id != span.span_id
        (children[span.parent_id] if below else roots).append(span)
    drawn: list[tuple[Span, int]] = []
    seen: set[int] = set()

    def draw(from_spans: Sequence[Span]) -> None:
        stack = [(span, 0) for span in reversed(from_spans)]
        while stack:
            span, depth = stack.pop()
            if id(span) in seen:
                continue
            seen.add(id(span))
            drawn.append((span, min(depth, DEPTH_MAX)))
            if span.span_id:
                stack.extend((child, depth + 1) for child in reversed(children.pop(span.span_id, [])))

    draw(roots)
    draw([span for span in ordered if id(span) not in seen])  # circles of parents have no root
    return drawn


def bar_kind(span: Span) -> str:
    """Return how a span is drawn: ``work``, ``wait``, ``died``, ``error``, ``running`` or ``instant``."""
    if span.kind in {"event", "log"} or (span.end_ns == span.start_ns and span.status == "ok"):
        return "instant"
    if span.status in {"died", "error", "running"} and not (span.kind == "wait" and span.status == "running"):
        return span.status
    return "wait" if span.kind == "wait" else "work"


def render_text(waterfall: Waterfall, *, width_chars: int = 100) -> list[str]:
    """Return the waterfall as lines for a terminal, each at most ``width_chars`` wide (60 at least).

    Work is ``█``, waiting ``░``, an attempt whose process died ``▚`` with a ``†``, an error has a ``✗``, an event or a log
    line is a ``◆``.
    """
    width_chars = max(width_chars, 60)
    name_chars = min(max((len(_label(row)) for row in waterfall.rows), default=0), width_chars * 2 // 5)
    bar_chars = max(width_chars - name_chars - 14, 16)
    lines = []
    for row in waterfall.rows:
        label = _label(row)
        label = label if len(label) <= name_chars else label[: name_chars - 1] + "…"
        duration = _duration(row.duration_ns) if row.length > 0 else ""
        mark = _MARKS[row.span.status]
        lines.append(f"{label:<{name_chars}} {_bar(row, bar_chars)} {duration:>9} {mark}".rstrip())
        if row.span.detail and row.span.status in {"error", "died"}:
            lines.append(_cut(f"{'  ' * (row.depth + 1)}↳ {row.span.detail}", width_chars))
    return lines


def _label(row: Row) -> str:
    return "  " * row.depth + _printable(row.span.name)


def _cut(line: str, width_chars: int) -> str:
    line = _printable(line)
    return line if len(line) <= width_chars else line[: width_chars - 1] + "…"


def _printable(value: str) -> str:
    # Names and errors come from strangers: a terminal would obey their escape sequences.
    return "".join(char if char.isprintable() else "�" for char in value)


def _bar(row: Row, bar_chars: int) -> str:
    kind = bar_kind(row.span)
    begin = min(int(row.start * bar_chars), bar_chars - 1)
    length = 1 if kind == "instant" else max(round(row.length * bar_chars), 1)
    return (" " * begin + _BAR_CHARS[kind] * min(length, bar_chars - begin)).ljust(bar_chars)


def _duration(duration_ns: int) -> str:
    if duration_ns < 1_000_000:
        return f"{duration_ns / 1e3:.0f} µs"
    if duration_ns < 1_000_000_000:
        return f"{duration_ns / 1e6:.0f} ms"
    if duration_ns < 120_000_000_000:
        return f"{duration_ns / 1e9:.2f} s"
    return f"{duration_ns / 60e9:.1f} min"
