"""Readers beside an owner, and errors while reading: nothing unsynced is shown, and nothing is lost to an error."""

from __future__ import annotations

import asyncio

import pytest

from mainstem.log import AppendOutcomeUnknownError, LogSettings, Record, open_reader
from mainstem.testing import SimulatedClock, SimulatedDisk, keep_none
from tests.log.faults import DIRECTORY, SETTINGS, Gate, open_on, outcome, reopened, slow_settings, stored
from tests.support import run


def test_reader_beside_an_owner_sees_nothing_unsynced() -> None:
    """What a reader shows while the owner's sync is still going on, or has failed, survives a power cut."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=slow_settings())
        await log.append("a", [Record(b"durable")])
        gate = Gate(disk)
        pending = [asyncio.ensure_future(outcome(log.append("a", [Record(b"pending")]))) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 30)
        early = await open_reader(DIRECTORY, disk=disk.another_process(), clock=SimulatedClock(), settings=SETTINGS)
        shown = [record.value for record in await early.read("a")]
        assert [value for _position, _stream, value in stored(disk.crash(keep_none))] == shown
        await early.close()
        gate.open.set()
        await asyncio.gather(*pending)
        disk.fail("sync")
        assert await outcome(log.append("a", [Record(b"failed")])) is AppendOutcomeUnknownError
        late = await open_reader(DIRECTORY, disk=disk.another_process(), clock=SimulatedClock(), settings=SETTINGS)
        shown = [record.value for record in await late.read("a")]
        assert shown == [b"durable", b"pending", b"pending"]
        await late.close()
        await log.close()
        left = disk.crash(keep_none)
        reopened(left)
        assert [value for _position, _stream, value in stored(left)] == shown

    run(scenario())


def test_sync_that_fails_for_a_reader_fails_for_the_owner() -> None:
    """When a reader's sync meets EIO it shows nothing, and the owner, who is told too, acknowledges nothing."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk, settings=slow_settings())
        await log.append("a", [Record(b"durable")])
        gate = Gate(disk)
        pending = [asyncio.ensure_future(outcome(log.append("a", [Record(b"pending")]))) for _ in range(2)]
        await asyncio.to_thread(gate.entered.wait, 30)
        beside = disk.another_process()
        beside.fail("sync")
        with pytest.raises(OSError, match="Input/output"):
            await open_reader(DIRECTORY, disk=beside, clock=SimulatedClock(), settings=SETTINGS)
        gate.open.set()
        assert await asyncio.gather(*pending) == [AppendOutcomeUnknownError] * 2
        late = await open_reader(DIRECTORY, disk=beside, clock=SimulatedClock(), settings=SETTINGS)
        assert [record.value for record in await late.read("a")] == [b"durable"]
        await late.close()
        await log.close()

    run(scenario())


def test_reader_loses_nothing_to_errors_and_cancels() -> None:
    """A look that failed or was cancelled takes nothing from the next one, also where segments end."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        beside = disk.another_process()
        reader = await open_reader(DIRECTORY, disk=beside, clock=SimulatedClock(), settings=SETTINGS)
        errors = 0
        for number in range(24):
            await log.append("a", [Record(b"%d" % number + b"x" * 900)])
            beside.fail("read", 1 + number % 6)
            beside.fail("open", 1 + number % 2)
            try:
                await reader.refresh()
            except OSError:
                errors += 1
            beside.heal()
        assert errors >= 8
        for turns in range(6):
            await log.append("a", [Record(b"%d" % (24 + turns) + b"x" * 900)])
            task = asyncio.ensure_future(reader.refresh())
            for _turn in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        records = await reader.read("a")
        assert [int(record.value.rstrip(b"x")) for record in records] == list(range(30))
        await reader.close()
        await log.close()

    run(scenario())


def test_reading_survives_errors() -> None:
    """An error while reading reaches the reader and hurts nobody else: the same read succeeds later."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        settings = LogSettings(first_segment_bytes=4096, segment_max_bytes=4096, reserve_bytes=256, cache_bytes=1)
        log = await open_on(disk, settings=settings)
        for number in range(6):
            await log.append("a", [Record(b"%d" % number + b"x" * 900)])
        disk.fail("read")
        with pytest.raises(OSError, match="Input/output"):
            await log.read("a")
        assert len(await log.read("a")) == 6
        assert await log.append("a", [Record(b"6")]) == 7
        await log.close()

    run(scenario())
