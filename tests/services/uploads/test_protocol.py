"""What an upload is, decided without IO: its records, its state, one request's bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.codec import NotDecodableError
from mainstem.log import StoredRecord
from mainstem.services.uploads.errors import (
    UploadGoneError,
    UploadLockedError,
    UploadOffsetError,
    UploadTooLargeError,
    UploadTooManyError,
)
from mainstem.services.uploads.protocol import (
    UPLOAD_PREFIX,
    Created,
    Expired,
    Finished,
    Overflow,
    Progressed,
    Terminated,
    Transfer,
    TransferLimits,
    Upload,
    UploadCompleted,
    UploadRecord,
    Write,
    advance,
    begin,
    creation_trace,
    decode_record,
    encode_record,
    fold,
    refuse_gone,
)
from mainstem.trace.context import TraceContext

FRESH = TraceContext("a" * 32, "b" * 16)
TRACE = creation_trace("u", None, FRESH)
LIMITS = TransferLimits(checkpoint_bytes=100, checkpoint_s=2.0, max_records=50)
CREATED = Created(size_bytes=1000, started_ns=1, expires_ns=99, filename="a.mp4", metadata={"k": "v"})
RECORDS: list[UploadRecord] = [
    CREATED,
    Progressed(10, 0, 10, 1, 2, "receiving", 100),
    Finished("f" * 64, 1000, 3),
    Terminated("client", 4),
    Expired(5),
]


def stored(record: UploadRecord, position: int = 1, trace: TraceContext | None = TRACE) -> StoredRecord:
    headers = {"traceparent": trace.traceparent} if trace is not None else {}
    return StoredRecord(position, UPLOAD_PREFIX + "u", 7, encode_record(record), headers=headers)


def an_upload(offset: int = 0, *, records: int = 1) -> Upload:
    upload = fold(None, stored(CREATED))
    assert upload is not None
    return msgspec.structs.replace(upload, offset=offset, records=records)


def started(upload: Upload, offset: int, length: int | None = None, *, checked: bool = False) -> Transfer:
    return begin(upload, offset, length, has_checksum=checked, busy=False, now_s=0.0, limits=LIMITS)


@pytest.mark.parametrize("record", RECORDS)
def test_records_survive_json(record: UploadRecord) -> None:
    """Each record is read back from its JSON as it was, told apart by its type."""
    assert decode_record(encode_record(record)) == record


def test_what_is_no_record_is_refused() -> None:
    """Bytes that are no record raise, whether broken or of another kind."""
    for value in (b"{", b'{"type": "other"}', b'{"type": "created"}', b"\xff", b'{"type":' + b"[" * 5000):
        with pytest.raises(NotDecodableError):
            decode_record(value)


def test_event_holds_what_the_application_needs() -> None:
    """The event names the upload, its blob and all that the client said."""
    event = an_upload().completed_event("f" * 64)
    expected = UploadCompleted("u", "f" * 64, 1000, "a.mp4", "application/octet-stream", {"k": "v"})
    assert event == expected
    assert set(msgspec.json.decode(encode_record(event))) == {
        "upload_id",
        "blob",
        "size_bytes",
        "filename",
        "content_type",
        "metadata",
    }


def test_fold_follows_the_records() -> None:
    """The records give offset, expiry, number of the next request and the trace; a final one ends it for good."""
    upload = fold(None, stored(CREATED, 5))
    assert upload is not None
    assert (upload.id, upload.offset, upload.phase, upload.trace, upload.position) == ("u", 0, "open", TRACE, 5)
    upload = fold(upload, stored(Progressed(10, 3, 10, 1, 2, "ok", 500), 6))
    assert upload is not None
    assert (upload.offset, upload.requests, upload.expires_ns, upload.records, upload.size_bytes) == (
        10,
        4,
        500,
        2,
        1000,
    )
    done = fold(upload, stored(Finished("f" * 64, 1000, 3), 7))
    assert done is not None
    assert (done.phase, done.blob, done.position) == ("finished", "f" * 64, 7)
    assert fold(done, stored(Terminated("client", 4), 8)) is done
    assert fold(done, stored(CREATED, 9)) is done


def test_fold_needs_the_beginning() -> None:
    """Records before the creation give nothing."""
    assert fold(None, stored(Expired(5))) is None


def test_trace_without_a_context_is_derived() -> None:
    """A creation without a trace context gets one that is always the same for the upload."""
    one, two = (fold(None, stored(CREATED, trace=None)) for _ in range(2))
    assert one is not None
    assert one == two
    assert len(one.trace.trace_id) == 32


def test_traces_follow_the_client() -> None:
    """Creation and requests are in the client's trace where it has one; the event is always in the creation's."""
    client = TraceContext("c" * 32, "d" * 16)
    assert creation_trace("u", client, FRESH).trace_id == client.trace_id
    upload = an_upload()
    assert upload.request_span(1, client).trace_id == client.trace_id
    assert upload.request_span(1, None).trace_id == TRACE.trace_id
    assert upload.request_span(1, None) != upload.request_span(2, None)
    assert upload.completed_span().trace_id == TRACE.trace_id


def test_begin_refuses() -> None:
    """A gone upload, a busy one, another offset, too large a body and too many pieces are refused."""
    with pytest.raises(UploadGoneError, match="terminated"):
        started(advance(an_upload(), Terminated("client", 1), 2), 0)
    with pytest.raises(UploadGoneError, match="expired"):
        refuse_gone(advance(an_upload(), Expired(1), 2))
    with pytest.raises(UploadLockedError):
        begin(an_upload(), 0, 1, has_checksum=False, busy=True, now_s=0.0, limits=LIMITS)
    with pytest.raises(UploadOffsetError) as caught:
        started(an_upload(10), 9)
    assert caught.value.headers == {"Upload-Offset": "10"}
    with pytest.raises(UploadTooLargeError):
        started(an_upload(10), 10, 991)
    with pytest.raises(UploadTooManyError):
        started(an_upload(records=50), 0, 1)


def test_checkpoints_by_bytes_and_by_time() -> None:
    """Bytes are made durable on their way after so many of them, or with the next that come after so long."""
    transfer = started(an_upload(), 0)
    transfer, action = transfer.receive(99, 0.1)
    assert action == Write(0, checkpoint=False)
    transfer, action = transfer.receive(1, 0.2)
    assert action == Write(99, checkpoint=True)
    transfer = transfer.checkpointed(0.2)
    transfer, action = transfer.receive(1, 2.1)
    assert action == Write(100, checkpoint=False)
    transfer, action = transfer.receive(1, 2.3)
    assert action == Write(101, checkpoint=True)


def test_no_checkpoint_at_the_last_byte() -> None:
    """The last byte is never recorded by itself: an offset of all bytes without the end would look complete."""
    _transfer, action = started(an_upload(), 0).receive(1000, 9.0)
    assert action == Write(0, checkpoint=False)


def test_too_many_records_end_the_checkpoints() -> None:
    """An upload that has used up its records gets no more of them on the way."""
    _transfer, action = started(an_upload(records=49), 0).receive(200, 0.0)
    assert action == Write(0, checkpoint=True)
    _transfer, action = msgspec.structs.replace(started(an_upload(), 0), records=50).receive(200, 0.0)
    assert action == Write(0, checkpoint=False)


def test_last_byte_completes_however_the_request_ended() -> None:
    """All bytes are all bytes: also when the connection broke behind them."""
    transfer, _action = started(an_upload(), 0).receive(1000, 0.0)
    for cause in ("end", "disconnected", "superseded", "stopped"):
        settlement = transfer.settle(cause)
        assert (settlement.complete, settlement.outcome, settlement.offset) == (True, "ok", 1000)


def test_bytes_with_a_checksum_wait_for_it() -> None:
    """With a checksum nothing is recorded on the way; a mismatch, or a broken connection, discards it all."""
    transfer = started(an_upload(10), 10, checked=True)
    transfer, action = transfer.receive(500, 9.0)
    assert action == Write(10, checkpoint=False)
    wrong = transfer.settle("end", checksum_matches=False)
    assert (wrong.outcome, wrong.offset, wrong.cut, wrong.sync, wrong.record) == (
        "checksum_mismatch",
        10,
        True,
        False,
        True,
    )
    broken = transfer.settle("disconnected", checksum_matches=False)
    assert (broken.outcome, broken.offset, broken.cut) == ("disconnected", 10, True)
    right = transfer.settle("end", checksum_matches=True)
    assert (right.outcome, right.offset, right.cut, right.sync) == ("ok", 510, False, True)


def test_body_beyond_the_size_is_refused_whole() -> None:
    """More bytes than the upload has are not written, and those before them go back to what was recorded."""
    transfer, _action = started(an_upload(), 0).receive(600, 0.0)
    transfer, action = transfer.receive(401, 0.0)
    assert action == Overflow()
    settlement = transfer.settle("too_large")
    assert (settlement.outcome, settlement.offset, settlement.cut, settlement.complete) == ("too_large", 0, True, False)


def test_request_without_bytes_leaves_no_record() -> None:
    """A request that brought nothing is not recorded, so a stranger cannot fill the log for nothing."""
    assert not started(an_upload(), 0).settle("end").record
    assert not started(an_upload(), 0).settle("disconnected").record


CAUSES = st.sampled_from(["end", "disconnected", "superseded", "stopped", "too_large", "no_space", "failed"])
PIECES = st.lists(st.tuples(st.integers(1, 400), st.floats(0, 5)), max_size=8)
REQUESTS = st.lists(st.tuples(PIECES, CAUSES, st.booleans(), st.booleans()), max_size=8)


@given(REQUESTS)
def test_any_requests(requests: list[tuple[list[tuple[int, float]], str, bool, bool]]) -> None:
    """Over any requests the offset never falls, never passes what was written, and all bytes mean complete."""
    upload = an_upload()
    for number, (pieces, drawn, checked, matches) in enumerate(requests, 1):
        if upload.phase != "open":
            break
        transfer = started(upload, upload.offset, checked=checked)
        now_s, recorded, cause = 0.0, upload.offset, drawn
        for count, pause_s in pieces:
            now_s += pause_s
            transfer, action = transfer.receive(count, now_s)
            if isinstance(action, Overflow):
                cause = "too_large"
                break
            assert action.offset + count == transfer.written <= 1000
            if action.checkpoint:
                assert not checked
                assert transfer.written < 1000
                transfer = transfer.checkpointed(now_s)
                record = Progressed(transfer.written, number, transfer.received_bytes, 0, 0, "receiving", 99)
                upload = advance(upload, record, upload.position + 1)
                assert upload.offset > recorded
                recorded = upload.offset
        settlement = transfer.settle(cause, checksum_matches=matches if checked else None)  # type: ignore[arg-type]
        assert recorded <= settlement.offset <= transfer.written
        assert settlement.sync == (settlement.offset > recorded)
        assert settlement.cut == (settlement.offset < transfer.written)
        assert settlement.complete == (settlement.offset == 1000)
        if settlement.record:
            record = Progressed(settlement.offset, number, transfer.received_bytes, 0, 0, settlement.outcome, 99)
            upload = advance(upload, record, upload.position + 1)
        if settlement.complete:
            upload = advance(upload, Finished("f" * 64, 1000, 1), upload.position + 1)
    assert upload.offset < 1000 or upload.phase == "finished"
