"""From the records of one trace to its spans: uploads, events, runs, steps and log lines, put together. Pure.

The dashboard's trace page and ``mainstem trace`` both use it, each with the records that it found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec

from mainstem.bus.cursors import DEAD_PREFIX, DeadLetter
from mainstem.flow.history import read_entry, run_id_of
from mainstem.flow.journal import JOURNAL_PREFIX, LOG_LINES_PREFIX, Started
from mainstem.flow.spans import run_spans
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.services.uploads.spans import upload_spans
from mainstem.trace.context import derived_span_id, parse_traceparent
from mainstem.trace.spans import Span

UPLOAD_PREFIX = "$upload."
"""Streams of uploads begin with this."""

_ATTEMPTS_TRIED = 10
_TRIES_MAX = 100_000
_DETAIL_MAX_CHARS = 300

_letter_decoder = msgspec.json.Decoder(DeadLetter)


def trace_spans(
    records: Iterable[StoredRecord], *, now_ns: int, groups: Iterable[str] = (), queued: Iterable[str] = ()
) -> list[Span]:
    """Return the spans of the records of one trace (or of several that are to be seen together).

    A run that an event started stands below that event. What a consumer group's handler started stands below that
    group, and the group below the event that it handled; so does an event that it gave up. A handler that started
    nothing and did not fail leaves no record, and is no span.

    Args:
        records: Whole journals, log lines, uploads' streams, events and dead letters, in the log's order.
        now_ns: Wall-clock time.
        groups: Names of the consumer groups whose handlers may have started something.
        queued: Ids of the runs that wait for their turn, where their process could be asked.
    """
    waiting = frozenset(queued)
    streams: dict[str, list[StoredRecord]] = defaultdict(list)
    events: list[StoredRecord] = []
    letters: list[StoredRecord] = []
    for record in records:
        if record.stream.startswith(DEAD_PREFIX):
            letters.append(record)
        elif record.stream.startswith("$"):
            streams[record.stream].append(record)
        else:
            events.append(record)
    spans: list[Span] = []
    triggers: dict[int, int] = {}
    for stream, of_stream in streams.items():
        if stream.startswith(JOURNAL_PREFIX):
            lines = streams.get(LOG_LINES_PREFIX + stream.removeprefix(JOURNAL_PREFIX), ())
            of_run = run_spans([*of_stream, *lines], now_ns=now_ns, queued=run_id_of(stream) in waiting)
            spans += of_run
            if of_run and (trigger := _trigger_position(of_stream[0])):
                triggers[of_run[0].position] = trigger
        elif stream.startswith(UPLOAD_PREFIX):
            spans += upload_spans(of_stream)
    ids = _span_ids(events, spans)
    placed = _below_their_events(_with_events(spans, events), ids, triggers)
    given_up = [span for letter in letters if (span := _given_up(letter, ids)) is not None]
    placed += given_up
    return placed + _group_spans(placed, events, ids, list(groups))


def _given_up(record: StoredRecord, ids: Mapping[int, str]) -> Span | None:
    """Return the span of a group that gave an event up; ``None`` for what is no dead letter of ours."""
    context = parse_traceparent(record.headers.get(TRACEPARENT))
    try:
        letter = _letter_decoder.decode(record.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if context is None:
        return None
    group = record.stream.removeprefix(DEAD_PREFIX)
    attempts = f"{letter.attempts} attempt{'' if letter.attempts == 1 else 's'}"
    return Span(
        trace_id=context.trace_id,
        span_id=_group_span_id(context.trace_id, group, letter.position, letter.attempts),
        parent_id=ids.get(letter.position, context.span_id),
        name=f"group {group}",
        kind="step",
        start_ns=record.time_ns,
        end_ns=record.time_ns,
        status="error",
        detail=f"gave up after {attempts}: {letter.error_type}: {letter.error}"[:_DETAIL_MAX_CHARS],
        position=record.position,
    )


def _group_span_id(trace_id: str, group: str, position: int, attempt: int) -> str:
    """Return the id under which a group's handler works on an event: as :mod:`mainstem.bus.group` derives it."""
    return derived_span_id(trace_id, "group", group, str(position), str(attempt))


def _group_spans(
    spans: Sequence[Span], events: Sequence[StoredRecord], ids: Mapping[int, str], groups: Sequence[str]
) -> list[Span]:
    """Return an instant for each handler whose span others name as their parent: when it started the first of them.

    Ids are derived one way only: those of the trace's events are tried, until all parents are found.
    """
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span.kind in ("run", "event") and span.parent_id not in known:
            children[span.parent_id].append(span)
    tries = (
        (event, group, attempt) for event in events for group in groups for attempt in range(1, _ATTEMPTS_TRIED + 1)
    )
    found = []
    for event, group, attempt in islice(tries, _TRIES_MAX):
        if not children:
            break
        context = parse_traceparent(event.headers.get(TRACEPARENT))
        if context is None:
            continue
        span_id = _group_span_id(context.trace_id, group, event.position, attempt)
        below = children.pop(span_id, None)
        if below is None:
            continue
        first = min(below, key=lambda span: span.start_ns)
        found.append(
            Span(
                trace_id=context.trace_id,
                span_id=span_id,
                parent_id=ids[event.position],
                name=f"group {group}",
                kind="event",
                start_ns=first.start_ns,
                end_ns=first.start_ns,
                detail=f"attempt {attempt}" if attempt > 1 else "",
                position=event.position,
            )
        )
    return found


def _trigger_position(first: StoredRecord) -> int:
    """Return the position of the event that started a run; 0 for none."""
    entry = read_entry(first.value)
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
