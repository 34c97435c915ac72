"""The command, called in this process; and data directories to read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from mainstem.cli import main
from mainstem.log import Append, Record, open_log


class Invoked(msgspec.Struct, frozen=True):
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, object]:
        """The JSON document that it printed."""
        return msgspec.json.decode(self.out, type=dict[str, object])

    @property
    def json_lines(self) -> list[dict[str, object]]:
        """The JSON objects that it printed, one a line."""
        return [msgspec.json.decode(line, type=dict[str, object]) for line in self.out.splitlines()]


Invoke = Callable[..., Invoked]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run ``mainstem`` with some words, and return what came of it."""

    def call(*words: object) -> Invoked:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Invoked(code, captured.out, captured.err)

    return call


def write_log(data: Path, appends: Sequence[Append]) -> None:
    """Make a data directory whose log holds the given records, each append a commit of its own."""

    async def write() -> None:
        log = await open_log(data / "log")
        for append in appends:
            await log.append(append.stream, append.records)
        await log.close()

    asyncio.run(write())


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A data directory with 12 records in two streams of orders, and one of the system's."""
    created = [
        Append(
            "orders.created",
            [Record(b'{"id": %d}' % number, key=b"o%d" % number, headers={"about": f"order:{number}"})],
        )
        for number in range(6)
    ]
    paid = [Append("orders.paid", [Record(b'{"id": %d, "paid": true}' % number)]) for number in range(5)]
    write_log(tmp_path / "data", [*created, *paid, Append("$odd.1", [Record(b"\x1b[2Jbad\xff")])])
    return tmp_path / "data"
