"""A lone appender's syncs are done on the event loop as long as the disk is fast."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from mainstem.log import EmbeddedLog, Record, open_log
from mainstem.testing import SimulatedDisk
from tests.log.faults import DIRECTORY, slow_settings
from tests.support import run


def test_lone_appender_stalls_the_loop_at_most_once() -> None:
    """When syncs go from 0.2 ms to 50 ms a lone appender's sync holds up the event loop once; then a thread does them.

    When the disk has been fast for a while, the loop does them again.
    """

    async def scenario() -> None:
        durations_s = [0.0002]
        on_the_loop: list[bool] = []
        loop_thread = threading.get_ident()

        def take_time(_path: Path) -> None:
            on_the_loop.append(threading.get_ident() == loop_thread)
            time.sleep(durations_s[0])  # sleeps: it stands for a slow disk, which blocks just so

        disk = SimulatedDisk(on_sync=take_time)
        log = await open_log(DIRECTORY, disk=disk, settings=slow_settings())
        assert await _until_inline(on_the_loop, log)
        durations_s[0] = 0.05
        on_the_loop.clear()
        for _turn in range(20):
            await log.append("a", [Record(b"slow")])
        assert len(on_the_loop) == 20
        assert sum(on_the_loop) <= 1
        durations_s[0] = 0.0
        assert await _until_inline(on_the_loop, log)
        await log.close()

    run(scenario())


async def _until_inline(on_the_loop: list[bool], log: EmbeddedLog) -> bool:
    """Append until a sync was done on the event loop; tell whether that came."""
    for _turn in range(300):
        await log.append("a", [Record(b"fast")])
        if on_the_loop[-1]:
            return True
    return False


def test_a_lone_appender_that_never_waits_lets_others_run() -> None:
    """Appends in an endless loop, each committed in its own turn, still give the event loop to others."""

    async def scenario() -> None:
        log = await open_log(DIRECTORY, disk=SimulatedDisk(), settings=slow_settings())
        going = True

        async def stop() -> None:
            nonlocal going
            await asyncio.sleep(0)
            going = False

        stopping = asyncio.ensure_future(stop())
        count = 0
        while going:
            await log.append("a", [Record(b"x")])
            count += 1
            assert count < 1000, "nobody else had a turn"
        await stopping
        await log.close()

    run(scenario())


def test_two_appenders_find_each_other() -> None:
    """Callers who commit in their own turn share commits once there are two of them: nobody pays for two syncs."""

    async def scenario() -> None:
        log = await open_log(DIRECTORY, disk=SimulatedDisk(), settings=slow_settings())
        for _turn in range(40):
            await log.append("a", [Record(b"x")])
        alone = log.sync_count
        assert alone == 40

        async def many(stream: str) -> None:
            for _turn in range(500):
                await log.append(stream, [Record(b"x")])

        await asyncio.gather(many("a"), many("b"))
        assert log.sync_count - alone < 700
        await log.close()

    run(scenario())


def test_append_now_declines_while_others_wait() -> None:
    """While another call is inside, or its commit is on the way, nothing is written without waiting."""

    async def scenario() -> None:
        log = await open_log(DIRECTORY, disk=SimulatedDisk(), settings=slow_settings())
        for _turn in range(20):
            await log.append("a", [Record(b"x")])
        assert log.append_now("a", [Record(b"now")]) == log.end_position == 21
        met = False
        while not met:  # once in a while the first of them gives the loop a turn, and so the second one has to wait
            others = [asyncio.ensure_future(log.append("b", [Record(b"other")])) for _task in range(2)]
            await asyncio.sleep(0)
            if not others[1].done():
                met = True
                end_position = log.end_position
                assert log.append_now("a", [Record(b"declined")]) is None
                assert log.end_position == end_position
            await asyncio.gather(*others)
        await log.close()

    run(scenario())


def test_append_now_gives_the_loop_its_turns() -> None:
    """An endless loop of appends that never wait is told to wait once in a while."""

    async def scenario() -> None:
        log = await open_log(DIRECTORY, disk=SimulatedDisk(), settings=slow_settings())
        for _turn in range(20):
            await log.append("a", [Record(b"x")])
        declined = sum(log.append_now("a", [Record(b"x")]) is None for _turn in range(200))
        assert 1 <= declined <= 100
        await log.close()

    run(scenario())
