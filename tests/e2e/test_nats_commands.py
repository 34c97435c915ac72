"""The reading commands on a log that is on a NATS server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstem import Mainstem
from mainstem.cli.errors import EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE
from tests.cli.conftest import Invoke, invoke  # noqa: F401 (a fixture)
from tests.contract.nats_server import NatsServer, unused_address
from tests.support import run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a log in which a run ended, and an event was published."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        address = server.address("shop").partition("?")[0]

        async def fill() -> None:
            ms = Mainstem(server.address("shop"), state_directory=tmp_path_factory.mktemp("state"))

            @ms.step
            async def double(number: int) -> int:
                return 2 * number

            @ms.workflow
            async def work(number: int) -> int:
                return await double(number)

            async with ms:
                await (await work.start(7, id="the-run", about=["order:7"])).result(timeout_s=10)
                await ms.publish("orders.created", {"id": 7})

        run(fill())
        yield address


def test_reading_commands(place: str, invoke: Invoke) -> None:  # noqa: F811 (the fixture)
    """``tail``, ``runs``, ``trace`` and ``log stats`` take the address instead of a directory."""
    tail = invoke("tail", "orders.>", "--no-follow", "--data", place, "--json")
    assert (tail.code, tail.json_lines[0]["value"]) == (EXIT_OK, {"id": 7})
    runs = invoke("runs", "--data", place)
    assert runs.code == EXIT_OK and "the-run" in runs.out and "completed" in runs.out
    assert "double" in invoke("runs", "the-run", "--data", place).out
    assert "double" in invoke("trace", "order:7", "--data", place).out
    stats = invoke("log", "stats", place, "--streams", 3)
    assert (
        stats.code == EXIT_OK and place in stats.out and "on the server" in stats.out and "orders.created" in stats.out
    )


def test_what_a_server_has_no_files_for(place: str, invoke: Invoke) -> None:  # noqa: F811 (the fixture)
    """``log verify`` reads files, and a change needs the application: both say so."""
    verify = invoke("log", "verify", place)
    assert verify.code == EXIT_USAGE and "has no files here" in verify.err
    cancel = invoke("runs", "cancel", "the-run", "--data", place)
    assert cancel.code == EXIT_USAGE and "state directory" in cancel.err


def test_what_is_not_there(place: str, invoke: Invoke) -> None:  # noqa: F811 (the fixture)
    """A log that the server does not have, and a malformed address, are said; none is made."""
    missing = invoke("tail", "a", "--no-follow", "--data", place.replace("/shop", "/other"))
    assert missing.code == EXIT_NOT_FOUND and "no log of this name" in missing.err
    malformed = invoke("runs", "--data", "nats://me:secret@a b/c")
    assert malformed.code == EXIT_USAGE


def test_nobody_there(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    """Without a server a command ends in time, and says where it looked."""
    monkeypatch.setattr("mainstem.cli.reading._PATIENCE_S", 0.3)
    result = invoke("runs", "--data", unused_address())
    assert result.code != EXIT_OK and "no connection within" in result.err
