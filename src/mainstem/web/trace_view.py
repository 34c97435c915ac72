"""From the records of one trace to its spans: uploads, events, runs, steps and log lines, put together. Pure.

The dashboard's trace page and ``mainstem trace`` both use it, each with the records that it found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mainstem.flow.journal import JOURNAL_PREFIX, LOG_LINES_PREFIX, JournalEntry, Started
from mainstem.flow.spans import run_spans
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.services.uploads.spans import upload_spans
from mainstem.trace.context import derived_span_id, parse_traceparent
from mainstem.trace.spans import Span

UPLOAD_PREFIX = "$upload."
"""Streams of uploads begin with this."""

_entry_decoder: msgspec.json.Decoder[JournalEntry] = msgspec.json.Decoder(JournalEntry)


def trace_spans(records: Iterable[StoredRecord], *, now_ns: int) -> list[Span]:
    """Return the spans of the records of one trace (or of several that are to be seen together).

    A run that an event started stands below that event.

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
    triggers: dict[int, int] = {}
    for stream, of_stream in streams.items():
        if stream.startswith(JOURNAL_PREFIX):
            lines = streams.get(LOG_LINES_PREFIX + stream.removeprefix(JOURNAL_PREFIX), ())
            of_run = run_spans([*of_stream, *lines], now_ns=now_ns)
            spans += of_run
            if of_run and (trigger := _trigger_position(of_stream[0])):
                triggers[of_run[0].position] = trigger
        elif stream.startswith(UPLOAD_PREFIX):
            spans += upload_spans(of_stream)
    return _below_their_events(_with_events(spans, events), _span_ids(events, spans), triggers)


def _trigger_position(first: StoredRecord) -> int:
    """Return the position of the event that started a run; 0 for none."""
    entry = _entry_decoder.decode(first.value)
    return entry.trigger.position if isinstance(entry, Started) and entry.trigger is not None else 0


def _span_ids(events: Sequence[StoredRecord], spans: Sequence[Span]) -> dict[int, str]:
    """Return each event's span id by its position: that of the span that stands for it already, or one of its own."""
    known = {span.span_id for span in spans if span.kind == "event" and span.span_id}
    ids = {}
    for event in events:
        context = parse_traceparent(event.headers.get(TRACEPARENT))
        if context is not None:
            own = derived_span_id(context.trace_id, "event", str(event.position))
            ids[event.position] = context.span_id if context.span_id in known else own
    return ids


def _with_events(spans: Sequence[Span], events: Sequence[StoredRecord]) -> list[Span]:
    """Add an instant for each event that no span shows yet; give those that have no span id the event's."""
    ids = _span_ids(events, spans)
    shown = {span.position for span in spans if span.kind == "event"} | {span.span_id for span in spans}
    result = [
        msgspec.structs.replace(span, span_id=ids[span.position])
        if span.kind == "event" and not span.span_id and span.position in ids
        else span
        for span in spans
    ]
    for event in events:
        context = parse_traceparent(event.headers.get(TRACEPARENT))
        if context is None or event.position in shown or ids[event.position] in shown:
            continue
        result.append(
            Span(
                trace_id=context.trace_id,
                span_id=ids[event.position],
                parent_id=context.span_id,
                name=event.stream,
                kind="event",
                start_ns=event.time_ns,
                end_ns=event.time_ns,
                position=event.position,
            )
        )
    return result


def _below_their_events(spans: Sequence[Span], ids: Mapping[int, str], triggers: Mapping[int, int]) -> list[Span]:
    """Put runs below the events that started them: between the two stands a consumer, which is no span."""
    return [
        msgspec.structs.replace(span, parent_id=ids[triggers[span.position]])
        if span.kind == "run" and triggers.get(span.position, 0) in ids
        else span
        for span in spans
    ]
