"""What a log says of itself: its size, its limits, its state."""

from __future__ import annotations

from mainstem.log import Append, LogStats, Record, Traits, open_reader
from mainstem.testing import SimulatedClock, SimulatedDisk
from tests.log.faults import DIRECTORY, SETTINGS, open_on
from tests.support import run


def test_stats() -> None:
    """Owner and reader count the same positions, records, streams, segments and bytes."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        for number in range(8):
            await log.append_many([Append("a", [Record(b"x" * 700)] * 2), Append(f"b.{number % 2}", [Record(b"y")])])
        reader = await open_reader(DIRECTORY, disk=disk.another_process(), clock=SimulatedClock(), settings=SETTINGS)
        stats = await log.stats()
        assert stats == LogStats(24, 24, 3, stats.segment_count, stats.segment_count * 4096)
        assert stats.segment_count >= 3
        assert await reader.stats() == stats
        await reader.close()
        await log.close()

    run(scenario())


def test_traits() -> None:
    """The embedded engine declares what it can do, with the limits of its settings."""

    async def scenario() -> None:
        log = await open_on(SimulatedDisk())
        assert log.traits == Traits(
            name="embedded",
            conditional_append=True,
            atomic_streams=True,
            max_batch_records=65_536,
            max_batch_bytes=16 << 20,
            dedup_window_calls=65_536,
            dedup_window_s=0.0,
        )
        await log.close()

    run(scenario())


def test_repr_tells_the_state() -> None:
    """A log's repr says where it is, how far it is, and whether it lives."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        await log.append("a", [Record(b"1")])
        assert repr(log) == "<EmbeddedLog /data/log at 1, idle, 0 waiting>"
        await log.close()
        assert "closed" in repr(log)

    run(scenario())
