"""Live pages: one stream of server-sent events a page, whose ids are log positions, each with what is shown as of it.

Readers of the same address share one rendering: it is made when one of the page's topics changed, at most ten times a
second, and the fragments that differ from before go to all of them as the same bytes. Who connects names the state that
the page shows (:func:`page_state`; the browser does, as ``Last-Event-ID``, when a connection broke); where the page is
another by now, all of it is sent, so nothing that happened in between is lost. Of the fragments that change together
the last alone carries the id: who has but some of them comes back with the state of before. The position would not do,
as what a page shows also changes without a record: rates fall, attempts begin. Who does not read fast enough is cut
off, and comes back that way.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Final

import msgspec

from mainstem.ui.panel import PageView
from mainstem.web.shell import fragment_element

_logger = logging.getLogger(__name__)

READERS_MAX: Final = 1_000
"""Most streams at a time."""

QUEUE_MAX_EVENTS: Final = 256
"""Fragments that may wait for a slow reader before it is cut off."""

HEARTBEAT_S: Final = 15.0
"""Longest silence on a stream."""

RENDER_EVERY_S: Final = 0.1
"""Shortest time between two renderings of a page."""

SHARE: Final = 10
"""A page is rendered again only after this many times the time that the last rendering took."""

TICK_EVERY_S: Final = 5.0
"""How often pages are rendered that follow the topic ``tick``: those that show rates."""


class Address(msgspec.Struct, frozen=True):
    """A page, as readers share it.

    Attributes:
        path: Below the dashboard's root.
        query: Its query string.
        base: Address of the root, which is in its links.
    """

    path: str
    query: str
    base: str


class Rendering(msgspec.Struct, frozen=True):
    """A page as of a position; ``view`` is ``None`` when there is no such page any more."""

    view: PageView | None
    position: int


Render = Callable[[Address], Awaitable[Rendering]]
"""Renders a page from the present page state."""


class TooManyReadersError(Exception):
    """There are :data:`READERS_MAX` streams already."""


class _Reader:
    """One browser's stream: a bounded queue of events; ``None`` ends it."""

    def __init__(self, on_cut: Callable[[], None]) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_MAX_EVENTS + 1)
        self.behind = False
        self._on_cut = on_cut

    def send(self, event: bytes) -> None:
        if self.behind:
            return
        if self.queue.qsize() >= QUEUE_MAX_EVENTS:
            self._cut()
            return
        self.queue.put_nowait(event)

    def _cut(self) -> None:
        """Cut it off at once: who is so far behind does not read what was sent, and would not read an end either."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.end()
        self._on_cut()

    def end(self) -> None:
        """End it after what it has been sent."""
        if not self.behind:
            self.behind = True
            self.queue.put_nowait(None)


class _Room:
    """The readers of one address, and what they were shown last."""

    def __init__(self, address: Address, render: Render) -> None:
        self.address = address
        self.readers: set[_Reader] = set()
        self.topics: frozenset[str] = frozenset()
        self._render = render
        self._shown: dict[str, bytes] = {}
        self._dirty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def mark(self) -> None:
        """Have it rendered again."""
        self._dirty.set()

    async def join(self, reader: _Reader, shown: str) -> None:
        """Let a reader in, whose page shows the state ``shown``."""
        self.readers.add(reader)
        rendering = await self._render(self.address)
        if rendering.view is None:
            reader.end()
            return
        if not self._shown:
            self._shown = _elements(rendering.view)
        self._send(rendering.view, rendering.position)  # what differs from here on differs from this, for all of them
        if _digest_of(shown) != _digest(self._shown.values()):
            for sent in _events(list(self._shown.values()), self._state(rendering.position)):
                reader.send(sent)
        self.mark()  # what changed while it was rendered had no topics yet to be found by
        if self._task is None:
            self._task = asyncio.create_task(self._keep_live(), name=f"mainstem live {self.address.path}")

    def close(self) -> None:
        """End all streams."""
        if self._task is not None:
            self._task.cancel()
        for reader in self.readers:
            reader.end()

    async def _keep_live(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            began_s = time.perf_counter()
            try:
                rendering = await self._render(self.address)
            except Exception:
                # One page's fault ends its own streams; browsers come back, and see the error as a page.
                _logger.exception("the page %r could not be rendered", self.address.path)
                self._task = None  # whoever joins next has it kept live again
                for reader in self.readers:
                    reader.end()
                return
            if rendering.view is not None:
                self._send(rendering.view, rendering.position)
            # A page that is long to render must not keep the application busy with itself.
            await asyncio.sleep(max(RENDER_EVERY_S, SHARE * (time.perf_counter() - began_s)))

    def _send(self, view: PageView, position: int) -> None:
        elements = _elements(view)
        changed = [element for name, element in elements.items() if self._shown.get(name) != element]
        self._shown = elements
        self.topics = view.topics
        for sent in _events(changed, self._state(position)):
            for reader in self.readers:
                reader.send(sent)
        self.readers = {reader for reader in self.readers if not reader.behind}  # their places are free at once

    def _state(self, position: int) -> str:
        return _state(position, self._shown.values())


class Hub:
    """All live pages.

    Args:
        render: Renders a page.
    """

    def __init__(self, render: Render) -> None:
        self._render = render
        self._rooms: dict[Address, _Room] = {}
        self._closed = False

    @property
    def reader_count(self) -> int:
        """How many streams there are."""
        return sum(len(room.readers) for room in self._rooms.values())

    def notify(self, topics: Collection[str]) -> None:
        """Have those pages rendered again that follow one of the topics."""
        for room in self._rooms.values():
            if not room.topics.isdisjoint(topics):
                room.mark()

    async def stream(
        self, address: Address, shown: str, on_cut: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a page's stream, from the state that the page shows, until the hub is closed.

        Args:
            address: The page.
            shown: The state that it shows: what :func:`page_state` says of the document, or an event's id. Anything
                else is sent the whole page.
            on_cut: Called when the reader is too far behind and its stream is over, though nobody asks for its next
                event: what waits for the browser to read can be given up.

        Raises:
            TooManyReadersError: There are too many streams already.
        """
        if self.reader_count >= READERS_MAX or self._closed:
            raise TooManyReadersError
        reader = _Reader(on_cut)
        room = self._rooms.setdefault(address, _Room(address, self._render))
        try:
            await room.join(reader, shown)
            yield b"retry: 1000\n\n"
            while True:
                try:
                    sent = await asyncio.wait_for(reader.queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    sent = b":\n\n"  # tells proxies, and us, that the other end is there
                if sent is None:
                    return
                yield sent
        finally:
            room.readers.discard(reader)
            if not room.readers and self._rooms.get(address) is room:
                del self._rooms[address]
                room.close()

    def close(self) -> None:
        """End all streams. Idempotent."""
        self._closed = True
        for room in self._rooms.values():
            room.close()


def page_state(view: PageView, position: int) -> str:
    """Return the state of a page, as a document names it to its live stream, and as events have it for their ids.

    It is the position in the log, for people, and a digest of the page's fragments, which alone is compared.
    """
    return _state(position, _elements(view).values())


def _state(position: int, elements: Collection[bytes]) -> str:
    return f"{position}-{_digest(elements)}"


def _digest(elements: Collection[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for element in elements:
        digest.update(b"%d:" % len(element) + element)
    return digest.hexdigest()


def _digest_of(state: str) -> str:
    return state.rpartition("-")[2]


def _elements(view: PageView) -> dict[str, bytes]:
    return {fragment.id: fragment_element(fragment, travelling=True).encode() for fragment in view.fragments}


def _events(elements: Sequence[bytes], state: str) -> list[bytes]:
    """Return the events of elements that change together."""
    return [event(element, state if element is elements[-1] else None) for element in elements]


def event(data: bytes, event_id: str | None) -> bytes:
    """Return a server-sent event: its id, where it has one of its own, and each line of its data."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    head = b"" if event_id is None else b"id: %s\n" % event_id.encode()
    return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
