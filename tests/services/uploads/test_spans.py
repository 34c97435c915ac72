"""From the records of an upload to its spans; pure."""

from __future__ import annotations

import os
from pathlib import Path

from mainstem.log import StoredRecord
from mainstem.services.uploads.protocol import (
    UPLOAD_PREFIX,
    Created,
    Expired,
    Finished,
    Progressed,
    Terminated,
    UploadRecord,
    creation_trace,
    encode_record,
    fold,
)
from mainstem.services.uploads.spans import upload_spans
from mainstem.trace.context import TraceContext
from mainstem.trace.spans import Span
from tests.services.uploads.helpers import serving
from tests.support import run

TRACE = creation_trace("u", None, TraceContext("a" * 32, "b" * 16))
CLIENT = TraceContext("c" * 32, "d" * 16)
CREATED = Created(size_bytes=100, started_ns=10, expires_ns=9999, filename="f.mp4", parent_span="e" * 16)


def records(*items: UploadRecord) -> list[StoredRecord]:
    """Return records as they would be stored, each a microsecond after the one before."""
    stream = UPLOAD_PREFIX + "u"
    upload = fold(None, StoredRecord(1, stream, 20, encode_record(CREATED), headers={"traceparent": TRACE.traceparent}))
    assert upload is not None
    stored = []
    for position, item in enumerate(items, 1):
        trace = TRACE
        if isinstance(item, Progressed):
            trace = upload.request_span(item.request, CLIENT if item.parent_span else None)
        headers = {"traceparent": trace.traceparent}
        stored.append(StoredRecord(position, stream, 1000 * position, encode_record(item), headers=headers))
    return stored


def named(spans: list[Span], name: str) -> Span:
    """Return the one span of that name."""
    [span] = [span for span in spans if span.name == name]
    return span


def test_waterfall_of_a_broken_upload() -> None:
    """Creation, a request that broke, the wait, the request that finished it, and the event, in order."""
    spans = upload_spans(
        records(
            CREATED,
            Progressed(40, 1, 40, 2000, 2500, "receiving", 9999),
            Progressed(60, 1, 60, 2000, 3000, "disconnected", 9999),
            Progressed(100, 2, 40, 5000, 6000, "ok", 9999),
            Finished("f" * 64, 100, 6000),
        )
    )
    assert [span.name for span in spans] == [
        "create upload",
        "PATCH 1",
        "waiting for the client",
        "PATCH 2",
        "upload.completed",
    ]
    creation, broken, wait, last, event = spans
    assert (creation.parent_id, creation.start_ns, creation.kind) == ("e" * 16, 10, "request")
    assert (broken.start_ns, broken.end_ns, broken.status) == (2000, 3000, "error")
    assert "the connection broke" in broken.detail
    assert broken.attributes["received_bytes"] == "60"
    assert (wait.kind, wait.start_ns, wait.end_ns) == ("wait", 3000, 5000)
    assert (last.status, event.kind, event.status) == ("ok", "event", "ok")
    assert {span.trace_id for span in spans} == {TRACE.trace_id}
    assert {span.parent_id for span in spans[1:]} == {TRACE.span_id}


def test_request_that_died_and_one_that_runs() -> None:
    """A request whose last record says that it goes on runs while it is the latest, and has died when others follow."""
    first = Progressed(40, 1, 40, 2000, 2500, "receiving", 9999)
    running = named(upload_spans(records(CREATED, first)), "PATCH 1")
    assert (running.status, running.end_ns) == ("running", 0)
    second = Progressed(60, 2, 20, 5000, 6000, "disconnected", 9999)
    died = named(upload_spans(records(CREATED, first, second)), "PATCH 1")
    assert (died.status, died.end_ns) == ("died", 2500)
    assert named(upload_spans(records(CREATED, first, Expired(9))), "PATCH 1").status == "died"


def test_request_of_another_trace_stays_there() -> None:
    """A request that came with the client's trace is a span of that trace, below the client's."""
    of_client = Progressed(40, 1, 40, 2000, 2500, "ok", 9999, parent_span=CLIENT.span_id)
    span = named(upload_spans(records(CREATED, of_client)), "PATCH 1")
    assert (span.trace_id, span.parent_id) == (CLIENT.trace_id, CLIENT.span_id)


def test_ends() -> None:
    """An upload that was given up, lost or forgotten says so."""
    for record, name, word in (
        (Terminated("client", 1), "terminated", "client"),
        (Terminated("bytes_lost", 1), "terminated", "lost"),
        (Expired(1), "expired", "nobody"),
    ):
        end = named(upload_spans(records(CREATED, record)), name)
        assert (end.status, word in end.detail) == ("error", True)


def test_what_cannot_be_read_is_passed_over() -> None:
    """Records of another version, or without their beginning, give no span and do no harm."""
    assert upload_spans([]) == []
    assert upload_spans(records(Expired(1))) == []
    strange = StoredRecord(9, UPLOAD_PREFIX + "u", 9, b'{"type": "of tomorrow"}')
    assert len(upload_spans([strange, *records(CREATED), strange])) == 1


def test_spans_of_a_real_upload(tmp_path: Path) -> None:
    """The records of the service give spans whose ids and parents fit together."""
    data = os.urandom(1000)

    async def body() -> list[Span]:
        async with serving(tmp_path) as desk:
            url = await desk.create(1000, {"traceparent": CLIENT.traceparent})
            await desk.patch(url, 0, data[:500])
            await desk.patch(url, 500, data[500:])
            return upload_spans(await desk.stored(url))

    spans = run(body())
    assert {span.trace_id for span in spans} == {CLIENT.trace_id}
    ids = {span.span_id for span in spans} | {CLIENT.span_id}
    assert all(span.parent_id in ids for span in spans)
    assert all(span.end_ns >= span.start_ns for span in spans)
