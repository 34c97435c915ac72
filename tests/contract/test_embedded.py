"""The embedded engine keeps the log's contract, on the real disk, with segments small enough to roll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mainstem.log import Log, LogSettings, open_log, open_reader
from mainstem.testing.contract import LOG_CHECKS

SETTINGS = {
    "default": LogSettings(),
    "rolling": LogSettings(first_segment_bytes=8192, segment_max_bytes=16384, reserve_bytes=1024, cache_bytes=4096),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Log], Awaitable[None]], settings: LogSettings, tmp_path: Path) -> None:
    """The check holds while the log is open; opened again, and read from beside, it has the same records."""

    async def run() -> None:
        log = await open_log(tmp_path / "log", settings=settings)
        await check(log)
        before = await log.read(">", limit=65_536)
        reader = await open_reader(tmp_path / "log")
        assert await reader.read(">", limit=65_536) == before
        await log.close()
        again = await open_log(tmp_path / "log", settings=settings)
        assert again.torn is None
        assert await again.read(">", limit=65_536) == before
        await again.close()
        await reader.close()

    asyncio.run(run())
