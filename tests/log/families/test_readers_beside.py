"""Readers that look at every moment of a roll and of a takeover, and tails that go through them (families 12, 15)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest

from mainstem.log import AppendOutcomeUnknownError, EmbeddedReader, LogClosedError, Record, open_log, open_reader
from mainstem.log.embedded.layout import epochs
from mainstem.log.embedded.recovery import recover
from mainstem.log.embedded.repair import REPAIRED_STREAM, repair_directory
from mainstem.log.frame import Commit
from mainstem.testing import OperationKind, SimulatedClock, SimulatedDisk
from tests.log.faults import DIRECTORY, SETTINGS, bury, headers_of, open_on, outcome, segment, stored
from tests.support import run, until

AT_ONCE = msgspec.structs.replace(SETTINGS, alone_after_commits=0)
Shown = dict[int, bytes]
"""What a reader showed: values by position."""


class WatchedDisk(SimulatedDisk):
    """A simulated disk that calls ``watch`` before each operation of its process."""

    watch: Callable[[], None] | None = None

    def _note(self, kind: OperationKind, path: PurePosixPath, offset: int = 0, size_bytes: int = 0) -> Any:
        if self.watch is not None and kind != "read":
            watch, self.watch = self.watch, None  # what it does itself is not watched
            watch()
            self.watch = watch
        return super()._note(kind, path, offset, size_bytes)


def reader_on(disk: SimulatedDisk) -> EmbeddedReader:
    """Return a reader of its own process."""
    return EmbeddedReader(disk.another_process(), SimulatedClock(), DIRECTORY, SETTINGS)


def look(reader: EmbeddedReader) -> Shown:
    """Let a reader look once, in this thread; return what it shows that it did not show before."""
    reader._look()
    shown: Shown = {}
    while reader._found:
        frame = reader._found.popleft()
        commit = Commit(frame.header, frame.body)
        for row in range(commit.record_count):
            record = commit.record(row)
            shown[record.position] = record.value
    return shown


def test_a_reader_at_each_operation_of_a_roll() -> None:
    """Before each operation of appending over rolls, a reader, new or old, shows what is acknowledged, and no more."""

    async def scenario() -> int:
        disk = WatchedDisk()
        log = await open_on(disk)
        following, followed, looks = reader_on(disk), Shown(), 0
        acknowledged: Shown = {}
        pending: Shown = {}

        def watch() -> None:
            nonlocal looks
            looks += 1
            fresh = look(reader_on(disk))
            followed.update(look(following))
            assert fresh == followed
            assert acknowledged.items() <= fresh.items() <= (acknowledged | pending).items()

        disk.watch = watch
        for number in range(14):
            pending = {number + 1: b"%d" % number + b"x" * 800}
            position = await outcome(log.append("a", [Record(pending[number + 1])]))
            assert position == number + 1
            acknowledged |= pending
        disk.watch = None
        await log.close()
        assert disk.exists(segment(3))
        return looks

    assert run(scenario()) > 40


def test_a_reader_at_each_operation_of_a_takeover() -> None:
    """Before each operation of deposing an owner that goes on appending, nothing is shown that is then no part.

    The deposed one writes at that very moment; what it was acknowledged is there, and what a reader showed is there.
    """
    for moment in range(200):
        if not run(_takeover_with_a_look(moment)):
            assert moment > 15
            return
    pytest.fail("taking over does not end")


async def _takeover_with_a_look(moment: int) -> bool:
    disk = WatchedDisk()
    old = await open_log(DIRECTORY, disk=disk, clock=SimulatedClock(), settings=AT_ONCE)
    acknowledged: Shown = {}
    for number in range(6):
        value = b"%d" % number + b"x" * 700
        acknowledged[await old.append("a", [Record(value)])] = value
    following = reader_on(disk)
    shown = look(following)
    taker = disk.another_process()
    assert isinstance(taker, WatchedDisk)
    seen = 0

    def watch() -> None:
        nonlocal seen
        if seen == moment:
            _append_now(old, acknowledged)
            fresh = look(reader_on(disk))
            shown.update(fresh)
            shown.update(look(following))
            assert len(fresh) >= 5  # at most the last one is held back
        seen += 1

    def _append_now(log: Any, into: Shown) -> None:
        try:
            position = log.append_now("a", [Record(b"late")])
        except (AppendOutcomeUnknownError, LogClosedError):
            return  # it was told that it may be in vain
        assert position is not None
        into[position] = b"late"

    taker.watch = watch
    latest = epochs(disk.list_directory(DIRECTORY))[-1]
    recovered = recover(taker, SimulatedClock(), DIRECTORY, SETTINGS, depose=latest)
    taker.watch = None
    recovered.active.file.close()
    found = {position: value for position, _stream, value in stored(disk)}
    assert acknowledged.items() <= found.items()
    assert shown.items() <= found.items()
    shown.update(look(following))
    assert shown == found == look(reader_on(disk))
    recovered.lock.release()
    await bury(old)
    return seen > moment


def test_a_tail_goes_through_rolls_takeovers_and_a_repair() -> None:
    """One tail sees every record once and in order, while segments roll, an owner is deposed, and a log is repaired."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        first = await open_on(disk)
        await first.append("a", [Record(b"begin")])
        reader = await open_reader(DIRECTORY, disk=disk.another_process(), settings=SETTINGS)
        seen: list[tuple[int, str]] = []

        async def follow() -> None:
            async for batch in reader.tail(">"):
                seen.extend((record.position, record.stream) for record in batch)

        following = asyncio.ensure_future(follow())
        for number in range(9):
            await first.append("a", [Record(b"%d" % number + b"x" * 700)])
        await until(lambda: len(seen) == 10)
        latest = epochs(disk.list_directory(DIRECTORY))[-1]
        process = disk.another_process()
        second = await open_log(DIRECTORY, disk=process, clock=SimulatedClock(), settings=SETTINGS, depose=latest)
        for number in range(9):
            await second.append("a", [Record(b"%d" % number + b"x" * 700)])
        await until(lambda: len(seen) == 19)
        await second.close()
        await first.close()
        disk.flip_bit(segment(1), headers_of(disk, 1)[2].offset + 100)
        report = repair_directory(disk, SimulatedClock(), DIRECTORY, carry_out=True, settings=SETTINGS)
        assert report.done
        third = await open_on(disk)
        last = await third.append("a", [Record(b"end")])
        await until(lambda: bool(seen) and seen[-1][0] == last)
        assert seen == [(position, REPAIRED_STREAM if position == 20 else "a") for position in range(1, 22)]
        following.cancel()
        await asyncio.wait([following])
        await reader.close()
        await third.close()

    run(scenario())
