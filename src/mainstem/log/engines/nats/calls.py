"""One call of ``append`` or ``append_many``: checked, and made into messages before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_stream
from mainstem.log.contract import Record
from mainstem.log.engines.nats import wire

_DEDUP_ID_MAX_CHARS = 255
_POSITION_MAX = (1 << 63) - 1
_RESERVED_BYTES = 256
"""Kept free in each message for the engine's own headers, but for long names of calls."""

SIZE_MAX_BYTES = 65_535
"""Most bytes of a message's headers: JetStream keeps their length in two bytes."""

Appends = Iterable[tuple[str, Sequence[Record], int | None]]
"""Streams, their records, and the position expected of each."""


class Limits(msgspec.Struct, frozen=True):
    """What one call may hold.

    Attributes:
        message_max_bytes: The server's ``max_payload``: headers and value of one message.
    """

    batch_max_records: int
    batch_max_bytes: int
    message_max_bytes: int

    @property
    def record_max_bytes(self) -> int:
        """Most bytes of a record's value, where neither key nor headers need encoding."""
        return max(0, self.message_max_bytes - _RESERVED_BYTES - wire.fields_bytes({}))


class Message(msgspec.Struct, frozen=True):
    """One record on its way."""

    stream: str
    fields: wire.Fields
    value: bytes


class Call(msgspec.Struct, frozen=True):
    """A call, ready to be sent as often as needed.

    Attributes:
        messages: Its records, in order.
        counts: How many of them each of its appends has.
        expected: The streams of which a position is expected, each with it.
        conditions: The same as the server is told, by the index of the stream's first message.
        contradicts: Whether the call expects what cannot be: two positions of one stream, or a negative one.
        id: What the server remembers it by.
        named: Whether the caller gave it a ``dedup_id``.
    """

    messages: tuple[Message, ...]
    counts: tuple[int, ...]
    expected: tuple[tuple[str, int], ...]
    conditions: dict[int, int]
    contradicts: bool
    id: str
    named: bool

    def fields(self, index: int, batch_id: str = "") -> wire.Fields:
        """Return all headers of one of its messages, within a batch where ``batch_id`` names one."""
        message = self.messages[index]
        fields = dict(message.fields)
        if index == 0:
            fields[wire.MESSAGE_ID] = self.id
            if self.counts != (1,):
                fields[wire.COUNTS] = ",".join(map(str, self.counts))
        if index in self.conditions:
            fields[wire.EXPECTED] = str(self.conditions[index])
        if batch_id:
            fields[wire.BATCH_ID] = batch_id
            fields[wire.BATCH_SEQUENCE] = str(index + 1)
            if index == len(self.messages) - 1:
                fields[wire.BATCH_COMMIT] = "1"
        return fields


def make_call(appends: Appends, dedup_id: str | None, fresh_id: str, limits: Limits) -> Call:
    """Return a call, or refuse it before anything is sent.

    Args:
        appends: What is to be appended.
        dedup_id: The caller's name for the call.
        fresh_id: Names it where the caller does not: a call whose answer was lost is sent again.
        limits: What it may hold.

    Raises:
        InvalidArgumentError: A name, a value or a size is outside its limits.
        TypeError: A header is no string.
    """
    messages: list[Message] = []
    counts: list[int] = []
    expected: list[tuple[str, int]] = []
    size_bytes = 0
    for stream, records, position in appends:
        check_stream(stream)
        if not records:
            raise InvalidArgumentError(f"stream {stream!r}: an append has one or more records. Nothing was written.")
        if position is not None:
            expected.append((stream, position))
        counts.append(len(records))
        if sum(counts) > limits.batch_max_records:
            break  # refused below; what comes behind need not be looked at
        for record in records:
            messages.append(_message(stream, record, limits))
            size_bytes += len(record.value) + len(record.key) + wire.fields_bytes(messages[-1].fields)
    if not counts:
        raise InvalidArgumentError("append_many() needs one or more appends. Nothing was written.")
    if size_bytes > limits.batch_max_bytes or sum(counts) > limits.batch_max_records:
        raise InvalidArgumentError(
            f"an append of {sum(counts)} records and {size_bytes} bytes is over the limit of "
            f"{limits.batch_max_records} records and {limits.batch_max_bytes} bytes of one batch on NATS. Nothing was "
            "written. Append in several calls, and keep large payloads as blobs."
        )
    first = {message.stream: index for index, message in reversed(list(enumerate(messages)))} if expected else {}
    distinct = set(expected)
    possible = all(0 <= position <= _POSITION_MAX for _stream, position in distinct)
    call = Call(
        tuple(messages),
        tuple(counts),
        tuple(expected),
        {first[stream]: position for stream, position in distinct},
        not possible or len({stream for stream, _position in distinct}) < len(distinct),
        fresh_id if dedup_id is None else _named(dedup_id),
        named=dedup_id is not None,
    )
    _check_size(messages[0], wire.fields_bytes(call.fields(0, "x" * 32)), limits)
    return call


def _message(stream: str, record: Record, limits: Limits) -> Message:
    if type(record.value) is not bytes or type(record.key) is not bytes:
        got = ", ".join(sorted({type(one).__name__ for one in (record.value, record.key)} - {"bytes"}))
        raise InvalidArgumentError(
            f"stream {stream!r}: values and keys of records are bytes, got {got}. Nothing was written."
        )
    message = Message(stream, wire.fields_of(record), record.value)
    _check_size(message, wire.fields_bytes(message.fields) + _RESERVED_BYTES, limits)
    return message


def _check_size(message: Message, fields_bytes: int, limits: Limits) -> None:
    """Refuse what the server would answer by ending the connection."""
    if fields_bytes > SIZE_MAX_BYTES or fields_bytes + len(message.value) > limits.message_max_bytes:
        raise InvalidArgumentError(
            f"stream {message.stream!r}: a record of {len(message.value)} bytes with {fields_bytes} bytes of key, "
            f"headers and names is over the server's max_payload of {limits.message_max_bytes} bytes (of which headers "
            f"have at most {SIZE_MAX_BYTES}). Nothing was written. Keep the value as a blob and append its id, or "
            "raise max_payload."
        )


def _named(dedup_id: str) -> str:
    if not 1 <= len(dedup_id) <= _DEDUP_ID_MAX_CHARS:
        raise _refuse(dedup_id)
    try:
        return "call:" + quote(dedup_id, safe="")
    except UnicodeEncodeError:
        raise _refuse(dedup_id) from None


def _refuse(dedup_id: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"dedup_id {dedup_id[:40]!r}: expected 1 to {_DEDUP_ID_MAX_CHARS} characters that UTF-8 can carry. Nothing was "
        "written."
    )
