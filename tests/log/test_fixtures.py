"""Data outlives code: a directory of each released format opens for ever."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from mainstem.log import Append, LogSettings, Record, open_log, open_reader

FIXTURES = Path(__file__).parent / "fixtures"


def test_format_1_opens(tmp_path: Path) -> None:
    """The directory written by format 1 has its 60 records, remembers its calls, and takes more."""
    shutil.copytree(FIXTURES / "format-1", tmp_path / "log")

    async def run() -> None:
        log = await open_log(tmp_path / "log", settings=LogSettings(first_segment_bytes=4096, reserve_bytes=512))
        orders = await log.read("orders.>")
        assert [(r.value, r.key, dict(r.headers)) for r in orders] == [
            (b'{"id": %d}' % i, b"%d" % i, {"about": f"order:{i}"}) for i in range(20)
        ]
        assert [r.value for r in await log.read("$run.r7")] == [b"a" * 50, b""]
        assert await log.append_many([Append("orders.created", [Record(b"again")], 0)], dedup_id="call-3") == (10, 12)
        assert await log.append("orders.created", [Record(b"more")]) == 61
        reader = await open_reader(tmp_path / "log")
        assert reader.end_position == 61
        await reader.close()
        await log.close()

    asyncio.run(run())
