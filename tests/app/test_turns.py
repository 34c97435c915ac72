"""Workflows that limit how many runs are carried out at once: who waits is queued, and the wait is in the trace."""

from __future__ import annotations

import asyncio
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import msgspec

from mainstem import Mainstem
from mainstem.cli import main as command
from mainstem.flow.ids import made_id
from tests.support import run, until

HTML = {"accept": "text/html"}


class Application:
    """An application with a workflow of which one run is carried out at a time."""

    def __init__(self, directory: Path) -> None:
        self.ms = ms = Mainstem(directory)
        self.begun: list[str] = []
        self.go_on = asyncio.Event()

        @ms.step
        async def work(name: str) -> None:
            self.begun.append(name)
            await self.go_on.wait()

        @ms.workflow(concurrency=1)
        async def narrow(name: str) -> None:
            await work(name)

        @ms.workflow(concurrency=1, on="orders.created")
        async def by_event(_order: int) -> None:
            await ms.sleep(3600)

        @ms.workflow
        async def wide(name: str) -> None:
            await work(name)

        self.narrow, self.by_event, self.wide = narrow, by_event, wide
        transport = httpx.ASGITransport(app=ms.asgi)
        self.web = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def state(self, run_id: str) -> str:
        """Return a run's state."""
        return (await self.ms.flow.handle(run_id).status()).state

    async def waits(self, run_id: str) -> list[dict[str, Any]]:
        """Return the waiting for a turn that the run's trace shows."""
        spans = (await self.web.get(f"/api/traces/{run_id}")).json()["spans"]
        return [span for span in spans if span["kind"] == "wait" and span["name"] == "queue"]


def test_runs_that_wait_for_their_turn_are_queued(tmp_path: Path) -> None:
    """Of two runs the second is queued, in lists, filters, counts and its trace; afterwards the wait is on record."""

    async def main() -> None:
        app = Application(tmp_path)
        async with app.ms, app.web as web:
            first, second = await app.narrow.start("one", id="one"), await app.narrow.start("two", id="two")
            free = await app.wide.start("free", id="free")
            await until(lambda: app.begun == ["one", "free"])
            assert app.ms.flow.at_work() == {"one"}
            assert [await app.state(name) for name in ("one", "two", "free")] == ["running", "queued", "running"]
            for state, run_ids in (("running", {"one", "free"}), ("queued", {"two"})):
                listed = (await web.get("/api/runs", params={"state": state})).json()["runs"]
                assert {one["run_id"] for one in listed} == run_ids
            page = (await web.get("/runs", headers=HTML)).text
            assert 'Queued<span class="count number">1</span>' in page
            (wait,) = await app.waits("two")
            assert (wait["status"], wait["end_ns"]) == ("running", 0)
            assert await app.waits("one") == await app.waits("free") == []
            for path in ("/runs/two", f"/traces/{(await second.status()).trace_id}"):
                assert "queue" in (await web.get(path, headers=HTML)).text
            app.go_on.set()
            for handle in (first, second, free):
                await handle.result(timeout_s=30)
            (wait,) = await app.waits("two")
            entries = (await web.get("/api/runs/two")).json()["entries"]
            began_ns = entries[1]["value"]["started_ns"]
            assert (wait["start_ns"], wait["end_ns"]) == (entries[0]["time_ns"], began_ns)
            assert await app.waits("free") == []

    run(main())


def test_what_a_run_of_an_event_waits(tmp_path: Path) -> None:
    """Runs that events start wait in the same way; a sleep that is on record ends the waiting."""

    async def main() -> None:
        app = Application(tmp_path)
        async with app.ms, app.web:
            ids: list[str] = []
            for number, state in enumerate(("sleeping", "queued")):
                ids.append(made_id("by_event", str(await app.ms.publish("orders.created", number))))
                await until(lambda: app.ms.log.last(f"$run.{ids[-1]}"))
                await until(lambda state=state: _is(app, ids[-1], state))  # type: ignore[misc]
            (wait,) = await app.waits(ids[0])
            assert wait["end_ns"] > wait["start_ns"]

    run(main())


async def _is(app: Application, run_id: str, state: str) -> bool:
    return await app.state(run_id) == state


def test_the_command_shows_the_wait(tmp_path: Path) -> None:
    """Beside a running application the command says queued, and that it cannot know of a first step."""

    async def main() -> None:
        app = Application(tmp_path)
        async with app.ms:
            await app.narrow.start("one", id="one")
            await app.narrow.start("two", id="two")
            await until(lambda: app.begun)
            listed = msgspec.json.decode(await asyncio.to_thread(_printed, "runs", "--json", "--data", str(tmp_path)))
            assert {one["run_id"]: one["state"] for one in listed["runs"]} == {"one": "queued", "two": "queued"}
            traced = await asyncio.to_thread(_printed, "trace", "two", "--json", "--data", str(tmp_path))
            assert "queued: it waits for its turn, or is at its first step" in traced
            app.go_on.set()
            await app.ms.flow.handle("two").result(timeout_s=30)
        assert "queue " in await asyncio.to_thread(_printed, "trace", "two", "--data", str(tmp_path))

    run(main())


def _printed(*words: str) -> str:
    with redirect_stdout(StringIO()) as out:
        assert command(list(words)) == 0
    return out.getvalue()
