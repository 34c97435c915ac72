"""``mainstem tail``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from mainstem.cli.errors import EXIT_INTERRUPTED, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE
from mainstem.cli.reading import last_records_begin, open_data, readable_value
from mainstem.log import Append, Record, open_log
from tests.cli.conftest import Invoke, write_log


def test_the_last_records_of_a_pattern(invoke: Invoke, orders: Path) -> None:
    """``--last`` begins that many matching records before the end."""
    result = invoke("tail", "orders.created", "--last", 2, "--no-follow", "--data", orders)
    assert result.code == EXIT_OK
    assert [line.split()[0] for line in result.out.splitlines()] == ["5", "6"]


def test_after_a_position(invoke: Invoke, orders: Path) -> None:
    """``--after`` begins behind a position, 0 with the first record."""
    result = invoke("tail", "orders.>", "--after", 0, "--no-follow", "--data", orders, "--json")
    assert [line["position"] for line in result.json_lines] == list(range(1, 12))
    assert result.json_lines[0]["value"] == {"id": 0}
    assert result.json_lines[0]["headers"] == {"about": "order:0"}


def test_control_characters_are_shown_not_sent(invoke: Invoke, orders: Path) -> None:
    """A record cannot clear the screen."""
    result = invoke("tail", "$odd.>", "--no-follow", "--data", orders)
    assert "\\x1b[2Jbad\\xff" in result.out
    assert "\x1b" not in result.out


def test_values_that_are_no_json() -> None:
    """In JSON output a value is JSON, text or base64, and says which."""
    assert readable_value(b'{"a": 1}') == {"value": {"a": 1}}
    assert readable_value(b"hello") == {"text": "hello"}
    assert readable_value(b"\xff") == {"base64": b"\xff"}
    assert readable_value(b'"\xff"') == {"base64": b'"\xff"'}
    assert readable_value(b"[" * 20_000) == {"text": "[" * 20_000}


def test_a_value_that_is_no_text_does_not_end_the_tail(invoke: Invoke, orders: Path) -> None:
    """What comes behind a record that only looks like JSON is printed as well."""
    write_log(orders, [Append("odd", [Record(value)]) for value in (b'"\xff\xfe"', b"[" * 20_000, b"1")])
    result = invoke("tail", "odd", "--no-follow", "--data", orders, "--json")
    assert result.code == EXIT_OK
    assert [line["position"] for line in result.json_lines] == [13, 14, 15]


def test_long_values_are_cut_unless_full(invoke: Invoke, orders: Path, tmp_path: Path) -> None:
    """A long value is cut to the line's width; ``--full`` prints all of it."""

    async def add() -> None:
        log = await open_log(orders / "log")
        await log.append("long", [Record(b"x" * 500)])
        await log.close()

    asyncio.run(add())
    assert "…" in invoke("tail", "long", "--no-follow", "--data", orders).out
    assert "x" * 500 in invoke("tail", "long", "--no-follow", "--full", "--data", orders).out


def test_a_bad_pattern_is_a_usage_error(invoke: Invoke, orders: Path) -> None:
    """A malformed pattern ends with exit code 2."""
    assert invoke("tail", "a..b", "--data", orders).code == EXIT_USAGE


def test_without_a_log(invoke: Invoke, tmp_path: Path) -> None:
    """A directory without a log ends with exit code 3."""
    assert invoke("tail", ">", "--data", tmp_path).code == EXIT_NOT_FOUND


def test_where_the_last_records_begin(orders: Path) -> None:
    """The position before the last N matching records is exact, also when there are fewer."""

    async def ask(pattern: str, count: int) -> int:
        async with open_data(orders) as log:
            return await last_records_begin(log, pattern, count)

    assert asyncio.run(ask("orders.created", 2)) == 4
    assert asyncio.run(ask("orders.paid", 5)) == 6
    assert asyncio.run(ask("orders.paid", 50)) == 0
    assert asyncio.run(ask(">", 0)) == 12


def test_it_follows_a_running_owner(orders: Path) -> None:
    """Beside an owner, records appear as they become durable, and ``--limit`` ends it."""
    command = [sys.executable, "-m", "mainstem.cli", "tail", "orders.new", "--limit", "3", "--data", str(orders)]

    async def beside() -> list[bytes]:
        log = await open_log(orders / "log")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        lines = []
        for number in range(3):
            await log.append("orders.new", [Record(b"%d" % number)])
            lines.append(await asyncio.wait_for(process.stdout.readline(), 20))
        assert await process.wait() == EXIT_OK
        await log.close()
        return lines

    lines = asyncio.run(beside())
    assert [line.split()[3] for line in lines] == [b"0", b"1", b"2"]


def test_interrupting_it(orders: Path) -> None:
    """Ctrl-C ends a following tail with exit code 130 and without a traceback."""
    command = [sys.executable, "-m", "mainstem.cli", "tail", "orders.>", "--data", str(orders)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        assert process.stdout.readline()
        process.send_signal(2)
        assert process.wait(20) == EXIT_INTERRUPTED
        assert process.stderr.read() == b""
