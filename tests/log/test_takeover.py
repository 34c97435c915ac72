"""Who owns a log: epochs, and what an owner leaves to the next one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mainstem.host.disk import SystemDisk
from mainstem.log import (
    AppendOutcomeUnknownError,
    EmbeddedLog,
    LogClosedError,
    LogCorruptError,
    LogDeposedError,
    LogFullError,
    LogInUseError,
    LogSettings,
    Record,
    open_log,
    open_reader,
    owner_pid,
)
from mainstem.log.embedded import recovery
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import Line, Manifest, epoch_name, epochs, read_manifest, segment_name, write_checked
from mainstem.log.embedded.verify import VerifyReport, verify_directory
from mainstem.testing import SimulatedClock, SimulatedDisk, keep_none
from tests.log.faults import (
    DIRECTORY,
    SETTINGS,
    bury,
    current,
    open_on,
    refused,
    reopened,
    segment,
    stored,
    written_log,
)
from tests.support import run


def epoch_of(disk: SimulatedDisk) -> int:
    """Return the latest epoch."""
    return epochs(disk.list_directory(DIRECTORY))[-1]


async def depose(disk: SimulatedDisk) -> EmbeddedLog:
    """Take the log over as another process, from one that lives."""
    process = disk.another_process()
    return await open_log(DIRECTORY, disk=process, clock=SimulatedClock(), settings=SETTINGS, depose=epoch_of(disk))


def test_after_an_orderly_close_the_next_owner_goes_on_in_place() -> None:
    """No segment is copied; the epoch is the next one, and the one before leaves no file."""
    disk = written_log(3, clean=True)
    before = [name for name in disk.list_directory(DIRECTORY) if name.endswith(".wal")]
    assert reopened(disk) is None
    assert [name for name in disk.list_directory(DIRECTORY) if name.endswith(".wal")] == before
    assert disk.exists(DIRECTORY / epoch_name(2)) and not disk.exists(DIRECTORY / epoch_name(1))


def test_after_a_crash_the_next_owner_writes_to_files_of_its_own() -> None:
    """The segment that was being written is copied under the new epoch's name, byte for byte; the old file goes."""
    disk = written_log(6)
    old, number = disk.copy(), read_manifest(disk, DIRECTORY).segments(disk.list_directory(DIRECTORY))[-1]
    assert number > 1
    reopened(disk)
    assert current(disk, number) == segment(number, epoch=2) and current(disk, 1) == segment(1)
    assert disk.contents(current(disk, number)) == old.contents(segment(number))
    assert not disk.exists(segment(number))
    assert stored(disk) == stored(old)


def test_a_deposed_owner_acknowledges_nothing() -> None:
    """An owner that another process took the log from is told so behind its next sync, and its records are nowhere."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        old = await open_on(disk)
        for number in range(20):
            await old.append("a", [Record(b"%d" % number)])
        new = await depose(disk)
        assert new.end_position == 20
        assert await new.append("a", [Record(b"new")]) == 21
        with pytest.raises(AppendOutcomeUnknownError, match="another process took the log over"):
            await old.append("a", [Record(b"late")])
        with pytest.raises(LogClosedError, match="another process took the log over"):
            await old.append("a", [Record(b"later")])
        assert [record.position for record in await old.read("a", 18)] == [19, 20]
        await old.close()
        assert [record.value for record in await new.read("a", 19)] == [b"19", b"new"]
        await new.close()
        assert [value for _position, _stream, value in stored(disk)][-2:] == [b"19", b"new"]
        assert "another process" in str(LogDeposedError("x"))

    run(scenario())


def test_what_a_living_owner_misses_is_kept() -> None:
    """As long as a deposed owner lives its files and its epoch stay; the first opening after its end removes them."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        old = await open_on(disk)
        await old.append("a", [Record(b"1")])
        new = await depose(disk)
        await new.close()
        names = disk.list_directory(DIRECTORY)
        assert {segment(1).name, segment(1, epoch=2).name, epoch_name(1), epoch_name(2)} <= set(names)
        await (await open_on(disk.another_process())).close()
        assert epoch_name(1) in disk.list_directory(DIRECTORY)
        await old.close()
        await (await open_on(disk)).close()
        names = disk.list_directory(DIRECTORY)
        assert epoch_name(4) in names and not {segment(1).name, epoch_name(1), epoch_name(2)} & set(names)

    run(scenario())


@pytest.mark.parametrize("others", ["one stays", "two came and went", "two came and went before the scan"])
def test_of_two_who_take_a_log_over_one_succeeds(others: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loser learns it, whether the winner is still there or has come and gone, and changes nothing."""
    disk = written_log(2)
    loser, winner = disk.another_process(), disk.another_process()
    scan = recovery._scan

    def overtaken(process: SimulatedDisk, directory: Path, index: LogIndex) -> object:
        if process is not loser:
            return scan(process, directory, index)
        left = None if "before" in others else scan(process, directory, index)
        if others == "one stays":
            recovery.recover(winner, SimulatedClock(), DIRECTORY, SETTINGS)
        else:
            reopened(disk)
            reopened(disk)
        if left is None:
            raise LogCorruptError("a file was removed in mid scan")
        return left

    monkeypatch.setattr(recovery, "_scan", overtaken)
    with pytest.raises(LogInUseError) as caught:
        recovery.recover(loser, SimulatedClock(), DIRECTORY, SETTINGS)
    assert caught.value.owner_pid == (winner.pid if others == "one stays" else 0)
    assert len(stored(disk)) == 4
    loser.kill()
    winner.kill()
    reopened(disk)
    assert len(stored(disk)) == 4


def test_a_reader_turns_to_the_new_owners_files() -> None:
    """A reader sees each record once while the log passes on in mid segment, and nothing of a deposed owner's."""

    async def scenario() -> None:
        disk = SimulatedDisk()
        reader_disk = disk.another_process()
        old = await open_on(disk)
        await old.append("a", [Record(b"1")])
        reader = await open_reader(DIRECTORY, disk=reader_disk, clock=SimulatedClock(), settings=SETTINGS)
        assert [record.value for record in await reader.read("a")] == [b"1"]
        new = await depose(disk)
        with pytest.raises(AppendOutcomeUnknownError):
            await old.append("a", [Record(b"never")])
        await new.append("a", [Record(b"2")])
        assert [record.value for record in await reader.read("a")] == [b"1", b"2"]
        for number in range(3, 12):
            await new.append("a", [Record(b"%d" % number + b"x" * 800)])
        assert len(await reader.read("a")) == 11
        assert await reader.stats() == await new.stats()
        await reader.close()
        await new.close()
        await old.close()

    run(scenario())


def test_no_room_for_a_new_owners_copy() -> None:
    """On a full disk a log that crashed does not open, and says why; readers do, and it opens once there is room."""
    disk = written_log(3)
    before = stored(disk)
    disk.capacity_bytes = disk.used_bytes()

    async def scenario() -> None:
        with pytest.raises(LogFullError, match="Nothing is lost"):
            await open_on(disk.another_process())
        reader = await open_reader(DIRECTORY, disk=disk.another_process(), clock=SimulatedClock(), settings=SETTINGS)
        assert reader.end_position == len(before)
        await reader.close()
        disk.capacity_bytes = None
        log = await open_on(disk)
        assert await log.append("a", [Record(b"x")]) == len(before) + 1
        await log.close()

    run(scenario())


@pytest.mark.parametrize("damage", ["missing", "flipped", "of another shape", "without a beginning"])
def test_damaged_manifest(damage: str) -> None:
    """Without a sound manifest nobody can say which files are the log's: refused, and nothing is changed."""
    disk = written_log(3)
    path = DIRECTORY / "manifest"
    if damage == "missing":
        disk.drop(path)
    elif damage == "flipped":
        disk.flip_bit(path, 5, 1)
    elif damage == "of another shape":
        write_checked(disk, path, LogSettings())
    else:
        write_checked(disk, path, Manifest((Line(2, 1),)))
    with refused(disk, "manifest"):
        reopened(disk)
    assert not verify_directory(disk, DIRECTORY).sound


def test_a_line_covers_what_lies_behind_its_beginning() -> None:
    """Of each segment the file of the latest line counts; lines that a later one covers whole are gone."""
    manifest = Manifest((Line(1, 1),)).with_line(Line(3, 2))
    names = [segment_name(number, epoch) for number, epoch in ((1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (5, 1))]
    assert manifest.segments(["log.meta", *names]) == [1, 2, 3, 4]
    assert [manifest.segment_name(number) for number in (2, 3, 9)] == [
        segment_name(2, 1), segment_name(3, 2), segment_name(9, 2),
    ]  # fmt: skip
    assert manifest.with_line(Line(2, 5)).lines == (Line(1, 1), Line(2, 5))
    assert manifest.with_line(Line(3, 5)).lines == (Line(1, 1), Line(3, 5))


def test_who_owns_a_directory(tmp_path: Path) -> None:
    """The owner's process id, while it lives; 0 before and after, and where there is no log."""
    assert owner_pid(tmp_path / "nothing") == 0

    async def scenario() -> None:
        log = await open_log(tmp_path)
        assert owner_pid(tmp_path) != 0
        await log.close()
        assert owner_pid(tmp_path) == 0

    run(scenario())


def test_verify_beside_an_owner_that_rolls(tmp_path: Path) -> None:
    """However often the directory is checked while its owner writes and begins segments, no damage is reported."""

    async def scenario() -> None:
        log = await open_log(
            tmp_path, settings=LogSettings(first_segment_bytes=8192, segment_max_bytes=8192, reserve_bytes=256)
        )
        reports = asyncio.ensure_future(asyncio.to_thread(looks))
        while not reports.done():
            for _append in range(20):
                await log.append("a", [Record(b"x" * 700)])
        assert [report.findings for report in reports.result() if not report.sound] == []
        await log.close()

    def looks() -> list[VerifyReport]:
        return [verify_directory(SystemDisk(), tmp_path) for _look in range(300)]

    run(scenario())


def test_reading_ends_with_the_log(tmp_path: Path) -> None:
    """After ``close``, read, last and a tail say that the log is closed."""

    async def scenario() -> None:
        log = await open_log(tmp_path)
        await log.append("a", [Record(b"1")])
        await log.close()
        for answer in (log.read("a"), log.last("a"), anext(log.tail("a"))):
            with pytest.raises(LogClosedError):
                await answer

    run(scenario())


def test_a_stopped_creation_is_done_again() -> None:
    """A directory whose creation died before the meta file holds no log: the next owner creates one."""
    for changes in range(40):
        disk = SimulatedDisk()
        disk.cut_power_after(changes)
        try:
            run(_open_and_close(disk))
        except OSError:
            left = disk.crash(keep_none)
            run(_open_and_close(left))
            left.drop(DIRECTORY / "manifest")
            with pytest.raises(LogCorruptError):
                run(_open_and_close(left))
        else:
            return
    pytest.fail("creating a log does not end")


async def _open_and_close(disk: SimulatedDisk) -> None:
    log = await open_on(disk)
    try:
        await log.close()
    finally:
        await bury(log)
