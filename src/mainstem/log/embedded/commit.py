"""Deciding what goes into the next commit. Pure: waiting calls and the index in, a frame's content and answers out."""

from __future__ import annotations

from mainstem.log.embedded.calls import Answer, Call
from mainstem.log.embedded.index import LogIndex
from mainstem.log.errors import NotWrittenError, PositionConflictError
from mainstem.log.frame import encode_commit


class CommitPlan:
    """The content of one commit, and what each call that it considered is to be answered once it is durable.

    Attributes:
        accepted: Calls whose records are in the commit, with their answers.
        refused: Calls that do not fit the state that the commit leaves, with the error.
        repeated: Calls that were answered before, or are by this commit, with that answer.
        first_position: Position of the commit's first record.
        record_count: Number of records in the commit; 0 where nothing needs to be written.
        stream_of_record: Index in :attr:`names` of each record's stream.
    """

    __slots__ = (
        "_headers",
        "_index",
        "_keys",
        "_last",
        "_names",
        "_next_position",
        "_own_answers",
        "_values",
        "accepted",
        "first_position",
        "record_count",
        "refused",
        "repeated",
        "stream_of_record",
    )

    def __init__(self, index: LogIndex) -> None:
        self._index = index
        self.first_position = self._next_position = index.end_position + 1
        self._names: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._own_answers: dict[str, Answer] = {}
        self.stream_of_record: list[int] = []
        self._keys: list[bytes] = []
        self._headers: list[bytes] = []
        self._values: list[bytes] = []
        self.accepted: list[tuple[Call, Answer]] = []
        self.refused: list[tuple[Call, NotWrittenError]] = []
        self.repeated: list[tuple[Call, Answer]] = []
        self.record_count = 0

    def add(self, call: Call) -> None:
        """Take a call in: accepted, refused or repeated.

        The repeat is looked at first: a retry must not conflict with itself.
        """
        if call.dedup_id:
            earlier = self._index.answer(call.dedup_id) or self._own_answers.get(call.dedup_id)
            if earlier is not None:
                self.repeated.append((call, earlier))
                return
        conflict = self._conflict(call)
        if conflict is not None:
            self.refused.append((call, conflict))
            return
        answer = self._take(call)
        self.accepted.append((call, answer))
        if call.dedup_id:
            self._own_answers[call.dedup_id] = answer

    def _last_position(self, stream: str) -> int:
        position = self._last.get(stream)
        return self._index.last_position(stream) if position is None else position

    def _conflict(self, call: Call) -> PositionConflictError | None:
        for stream, _keys, _headers, _values, expected in call.appends:
            if expected is not None and (actual := self._last_position(stream)) != expected:
                return PositionConflictError(stream, expected, actual)
        return None

    def _take(self, call: Call) -> Answer:
        answer = []
        names = self._names
        for stream, keys, headers, values, _expected in call.appends:
            index = names.setdefault(stream, len(names))
            count = len(values)
            self.stream_of_record += (index,) * count
            self._keys += keys
            self._headers += headers
            self._values += values
            self._next_position += count
            self._last[stream] = self._next_position - 1
            answer.append(self._next_position - 1)
        self.record_count = self._next_position - self.first_position
        return tuple(answer)

    @property
    def names(self) -> list[str]:
        """The distinct streams, in the order in which they came."""
        return list(self._names)

    @property
    def calls(self) -> list[tuple[str, Answer]]:
        """The calls with a ``dedup_id``, with their answers."""
        return list(self._own_answers.items())

    def encode(self) -> bytes:
        """Return the commit's body."""
        return encode_commit(
            [name.encode() for name in self._names],
            self.stream_of_record,
            self._keys,
            self._headers,
            self._values,
            self.calls,
        )
