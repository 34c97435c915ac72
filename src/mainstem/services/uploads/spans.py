"""The requests of an upload as spans, derived from its records; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from mainstem.base.codec import NotDecodableError
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.services.uploads.protocol import (
    UPLOAD_COMPLETED,
    Created,
    Finished,
    Progressed,
    Terminated,
    Upload,
    UploadRecord,
    decode_record,
    fold,
)
from mainstem.trace.context import parse_traceparent
from mainstem.trace.spans import Span, SpanStatus

_WORDS: Final = {
    "ok": "",
    "receiving": "",
    "disconnected": "the connection broke",
    "superseded": "another request took over",
    "stopped": "the server stopped",
    "checksum_mismatch": "checksum mismatch, discarded",
    "too_large": "more bytes than declared, refused",
    "no_space": "the disk was full",
    "failed": "the disk failed",
}


def upload_spans(records: Iterable[StoredRecord]) -> list[Span]:
    """Return the spans of one upload: its creation, each request that brought bytes, the waits in between, its end.

    A request that ended with its process is ``died`` once something later is known, ``running`` until then. A request
    is in the client's trace where the client had one, else in that of the upload's creation.

    Args:
        records: Those of one ``$upload.<id>``, in order. What cannot be read is passed over.
    """
    upload: Upload | None = None
    spans: list[Span] = []
    requests: dict[int, list[tuple[StoredRecord, Progressed]]] = {}
    last: UploadRecord | None = None
    for stored in records:
        try:
            record = decode_record(stored.value)
            after = fold(upload, stored)
        except NotDecodableError:
            continue  # not of this version; the stream's own page shows it
        if after is None or (upload is not None and after is upload):
            continue  # no beginning yet, or nothing changes any more
        upload, last = after, record
        if isinstance(record, Created):
            spans.append(_creation(stored, record, upload))
        elif isinstance(record, Progressed):
            requests.setdefault(record.request, []).append((stored, record))
        else:
            spans.append(_end(stored, record, upload))
    if upload is None:
        return []
    latest = max(requests, default=0)
    is_open = upload.phase == "open" and isinstance(last, Progressed)
    of_requests = [
        _request(upload, number, found, goes_on=is_open and number == latest)
        for number, found in sorted(requests.items())
    ]
    return sorted([*spans, *of_requests, *_waits(upload, of_requests)], key=lambda span: (span.start_ns, span.position))


def _creation(stored: StoredRecord, record: Created, upload: Upload) -> Span:
    return Span(
        trace_id=upload.trace.trace_id,
        span_id=upload.trace.span_id,
        parent_id=record.parent_span,
        name="create upload",
        kind="request",
        start_ns=record.started_ns,
        end_ns=max(stored.time_ns, record.started_ns),
        detail=f"{record.size_bytes:,} bytes" + (f", {record.filename}" if record.filename else ""),
        position=stored.position,
        attributes={"upload": upload.id},
    )


def _request(upload: Upload, number: int, found: Sequence[tuple[StoredRecord, Progressed]], *, goes_on: bool) -> Span:
    stored, record = found[-1]
    context = parse_traceparent(stored.headers.get(TRACEPARENT)) or upload.request_span(number, None)
    status: SpanStatus = "ok" if record.outcome == "ok" else "error"
    end_ns = record.ended_ns
    if record.outcome == "receiving":
        status, end_ns = ("running", 0) if goes_on else ("died", record.ended_ns)
    words = _WORDS[record.outcome] if status != "died" else "the process ended in the middle of it"
    same_trace = context.trace_id == upload.trace.trace_id
    return Span(
        trace_id=context.trace_id,
        span_id=context.span_id,
        parent_id=record.parent_span or (upload.trace.span_id if same_trace else ""),
        name="POST bytes" if number == 0 else f"PATCH {number}",
        kind="request",
        start_ns=record.started_ns,
        end_ns=end_ns,
        status=status,
        detail=f"{record.received_bytes:,} bytes, offset {record.offset:,}" + (f": {words}" if words else ""),
        position=stored.position,
        attributes={
            "upload": upload.id,
            "received_bytes": str(record.received_bytes),
            "offset": str(record.offset),
            "outcome": record.outcome,
        },
    )


def _waits(upload: Upload, requests: Sequence[Span]) -> list[Span]:
    """Return the times in which no request was there although the upload was not complete."""
    waits = []
    for before, after in pairwise(requests):
        if before.end_ns and after.start_ns > before.end_ns:
            waits.append(
                Span(
                    trace_id=upload.trace.trace_id,
                    span_id="",
                    parent_id=upload.trace.span_id,
                    name="waiting for the client",
                    kind="wait",
                    start_ns=before.end_ns,
                    end_ns=after.start_ns,
                    position=after.position,
                )
            )
    return waits


def _end(stored: StoredRecord, record: UploadRecord, upload: Upload) -> Span:
    """Return the instant at which an upload ended; that of a finished one stands for its event."""
    if isinstance(record, Finished):
        context, name, detail, ok = upload.completed_span(), UPLOAD_COMPLETED, f"blob {record.blob[:16]}…", True
    else:
        context, ok = upload.completed_span(), False
        by_client = isinstance(record, Terminated) and record.reason == "client"
        name = "terminated" if isinstance(record, Terminated) else "expired"
        detail = "by the client" if by_client else "its bytes were lost" if name == "terminated" else "nobody went on"
    return Span(
        trace_id=context.trace_id,
        span_id=context.span_id,
        parent_id=upload.trace.span_id,
        name=name,
        kind="event",
        start_ns=stored.time_ns,
        end_ns=stored.time_ns,
        status="ok" if ok else "error",
        detail=detail,
        position=stored.position,
        attributes={"upload": upload.id},
    )
