"""What contenders use to count."""

from __future__ import annotations

import asyncio
import io
import json
import os

import pytest

from bench.child import Meter, check_count, keep_doing, linger, read_task, report, run


def test_meter_counts_what_completes_in_its_window() -> None:
    """Completions of the warm-up are in the total, not in the rate."""
    meter = Meter({"seconds": 0.04})
    ticks = 1
    while meter.tick():
        ticks += 1
    assert meter.total() == ticks
    rate = meter.per_second()
    assert 0 < rate * meter.seconds < ticks


def test_meter_weighs_completions() -> None:
    """A completion may stand for several units."""
    meter = Meter({"seconds": 0.02})
    while meter.tick():
        pass
    counted = meter.per_second(100) * meter.seconds
    assert counted > 0
    assert round(counted) % 100 == 0


def test_keep_doing_runs_each_task_one_at_a_time() -> None:
    """Tasks are concurrent, but none has two operations at once."""
    active: list[int] = []
    most = 0

    async def operation(index: int) -> None:
        nonlocal most
        assert index not in active
        active.append(index)
        most = max(most, len(active))
        await asyncio.sleep(0)
        active.remove(index)

    asyncio.run(keep_doing(operation, 3, Meter({"seconds": 0.02})))
    assert most == 3


def test_keep_doing_ends_when_nothing_ever_waits() -> None:
    """Operations that never give the event loop a turn end with the window all the same."""

    async def operation(index: int) -> None:
        pass

    meter = Meter({"seconds": 0.02})
    asyncio.run(keep_doing(operation, 1, meter))
    assert meter.per_second() > 0


def test_missing_records_are_refused() -> None:
    """A contender that holds fewer records than it acknowledged has no figure."""
    check_count(5, 5, "the log")
    with pytest.raises(RuntimeError, match="holds 4 of 5"):
        check_count(4, 5, "the log")


def test_one_line_in_one_line_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender reads its task from standard input, reports on descriptor 1, and stays until the input ends."""
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        assert descriptor == 1
        written.append(data)
        return len(data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr("sys.stdin", io.StringIO('{"seconds": 1}\n'))

    async def main(task: dict[str, object]) -> None:
        report(2.5, seen=task["seconds"])
        linger()

    run(main)
    assert json.loads(written[0]) == {"value": 2.5, "details": {"seen": 1}}
    assert written[0].endswith(b"\n")


def test_task_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is one line of JSON."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"directory": "d"}\nrest'))
    assert read_task() == {"directory": "d"}
