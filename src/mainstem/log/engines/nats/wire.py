"""How records are NATS messages, and what JetStream's answers mean. Pure.

A stream's name is a subject as it stands, behind the log's prefix: names have no white space, ``*`` or ``>``, and
tokens that are joined by dots, as subjects have. A header whose name and value are plain text is a header of the
message, where other NATS clients see it; what else there is goes percent-encoded into ``Mainstem-Headers``, and the key
into ``Mainstem-Key``.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.log.contract import NO_HEADERS, Record, StoredRecord

MESSAGE_ID = "Nats-Msg-Id"
"""Header with what JetStream's dedup window remembers."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
"""Header with the condition on a subject's last message."""

EXPECTED_END = "Nats-Expected-Last-Sequence"
"""Header with the condition on the whole stream's last message."""

BATCH_ID, BATCH_SEQUENCE, BATCH_COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
"""Headers of an atomic batch."""

COUNTS = "Mainstem-Counts"
"""Header of the first record of a call of several: how many records each of its appends has, so that the answer can be
given again.
"""

KEY = "Mainstem-Key"
"""Header with a record's key, percent-encoded."""

HEADERS = "Mainstem-Headers"
"""Header with those headers of a record that are no plain text, percent-encoded: ``name=value&…``."""

STATUS, DESCRIPTION = "Status", "Description"
"""What the client makes of a message's first line."""

_PLAIN_NAME = re.compile(r"(?!(?i:nats-|mainstem-|status$|description$))[A-Za-z0-9_-]+")
_PLAIN_VALUE = re.compile(r"(?!.*=\?)[!-~]+(?: [!-~]+)*")
_RESERVED = ("nats-", "mainstem-")
_LINE_BYTES = len(": \r\n")
_FRAME_BYTES = len("NATS/1.0\r\n\r\n")

Fields = dict[str, str]
"""The headers of a NATS message."""

Answer = tuple[int, ...]
"""The last position of each append of a call."""


# ---- records


def fields_of(record: Record) -> Fields:
    """Return the headers of the message that carries a record.

    Raises:
        InvalidArgumentError: A header holds what UTF-8 cannot carry.
        TypeError: A header is no string.
    """
    fields: Fields = {}
    if record.key:
        fields[KEY] = quote_from_bytes(record.key, safe="")
    encoded: list[str] = []
    for name, value in record.headers.items():
        if _PLAIN_NAME.fullmatch(name) and _PLAIN_VALUE.fullmatch(value):
            fields[name] = value
            continue
        try:
            encoded.append(f"{quote(name, safe='')}={quote(value, safe='')}")
        except UnicodeEncodeError:
            raise InvalidArgumentError(
                f"header {name!r}: expected text that UTF-8 can carry, got {value!r}. Nothing was written."
            ) from None
    if encoded:
        fields[HEADERS] = "&".join(encoded)
    return fields


def fields_bytes(fields: Fields) -> int:
    """Return the size of a message's headers on the wire, which are ASCII."""
    return _FRAME_BYTES + sum(len(name) + len(value) + _LINE_BYTES for name, value in fields.items())


def fields_of_lines(lines: bytes) -> Fields:
    """Return the headers of a message as the leader gives it: the bytes that are stored, with their first line."""
    fields: Fields = {}
    for line in lines.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, text = line.partition(":")
        if colon:
            fields[name] = text.strip()
    return fields


def record_of(position: int, stream: str, time_ns: int, value: bytes, fields: Mapping[str, str] | None) -> StoredRecord:
    """Return the record that a message carries."""
    if not fields:
        return StoredRecord(position, stream, time_ns, value)
    headers = {
        name: text
        for name, text in fields.items()
        if name not in (STATUS, DESCRIPTION) and not name.lower().startswith(_RESERVED)
    }
    for pair in fields.get(HEADERS, "").split("&"):
        name, equals, text = pair.partition("=")
        if equals:
            headers[unquote(name)] = unquote(text)
    key = unquote_to_bytes(fields.get(KEY, ""))
    return StoredRecord(position, stream, time_ns, value, key, headers or NO_HEADERS)


@lru_cache(maxsize=64)
def _seconds_of(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def time_ns_of(text: str) -> int:
    """Return the nanoseconds since 1970 of a server's time, such as ``2026-11-24T18:26:53.897984632Z``."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return _seconds_of(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0") if fraction else 0)


class Delivered(msgspec.Struct, frozen=True):
    """What a consumer's message says of itself in its reply subject.

    Attributes:
        position: The stream's sequence.
        number: The consumer's own sequence: without a gap, unless something was lost.
        time_ns: When the message was stored.
    """

    position: int
    number: int
    time_ns: int


def delivered_of(reply: str) -> Delivered | None:
    """Return what ``$JS.ACK.…`` says, or ``None`` where a reply subject is none of a consumer."""
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9:
        return None
    at = 5 if len(tokens) == 9 else 7  # the longer form has the domain and the account's hash in front
    return Delivered(int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2]))


# ---- answers


class ApiError(msgspec.Struct, frozen=True):
    """Why JetStream refused a request.

    Attributes:
        code: As in HTTP.
        err_code: Which error exactly.
    """

    code: int = 0
    err_code: int = 0
    description: str = ""


class PublishAnswer(msgspec.Struct, frozen=True):
    """JetStream's answer to a publish, or to a batch.

    Attributes:
        seq: Sequence of the (last) message; of the first call's first message where ``duplicate``.
    """

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


Verdict = Literal["conflict", "duplicate", "passing", "full", "invalid", "refused", "unknown"]
"""What a refusal means: a condition does not hold; the message's id is known; it may pass; no room; the record is too
large; it will not pass; the server failed while it wrote.
"""

_VERDICTS: dict[int, Verdict] = {
    10071: "conflict",  # wrong last sequence: N
    10164: "conflict",  # wrong last sequence (another one is on its way)
    10201: "duplicate",  # a batch with a message id that is known
    10158: "duplicate",  # the message with that id is on its way
    10176: "passing",  # the batch is incomplete and was abandoned
    10210: "passing",  # too many batches in flight
    10211: "passing",  # the same, of fast batches
    10008: "passing",  # JetStream is not available yet
    10039: "passing",  # JetStream is not enabled for the account, as while it starts
    10118: "passing",  # the stream is offline
    10023: "full",  # insufficient resources
    10047: "full",  # insufficient storage
    10028: "full",  # memory resources
    10054: "invalid",  # message size
    10097: "invalid",  # size of headers
    10199: "invalid",  # batch too large
    10077: "unknown",  # the store failed
}
_LIMITS = ("maximum bytes exceeded", "maximum messages exceeded", "no space left")


def judge(error: ApiError) -> Verdict:
    """Return what a refusal means for an append."""
    if any(limit in error.description.lower() for limit in _LIMITS):
        return "full"
    return _VERDICTS.get(error.err_code, "passing" if error.code == 503 else "refused")


def positions_of(first: int, counts: str) -> Answer:
    """Return a call's answer from its first record's position and that record's :data:`COUNTS`."""
    positions, last = [], first - 1
    for count in counts.split(",") if counts else ["1"]:
        last += int(count)
        positions.append(last)
    return tuple(positions)
