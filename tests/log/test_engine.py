"""The embedded engine's own promises, on the real disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mainstem.host.disk import SystemDisk
from mainstem.log import (
    LogClosedError,
    LogInUseError,
    LogNotFoundError,
    LogSettings,
    Record,
    open_log,
    open_reader,
)
from mainstem.log.embedded.verify import verify_directory

SMALL = LogSettings(first_segment_bytes=8192, segment_max_bytes=16384, reserve_bytes=1024)


def test_second_opener_is_told_who_owns_the_directory(tmp_path: Path) -> None:
    """In this process and in another one, a second owner gets an error with the owner's pid; readers are let in."""

    async def run() -> None:
        log = await open_log(tmp_path)
        await log.append("a", [Record(b"1")])
        with pytest.raises(LogInUseError) as caught:
            await open_log(tmp_path)
        assert caught.value.owner_pid == os.getpid()
        code = f"import asyncio, mainstem.log as m\nasyncio.run(m.open_log({str(tmp_path)!r}))"
        child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in child.stderr
        reader = await open_reader(tmp_path)
        assert [record.value for record in await reader.read("a")] == [b"1"]
        await reader.close()
        await log.close()
        await (await open_log(tmp_path)).close()

    asyncio.run(run())


def test_callers_at_once_share_a_sync(tmp_path: Path) -> None:
    """A hundred appends that wait at the same moment cost few syncs, not a hundred."""

    async def run() -> None:
        log = await open_log(tmp_path)
        await asyncio.gather(*(log.append("a", [Record(b"x")]) for _ in range(100)))
        assert log.sync_count <= 3
        await log.close()

    asyncio.run(run())


def test_reader_follows_an_owner_over_rolls(tmp_path: Path) -> None:
    """A reader's tail sees every record of a running owner once and in order, while segments roll."""

    async def run() -> None:
        log = await open_log(tmp_path, settings=SMALL)
        await log.append("a", [Record(b"0")])
        reader = await open_reader(tmp_path)
        seen: list[int] = []

        async def follow() -> None:
            async for batch in reader.tail("a"):
                seen.extend(int(record.value) for record in batch)
                if seen[-1] == 299:
                    return

        following = asyncio.create_task(follow())
        for i in range(1, 300):
            await log.append("a", [Record(str(i).encode())], expected_position=log.end_position)
            if i % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(following, 20)
        assert seen == list(range(300))
        stats = await reader.stats()
        assert stats.segment_count > 1 and stats == await log.stats()
        await reader.close()
        await log.close()

    asyncio.run(run())


def test_closed_log_refuses(tmp_path: Path) -> None:
    """After ``close`` an append is refused unwritten, tails end with an error, and closing again does nothing."""

    async def run() -> None:
        log = await open_log(tmp_path)
        await log.append("a", [Record(b"1")])

        async def follow() -> None:
            async for _batch in log.tail("a"):
                tailing.set()

        tailing = asyncio.Event()
        following = asyncio.create_task(follow())
        await tailing.wait()
        await log.close()
        await log.close()
        with pytest.raises(LogClosedError):
            await following
        with pytest.raises(LogClosedError):
            await log.append("a", [Record(b"2")])
        assert "closed" in repr(log)

    asyncio.run(run())


def test_close_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    """Appends that were waiting when ``close`` was called are durable and answered."""

    async def run() -> None:
        log = await open_log(tmp_path)
        tasks = [asyncio.create_task(log.append("a", [Record(b"x")])) for _ in range(50)]
        await asyncio.sleep(0)
        await log.close()
        assert sorted(await asyncio.gather(*tasks)) == list(range(1, 51))

    asyncio.run(run())


def test_forked_child_cannot_append(tmp_path: Path) -> None:
    """A child that was forked from the owner is refused, and the owner goes on."""

    async def run() -> None:
        log = await open_log(tmp_path)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                log._check_open()
            except LogClosedError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        assert b"forked child" in os.read(read, 10_000)
        os.close(read)
        assert await log.append("a", [Record(b"1")]) == 1
        await log.close()

    asyncio.run(run())


def test_backpressure_bounds_what_waits(tmp_path: Path) -> None:
    """With a small bound, many large appends all succeed, and no more than the bound is ever pending."""

    async def run() -> None:
        settings = LogSettings(pending_max_bytes=100_000)
        log = await open_log(tmp_path, settings=settings)
        most = 0

        async def one() -> None:
            nonlocal most
            await log.append("a", [Record(bytes(30_000))])
            most = max(most, log._budget.used_bytes)

        await asyncio.gather(*(one() for _ in range(40)))
        assert log.end_position == 40
        assert 0 < most <= 100_000 + 30_016
        await log.close()

    asyncio.run(run())


def test_large_append_gets_a_segment_of_its_own_size(tmp_path: Path) -> None:
    """An append larger than a planned segment is written whole, and read back."""

    async def run() -> None:
        log = await open_log(tmp_path, settings=SMALL)
        value = os.urandom(100_000)
        await log.append("a", [Record(b"before")])
        await log.append("a", [Record(value)])
        await log.append("a", [Record(b"after")])
        assert [record.value for record in await log.read("a")] == [b"before", value, b"after"]
        await log.close()

    asyncio.run(run())


def test_reader_without_a_log(tmp_path: Path) -> None:
    """A directory without a log is said to be one, and is left as it is."""
    with pytest.raises(LogNotFoundError):
        asyncio.run(open_reader(tmp_path / "nothing"))
    with pytest.raises(LogNotFoundError):
        verify_directory(SystemDisk(), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_verify_counts_what_is_sound(tmp_path: Path) -> None:
    """A sound log has no findings, and as many records as were appended; damage is named by file and byte."""

    async def run() -> None:
        log = await open_log(tmp_path, settings=SMALL)
        for _ in range(100):
            await log.append("a", [Record(b"x" * 100)])
        await log.close()

    asyncio.run(run())
    report = verify_directory(SystemDisk(), tmp_path)
    assert report.sound and not report.torn
    assert (report.records, report.commits, report.end_position) == (100, 100, 100)
    assert report.segments > 1
    path = tmp_path / "0000000001-000001.wal"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    (finding,) = verify_directory(SystemDisk(), tmp_path).findings
    assert str(path) in finding and "byte 896" in finding


def test_record_headers_must_be_strings(tmp_path: Path) -> None:
    """A value that is no bytes, or a header that is no string, fails its own caller only."""

    async def run() -> None:
        log = await open_log(tmp_path)
        good = asyncio.create_task(log.append("a", [Record(b"1")]))
        with pytest.raises(ValueError, match="bytes"):
            await log.append("a", [Record("text")])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="strings"):
            await log.append("a", [Record(b"1", headers={"a": 1})])  # type: ignore[dict-item]
        assert await good == 1
        await log.close()

    asyncio.run(run())
