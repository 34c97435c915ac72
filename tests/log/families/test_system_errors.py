"""Errors of system calls that the simulated disk has no word for, and errors in rare places (families 8 and 9)."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from mainstem.host.disk import SystemDisk, SystemFile
from mainstem.log import LogClosedError, LogFullError, Record, open_log
from mainstem.testing import OperationKind, SimulatedDisk, keep_all, keep_none
from tests.log.faults import SETTINGS, bury, open_on, outcome, reopened, stored, written_log
from tests.support import run


class _FailingClose(SystemFile):
    """A file that is closed, and whose close reports an error, as a network file system does."""

    failing = False

    def close(self) -> None:
        """Close it, and fail when told so."""
        was_open = self._descriptor >= 0
        super().close()
        if was_open and _FailingClose.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class _Disk(SystemDisk):
    """The file system, with such files for what is written."""

    def create(self, path: Path) -> SystemFile:
        """Create a file."""
        file = super().create(path)
        return _FailingClose(file._descriptor)


@pytest.fixture
def failing_close(monkeypatch: pytest.MonkeyPatch) -> type[_FailingClose]:
    """The switch that lets closes fail; off again behind the test."""
    monkeypatch.setattr(_FailingClose, "failing", False)
    return _FailingClose


def test_a_close_that_fails_in_a_roll(tmp_path: Path, failing_close: type[_FailingClose]) -> None:
    """When closing the old segment fails the log's life ends; nothing acknowledged is lost, and nobody was lied to."""

    async def scenario() -> int:
        log = await open_log(tmp_path, disk=_Disk(), settings=SETTINGS)
        failing_close.failing = True
        outcomes = [await outcome(log.append("a", [Record(b"%d" % i + b"x" * 900)])) for i in range(8)]
        failing_close.failing = False
        acknowledged = [one for one in outcomes if isinstance(one, int)]
        assert outcomes[len(acknowledged) :] and set(outcomes[len(acknowledged) :]) == {LogClosedError}
        await bury(log)
        return len(acknowledged)

    async def again(count: int) -> None:
        log = await open_log(tmp_path, settings=SETTINGS)
        assert [record.position for record in await log.read("a")] == list(range(1, count + 1))
        assert await log.append("a", [Record(b"more")]) == count + 1
        await log.close()

    run(again(run(scenario())))


def test_a_close_that_fails_at_the_end(tmp_path: Path, failing_close: type[_FailingClose]) -> None:
    """When closing the last segment fails the caller is told, the lock is let go all the same, and nothing is lost."""

    async def scenario() -> None:
        log = await open_log(tmp_path, disk=_Disk(), settings=SETTINGS)
        await log.append("a", [Record(b"1")])
        failing_close.failing = True
        with pytest.raises(OSError, match="Input/output"):
            await log.close()
        failing_close.failing = False
        log = await open_log(tmp_path, disk=_Disk(), settings=SETTINGS)
        assert [record.value for record in await log.read("a")] == [b"1"]
        await log.close()

    run(scenario())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT], ids=["ENOSPC", "EDQUOT"])
def test_no_room_at_a_roll(error: int) -> None:
    """Without room for the next segment appends are refused unwritten, reading goes on, and so does a reopened log."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        log = await open_on(disk)
        disk.fail("write", 1, error, after_bytes=1000, times=None, path="2-000001.wal.new")
        outcomes = [await outcome(log.append("a", [Record(b"%d" % i + b"x" * 900)])) for i in range(8)]
        acknowledged = [one for one in outcomes if isinstance(one, int)]
        assert set(outcomes[len(acknowledged) :]) == {LogFullError}
        assert len(await log.read("a")) == len(acknowledged) > 2
        await log.close()
        for left in (disk.crash(keep_none), disk.crash(keep_all), disk.kill()):
            reopened(left)
            assert len(stored(left)) == len(acknowledged)

    run(scenario())


MANIFEST: tuple[tuple[OperationKind, str], ...] = (
    ("create", "manifest.new"),
    ("write", "manifest.new"),
    ("sync", "manifest.new"),
    ("rename", "manifest"),
)
"""What a takeover asks of the disk for its manifest."""


@pytest.mark.parametrize(("kind", "path"), MANIFEST)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=["ENOSPC", "EDQUOT", "EIO"])
def test_no_room_for_the_manifest(kind: OperationKind, path: str, error: int) -> None:
    """When the manifest cannot be written nobody owns the log, nothing is lost, and the next opening goes through."""
    disk = written_log(5)
    before = stored(disk)
    process = disk.another_process()
    process.fail(kind, 1, error, path=path)
    full = error in (errno.ENOSPC, errno.EDQUOT)
    with pytest.raises(LogFullError if full else OSError):
        run(open_on(process))
    for left in (disk.crash(keep_none), disk.crash(keep_all), process.kill()):
        assert stored(left) == before
        reopened(left)
        assert stored(left) == before
        assert reopened(left) is None


def test_interrupted_calls(tmp_path: Path) -> None:
    """Calls that signals interrupt all the time are gone on with: every append is acknowledged, once, and is there."""
    interrupts: list[int] = []

    async def scenario() -> None:
        log = await open_log(tmp_path, settings=SETTINGS)
        for number in range(300):
            assert await log.append("a", [Record(b"%d" % number + b"x" * 300)]) == number + 1
        await log.close()
        log = await open_log(tmp_path, settings=SETTINGS)
        assert [record.position for record in await log.read("a")] == list(range(1, 301))
        await log.close()

    before = signal.signal(signal.SIGALRM, lambda number, _frame: interrupts.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        run(scenario())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(interrupts) > 20
