"""What a consumer group has done, as it is written to ``$group.<name>``; and what it gave up on, in ``$dead.<name>``.
Pure.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import msgspec

GROUP_PREFIX = "$group."
"""Streams of cursors are this prefix and the group's name."""

DEAD_PREFIX = "$dead."
"""Streams of dead letters are this prefix and the group's name."""


class FailedAttempts(msgspec.Struct, frozen=True):
    """An event that failed and is to be tried again.

    Attributes:
        failed: How many attempts failed.
        retry_at_ns: Wall-clock time of the next one.
    """

    failed: int
    retry_at_ns: int


class CursorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A group's cursor; the last record of ``$group.<name>`` counts.

    Attributes:
        pattern: The streams that it reads.
        position: Every matching record up to here is done.
        done: Ranges above ``position``, first and last included, in which every matching record is done as well.
        attempts: Events that failed so far, by position.
        dead: How many events were given up since the group began.
    """

    pattern: str
    position: int
    done: tuple[tuple[int, int], ...] = ()
    attempts: dict[int, FailedAttempts] = {}
    dead: int = 0


NO_VALUE = msgspec.Raw(b"null")
"""In place of a value that is large, or no JSON."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that a group gave up. It stays where it is: at ``position`` in ``stream``. The letter is bounded: of a
    long key or many headers it holds a part.

    Attributes:
        stream: The event's stream.
        position: The event's position.
        key: Its key, up to 1 KiB of it.
        attempts: How many attempts failed.
        error_type: Type of the last error.
        error: Its message.
        value: The event's value where it is small JSON (up to 16 KiB), so that it can be read here.
    """

    stream: str
    position: int
    attempts: int
    error_type: str
    error: str
    key: str = ""
    value: msgspec.Raw = NO_VALUE


class Cursor:
    """A group's cursor in memory. Records are taken in once each, in order; those no longer open are done."""

    def __init__(self, start: CursorRecord) -> None:
        self.pattern = start.pattern
        self.dead = start.dead
        self.attempts = dict(start.attempts)
        self._open: dict[int, None] = {}  # in order of position
        self._taken_to = start.position
        self._done_ahead = deque(start.done)  # what an earlier process did beyond what this one has read

    def __repr__(self) -> str:
        return f"<Cursor at {self.position}, {len(self._open)} open, read up to {self._taken_to}>"

    @property
    def position(self) -> int:
        """Every matching record up to here is done."""
        first_open = next(iter(self._open), None)
        return self._taken_to if first_open is None else first_open - 1

    @property
    def open_count(self) -> int:
        """Number of records that were taken in and are not done."""
        return len(self._open)

    @property
    def read_after(self) -> int:
        """Position to read on from."""
        return self._taken_to

    def take_in(self, position: int) -> bool:
        """Note a record that was read; tell whether it is still to be done."""
        self._taken_to = position
        ahead = self._done_ahead
        while ahead and ahead[0][1] < position:
            ahead.popleft()
        if ahead and ahead[0][0] <= position:
            return False
        self._open[position] = None
        return True

    def finish(self, position: int, *, dead: bool = False) -> None:
        """Note that a record is done (or given up)."""
        del self._open[position]
        self.attempts.pop(position, None)
        self.dead += dead

    def fail(self, position: int, attempts: FailedAttempts) -> None:
        """Note a failed attempt that will be repeated."""
        self.attempts[position] = attempts

    def record(self) -> CursorRecord:
        """Return what is to be written: its size depends on how much is open, not on how much is done."""
        return CursorRecord(self.pattern, self.position, self._done_ranges(), dict(self.attempts), self.dead)

    def _done_ranges(self) -> tuple[tuple[int, int], ...]:
        edges = [*self._open, self._taken_to + 1] if self._open else []
        ranges = [(left + 1, right - 1) for left, right in pairwise(edges) if right > left + 1]
        ranges += ((max(first, self._taken_to + 1), last) for first, last in self._done_ahead if last > self._taken_to)
        return tuple(ranges)
