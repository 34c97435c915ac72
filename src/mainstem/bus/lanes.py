"""Which events may be handled now: order per key, at most so many at once, retries at their time. Pure; time is an
argument.
"""

from __future__ import annotations

import heapq
from collections import deque

import msgspec

from mainstem.log.contract import StoredRecord


class Delivery(msgspec.Struct, eq=False):
    """An event on its way to the handler.

    Attributes:
        record: The event's record.
        failed: How many attempts failed so far.
        ready_at_ns: Wall-clock time before which it is not given to the handler; 0 for at once.
    """

    record: StoredRecord
    failed: int = 0
    ready_at_ns: int = 0

    @property
    def lane(self) -> tuple[str, bytes] | None:
        """Events of one lane are handled one after the other; an event without a key has none."""
        return (self.record.stream, self.record.key) if self.record.key else None

    @property
    def size_bytes(self) -> int:
        """What its record holds in memory: value, key and the headers' text."""
        record = self.record
        return len(record.value) + len(record.key) + sum(len(name) + len(text) for name, text in record.headers.items())


class Lanes:
    """The events that a group has read and not finished.

    The first of each lane is ready, waits for its retry, or is being handled; those behind it wait for it. So a failing
    event holds back its own key only.

    Attributes:
        in_flight: Events that are being handled.
        waiting_bytes: Size of the records of those that are not.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._ready: deque[Delivery] = deque()
        self._retrying: list[tuple[int, int, Delivery]] = []
        self._behind: dict[tuple[str, bytes], deque[Delivery]] = {}
        self.in_flight = 0
        self.waiting_bytes = 0

    def __repr__(self) -> str:
        return f"<Lanes {len(self._ready)} ready, {self.in_flight} in flight, {self.retrying} retrying>"

    @property
    def retrying(self) -> int:
        """Number of events that wait for their next attempt."""
        return len(self._retrying)

    @property
    def next_retry_ns(self) -> int | None:
        """Wall-clock time of the first retry, if any waits."""
        return self._retrying[0][0] if self._retrying else None

    def add(self, delivery: Delivery) -> None:
        """Take in an event, in the order of positions."""
        self.waiting_bytes += delivery.size_bytes
        lane = delivery.lane
        if lane is not None:
            behind = self._behind.get(lane)
            if behind is not None:
                behind.append(delivery)
                return
            self._behind[lane] = deque()
        self._admit(delivery)

    def _admit(self, delivery: Delivery) -> None:
        if delivery.ready_at_ns:
            heapq.heappush(self._retrying, (delivery.ready_at_ns, delivery.record.position, delivery))
        else:
            self._ready.append(delivery)

    def take(self, now_ns: int) -> Delivery | None:
        """Return an event to handle now, or ``None``; it counts as in flight until :meth:`finish` or :meth:`retry`."""
        if self.in_flight >= self._concurrency:
            return None
        if self._retrying and self._retrying[0][0] <= now_ns:
            delivery = heapq.heappop(self._retrying)[2]
            delivery.ready_at_ns = 0
        elif self._ready:
            delivery = self._ready.popleft()
        else:
            return None
        self.in_flight += 1
        self.waiting_bytes -= delivery.size_bytes
        return delivery

    def finish(self, delivery: Delivery) -> None:
        """The event is done or given up: the next of its lane may go."""
        self.in_flight -= 1
        lane = delivery.lane
        if lane is not None:
            behind = self._behind[lane]
            if behind:
                self._admit(behind.popleft())
            else:
                del self._behind[lane]

    def retry(self, delivery: Delivery, at_ns: int) -> None:
        """The attempt failed: the event keeps its place and is ready again at ``at_ns``."""
        self.in_flight -= 1
        self.waiting_bytes += delivery.size_bytes
        delivery.failed += 1
        delivery.ready_at_ns = max(1, at_ns)
        self._admit(delivery)
