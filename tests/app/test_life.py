"""The application's life when something is given up on the way: a request, a stop, a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import BaseRoute

from mainstem import Mainstem
from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.services.contract import ServiceContext
from mainstem.web.application import Dashboard
from tests.support import run, until


class Patient:
    """A service that stops when it is let."""

    name = "patient"

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.let = asyncio.Event()

    def register(self, flow: Flow, bus: Bus) -> None:
        """Add nothing."""

    async def start(self, context: ServiceContext) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Wait to be let."""
        self.stopping.set()
        await self.let.wait()

    def routes(self) -> Sequence[BaseRoute]:
        """Serve nothing."""
        return []

    def panels(self) -> Sequence[Any]:
        """Show nothing."""
        return []


class HeldUp:
    """Holds the dashboard's start up until it is let, or lets it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: int = 0) -> None:
        self.begun = asyncio.Event()
        self.let = asyncio.Event()
        self.stopped = 0
        start, stop = Dashboard.start, Dashboard.stop
        failures = iter([OSError("as told")] * fails)

        async def held_up(dashboard: Dashboard) -> None:
            self.begun.set()
            await self.let.wait()
            await start(dashboard)
            for failure in failures:
                raise failure

        async def counted(dashboard: Dashboard) -> None:
            self.stopped += 1
            await stop(dashboard)

        monkeypatch.setattr(Dashboard, "start", held_up)
        monkeypatch.setattr(Dashboard, "stop", counted)


def client(ms: Mainstem) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=ms.asgi), base_url="http://localhost")


def others() -> set[asyncio.Task[Any]]:
    """Return the tasks besides this one and the one that bounds it."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("mainstem")}


def test_a_first_request_that_is_given_up_takes_no_page_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dashboard that the first request has made is there for the second, and follows the log."""

    async def main() -> None:
        held = HeldUp(monkeypatch)
        async with Mainstem(tmp_path) as ms, client(ms) as web:
            first = asyncio.create_task(web.get("/"))
            await held.begun.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            held.let.set()
            position = await ms.publish("orders.created", {"id": 1})
            assert (await web.get("/streams/orders.created")).status_code == 200
            assert await (await ms.dashboard()).projection.caught_up(position, timeout_s=10)

    run(main())


def test_a_dashboard_that_does_not_start_is_stopped_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed once is tried again by the next request, and leaves nothing behind."""

    async def main() -> None:
        held = HeldUp(monkeypatch, fails=1)
        held.let.set()
        async with Mainstem(tmp_path) as ms, client(ms) as web:
            with pytest.raises(OSError, match="as told"):
                await web.get("/")
            assert held.stopped == 1
            assert (await web.get("/")).status_code == 200
        assert held.stopped == 2 and not others()

    run(main())


def test_a_dashboard_that_is_being_made_ends_with_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop while the first request waits for the dashboard leaves nothing behind; the request is answered."""

    async def main() -> None:
        held = HeldUp(monkeypatch)
        ms = Mainstem(tmp_path)
        await ms.start()
        async with client(ms) as web:
            first = asyncio.create_task(web.get("/"))
            await held.begun.wait()
            stopping = asyncio.create_task(ms.stop())
            held.let.set()
            await stopping
            assert (await first).status_code in (200, 503)
        assert not ms.is_running and held.stopped == 1 and not others()

    run(main())


@pytest.mark.parametrize("where", ["the dashboard's stop", "a service's stop"])
def test_a_stop_that_is_cancelled_is_carried_out(tmp_path: Path, where: str) -> None:
    """Who is cancelled is let go; the application stops all the same, the next stop waits for it, the log is free."""
    check_a_cancelled_stop(tmp_path, where)


def check_a_cancelled_stop(directory: Path, where: str) -> None:
    """Cancel whoever stops an application, at the dashboard's stop or at a service's."""

    async def main() -> None:
        patient = Patient()
        ms = Mainstem(directory, services=[patient])
        await ms.start()
        async with client(ms) as web:
            assert (await web.get("/")).status_code == 200
        board, dashboards_own = Patient(), (await ms.dashboard()).stop

        async def stop_dashboard() -> None:
            await board.stop()
            await dashboards_own()

        (await ms.dashboard()).stop = stop_dashboard  # type: ignore[method-assign]
        held, other = (board, patient) if where == "the dashboard's stop" else (patient, board)
        other.let.set()
        stopping = asyncio.create_task(ms.stop())
        await held.stopping.wait()
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        again = asyncio.create_task(ms.stop())
        held.let.set()
        await again
        assert patient.stopping.is_set() and not ms.is_running and not others()
        async with Mainstem(directory):
            pass

    run(main())


def test_a_start_waits_for_the_stop_before_it(tmp_path: Path) -> None:
    """An application that is being stopped is not running already: it starts once it has stopped."""

    async def main() -> None:
        patient = Patient()
        ms = Mainstem(tmp_path, services=[patient])
        await ms.start()
        stopping = asyncio.create_task(ms.stop())
        await patient.stopping.wait()
        starting = asyncio.create_task(ms.start())
        patient.let.set()
        await asyncio.gather(stopping, starting)
        assert ms.is_running
        await ms.stop()

    run(main())


def test_a_server_that_is_cancelled_stops_it(tmp_path: Path) -> None:
    """A server that gives the lifespan up without a word of a shutdown leaves no application running."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(ms.asgi({"type": "lifespan"}, inbox.get, outbox.put))
        inbox.put_nowait({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not ms.is_running, what="the application's end")

    run(main())
