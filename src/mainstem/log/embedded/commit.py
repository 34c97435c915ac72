"""Deciding what goes into the next commit. Pure: waiting calls and the index in, a frame's content and answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from mainstem.log.embedded.calls import Answer, Block, Call
from mainstem.log.embedded.index import LogIndex
from mainstem.log.errors import PositionConflictError
from mainstem.log.frame import Column, encode_commit


class LonePlan:
    """The plan of a commit of one record whose caller does not wait: what :class:`CommitPlan` says of it."""

    __slots__ = ("first_position", "names")

    calls: tuple[Call, ...] = ()
    accepted_count = record_count = 1
    named: Mapping[str, Answer] = MappingProxyType({})

    def __init__(self, stream: str, position: int) -> None:
        self.names = [stream]
        self.first_position = position


class CommitPlan:
    """The content of one commit; each call that it took in knows what it is to be told once that is durable.

    Attributes:
        calls: The calls it considered: accepted, refused, or answered before.
        accepted_count: How many of them have records in the commit.
        first_position: Position of the commit's first record.
        named: The accepted calls with a ``dedup_id``, with their answers.
    """

    __slots__ = ("_blocks", "_index", "_last", "_next_position", "accepted_count", "calls", "first_position", "named")

    def __init__(self, index: LogIndex) -> None:
        self._index = index
        self.first_position = self._next_position = index.end_position + 1
        self._last: dict[str, int] = {}
        self._blocks: list[Block] = []
        self.calls: list[Call] = []
        self.accepted_count = 0
        self.named: dict[str, Answer] = {}

    @property
    def record_count(self) -> int:
        """Number of records in the commit; 0 where nothing needs to be written."""
        return self._next_position - self.first_position

    def add(self, call: Call) -> None:
        """Take a call in: accepted, refused or repeated.

        The repeat is looked at first: a retry must not conflict with itself.
        """
        self.calls.append(call)
        if call.dedup_id:
            earlier = self._index.answer(call.dedup_id) or self.named.get(call.dedup_id)
            if earlier is not None:
                call.answer, call.error = earlier, None  # an earlier plan that came to nothing may have refused it
                return
        call.error = self._conflict(call)
        if call.error is None:
            self._take(call)

    def _conflict(self, call: Call) -> PositionConflictError | None:
        for block in call.blocks:
            expected = block.expected_position
            if expected is not None:
                actual = self._last.get(block.stream)
                if actual is None:
                    actual = self._index.last_position(block.stream)
                if actual != expected:
                    return PositionConflictError(block.stream, expected, actual)
        return None

    def _take(self, call: Call) -> None:
        answer = []
        position = self._next_position - 1
        for block in call.blocks:
            position += block.record_count
            self._last[block.stream] = position
            answer.append(position)
        self._next_position = position + 1
        self._blocks += call.blocks
        self.accepted_count += 1
        call.answer = tuple(answer)
        if call.dedup_id:
            self.named[call.dedup_id] = call.answer

    @property
    def names(self) -> list[str]:
        """The distinct streams, in the order in which they came."""
        return list(self._last)

    def stream_of_record(self) -> Sequence[int]:
        """Return the index in :attr:`names` of each record's stream; empty where there is one stream."""
        if len(self._last) == 1:
            return ()
        index = {name: number for number, name in enumerate(self._last)}
        return list(chain.from_iterable((index[block.stream],) * block.record_count for block in self._blocks))

    def encode(self, stream_of_record: Sequence[int]) -> bytes:
        """Return the commit's body."""
        blocks = self._blocks
        if len(blocks) == 1:
            block = blocks[0]
            keys, headers, values = block.keys, block.headers, block.values
        else:
            keys = _joined([(block.keys, block.record_count) for block in blocks])
            headers = _joined([(block.headers, block.record_count) for block in blocks])
            values = Column(
                list(chain.from_iterable(block.values.parts for block in blocks)),
                list(chain.from_iterable(block.values.lengths for block in blocks)),
            )
        return encode_commit(
            self.names,
            stream_of_record,
            keys,
            headers,
            values,
            list(self.named.items()) if self.named else (),
        )


def _joined(columns: Sequence[tuple[Column | None, int]]) -> Column | None:
    """Return columns, each of so many records, as one; those that are missing stand for empty ones."""
    if all(column is None for column, _count in columns):
        return None
    parts: list[bytes] = []
    lengths: list[int] = []
    for column, count in columns:
        parts += column.parts if column is not None else ()
        lengths += column.lengths if column is not None else (0,) * count
    return Column(parts, lengths)
