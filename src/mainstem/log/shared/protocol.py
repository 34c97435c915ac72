"""What passes between the leader of a log and those who are attached to it. Pure: bytes in, messages out.

Over a stream socket, in each direction: frames of a little-endian uint32, the length, and that many bytes of
MessagePack. Requests have ids of the client's choosing; answers come in any order. The leader begins with
:class:`Welcome`. Both ends are of one version of mainstem, and of one user (the socket has mode 0600).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import msgspec

from mainstem.log.contract import NO_HEADERS, LogStats, StoredRecord
from mainstem.log.embedded.calls import Block, Call
from mainstem.log.frame import Column

VERSION = 1
"""The version of the messages; a client of another one is refused."""

FRAME_MAX_BYTES = 40 << 20
"""Longest frame: the largest call, with what surrounds its bytes, and the largest answer to a read."""

_LENGTH = struct.Struct("<I")


class ProtocolError(Exception):
    """What came is no message of this protocol."""


class WireBlock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One append of a call, as :class:`~mainstem.log.embedded.calls.Block` has it."""

    stream: str
    expected_position: int | None
    values: list[bytes]
    keys: list[bytes] | None
    headers: list[bytes] | None


class Appending(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A call of ``append`` or ``append_many``."""

    id: int
    blocks: list[WireBlock]
    dedup_id: str
    use_reserve: bool


class Reading(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A call of ``read``."""

    id: int
    pattern: str
    after: int
    limit: int


class LookingLast(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A call of ``last``."""

    id: int
    stream: str


class AskingStats(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A call of ``stats``."""

    id: int


class Tailing(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The beginning of a tail: answered by :class:`Batch` after batch, each of which is to be taken."""

    id: int
    pattern: str
    after: int


class Taken(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A tail's batch was taken: the next one may come."""

    id: int


class Stopping(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The end of a tail."""

    id: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Is anyone there?"""

    id: int


Request = Appending | Reading | LookingLast | AskingStats | Tailing | Taken | Stopping | Ping
"""What a client sends."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The leader's first message."""

    version: int
    epoch: int
    end_position: int


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The positions of an append."""

    id: int
    positions: tuple[int, ...]


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """An error, by its stable code; the further fields are those of a conflict."""

    id: int
    code: str
    message: str
    stream: str = ""
    expected: int = 0
    actual: int = 0


class WireRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored record."""

    position: int
    stream: str
    time_ns: int
    value: bytes
    key: bytes
    headers: dict[str, str] | None

    def stored(self) -> StoredRecord:
        """Return it as the contract has it."""
        return StoredRecord(self.position, self.stream, self.time_ns, self.value, self.key, self.headers or NO_HEADERS)

    @classmethod
    def of(cls, record: StoredRecord) -> WireRecord:
        """Return it as it travels."""
        headers = dict(record.headers) if record.headers else None
        return cls(record.position, record.stream, record.time_ns, record.value, record.key, headers)


class Batch(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Records: the answer to a read or ``last``, or the next ones of a tail."""

    id: int
    records: list[WireRecord]


class Stats(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The answer to ``stats``."""

    id: int
    stats: LogStats


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Someone is there, and the log's last durable position is this."""

    id: int
    end_position: int


Response = Welcome | Answer | Failure | Batch | Stats | Pong
"""What a leader sends."""

_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_response = msgspec.msgpack.Decoder(Response).decode


def encode(message: Request | Response) -> bytes:
    """Return a message's frame."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class _Frames:
    """Cuts a stream of bytes into frames, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are complete with these bytes.

        Raises:
            ProtocolError: One is longer than :data:`FRAME_MAX_BYTES`.
        """
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(buffer, at)
                if size > FRAME_MAX_BYTES:
                    raise ProtocolError(f"a frame of {size} bytes, expected {FRAME_MAX_BYTES} at most")
                if len(buffer) - at - _LENGTH.size < size:
                    break
                at += _LENGTH.size + size
                yield bytes(buffer[at - size : at])
        finally:
            del buffer[:at]


class RequestReader:
    """Bytes from a client in, requests out."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> Iterator[Request]:
        """Yield the requests that are complete.

        Raises:
            ProtocolError: It is no request.
        """
        for frame in self._frames.feed(data):
            try:
                yield _decode_request(frame)
            except msgspec.MsgspecError as error:
                raise ProtocolError(str(error)) from error


class ResponseReader:
    """Bytes from a leader in, responses out."""

    def __init__(self) -> None:
        self._frames = _Frames()

    def feed(self, data: bytes) -> Iterator[Response]:
        """Yield the responses that are complete.

        Raises:
            ProtocolError: It is no response.
        """
        for frame in self._frames.feed(data):
            try:
                yield _decode_response(frame)
            except msgspec.MsgspecError as error:
                raise ProtocolError(str(error)) from error


def wire_blocks(call: Call) -> list[WireBlock]:
    """Return a call's appends as they travel."""
    return [
        WireBlock(
            block.stream,
            block.expected_position,
            list(block.values.parts),
            None if block.keys is None else list(block.keys.parts),
            None if block.headers is None else list(block.headers.parts),
        )
        for block in call.blocks
    ]


def blocks_of(appending: Appending) -> list[Block]:
    """Return a call's appends as the engine takes them.

    Raises:
        ProtocolError: Its columns are of different lengths.
    """
    return [
        Block(
            wire.stream,
            wire.expected_position,
            len(wire.values),
            Column.of(wire.values),
            _column(wire.keys, len(wire.values)),
            _column(wire.headers, len(wire.values)),
        )
        for wire in appending.blocks
    ]


def _column(parts: Sequence[bytes] | None, count: int) -> Column | None:
    if parts is None:
        return None
    if len(parts) != count:
        raise ProtocolError(f"a column of {len(parts)} beside {count} values")
    return Column.of(parts)
