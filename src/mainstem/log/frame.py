"""The frame: what the embedded engine writes to disk, and all that it writes.

A segment file is a sequence of frames, each at a multiple of 64 bytes, followed by written zeros up to the segment's
size. All numbers are little-endian. A frame is a header of 64 bytes, a body, and zeros up to the next multiple of 64.

========  ====  =====================================================================================
offset    size  header field
========  ====  =====================================================================================
0         4     magic, ``MSF1``
4         1     format version, 1
5         1     kind: 1 segment start, 2 commit, 3 clean end, 4 rolled end
6         2     feature bits; a reader refuses a frame with a bit that it does not know
8         8     log id, random, the same in all files of a log
16        4     number of this segment, from 1
20        4     number of records in the body
24        8     own offset in the file
32        8     position of the first record (of the next one, where the body has none)
40        4     length of the body without padding
44        4     CRC-32C of the body
48        8     wall-clock time of the commit, nanoseconds since 1970
56        4     chain: header checksum of the frame before this one, over segments too; 0 before the first
60        4     CRC-32C of bytes 0 to 59
========  ====  =====================================================================================

The header checksum covers the body's checksum and the chain, so it stands for everything up to here. A header that
repeats its own log, segment and offset cannot be taken for one that was copied from elsewhere.

**Segment start** is the first frame of each file; its body is JSON, ``{"size_bytes": …}``. **Clean end** is written
by an orderly close; frames may follow when the log is opened again. **Rolled end** closes a segment for ever: the
next one exists.

The body of a **commit** holds columns, as Arrow lays out binary arrays (int32 offsets, then data), so that they can
be read in place. Each part is padded to 8 bytes.

==========================  ==========================================================================
part                        content
==========================  ==========================================================================
sizes                       five uint32: number of streams, bytes of stream names, of keys, of headers,
                            of the calls; then four zero bytes
stream name offsets, names  int32[streams + 1], UTF-8
stream of each record       int32[records]; left out when there is one stream
key offsets, keys           int32[records + 1]; left out when no record has a key
header offsets, headers     int32[records + 1], each empty or a JSON object; left out when none has any
value offsets, values       int32[records + 1]
calls                       JSON list of ``[dedup_id, [last position of each append, …]]``
==========================  ==========================================================================
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

import msgspec
from google_crc32c import value as crc32c

from mainstem.log.contract import NO_HEADERS, StoredRecord

if sys.byteorder != "little":
    raise ImportError("mainstem's files are little-endian and are written in place; this machine is big-endian.")

ALIGNMENT = 64
"""Frames begin at multiples of this."""

HEADER_BYTES = 64
"""Size of a frame's header."""

MAGIC = b"MSF1"
"""How every frame begins."""

FORMAT_VERSION = 1
"""The version that this code writes and reads."""

KNOWN_FEATURES = 0
"""The feature bits that this code can read."""

SEGMENT_START = 1
"""Kind of the first frame of a file."""

COMMIT = 2
"""Kind of a frame with records."""

CLEAN_END = 3
"""Kind of the mark of an orderly close."""

ROLLED_END = 4
"""Kind of the mark of a segment that is complete."""

_HEADER = struct.Struct("<4sBBHQIIQQIIqII")
_HEADER_WITHOUT_CHECKSUM = struct.Struct("<4sBBHQIIQQIIqI")
_SIZES = struct.Struct("<IIIIIxxxx")
_ONE_ROW = struct.Struct("<ii")
_PADDING = tuple(bytes(size) for size in range(ALIGNMENT))
_encode_json = msgspec.json.Encoder().encode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_decode_calls = msgspec.json.Decoder(list[tuple[str, tuple[int, ...]]]).decode


class FrameHeader(msgspec.Struct, frozen=True, gc=False):
    """The fields of a frame's header; see the module's table."""

    version: int
    kind: int
    features: int
    log_id: int
    segment: int
    record_count: int
    offset: int
    first_position: int
    body_bytes: int
    body_checksum: int
    time_ns: int
    chain: int
    checksum: int

    @property
    def end_offset(self) -> int:
        """Offset of the frame after this one."""
        return self.offset + frame_bytes(self.body_bytes)

    @property
    def next_position(self) -> int:
        """Position of the first record after this frame."""
        return self.first_position + self.record_count


def frame_bytes(body_bytes: int) -> int:
    """Return the size of a frame with a body of ``body_bytes``, padding included."""
    return (HEADER_BYTES + body_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def parse_header(data: bytes | memoryview) -> FrameHeader | None:
    """Return the header in 64 bytes, or ``None`` where magic or checksum are wrong.

    Version and identity are the caller's to check.
    """
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return None
    fields = _HEADER.unpack_from(data)
    if crc32c(bytes(data[: HEADER_BYTES - 4])) != fields[-1]:
        return None
    return FrameHeader(*fields[1:])


def build_frame(
    kind: int,
    body: bytes,
    *,
    log_id: int,
    segment: int,
    offset: int,
    first_position: int,
    record_count: int,
    time_ns: int,
    chain: int,
) -> tuple[FrameHeader, list[bytes]]:
    """Return a frame's header and the buffers to write, one after the other, at ``offset``."""
    body_checksum = crc32c(body)
    fields = (
        FORMAT_VERSION,
        kind,
        KNOWN_FEATURES,
        log_id,
        segment,
        record_count,
        offset,
        first_position,
        len(body),
        body_checksum,
        time_ns,
        chain,
    )
    head = _HEADER_WITHOUT_CHECKSUM.pack(MAGIC, *fields)
    checksum = crc32c(head)
    header = FrameHeader(*fields, checksum)
    padding = _PADDING[-(HEADER_BYTES + len(body)) % ALIGNMENT]
    return header, [head + checksum.to_bytes(4, "little"), body, padding]


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return a record's headers as they are stored: empty, or a JSON object of strings.

    Raises:
        TypeError: A name or value is no string.
    """
    for name, value in headers.items():
        if type(name) is not str or type(value) is not str:
            raise TypeError(f"headers map strings to strings, got {name!r}: {value!r}")
    if not headers:
        return b""
    return _encode_json(headers if type(headers) is dict else dict(headers))


class Column(msgspec.Struct, frozen=True, gc=False):
    """Byte strings, one a record.

    Attributes:
        parts: The byte strings. They are the caller's own, not copies: much may wait for its commit.
        lengths: The length of each.
    """

    parts: Sequence[bytes]
    lengths: Sequence[int]

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> Column:
        """Return a column of these byte strings."""
        return cls(parts, tuple(map(len, parts)))

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.lengths)

    def encode(self) -> tuple[int, bytes]:
        """Return their number of bytes; and offsets and data, each padded to 8 bytes."""
        data = b"".join(self.parts)
        size = len(data)
        if len(self.lengths) == 1:  # eight bytes of offsets need no padding
            offsets = _ONE_ROW.pack(0, size)
        else:
            offsets = _padded(_int32(len(self.lengths) + 1).pack(*accumulate(self.lengths, initial=0)))
        missing = -size % 8
        return size, offsets + data + _PADDING[missing] if missing else offsets + data


_NOTHING = (0, b"")


@lru_cache(maxsize=1024)
def _int32(count: int) -> struct.Struct:
    """Return what packs so many int32, twice as fast as an array that is made for it."""
    return struct.Struct(f"<{count}i")


def _padded(data: bytes) -> bytes:
    missing = -len(data) % 8
    return data + _PADDING[missing] if missing else data


def _names(names: Sequence[str]) -> tuple[int, bytes]:
    return Column.of([name.encode() for name in names]).encode()


@lru_cache(maxsize=4096)
def _one_name(name: str) -> tuple[int, bytes]:
    return _names((name,))


def encode_commit(
    names: Sequence[str],
    stream_of_record: Sequence[int],
    keys: Column | None,
    headers: Column | None,
    values: Column,
    calls: Sequence[tuple[str, tuple[int, ...]]],
) -> bytes:
    """Return a commit's body.

    Args:
        names: The distinct streams.
        stream_of_record: Index of each record's stream among them; not looked at where there is one.
        keys: The records' keys; ``None`` where none has one.
        headers: Their encoded headers; ``None`` where none has any.
        values: Their values.
        calls: The calls with a ``dedup_id``, with the last position of each of their appends.
    """
    name_size, name_column = _one_name(names[0]) if len(names) == 1 else _names(names)
    key_size, key_column = keys.encode() if keys is not None else _NOTHING
    header_size, header_column = headers.encode() if headers is not None else _NOTHING
    call_data = _encode_json(calls) if calls else b""
    return b"".join(
        (
            _SIZES.pack(len(names), name_size, key_size, header_size, len(call_data)),
            name_column,
            _padded(array("i", stream_of_record).tobytes()) if len(names) > 1 else b"",
            key_column if key_size else b"",
            header_column if header_size else b"",
            values.encode()[1],
            call_data,
        )
    )


def encode_one(name: str, key: bytes, headers: bytes, value: bytes) -> bytes:
    """Return the body of a commit of one record: what :func:`encode_commit` gives for it, without the columns."""
    name_size, name_column = _one_name(name)
    key_size, headers_size, size = len(key), len(headers), len(value)
    parts = [_SIZES.pack(1, name_size, key_size, headers_size, 0), name_column]
    if key_size:
        parts += (_ONE_ROW.pack(0, key_size), key, _PADDING[-key_size % 8])
    if headers_size:
        parts += (_ONE_ROW.pack(0, headers_size), headers, _PADDING[-headers_size % 8])
    parts += (_ONE_ROW.pack(0, size), value, _PADDING[-size % 8])
    return b"".join(parts)


class Commit:
    """A commit's records, decoded as they are asked for. The body's checksum was verified by whoever made this.

    Attributes:
        first_position: Position of the first record.
        record_count: Number of records.
        time_ns: Wall-clock time of the commit.
        size_bytes: Size of the body.
    """

    __slots__ = (
        "_at",
        "_body",
        "_header_offsets",
        "_headers_at",
        "_key_offsets",
        "_keys_at",
        "_names",
        "_stream_of_record",
        "_value_offsets",
        "_values_at",
        "first_position",
        "record_count",
        "size_bytes",
        "time_ns",
    )

    def __init__(self, header: FrameHeader, body: bytes, names: list[str] | None = None) -> None:
        self.first_position = header.first_position
        self.record_count = header.record_count
        self.time_ns = header.time_ns
        self.size_bytes = len(body)
        self._body = body
        self._names = names
        self._at = 0  # where the calls stand; 0 while nothing is decoded

    def _decode(self) -> None:
        body, count = self._body, self.record_count
        stream_count, name_bytes, key_bytes, header_bytes, _call_bytes = _SIZES.unpack_from(body)
        view = memoryview(body)
        at = _SIZES.size

        def column(rows: int) -> memoryview:
            nonlocal at
            cells = view[at : at + rows * 4].cast("i")
            at += (rows * 4 + 7) & ~7
            return cells

        def data(size: int) -> int:
            nonlocal at
            begin = at
            at += (size + 7) & ~7
            return begin

        name_offsets = column(stream_count + 1)
        names_at = data(name_bytes)
        if self._names is None:
            self._names = [
                str(view[names_at + name_offsets[i] : names_at + name_offsets[i + 1]], "utf-8")
                for i in range(stream_count)
            ]
        self._stream_of_record = column(count) if stream_count > 1 else ()
        self._key_offsets = column(count + 1) if key_bytes else None
        self._keys_at = data(key_bytes) if key_bytes else 0
        self._header_offsets = column(count + 1) if header_bytes else None
        self._headers_at = data(header_bytes) if header_bytes else 0
        self._value_offsets = column(count + 1)
        self._values_at = data(self._value_offsets[count])
        self._at = at

    @property
    def names(self) -> list[str]:
        """The distinct streams."""
        if self._names is None:
            self._decode()
        assert self._names is not None
        return self._names

    @property
    def stream_of_record(self) -> Sequence[int]:
        """Index in :attr:`names` of each record's stream; empty where there is one stream."""
        if not self._at:
            self._decode()
        return self._stream_of_record

    @property
    def calls(self) -> dict[str, tuple[int, ...]]:
        """The calls with a ``dedup_id``, with the last position of each of their appends."""
        if not self._at:
            self._decode()
        return dict(_decode_calls(self._body[self._at :])) if self._at < len(self._body) else {}

    def stream(self, row: int) -> str:
        """Return the stream of one record, by its row from 0."""
        index = self.stream_of_record
        return self.names[index[row] if index else 0]

    def rows_of(self, wanted: Sequence[bool]) -> Sequence[int]:
        """Return the rows whose stream's index is marked in ``wanted``, in order."""
        indices = self.stream_of_record
        if not indices:
            return range(self.record_count) if wanted[0] else ()
        return [row for row, index in enumerate(indices) if wanted[index]]

    def record(self, row: int) -> StoredRecord:
        """Return one record, by its row from 0."""
        if not self._at:
            self._decode()
        body = self._body
        values_at, offsets = self._values_at, self._value_offsets
        key = b""
        if self._key_offsets is not None:
            key = body[self._keys_at + self._key_offsets[row] : self._keys_at + self._key_offsets[row + 1]]
        headers = NO_HEADERS
        if self._header_offsets is not None:
            begin, end = self._header_offsets[row], self._header_offsets[row + 1]
            if end > begin:
                headers = _decode_headers(body[self._headers_at + begin : self._headers_at + end])
        return StoredRecord(
            self.first_position + row,
            self.stream(row),
            self.time_ns,
            body[values_at + offsets[row] : values_at + offsets[row + 1]],
            key,
            headers,
        )
