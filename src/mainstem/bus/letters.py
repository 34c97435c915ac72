"""What becomes of an event that is given up: its dead letter, of bounded size whatever the event and its error are.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainstem.base.codec import NotDecodableError, decode, encode
from mainstem.base.text import message_of, recordable
from mainstem.bus.cursors import NO_VALUE, DeadLetter
from mainstem.log.contract import ABOUT, TRACEPARENT, Record, StoredRecord

LETTER_MAX_BYTES = 64 << 10
"""Larger than any letter: value, error as JSON writes it, keys and headers together."""

VALUE_MAX_BYTES = 16 << 10
"""Longest value that a letter repeats."""

_AROUND = 17
"""What can be read is that much deeper than a value of ours, and the letter is around it."""

_KEY_MAX_BYTES = 1024
_HEADERS_MAX_BYTES = 8 << 10
_ERROR_MAX_CHARS = 4096  # of 6 bytes each at most, as JSON writes them
_TYPE_MAX_CHARS = 255


def letter_record(record: StoredRecord, attempts: int, error: BaseException) -> Record:
    """Return the record of ``$dead.<group>`` for an event that is given up after so many attempts.

    It has the event's key and headers, as much of them as a letter holds; the event itself stays as it is at its
    position.
    """
    value = NO_VALUE
    if len(record.value) <= VALUE_MAX_BYTES and _is_json(record.value):
        value = msgspec.Raw(record.value)
    key = record.key[:_KEY_MAX_BYTES]
    letter = DeadLetter(
        stream=record.stream,
        position=record.position,
        attempts=attempts,
        error_type=recordable(type(error).__qualname__, _TYPE_MAX_CHARS),
        error=message_of(error, _ERROR_MAX_CHARS),
        key=key.decode("utf-8", "replace"),
        value=value,
    )
    return Record(encode(letter, around=_AROUND), key, _bounded(record.headers))


def _bounded(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers, without those that there is no room for; what ties the letter to its cause comes first."""
    kept: dict[str, str] = {}
    room_bytes = _HEADERS_MAX_BYTES
    for name in sorted(headers, key=lambda name: name not in (TRACEPARENT, ABOUT)):
        size_bytes = len(name.encode()) + len(headers[name].encode())
        if size_bytes <= room_bytes:
            room_bytes -= size_bytes
            kept[name] = headers[name]
    return kept


def _is_json(data: bytes) -> bool:
    try:
        decode(data)
    except NotDecodableError:
        return False
    return True
