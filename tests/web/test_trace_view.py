"""From the records of a trace to its spans."""

from __future__ import annotations

import msgspec

from mainstem.flow.journal import JournalEntry, Published, RunCompleted, Started, Trigger
from mainstem.log import StoredRecord
from mainstem.trace.spans import Span
from mainstem.web.trace_view import trace_spans

TRACE = "ab" * 16
ARGUMENTS = msgspec.Raw(b'{"args":[],"kwargs":{}}')


def stored(position: int, stream: str, value: object, span_id: str = "c" * 16) -> StoredRecord:
    """Return a record of the trace."""
    headers = {"traceparent": f"00-{TRACE}-{span_id}-01"}
    return StoredRecord(position, stream, position * 1000, msgspec.json.encode(value), headers=headers)


def started(position: int, run_id: str, trigger: Trigger | None) -> StoredRecord:
    """Return the beginning of a run."""
    return stored(position, f"$run.{run_id}", Started("fulfil", "workflow", ARGUMENTS, trigger=trigger))


def by_kind(spans: list[Span], kind: str) -> list[Span]:
    """Return the spans of a kind."""
    return [span for span in spans if span.kind == kind]


def test_a_run_stands_below_its_event() -> None:
    """An event has a span of its own, and the run that it started is below it; any other run is where its caller is."""
    spans = trace_spans(
        [
            stored(1, "orders.created", {"id": 1}),
            started(2, "fulfil-1", Trigger("orders.created", 1)),
            started(3, "free", None),
        ],
        now_ns=9000,
    )
    (event,) = by_kind(spans, "event")
    below, free = by_kind(spans, "run")
    assert event.name == "orders.created"
    assert below.parent_id == event.span_id
    assert free.parent_id == "c" * 16


def test_an_event_that_a_run_published_is_shown_once() -> None:
    """The run's own record of the publish stands for the event, and what the event started is below it."""
    entries: list[JournalEntry] = [Published("publish#1", "orders.fulfilled", "d", ahead=1), RunCompleted(ARGUMENTS)]
    spans = trace_spans(
        [
            started(1, "first", None),
            stored(2, "orders.fulfilled", {"id": 1}),
            stored(3, "$run.first", entries[0]),
            stored(4, "$run.first", entries[1]),
            started(5, "second", Trigger("orders.fulfilled", 2)),
        ],
        now_ns=9000,
    )
    (event,) = by_kind(spans, "event")
    assert (event.name, event.position) == ("publish orders.fulfilled", 2)
    assert by_kind(spans, "run")[1].parent_id == event.span_id


def test_an_event_that_is_not_among_the_records_leaves_the_run_as_it_is() -> None:
    """A run whose event belongs to another trace stays below its caller."""
    (run,) = by_kind(trace_spans([started(5, "x", Trigger("orders.created", 1))], now_ns=9000), "run")
    assert run.parent_id == "c" * 16


def test_an_event_without_a_trace_is_not_drawn() -> None:
    """A record without a trace context has no place in a waterfall."""
    assert trace_spans([StoredRecord(1, "orders.created", 0, b"{}")], now_ns=0) == []
