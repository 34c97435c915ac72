"""Live pages: one rendering for all, nothing lost, nobody waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from mainstem.ui.html import el
from mainstem.ui.panel import Fragment, PageView
from mainstem.web import hub as module
from mainstem.web.hub import QUEUE_MAX_EVENTS, Address, Hub, Rendering, TooManyReadersError, event, page_state
from tests.support import run, until

HERE = Address("runs", "", "/")


class Site:
    """A page of two fragments, as of a position."""

    def __init__(self) -> None:
        self.position = 5
        self.words = {"a": "one", "b": "two"}
        self.renderings = 0
        self.during_rendering: Callable[[], Awaitable[None]] = self.nothing
        self.hub = Hub(self.render)

    async def nothing(self) -> None:
        """Do nothing."""

    async def render(self, _address: Address) -> Rendering:
        """Render it."""
        self.renderings += 1
        rendering = Rendering(self.view, self.position)
        await self.during_rendering()
        return rendering

    @property
    def view(self) -> PageView:
        """The page as it is."""
        return PageView("T", [Fragment(name, el("p", word)) for name, word in self.words.items()], frozenset({"topic"}))

    @property
    def state(self) -> str:
        """What a document of the page says that it shows."""
        return page_state(self.view, self.position)

    def change(self, position: int, **words: str) -> None:
        """Change words, as of a position."""
        self.position = position
        self.words.update(words)
        self.hub.notify({"topic"})


WITHIN_S = 10.0
"""How long an event is waited for."""


async def take(stream: AsyncGenerator[bytes, None], count: int) -> list[bytes]:
    async with asyncio.timeout(WITHIN_S):
        return [await anext(stream) for _ in range(count)]


def test_only_what_changed_travels() -> None:
    """After a change the fragments that differ are sent, with the state as id, in which the position comes first."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, site.state)
        assert await take(stream, 1) == [b"retry: 1000\n\n"]
        site.change(6, b="three")
        (sent,) = await take(stream, 1)
        assert (
            sent.startswith(b"id: 6-")
            and sent.split(b"\n")[0] == b"id: " + site.state.encode()
            and b"three" in sent
            and b"one" not in sent
            and b'hx-swap-oob="outerMorph"' in sent
        )
        await stream.aclose()
        assert site.hub.reader_count == 0

    run(main())


def test_who_comes_back_gets_what_happened_since() -> None:
    """A reader whose page shows an earlier state, or an unknown one, gets the whole page as of now."""

    async def main() -> None:
        site = Site()
        earlier = site.state
        site.change(6, a="new")
        for shown in (earlier, "", "6", "no such state"):
            stream = site.hub.stream(HERE, shown)
            sent = await take(stream, 3)
            assert b"new" in sent[1] and b"two" in sent[2]
            await stream.aclose()

    run(main())


def test_who_comes_back_to_the_same_page_gets_nothing() -> None:
    """Where nothing that the page shows has changed, nothing travels, however far the log went on."""

    async def main() -> None:
        site = Site()
        shown = site.state
        site.position = 99
        stream = site.hub.stream(HERE, shown)
        await take(stream, 1)
        site.change(100, a="new")
        (sent,) = await take(stream, 1)
        assert b"new" in sent
        await stream.aclose()

    run(main())


def id_of(sent: bytes, before: str) -> str:
    """Return what a browser holds for the last event's id after an event."""
    first = sent.split(b"\n")[0]
    return first.removeprefix(b"id: ").decode() if first.startswith(b"id: ") else before


def test_who_lost_half_of_a_change_gets_all_of_it() -> None:
    """A connection that breaks between two fragments of one change loses neither of them."""

    async def main() -> None:
        site = Site()
        shown = site.state
        stream = site.hub.stream(HERE, shown)
        await take(stream, 1)
        site.change(6, a="first", b="second")
        (half,) = await take(stream, 1)
        assert b"first" in half
        await stream.aclose()
        stream = site.hub.stream(HERE, id_of(half, shown))
        assert b"second" in b"".join(await take(stream, 3))
        await stream.aclose()

    run(main())


def test_what_changed_without_a_record_is_not_lost() -> None:
    """A rate that fell while the connection was broken reaches who comes back, though no record came."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, "")
        shown = id_of((await take(stream, 3))[-1], "")
        await stream.aclose()
        site.words["a"] = "no rate"
        stream = site.hub.stream(HERE, shown)
        assert b"no rate" in b"".join(await take(stream, 2))
        await stream.aclose()

    run(main())


def test_what_changed_while_a_reader_joined_is_not_lost() -> None:
    """A change during the rendering that a reader is let in with had no topics to be found by, and is sent after it."""

    async def main() -> None:
        site = Site()
        shown = site.state

        async def change_meanwhile() -> None:
            site.during_rendering = site.nothing
            site.change(6, a="meanwhile")

        site.during_rendering = change_meanwhile
        stream = site.hub.stream(HERE, shown)
        assert b"meanwhile" in (await take(stream, 2))[1]
        await stream.aclose()

    run(main())


def test_all_readers_of_a_page_show_the_same() -> None:
    """Who joins with a state that others were not sent yet is not left behind when the page goes back to theirs."""

    async def main() -> None:
        site = Site()
        first = site.hub.stream(HERE, site.state)
        await take(first, 1)
        room = next(iter(site.hub._rooms.values()))
        await until(lambda: site.renderings == 2 and not room._dirty.is_set())
        site.words["a"] = "for a moment"
        second = site.hub.stream(HERE, site.state)
        await take(second, 1)
        assert b"for a moment" in (await take(first, 1))[0]
        site.change(6, a="one")
        for stream in (first, second):
            while b"one" not in (await take(stream, 1))[0]:
                pass  # what the second was told together with the first
            await stream.aclose()

    run(main())


def test_readers_share_a_rendering() -> None:
    """Ten readers of one address cost one rendering a change, and get the same bytes."""

    async def main() -> None:
        site = Site()
        streams = [site.hub.stream(HERE, site.state) for _ in range(10)]
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
        stream = site.hub.stream(HERE, site.state)
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
        slow = site.hub.stream(HERE, site.state, lambda: cut.append("slow"))
        quick = site.hub.stream(HERE, site.state, lambda: cut.append("quick"))
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
        stream = site.hub.stream(HERE, site.state)
        assert (await take(stream, 2))[1] == b":\n\n"
        await stream.aclose()

    run(main())


def test_closing_ends_all_streams() -> None:
    """When the application stops, every stream ends, and no new one begins."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, site.state)
        await take(stream, 1)
        site.hub.close()
        assert [part async for part in stream] == []
        with pytest.raises(TooManyReadersError):
            await anext(site.hub.stream(HERE, site.state))

    run(main())


def test_there_are_not_too_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are bounded."""
    monkeypatch.setattr(module, "READERS_MAX", 1)

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, site.state)
        await take(stream, 1)
        with pytest.raises(TooManyReadersError):
            await anext(site.hub.stream(HERE, site.state))
        await stream.aclose()

    run(main())


def test_a_page_that_fails_ends_its_own_streams(caplog: pytest.LogCaptureFixture) -> None:
    """An error while rendering is logged, and the page's streams end, so that browsers come back and see it."""

    async def main() -> None:
        site = Site()
        stream = site.hub.stream(HERE, site.state)
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
        stalled = site.hub.stream(HERE, site.state)
        await take(stalled, 1)
        (room,) = site.hub._rooms.values()
        render = room._render

        async def broken(_address: Address) -> Rendering:
            raise ValueError("as told")

        room._render = broken
        site.hub.notify({"topic"})
        await until(lambda: room._task is None)
        room._render = render
        newcomer = site.hub.stream(HERE, site.state)
        await take(newcomer, 1)
        site.change(6, a="news")
        assert b"news" in (await take(newcomer, 1))[0]
        await newcomer.aclose()
        await stalled.aclose()

    run(main())


def test_lines_of_an_event() -> None:
    """Each line of the data is a line of the event, whatever ends it: no text can begin another event."""
    lines = b"data: a\ndata: b\ndata: c\ndata: id: 9\ndata: \ndata: x\n\n"
    assert event(b"a\nb\r\nc\rid: 9\n\nx", "7-f") == b"id: 7-f\n" + lines
    assert event(b"a\nb\r\nc\rid: 9\n\nx", None) == lines
