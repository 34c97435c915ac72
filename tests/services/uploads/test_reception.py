"""A request's body between connection and file."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from mainstem.services.uploads.reception import Body, read_body
from mainstem.services.uploads.registry import Registry
from tests.services.uploads.test_lifecycle import test_cancelled_request_leaves_no_lock as no_lock_is_left
from tests.support import run


def test_fast_client_is_held_back() -> None:
    """Bytes wait up to the limit; who has more waits until they were taken, so memory is bounded."""

    async def check() -> None:
        body = Body(10)
        await body.put(b"123456789")
        await body.put(b"0")
        more = asyncio.create_task(body.put(b"more"))
        await asyncio.sleep(0)  # sleeps: one turn of the loop, for the task to begin
        assert not more.done()
        assert b"".join(await body.take()) == b"1234567890"
        await more
        assert await body.take() == [b"more"]

    run(check())


def test_end_lets_go_of_a_client_that_waits() -> None:
    """After the end what waits is still taken, what comes later is dropped, and the first cause stays."""

    async def check() -> None:
        body = Body(1)
        await body.put(b"a")
        more = asyncio.create_task(body.put(b"b"))
        await asyncio.sleep(0)  # sleeps: one turn of the loop, for the task to begin
        body.end("superseded")
        body.end("end")
        await more
        assert await body.take() == [b"a"]
        assert await body.take() == []
        assert body.cause == "superseded"

    run(check())


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([{"type": "http.request", "body": b"abc"}], "end"),
        ([{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}], "end"),
        ([{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}], "disconnected"),
    ],
)
def test_body_is_read_to_its_end_or_the_connections(messages: list[dict[str, Any]], cause: str) -> None:
    """A body ends with its last message, or with the connection; what came before is kept."""

    async def check() -> None:
        left = list(messages)

        async def receive() -> MutableMapping[str, Any]:
            return left.pop(0)

        body = Body(100)
        await read_body(receive, body)
        assert b"".join(await body.take()) == b"abc"
        assert body.cause == cause

    run(check())


def test_mutant_that_keeps_the_lock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a request that broke did not let go of its upload, the test of that would fail."""
    monkeypatch.setattr(Registry, "release", lambda _self, _entry: None)
    with pytest.raises(AssertionError):
        no_lock_is_left(tmp_path)
