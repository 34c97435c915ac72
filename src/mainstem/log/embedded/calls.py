"""One call of ``append`` or ``append_many``: checked and encoded before it waits for its commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn, Protocol

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_stream
from mainstem.log.contract import NO_HEADERS, Record
from mainstem.log.embedded.layout import LogSettings
from mainstem.log.errors import LogError
from mainstem.log.frame import Column, encode_headers

Answer = tuple[int, ...]
"""The last position of each append of a call."""

_RECORD_OVERHEAD_BYTES = 16
_DEDUP_ID_MAX_CHARS = 255


class Block(msgspec.Struct, frozen=True, gc=False):
    """One append of a call, as columns: what the disk gets, made before the call waits.

    Attributes:
        stream: Its stream.
        expected_position: What the caller expects of the stream, or ``None``.
        record_count: Number of records.
        values: Their values.
        keys: Their keys; ``None`` where none has one.
        headers: Their encoded headers; ``None`` where none has any.
    """

    stream: str
    expected_position: int | None
    record_count: int
    values: Column
    keys: Column | None
    headers: Column | None

    @property
    def size_bytes(self) -> int:
        """Bytes of values, keys and headers."""
        size = self.values.size_bytes
        if self.keys is not None:
            size += self.keys.size_bytes
        if self.headers is not None:
            size += self.headers.size_bytes
        return size


class Waiter(Protocol):
    """Who is told what became of a call: a future, or what stands for a caller elsewhere."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, answer: Answer, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, error: LogError, /) -> None:
        """Take the error."""
        ...


class Call:
    """A call of ``append`` or ``append_many``, and what becomes of it.

    Attributes:
        blocks: Its appends.
        dedup_id: Names the call; empty for none.
        size_bytes: Bytes of values, keys and headers, with a little for each record.
        use_reserve: Whether it may use the space that is kept back.
        answer: What it is to be answered once its commit is durable.
        error: Or why it was refused.
        future: Tells the caller, where one waits; ``None`` while nobody does.
    """

    __slots__ = ("answer", "blocks", "dedup_id", "error", "future", "size_bytes", "use_reserve")

    def __init__(self, blocks: Sequence[Block], dedup_id: str, size_bytes: int, use_reserve: bool) -> None:
        self.blocks = blocks
        self.dedup_id = dedup_id
        self.size_bytes = size_bytes
        self.use_reserve = use_reserve
        self.answer: Answer = ()
        self.error: LogError | None = None
        self.future: Waiter | None = None

    @property
    def abandoned(self) -> bool:
        """Whether its caller has gone."""
        return self.future is not None and self.future.done()

    def settle(self) -> None:
        """Tell the caller what became of the call."""
        future = self.future
        if future is None or future.done():
            return  # written in the caller's own turn, or its caller was cancelled
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.answer)


def encode_call(
    appends: Iterable[tuple[str, Sequence[Record], int | None]],
    dedup_id: str | None,
    use_reserve: bool,
    settings: LogSettings,
) -> Call:
    """Return a call from streams, records and expected positions.

    Raises:
        InvalidArgumentError: A name, a value or a size is outside its limits.
        TypeError: A header is no string.
    """
    blocks: list[Block] = []
    size = count = 0
    for stream, records, expected_position in appends:
        check_stream(stream)
        make = _one_row if len(records) == 1 else _rows
        block = make(stream, records, expected_position)
        count += block.record_count
        size += block.size_bytes
        blocks.append(block)
    return _checked_call(blocks, size, count, dedup_id, use_reserve, settings)


def call_of(blocks: Sequence[Block], dedup_id: str, use_reserve: bool, settings: LogSettings) -> Call:
    """Return a call whose appends were encoded elsewhere, with the checks of :func:`encode_call`.

    Raises:
        InvalidArgumentError: A name or a size is outside its limits.
    """
    for block in blocks:
        check_stream(block.stream)
        if not block.record_count:
            raise InvalidArgumentError(f"stream {block.stream!r}: an append has one or more records.")
    size, count = sum(block.size_bytes for block in blocks), sum(block.record_count for block in blocks)
    return _checked_call(blocks, size, count, dedup_id or None, use_reserve, settings)


def _checked_call(
    blocks: Sequence[Block], size: int, count: int, dedup_id: str | None, use_reserve: bool, settings: LogSettings
) -> Call:
    if not blocks:
        raise InvalidArgumentError("append_many() needs one or more appends. Nothing was written.")
    if size > settings.append_max_bytes or count > settings.append_max_records:
        raise InvalidArgumentError(
            f"an append of {count} records and {size} bytes is over the limit of {settings.append_max_records} records "
            f"and {settings.append_max_bytes} bytes. Nothing was written. Keep large payloads as blobs, and append "
            "their ids."
        )
    if dedup_id is not None:
        _check_dedup_id(dedup_id)
    return Call(blocks, dedup_id or "", size + count * _RECORD_OVERHEAD_BYTES, use_reserve)


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


def _one_row(stream: str, records: Sequence[Record], expected_position: int | None) -> Block:
    """The same as :func:`_rows`, for by far the most frequent call: what is done for columns costs it more than all
    else.
    """
    record = records[0]
    value, key = record.value, record.key
    if type(value) is not bytes or type(key) is not bytes:
        _refuse_types(stream, {type(value), type(key)})
    header = encode_headers(record.headers) if record.headers is not NO_HEADERS else b""
    return Block(
        stream,
        expected_position,
        1,
        Column([value], (len(value),)),
        Column([key], (len(key),)) if key else None,
        Column([header], (len(header),)) if header else None,
    )


def _rows(stream: str, records: Sequence[Record], expected_position: int | None) -> Block:
    values = [record.value for record in records]
    if not values:
        raise InvalidArgumentError(f"stream {stream!r}: an append has one or more records. Nothing was written.")
    keys = [record.key for record in records]
    headers = [record.headers for record in records]
    count = len(values)
    # Counting finds the same object a hundred times faster than anything looks at a hundred.
    without_keys = keys.count(b"") == count
    if list(map(type, values)).count(bytes) != count or not (without_keys or set(map(type, keys)) == {bytes}):
        _refuse_types(stream, {*map(type, values), *map(type, keys)})
    without_headers = headers.count(NO_HEADERS) == count or not any(headers)
    return Block(
        stream,
        expected_position,
        count,
        Column.of(values),
        None if without_keys else Column.of(keys),
        None if without_headers else Column.of([encode_headers(one) for one in headers]),
    )


def _refuse_types(stream: str, types: set[type]) -> NoReturn:
    got = ", ".join(sorted(one.__name__ for one in types - {bytes}))
    raise InvalidArgumentError(
        f"stream {stream!r}: values and keys of records are bytes, got {got}. Nothing was written."
    )
