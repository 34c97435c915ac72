"""The index in memory: where each record lies, which calls were answered. Rebuilt from the frames at every opening."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mainstem.log.frame import FrameHeader, frame_bytes


class FramePlace(msgspec.Struct, frozen=True, gc=False):
    """Where a commit's frame lies."""

    number: int
    segment: int
    offset: int
    frame_bytes: int
    first_position: int


class LogIndex:
    """Positions by stream, frames by position, answers by ``dedup_id``; all of durable commits only."""

    def __init__(self, dedup_window_calls: int) -> None:
        self.end_position = 0
        self.records = 0
        self._streams: dict[str, array[int]] = {}
        self._first_positions = array("Q")
        self._segments = array("I")
        self._offsets = array("Q")
        self._sizes = array("I")
        self._answers: dict[str, tuple[int, ...]] = {}
        self._dedup_window_calls = dedup_window_calls

    @property
    def stream_count(self) -> int:
        """Number of streams with a record."""
        return len(self._streams)

    @property
    def frame_count(self) -> int:
        """Number of commits."""
        return len(self._offsets)

    def streams(self) -> Iterator[tuple[str, int, int]]:
        """Yield each stream's name, its number of records, and its last position."""
        for name, positions in self._streams.items():
            yield name, len(positions), positions[-1]

    def add(
        self,
        header: FrameHeader,
        names: Sequence[str],
        stream_of_record: Sequence[int],
        calls: Mapping[str, tuple[int, ...]],
    ) -> int:
        """Take in a durable commit, given what its frame says; return the frame's number."""
        position, end_position = header.first_position, header.first_position + header.record_count
        self._first_positions.append(position)
        self._segments.append(header.segment)
        self._offsets.append(header.offset)
        self._sizes.append(frame_bytes(header.body_bytes))
        if len(names) == 1:
            positions = self._positions(names[0])
            if header.record_count == 1:
                positions.append(position)
            else:
                positions.extend(range(position, end_position))
        else:
            columns = [self._positions(name).append for name in names]
            for index in stream_of_record:
                columns[index](position)
                position += 1
        self.end_position = end_position - 1
        self.records += header.record_count
        if calls:
            self._remember(calls)
        return len(self._offsets) - 1

    def _positions(self, stream: str) -> array[int]:
        positions = self._streams.get(stream)
        if positions is None:
            positions = self._streams[stream] = array("Q")
        return positions

    def _remember(self, calls: Mapping[str, tuple[int, ...]]) -> None:
        answers = self._answers
        answers.update(calls)
        while len(answers) > self._dedup_window_calls:
            del answers[next(iter(answers))]

    def answer(self, dedup_id: str) -> tuple[int, ...] | None:
        """Return what an earlier call of this name was answered, if it is still remembered."""
        return self._answers.get(dedup_id)

    def last_position(self, stream: str) -> int:
        """Return the position of a stream's last record; 0 when it has none."""
        positions = self._streams.get(stream)
        return positions[-1] if positions else 0

    def positions_after(self, stream: str, after: int, limit: int) -> array[int]:
        """Return up to ``limit`` positions of one stream behind ``after``."""
        positions = self._streams.get(stream)
        if positions is None:
            return array("Q")
        begin = bisect_right(positions, after)
        return positions[begin : begin + limit]

    def frame_of(self, position: int) -> int:
        """Return the number of the frame that holds a position (or the last one before it)."""
        return bisect_right(self._first_positions, position) - 1

    def first_frame_after(self, after: int) -> int:
        """Return the number of the first frame that may hold a record behind ``after``."""
        return max(0, bisect_right(self._first_positions, after) - 1) if after < self.end_position else self.frame_count

    def place(self, number: int) -> FramePlace:
        """Return where a frame lies, by its number."""
        return FramePlace(
            number, self._segments[number], self._offsets[number], self._sizes[number], self._first_positions[number]
        )
