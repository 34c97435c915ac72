"""A page state that is behind the log: what it does not know of is not denied, and pages say that they are old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainstem.log import StoredRecord
from mainstem.web import api, application
from mainstem.web.errors import NotFoundError, UnavailableError
from mainstem.web.hub import Address
from mainstem.web.projection import Projection
from tests.support import run
from tests.web.support import dashboard, failed_run, started

HTML = {"accept": "text/html"}
OLD = "This page is old"


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """See :func:`hold_up`."""
    return hold_up(monkeypatch)


def hold_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Page states take in only what mentions no run named ``new``, until the event is set; nobody waits for long."""
    event = asyncio.Event()
    take_in = Projection._take_in

    async def held_up(self: Projection, records: Sequence[StoredRecord]) -> None:
        if any("new" in record.stream for record in records):
            await event.wait()
        await take_in(self, records)

    monkeypatch.setattr(Projection, "_take_in", held_up)
    monkeypatch.setattr(api, "FRESH_WITHIN_S", 0.05)
    monkeypatch.setattr(application, "FRESH_WITHIN_S", 0.05)
    return event


def test_a_run_that_is_not_taken_in_yet_is_not_denied(tmp_path: Path, go_on: asyncio.Event) -> None:
    """Of a run behind the page state's position API and pages say that they do not know yet; then it is there."""
    check_nothing_is_denied(tmp_path, go_on)


def check_nothing_is_denied(directory: Path, go_on: asyncio.Event) -> None:
    """Ask for a run that the page state has not taken in yet, and again once it has."""

    async def main() -> None:
        async with dashboard(directory) as (board, log, client):
            await log.append("$run.new", [started()], expected_position=0)
            for path in ("/api/runs/new", "/api/traces/new", "/runs/new"):
                answer = await client.get(path)
                assert answer.status_code == UnavailableError.status
                assert "up to position 0 of 1" in answer.json()["error"]["message"]
            assert (await client.get("/nothing/like/it", headers=HTML)).status_code == NotFoundError.status
            go_on.set()
            assert await board.projection.caught_up(log.end_position, timeout_s=10)
            for path in ("/api/runs/new", "/runs/new"):
                assert (await client.get(path, headers=HTML)).status_code == 200

    run(main())


def test_a_run_that_is_not_taken_in_yet_can_be_cancelled(tmp_path: Path, go_on: asyncio.Event) -> None:
    """A wish looks into the log itself; a run that ended, or that nobody has heard of, is told as ever."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.new", [started()], expected_position=0)
            await log.append("$run.new-and-done", failed_run(), expected_position=0)
            statuses = {}
            for run_id in ("new", "new-and-done", "unknown"):
                answer = await client.post(f"/api/runs/{run_id}/cancel", json={})
                statuses[run_id] = answer.status_code
            assert statuses == {"new": 202, "new-and-done": 400, "unknown": 404}
            assert [record.stream for record in await log.read("$inbox.>")] == ["$inbox.new"]

    run(main())


def test_a_page_says_that_it_is_old_until_it_is_not(tmp_path: Path, go_on: asyncio.Event) -> None:
    """A page that waited in vain says so, and its live stream takes the sentence back once the page state is there."""

    async def main() -> None:
        async with dashboard(tmp_path) as (board, log, client):
            assert OLD not in (await client.get("/streams", headers=HTML)).text
            await log.append("$run.new", [started()], expected_position=0)
            assert OLD in (await client.get("/streams", headers=HTML)).text
            stream = board.hub.stream(Address("streams", "", "/"), "")
            sent = b""
            async with asyncio.timeout(10):
                while OLD.encode() not in sent:
                    sent += await anext(stream)
                go_on.set()
                while b"f-page-state" not in (taken_back := await anext(stream)):
                    pass
            assert OLD.encode() not in taken_back
            await stream.aclose()
            assert OLD not in (await client.get("/streams", headers=HTML)).text

    run(main())
