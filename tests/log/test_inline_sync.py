"""A lone appender's syncs are done on the event loop as long as the disk is fast."""

from __future__ import annotations

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
