"""Live pages: one rendering for all, nothing lost, nobody waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from mainstem.ui.html import el
from mainstem.ui.panel import Fragment, PageView
from mainstem.web import hub as module
from mainstem.web.hub import QUEUE_MAX_EVENTS, Address, Hub, Rendering, TooManyReadersError, event
from tests.support import run, until

HERE = Address("runs", "", "/")


class Site:
    """A page of two fragments, as of a position."""

    def __init__(self) -> None:
        self.position = 5
        self.words = {"a": "one", "b": "two"}
        self.renderings = 0
        self.hub = Hub(self.render)

    async def render(self, _address: Address) -> Rendering:
        """Render it."""
        self.renderings += 1
        fragments = [Fragment(name, el("p", word)) for name, word in self.words.items()]
        return Rendering(PageView("T", fragments, frozenset({"topic"})), self.position)

    def change(self, position: int, **words: str) -> None:
        """Change words, as of a position."""
        self.position = position
        self.words.update(words)
        self.hub.notify({"topic"})


async def take(stream: AsyncGenerator[bytes, None], count: int) -> list[bytes]:
    async with asyncio.timeout(10):
        return [await anext(stream) for _ in range(count)]


def test_only_what_changed_travels() -> None:
    """After a change the fragments that differ are sent, with the position as id."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        assert await take(stream, 1) == [b"retry: 1000\n\n"]
        site.change(6, b="three")
        (sent,) = await take(stream, 1)
        assert (
            sent.startswith(b"id: 6\n")
            and b"three" in sent
            and b"one" not in sent
            and b'hx-swap-oob="outerMorph"' in sent
        )
        await stream.aclose()
        assert site.hub.reader_count == 0

    run(main())


def test_who_comes_back_gets_what_happened_since() -> None:
    """A reader whose page shows an earlier position gets the whole page as of now."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 4)
        sent = await take(stream, 3)
        assert [part.split(b"\n")[0] for part in sent[1:]] == [b"id: 5", b"id: 5"]
        await stream.aclose()

    run(main())


def test_readers_share_a_rendering() -> None:
    """Ten readers of one address cost one rendering a change, and get the same bytes."""

    async def main() -> None:
        site = Site()
        streams = [site.hub.stream(HERE, 5) for _ in range(10)]
        for stream in streams:
            await take(stream, 1)
        site.change(6, a="new")
        sent = [(await take(stream, 1))[0] for stream in streams]
        assert all(part is sent[0] for part in sent)
        for stream in streams:
            await stream.aclose()
        assert site.renderings <= 10 + 3

    run(main())


def test_pages_that_do_not_follow_a_topic_are_left_alone() -> None:
    """A change of another topic renders nothing."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        await take(stream, 1)
        site.change(6, a="new")
        await take(stream, 1)
        before = site.renderings
        site.hub.notify({"another"})
        site.change(7, a="newer")
        await take(stream, 1)
        assert site.renderings == before + 1
        await stream.aclose()

    run(main())


def test_a_slow_reader_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not read is cut off when its queue is full: its place is free at once, and nothing is kept for it."""
    monkeypatch.setattr(module, "RENDER_EVERY_S", 0.0)

    async def main() -> None:
        site = Site()
        cut: list[str] = []
        slow = site.hub.stream(HERE, 5, lambda: cut.append("slow"))
        quick = site.hub.stream(HERE, 5, lambda: cut.append("quick"))
        await take(slow, 1)
        await take(quick, 1)
        for number in range(QUEUE_MAX_EVENTS + 5):
            site.change(6 + number, a=f"word {number}")
            await take(quick, 1)
        assert cut == ["slow"] and site.hub.reader_count == 1
        assert [part async for part in slow] == []
        await quick.aclose()

    run(main())


def test_silence_is_broken_by_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream on which nothing happens carries comments."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        assert (await take(stream, 2))[1] == b":\n\n"
        await stream.aclose()

    run(main())


def test_closing_ends_all_streams() -> None:
    """When the application stops, every stream ends, and no new one begins."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        await take(stream, 1)
        site.hub.close()
        assert [part async for part in stream] == []
        with pytest.raises(TooManyReadersError):
            await anext(site.hub.stream(HERE, 5))

    run(main())


def test_there_are_not_too_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are bounded."""
    monkeypatch.setattr(module, "READERS_MAX", 1)

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        await take(stream, 1)
        with pytest.raises(TooManyReadersError):
            await anext(site.hub.stream(HERE, 5))
        await stream.aclose()

    run(main())


def test_a_page_that_fails_ends_its_own_streams(caplog: pytest.LogCaptureFixture) -> None:
    """An error while rendering is logged, and the page's streams end, so that browsers come back and see it."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, 5)
        await take(stream, 1)
        site.change(6, a="new")
        await take(stream, 1)

        async def broken(_address: Address) -> Rendering:
            raise ValueError("as told")

        next(iter(site.hub._rooms.values()))._render = broken
        site.hub.notify({"topic"})
        async with asyncio.timeout(10):
            assert [part async for part in stream] == []

    run(main())
    assert "could not be rendered" in caplog.text


def test_a_page_that_failed_is_live_again_for_the_next_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never reads keeps the failed room; who comes after the fault is kept live all the same."""
    monkeypatch.setattr(module, "RENDER_EVERY_S", 0.0)

    async def main() -> None:
        site = Site()
        stalled = site.hub.stream(HERE, 5)
        await take(stalled, 1)
        (room,) = site.hub._rooms.values()
        render = room._render

        async def broken(_address: Address) -> Rendering:
            raise ValueError("as told")

        room._render = broken
        site.hub.notify({"topic"})
        await until(lambda: room._task is None)
        room._render = render
        newcomer = site.hub.stream(HERE, 5)
        await take(newcomer, 1)
        site.change(6, a="news")
        assert b"news" in (await take(newcomer, 1))[0]
        await newcomer.aclose()
        await stalled.aclose()

    run(main())


def test_lines_of_an_event() -> None:
    """Each line of the data is a line of the event, whatever ends it: no text can begin another event."""
    assert event(7, b"a\nb\r\nc\rid: 9\n\nx") == b"id: 7\ndata: a\ndata: b\ndata: c\ndata: id: 9\ndata: \ndata: x\n\n"
