"""From the records of one trace to its spans: uploads, events, runs, steps and log lines, put together. Pure.

The dashboard's trace page and ``mainstem trace`` both use it, each with the records that it found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mainstem.flow.journal import JOURNAL_PREFIX, LOG_LINES_PREFIX
from mainstem.flow.spans import run_spans
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.services.uploads.spans import upload_spans
from mainstem.trace.context import parse_traceparent
from mainstem.trace.spans import Span

UPLOAD_PREFIX = "$upload."
"""Streams of uploads begin with this."""


def trace_spans(records: Iterable[StoredRecord], *, now_ns: int) -> list[Span]:
    """Return the spans of the records of one trace (or of several that are to be seen together).

    Args:
        records: Whole journals, log lines, uploads' streams and events, in the log's order.
        now_ns: Wall-clock time.
    """
    streams: dict[str, list[StoredRecord]] = defaultdict(list)
    events: list[StoredRecord] = []
    for record in records:
        if record.stream.startswith("$"):
            streams[record.stream].append(record)
        else:
            events.append(record)
    spans: list[Span] = []
    for stream, of_stream in streams.items():
        if stream.startswith(JOURNAL_PREFIX):
            lines = streams.get(LOG_LINES_PREFIX + stream.removeprefix(JOURNAL_PREFIX), ())
            spans += run_spans([*of_stream, *lines], now_ns=now_ns)
        elif stream.startswith(UPLOAD_PREFIX):
            spans += upload_spans(of_stream)
    return [*spans, *_event_spans(events, spans)]


def _event_spans(events: Sequence[StoredRecord], others: Sequence[Span]) -> list[Span]:
    """Return an instant for each event that no span shows already."""
    shown = {span.position for span in others if span.kind == "event"}
    spans = []
    for record in events:
        context = parse_traceparent(record.headers.get(TRACEPARENT))
        if context is None or record.position in shown:
            continue
        spans.append(
            Span(
                trace_id=context.trace_id,
                span_id="",
                parent_id=context.span_id,
                name=record.stream,
                kind="event",
                start_ns=record.time_ns,
                end_ns=record.time_ns,
                position=record.position,
            )
        )
    return spans
