"""One call of ``append`` or ``append_many``: checked and encoded before it waits for its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NoReturn

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_stream
from mainstem.log.contract import Record
from mainstem.log.embedded.layout import LogSettings
from mainstem.log.frame import encode_headers

Answer = tuple[int, ...]
"""The last position of each append of a call."""

Columns = tuple[str, Sequence[bytes], Sequence[bytes], Sequence[bytes], int | None]
"""One append as it is stored: stream, keys, headers, values; and the expected position."""

_RECORD_OVERHEAD_BYTES = 16
_DEDUP_ID_MAX_CHARS = 255


class Call:
    """A call that waits for its commit.

    Attributes:
        appends: Its appends, encoded.
        dedup_id: Names the call; empty for none.
        size_bytes: Bytes of values, keys and headers, with a little for each record.
        use_reserve: Whether it may use the space that is kept back.
        future: Gets the call's answer.
    """

    __slots__ = ("appends", "dedup_id", "future", "size_bytes", "use_reserve")

    def __init__(
        self,
        appends: Sequence[Columns],
        dedup_id: str,
        size_bytes: int,
        use_reserve: bool,
        future: asyncio.Future[Answer],
    ) -> None:
        self.appends = appends
        self.dedup_id = dedup_id
        self.size_bytes = size_bytes
        self.use_reserve = use_reserve
        self.future = future


def encode_call(
    appends: Iterable[tuple[str, Sequence[Record], int | None]],
    dedup_id: str | None,
    use_reserve: bool,
    settings: LogSettings,
    future: asyncio.Future[Answer],
) -> Call:
    """Return a call from streams, records and expected positions.

    Raises:
        InvalidArgumentError: A name, a value or a size is outside its limits.
        TypeError: A header is no string.
    """
    encoded: list[Columns] = []
    size = count = 0
    for stream, records, expected_position in appends:
        check_stream(stream)
        if len(records) == 1:  # by far the most frequent call: what is done for columns costs it more than all else
            record = records[0]
            value, key = record.value, record.key
            if type(value) is not bytes or type(key) is not bytes:
                _refuse_types(stream, {type(value), type(key)})
            header = encode_headers(record.headers) if record.headers else b""
            count += 1
            size += len(value) + len(key) + len(header)
            encoded.append((stream, (key,), (header,), (value,), expected_position))
        else:
            keys, headers, values = _columns(stream, records)
            count += len(values)
            size += sum(map(len, values)) + sum(map(len, keys)) + sum(map(len, headers))
            encoded.append((stream, keys, headers, values, expected_position))
    if not encoded:
        raise InvalidArgumentError("append_many() needs one or more appends. Nothing was written.")
    if size > settings.append_max_bytes or count > settings.append_max_records:
        raise InvalidArgumentError(
            f"an append of {count} records and {size} bytes is over the limit of {settings.append_max_records} records "
            f"and {settings.append_max_bytes} bytes. Nothing was written. Keep large payloads as blobs, and append "
            "their ids."
        )
    if dedup_id is not None:
        _check_dedup_id(dedup_id)
    return Call(encoded, dedup_id or "", size + count * _RECORD_OVERHEAD_BYTES, use_reserve, future)


def _check_dedup_id(dedup_id: str) -> None:
    try:
        size = len(dedup_id) and len(dedup_id.encode())
    except UnicodeEncodeError:
        size = 0
    if not size >= 1 or len(dedup_id) > _DEDUP_ID_MAX_CHARS:
        raise InvalidArgumentError(
            f"dedup_id {dedup_id[:40]!r}: expected 1 to {_DEDUP_ID_MAX_CHARS} characters that UTF-8 can carry. "
            "Nothing was written."
        )


def _columns(stream: str, records: Sequence[Record]) -> tuple[list[bytes], list[bytes], list[bytes]]:
    keys = [record.key for record in records]
    values = [record.value for record in records]
    if not values:
        raise InvalidArgumentError(f"stream {stream!r}: an append has one or more records. Nothing was written.")
    if (types := {*map(type, values), *map(type, keys)}) != {bytes}:
        _refuse_types(stream, types)
    return keys, [encode_headers(record.headers) if record.headers else b"" for record in records], values


def _refuse_types(stream: str, types: set[type]) -> NoReturn:
    got = ", ".join(sorted(one.__name__ for one in types - {bytes}))
    raise InvalidArgumentError(
        f"stream {stream!r}: values and keys of records are bytes, got {got}. Nothing was written."
    )
