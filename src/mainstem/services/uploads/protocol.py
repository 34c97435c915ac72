"""What an upload is, decided without IO and without a clock.

Three parts. The **records** of ``$upload.<id>`` say what happened; :func:`fold` makes an :class:`Upload` of them, so a
restart knows what the process knew. A :class:`Transfer` is one request's bytes on their way: it is told what came and
says what to do.

Source: tus resumable upload protocol 1.0.0, https://tus.io/protocols/resumable-upload ("tus" below).
Offsets and sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Literal

import msgspec

from mainstem.base.codec import NotDecodableError, decode
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.services.uploads.errors import (
    UploadGoneError,
    UploadLockedError,
    UploadOffsetError,
    UploadTooLargeError,
    UploadTooManyError,
)
from mainstem.trace.context import TraceContext, derived_span_id, parse_traceparent
from mainstem.ui.format import shorten

UPLOAD_PREFIX = "$upload."
"""Streams of uploads are this prefix and the upload's id."""

UPLOAD_COMPLETED = "upload.completed"
"""The stream of the event that an upload is complete; its value is an :class:`UploadCompleted`."""

# ---- records

Outcome = Literal[
    "receiving", "ok", "disconnected", "superseded", "stopped", "checksum_mismatch", "too_large", "no_space", "failed"
]
"""How a request ended. ``receiving``: it goes on, this is what has arrived so far."""


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A size, a number or a time in nanoseconds, as records have them."""


class Created(msgspec.Struct, frozen=True, tag="created", omit_defaults=True):
    """The upload exists. First record of every upload; its header has the trace context of the request that created it.

    Attributes:
        size_bytes: How many bytes it will have.
        started_ns: Wall-clock time at which the request came.
        expires_ns: Wall-clock time at which the unfinished upload is removed.
        filename: A name for people, sanitised; never a path.
        content_type: What the client says that it is.
        metadata: All that the client said, decoded.
        upload_metadata: The same as it came, for the answer to HEAD.
        parent_span: Span id of the client's span; empty for none.
    """

    size_bytes: Count
    started_ns: Count
    expires_ns: Count
    filename: str = ""
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = {}
    upload_metadata: str = ""
    parent_span: str = ""


class Progressed(msgspec.Struct, frozen=True, tag="progressed", omit_defaults=True):
    """The bytes before ``offset`` are durable. A request leaves one at its end, and more on its way when it is long.

    Attributes:
        offset: The upload's offset now; what it was before where the request's bytes were discarded.
        request: Number of the request within the upload; 0 is the POST that created it.
        received_bytes: What the request has brought so far, the discarded included.
        started_ns: Wall-clock time at which the request came.
        ended_ns: Wall-clock time of this record's making.
        outcome: How the request ended; see :data:`Outcome`.
        expires_ns: Wall-clock time at which the unfinished upload is removed.
        parent_span: Span id of the client's span; empty for none, then the upload's creation is above it.
    """

    offset: Count
    request: Count
    received_bytes: Count
    started_ns: Count
    ended_ns: Count
    outcome: Outcome
    expires_ns: Count
    parent_span: str = ""


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """All bytes are there, as a blob. In one commit with the last :class:`Progressed` and the event. Final.

    Attributes:
        blob: SHA-256 of the bytes, 64 hexadecimal digits.
        size_bytes: Their number.
        finished_ns: Wall-clock time.
    """

    blob: str
    size_bytes: Count
    finished_ns: Count


class Terminated(msgspec.Struct, frozen=True, tag="terminated"):
    """The upload was given up; its bytes are removed. Final.

    Attributes:
        reason: ``"client"`` (a DELETE), or ``"bytes_lost"``: the file was damaged from outside.
        terminated_ns: Wall-clock time.
    """

    reason: Literal["client", "bytes_lost"]
    terminated_ns: Count


class Expired(msgspec.Struct, frozen=True, tag="expired"):
    """Nobody went on with the upload in time; its bytes are removed. Final."""

    expired_ns: Count


UploadRecord = Created | Progressed | Finished | Terminated | Expired
"""Any record of ``$upload.<id>``."""


class UploadCompleted(msgspec.Struct, frozen=True):
    """Value of the event ``upload.completed``: exactly one for each finished upload."""

    upload_id: str
    blob: str
    size_bytes: int
    filename: str
    content_type: str
    metadata: Mapping[str, str]


_encoder = msgspec.json.Encoder()


def decode_record(value: bytes) -> UploadRecord:
    """Return the record in a value of ``$upload.<id>``.

    Raises:
        NotDecodableError: It is none.
    """
    record: UploadRecord = decode(value, UploadRecord)
    return record


def encode_record(record: UploadRecord | UploadCompleted) -> bytes:
    """Return the JSON of a record or of the event."""
    return _encoder.encode(record)


# ---- the upload

Phase = Literal["open", "finished", "terminated", "expired"]
"""What an upload's life has come to; all but ``open`` are final."""


class Upload(msgspec.Struct, frozen=True):
    """What the records of one upload come to.

    Attributes:
        id: Its id.
        created: Its first record.
        trace: The trace context of its creation.
        position: Position of its last record.
        offset: How many bytes are durable.
        phase: See :data:`Phase`.
        expires_ns: Wall-clock time at which it is removed while unfinished.
        requests: Number of the next request.
        records: How many records it has.
        blob: The finished upload's SHA-256, or empty.
    """

    id: str
    created: Created
    trace: TraceContext
    position: int
    offset: int = 0
    phase: Phase = "open"
    expires_ns: int = 0
    requests: int = 1
    records: int = 1
    blob: str = ""

    @property
    def size_bytes(self) -> int:
        """How many bytes it will have."""
        return self.created.size_bytes

    def request_span(self, request: int, incoming: TraceContext | None) -> TraceContext:
        """Return the context of one request's span: in the client's trace where it has one, else in the upload's."""
        trace_id = self.trace.trace_id if incoming is None else incoming.trace_id
        return TraceContext(trace_id, derived_span_id(trace_id, "upload", self.id, str(request)))

    def completed_event(self, blob: str) -> UploadCompleted:
        """Return the event that says that the upload is complete."""
        created = self.created
        return UploadCompleted(
            self.id, blob, created.size_bytes, created.filename, created.content_type, dict(created.metadata)
        )

    def completed_span(self) -> TraceContext:
        """Return the context of that event: always in the trace of the creation."""
        return TraceContext(self.trace.trace_id, derived_span_id(self.trace.trace_id, "upload", self.id, "completed"))


def creation_trace(upload_id: str, incoming: TraceContext | None, fresh: TraceContext) -> TraceContext:
    """Return the context of an upload's creation: in the client's trace where it has one, else in a ``fresh`` one."""
    trace_id = (incoming or fresh).trace_id
    return TraceContext(trace_id, derived_span_id(trace_id, "upload", upload_id, "created"))


def fold(upload: Upload | None, stored: StoredRecord) -> Upload | None:
    """Return what an upload is after one more record of its stream; ``None`` while its creation has not been seen.

    Records of one upload come in the order of their positions. After a final one nothing changes any more.

    Raises:
        NotDecodableError: The record is none of an upload's.
    """
    record = decode_record(stored.value)
    if isinstance(record, Created):
        if upload is not None:
            return upload
        upload_id = stored.stream.removeprefix(UPLOAD_PREFIX)
        trace = parse_traceparent(stored.headers.get(TRACEPARENT))
        if trace is None:  # a record that was not written by this service
            trace = creation_trace(upload_id, None, TraceContext(sha256(upload_id.encode()).hexdigest()[:32], ""))
        return Upload(upload_id, record, trace, stored.position, expires_ns=record.expires_ns)
    if upload is None or upload.phase != "open":
        return upload
    return advance(upload, record, stored.position)


def unreadable_sentence(stored: StoredRecord, error: NotDecodableError) -> str:
    """Return a sentence on a record that is none of an upload's: which it is, what remains, and what can be done."""
    return (
        f"This version cannot read {stored.stream} position {stored.position}: {shorten(error.message, 200)}. A newer "
        "mainstem wrote it, or something else did. Nothing more is received for the upload; its records and its bytes "
        "are left as they are. Start the version that wrote it, or send the file again as a new upload."
    )


def advance(upload: Upload, record: Progressed | Finished | Terminated | Expired, position: int) -> Upload:
    """Return an open upload after one more record, which is durable at ``position``."""
    records = upload.records + 1
    replace = msgspec.structs.replace
    match record:
        case Progressed():
            return replace(
                upload,
                position=position,
                records=records,
                offset=record.offset,
                expires_ns=record.expires_ns,
                requests=max(upload.requests, record.request + 1),
            )
        case Finished():
            return replace(upload, position=position, records=records, phase="finished", blob=record.blob)
        case Terminated():
            return replace(upload, position=position, records=records, phase="terminated")
        case Expired():
            return replace(upload, position=position, records=records, phase="expired")


# ---- one request's bytes


class TransferLimits(msgspec.Struct, frozen=True):
    """When what has arrived is made durable and recorded while a request goes on, and how often at most.

    Attributes:
        checkpoint_bytes: After this many bytes …
        checkpoint_s: … or at the next bytes that come this many seconds after the last time.
        max_records: Most records of one upload: a client that sends single bytes must not fill the log.
    """

    checkpoint_bytes: int = 8 << 20
    checkpoint_s: float = 2.0
    max_records: int = 50_000


class Write(msgspec.Struct, frozen=True):
    """Write the bytes that came at ``offset``; when ``checkpoint``, make all so far durable and record it."""

    offset: int
    checkpoint: bool


class Overflow(msgspec.Struct, frozen=True):
    """More bytes came than the upload was declared to have: write nothing of them and end the request."""


Cause = Literal["end", "disconnected", "superseded", "stopped", "too_large", "no_space", "failed"]
"""Why a request's bytes came to an end; ``end`` is the right one."""


class Settlement(msgspec.Struct, frozen=True):
    """What is to be done when a request's bytes have come to an end.

    Attributes:
        outcome: What the record says.
        offset: The upload's offset afterwards.
        sync: Whether bytes must be made durable before it is recorded.
        cut: Whether what was written behind ``offset`` is to be taken off the file.
        record: Whether there is anything to record.
        complete: Whether the upload is complete with it.
    """

    outcome: Outcome
    offset: int
    sync: bool
    cut: bool
    record: bool
    complete: bool


class Transfer(msgspec.Struct, frozen=True):
    """One request's bytes on their way: told what came, it says what to do. Made by :func:`begin`.

    Attributes:
        size_bytes: The whole upload's size.
        recorded: The offset that is durable and recorded.
        written: The offset up to which bytes are in the file.
        received_bytes: What this request has brought.
        recorded_s: Monotonic time of the last record, or of the beginning.
        held_back: Whether nothing may be recorded before the request's checksum was compared.
        limits: When to record.
        records: How many records the upload has.
    """

    size_bytes: int
    recorded: int
    written: int
    received_bytes: int
    recorded_s: float
    held_back: bool
    limits: TransferLimits
    records: int

    def receive(self, count: int, now_s: float) -> tuple[Transfer, Write | Overflow]:
        """Take in that ``count`` bytes came at monotonic time ``now_s``."""
        if self.written + count > self.size_bytes:
            return self.lost(count), Overflow()
        moved = msgspec.structs.replace(self, written=self.written + count, received_bytes=self.received_bytes + count)
        due = (
            not self.held_back
            and moved.written < self.size_bytes  # the end of the request follows, and records once for both
            and self.records < self.limits.max_records
            and (
                moved.written - self.recorded >= self.limits.checkpoint_bytes
                or now_s - self.recorded_s >= self.limits.checkpoint_s
            )
        )
        return moved, Write(self.written, due)

    def checkpointed(self, now_s: float) -> Transfer:
        """Take in that everything written is durable and recorded."""
        return msgspec.structs.replace(self, recorded=self.written, recorded_s=now_s, records=self.records + 1)

    def lost(self, count: int) -> Transfer:
        """Take in that ``count`` bytes came and could not be written."""
        return msgspec.structs.replace(self, received_bytes=self.received_bytes + count)

    def settle(self, cause: Cause, *, checksum_matches: bool | None = None) -> Settlement:
        """Decide what becomes of the bytes.

        An upload whose last byte has come is complete, however the request then ended: nobody may be told an offset
        of all bytes while there is no event.

        Args:
            cause: Why they came to an end.
            checksum_matches: The comparison's result; ``None`` without a checksum, or before the request's end.
        """
        outcome: Outcome = "ok" if cause == "end" else cause
        if cause == "end" and self.held_back and not checksum_matches:
            # tus, Checksum: "In the first two cases the uploaded chunk MUST be discarded, and the upload and its offset
            # MUST NOT be updated."
            outcome = "checksum_mismatch"
        # Bytes that could not be compared, or of a body that does not fit, are worth nothing. All others are kept.
        keep = outcome != "checksum_mismatch" and cause not in ("too_large", "failed")
        keep = keep and (cause == "end" or not self.held_back)
        offset = self.written if keep else self.recorded
        complete = keep and offset == self.size_bytes
        return Settlement(
            "ok" if complete else outcome,
            offset,
            sync=offset > self.recorded,
            cut=offset < self.written,
            record=self.received_bytes > 0 or complete,
            complete=complete,
        )


def begin(
    upload: Upload,
    offset: int,
    body_bytes: int | None,
    *,
    has_checksum: bool,
    busy: bool,
    now_s: float,
    limits: TransferLimits,
) -> Transfer:
    """Decide whether a request may bring bytes to an upload.

    Args:
        upload: The upload.
        offset: The request's ``Upload-Offset``.
        body_bytes: Its ``Content-Length``; ``None`` when it is not told beforehand.
        has_checksum: Whether it has an ``Upload-Checksum``.
        busy: Whether another request is writing to the upload.
        now_s: Monotonic time.
        limits: When to record.

    Raises:
        UploadGoneError: The upload was terminated or has expired.
        UploadLockedError: Another request is writing.
        UploadOffsetError: The offset is not the upload's.
        UploadTooLargeError: The body goes beyond the upload's size.
        UploadTooManyError: The upload came in too many pieces.
    """
    refuse_gone(upload)
    if busy:
        raise UploadLockedError(
            f"upload {upload.id}: another request is writing to it. Ask for its offset (HEAD) and go on from there."
        )
    if offset != upload.offset:
        # tus, PATCH: "If the offsets do not match, the Server MUST respond with the 409 Conflict status without
        # modifying the upload resource."
        raise UploadOffsetError(
            f"upload {upload.id}: Upload-Offset is {offset}, expected {upload.offset}. Nothing was changed.",
            headers={"Upload-Offset": str(upload.offset)},
        )
    if body_bytes is not None and offset + body_bytes > upload.size_bytes:
        raise UploadTooLargeError(
            f"upload {upload.id}: {body_bytes} bytes from offset {offset} go beyond its {upload.size_bytes} bytes. "
            "Nothing was changed."
        )
    if upload.records >= limits.max_records:
        raise UploadTooManyError(
            f"upload {upload.id} came in {upload.records} pieces, allowed are {limits.max_records}. Begin it anew with "
            "larger ones."
        )
    return Transfer(upload.size_bytes, offset, offset, 0, now_s, has_checksum, limits, upload.records)


def refuse_gone(upload: Upload) -> None:
    """Raise if nothing is left of an upload.

    Raises:
        UploadGoneError: It was terminated or has expired. tus, Termination: "For all future requests to this URL, the
            Server SHOULD respond with the 404 Not Found or 410 Gone status"; tus, Expiration, says the same.
    """
    if upload.phase == "terminated":
        raise UploadGoneError(f"upload {upload.id} was terminated; its bytes are removed.")
    if upload.phase == "expired":
        raise UploadGoneError(f"upload {upload.id} has expired; its bytes are removed.")
