"""From the records of a trace to its spans."""

from __future__ import annotations

import msgspec

from mainstem.bus import DeadLetter
from mainstem.flow.journal import JournalEntry, Published, RunCompleted, Started, Trigger
from mainstem.log import StoredRecord
from mainstem.trace.context import derived_span_id
from mainstem.trace.spans import Span
from mainstem.trace.waterfall import build_waterfall
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


def by_name(spans: list[Span], name: str) -> Span:
    """Return the only span of a name."""
    (found,) = (span for span in spans if span.name == name)
    return found


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


def test_what_a_handler_started_stands_below_its_group() -> None:
    """A job that a group's handler enqueued is below that group, and the group below the event that it handled."""
    handler = derived_span_id(TRACE, "group", "teller", "1", "2")
    job = stored(3, "$run.mail-1", Started("mail", "job", ARGUMENTS, "mail"), span_id=handler)
    told = stored(4, "orders.told", {"id": 1}, span_id=handler)
    records = [stored(1, "orders.created", {"id": 1}), job, told]
    spans = trace_spans(records, now_ns=9000, groups=["other", "teller"])
    event, group, after = (by_name(spans, name) for name in ("orders.created", "group teller", "orders.told"))
    (run,) = by_kind(spans, "run")
    assert (group.parent_id, group.start_ns, group.detail) == (event.span_id, 3000, "attempt 2")
    assert run.parent_id == after.parent_id == group.span_id
    rows = build_waterfall(spans, 9000).rows
    assert [(row.span.name, row.depth) for row in rows] == [
        ("orders.created", 0), ("group teller", 1), ("mail", 2), ("orders.told", 2),
    ]  # fmt: skip
    assert all(span.name != "group teller" for span in trace_spans(records, now_ns=9000))


def test_an_event_that_was_given_up_is_a_failure_below_it() -> None:
    """A dead letter is a failed span of its group: after how many attempts, and why."""
    letter = DeadLetter("orders.created", 1, 3, "ValueError", "no address")
    spans = trace_spans(
        [
            stored(1, "orders.created", {"id": 1}),
            stored(5, "$dead.teller", letter),
            stored(6, "$dead.teller", {"not": "a letter"}),
        ],
        now_ns=9000,
    )
    event, given_up = by_name(spans, "orders.created"), by_name(spans, "group teller")
    assert (given_up.status, given_up.parent_id) == ("error", event.span_id)
    assert given_up.detail == "gave up after 3 attempts: ValueError: no address"
    assert len(spans) == 2


def test_an_event_without_a_trace_is_not_drawn() -> None:
    """A record without a trace context has no place in a waterfall."""
    assert trace_spans([StoredRecord(1, "orders.created", 0, b"{}")], now_ns=0) == []
