"""From spans to rows, and from rows to text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.trace import waterfall as module
from mainstem.trace.spans import Span, SpanKind, SpanStatus
from mainstem.trace.waterfall import (
    DEPTH_MAX,
    DIED,
    ERROR,
    EVENT,
    LEGEND,
    LINE,
    ROWS_MAX,
    RUN,
    RUNNING,
    WAIT,
    WORK,
    build_waterfall,
    render_text,
    short_duration,
)

MS = 1_000_000


def span(
    name: str,
    start_ms: int,
    end_ms: int,
    *,
    span_id: str = "",
    parent_id: str = "",
    kind: SpanKind = "step",
    status: SpanStatus = "ok",
    detail: str = "",
) -> Span:
    """Return a span with times in milliseconds; an end of -1 means that it still runs."""
    return Span(
        trace_id="t",
        span_id=span_id,
        parent_id=parent_id,
        name=name,
        kind=kind,
        start_ns=start_ms * MS,
        end_ns=0 if end_ms < 0 else end_ms * MS,
        status=status,
        detail=detail,
    )


UPLOAD = [
    span("POST /files", 0, 10, span_id="a", kind="request"),
    span("upload.completed", 10, 10, span_id="e", parent_id="a", kind="event"),
    span("transcode", 10, 100, span_id="r", parent_id="e", kind="run"),
    span("encode#1", 30, 60, span_id="s1", parent_id="r", status="died", detail="attempt 1"),
    span("encode#1", 70, 100, span_id="s2", parent_id="r", detail="attempt 2"),
    span("queued", 10, 30, parent_id="s1", kind="wait"),
    span("one line", 40, 40, parent_id="s1", kind="log"),
]


def test_rows_stand_in_the_order_of_the_tree() -> None:
    """Children follow their parent, deeper by one, siblings by start, whatever order the spans come in."""
    rows = build_waterfall(reversed(UPLOAD), now_ns=0).rows
    assert [(row.span.name, row.depth) for row in rows] == [
        ("POST /files", 0),
        ("upload.completed", 1),
        ("transcode", 2),
        ("encode#1", 3),
        ("one line", 4),
        ("encode#1", 3),
    ]


def test_a_steps_wait_is_in_its_row() -> None:
    """Waiting for a turn is told with the step, before its work."""
    row = build_waterfall(UPLOAD, now_ns=0).rows[3]
    assert row.waited_ns == 20 * MS
    assert row.worked_ns == 30 * MS
    assert row.start_ns == 10 * MS


def test_other_waits_have_rows_of_their_own() -> None:
    """A wait below a run, such as a durable sleep, is a row."""
    spans = [span("fulfil", 0, 50, span_id="r", kind="run"), span("sleep", 10, 40, parent_id="r", kind="wait")]
    assert [row.span.name for row in build_waterfall(spans, now_ns=0).rows] == ["fulfil", "sleep"]


def test_a_parent_elsewhere_makes_a_root() -> None:
    """A span whose caller is not part of the log stands at the left."""
    assert build_waterfall([span("a", 0, 1, span_id="a", parent_id="elsewhere")], now_ns=0).rows[0].depth == 0


def test_a_span_told_twice_is_shown_once() -> None:
    """Two records of one span make one row: the earlier one."""
    spans = [span("a", 0, 5, span_id="a"), span("a again", 1, 5, span_id="a")]
    assert [row.span.name for row in build_waterfall(spans, now_ns=0).rows] == ["a"]


def test_what_runs_ends_now() -> None:
    """A running span's bar ends at the present, and so does the waterfall."""
    waterfall = build_waterfall([span("a", 0, -1, span_id="a", status="running")], now_ns=70 * MS)
    assert waterfall.rows[0].end_ns == waterfall.end_ns == 70 * MS


def test_nothing_is_an_empty_waterfall() -> None:
    """No spans make no rows, and a length that can be divided by."""
    waterfall = build_waterfall([], now_ns=5)
    assert (len(waterfall.rows), waterfall.duration_ns) == (0, 1)
    assert render_text(waterfall, 80) == []


def test_rows_and_depth_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep chain does not exhaust the stack, and rows beyond the limit are counted."""
    chain = [span(str(n), n, n + 1, span_id=f"s{n}", parent_id=f"s{n - 1}") for n in range(ROWS_MAX + 7)]
    waterfall = build_waterfall(chain, now_ns=0)
    assert (len(waterfall.rows), waterfall.left_out) == (ROWS_MAX, 7)
    assert max(row.depth for row in waterfall.rows) == DEPTH_MAX
    monkeypatch.setattr(module, "ROWS_MAX", 3)
    assert render_text(build_waterfall(chain[:1004], now_ns=0), 80)[-1] == "… and 1,001 more rows"
    assert render_text(build_waterfall(chain[:4], now_ns=0), 80)[-1] == "… and 1 more row"


def test_a_loop_of_parents_does_not_hang() -> None:
    """Spans that are each other's parents end the walk; a span that is its own parent is a root."""
    loop = [span("a", 0, 1, span_id="a", parent_id="b"), span("b", 0, 1, span_id="b", parent_id="a")]
    assert build_waterfall(loop, now_ns=0).rows == []
    assert len(build_waterfall([span("a", 0, 1, span_id="a", parent_id="a")], now_ns=0).rows) == 1


def test_bars_tell_work_waiting_and_death_apart() -> None:
    """A bar shows waiting in front of work, and how it ended; the text says so, too."""
    lines = render_text(build_waterfall(UPLOAD, now_ns=0), 120)
    died = next(line for line in lines if "attempt 1" in line)
    assert died.index(WAIT) < died.index(WORK) < died.index(DIED)
    assert "waited 20.0 ms, died, attempt 1" in died
    assert RUN in lines[2]
    assert EVENT in lines[1]
    assert lines[4].split() == [LINE, "one", "line", "+40.0", "ms"]
    assert all(sign in LEGEND for sign in (WORK, WAIT, RUN, DIED, ERROR, RUNNING, EVENT, LINE))


@pytest.mark.parametrize(("status", "sign"), [("error", ERROR), ("running", RUNNING), ("died", DIED)])
def test_each_bad_end_has_its_sign(status: SpanStatus, sign: str) -> None:
    """Failing, dying and still running end a bar with different signs."""
    (line,) = render_text(build_waterfall([span("a", 0, 9, span_id="a", status=status)], now_ns=0), 80)
    assert sign in line


def test_paint_gets_whole_pieces() -> None:
    """Colours are put around pieces, and the text between is the same as without."""
    plain = render_text(build_waterfall(UPLOAD, now_ns=0), 90)
    painted = render_text(build_waterfall(UPLOAD, now_ns=0), 90, lambda text, what: f"<{what}|{text}>")
    assert "<wait|░" in "".join(painted)
    assert len(painted) == len(plain)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1000), st.integers(-1, 1000), st.integers(-1, 5), st.sampled_from(["step", "wait", "log"])
        ),
        max_size=12,
    ),
    st.integers(60, 200),
)
def test_no_line_is_wider_than_asked(parts: list[tuple[int, int, int, SpanKind]], width: int) -> None:
    """Whatever the spans are, every line fits, and every step appears once."""
    spans = [
        span(
            f"name {index}" * 5,
            start,
            end,
            span_id=f"s{index}",
            parent_id=f"s{parent}" if parent < index else "",
            kind=kind,
        )
        for index, (start, end, parent, kind) in enumerate(parts)
    ]
    waterfall = build_waterfall(spans, now_ns=2000 * MS)
    assert all(len(line) <= width for line in render_text(waterfall, width))
    shown = [row.span.span_id for row in waterfall.rows]
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [(-5, "0 µs"), (840_000, "840 µs"), (12_300_000, "12.3 ms"), (4_560_000_000, "4.56 s"), (5_000 * 10**9, "5000 s")],
)
def test_short_durations(duration_ns: int, text: str) -> None:
    """A duration fits into its column."""
    assert short_duration(duration_ns) == text
