"""The simulated disk's own promises: what a power cut takes, what it leaves, and how it fails."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.host.disk import Disk, File, Lock
from mainstem.host.lock import LockHeldError
from mainstem.testing import SECTOR_BYTES, DiskOperation, PowerCutError, SimulatedDisk, keep_all, keep_none, keep_some

DATA = Path("/data")
NAME = DATA / "a"


def disk_with(content: bytes = b"") -> tuple[SimulatedDisk, File]:
    """Return a disk with one durable file, open for writing."""
    disk = SimulatedDisk()
    disk.make_directory(DATA)
    file = disk.create(NAME)
    file.write_at(0, [content])
    file.sync()
    disk.sync_directory(DATA)
    return disk, file


def test_face() -> None:
    """The simulated disk, file and lock satisfy the interfaces of the host."""
    disk: Disk = SimulatedDisk()
    file: File = disk.create(Path("/a"))
    lock: Lock = disk.lock(Path("/lock"))
    lock.release()
    assert file.size() == 0


def test_unsynced_data_is_lost_when_none_is_kept() -> None:
    """A write without a sync is gone after a power cut that keeps nothing."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"new", b"er"])
    assert file.read_at(0, 10) == b"newer"
    assert disk.crash(keep_none).contents(NAME) == b"old"


def test_unsynced_data_survives_when_all_is_kept() -> None:
    """A write without a sync is there after a power cut that keeps everything."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"newer"])
    assert disk.crash(keep_all).contents(NAME) == b"newer"


def test_synced_data_survives() -> None:
    """A synced write survives whatever is chosen."""
    disk, file = disk_with()
    file.write_at(700, [b"kept" * 300])
    file.sync()
    for seed in range(20):
        assert disk.crash(keep_some(seed)).contents(NAME) == file.read_at(0, 5000)


def test_crash_leaves_the_first_disk_alone() -> None:
    """The disk after a power cut shares nothing with the one before it."""
    disk, file = disk_with(b"old")
    after = disk.crash(keep_all)
    after.overwrite(NAME, 0, b"NEW")
    assert file.read_at(0, 3) == b"old"


@given(kept=st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_subset_of_sectors(kept: list[bool]) -> None:
    """Every subset of unsynced sectors can be what remains; a sector is never torn."""
    disk, file = disk_with(b"o" * SECTOR_BYTES * 6)
    file.write_at(0, [b"n" * SECTOR_BYTES * 6])
    answers = iter(kept)
    content = disk.crash(lambda _count: int(next(answers))).contents(NAME)
    assert content == b"".join((b"n" if new else b"o") * SECTOR_BYTES for new in kept)


@given(chosen=st.integers(0, 3))
def test_any_version_of_a_sector(chosen: int) -> None:
    """A sector that was written several times since its sync keeps any one of its versions."""
    disk, file = disk_with(b"0")
    for version in (b"1", b"2", b"3"):
        file.write_at(0, [version])
    assert disk.crash(lambda count: min(chosen, count - 1)).contents(NAME) == str(chosen).encode()


def test_size_and_data_are_independent() -> None:
    """A file may come back with its new size but without its new data: zeros."""
    disk, file = disk_with(b"")
    file.write_at(0, [b"x" * 100])
    answers = iter([1, 0])
    assert disk.crash(lambda _count: next(answers)).contents(NAME) == bytes(100)


def test_a_small_write_keeps_its_sector_whole() -> None:
    """A write of a few bytes replaces the sector as a whole: its other bytes are never at risk."""
    disk, file = disk_with(b"abcdef")
    file.write_at(2, [b"XY"])
    assert {disk.crash(keep_some(seed)).contents(NAME) for seed in range(30)} == {b"abcdef", b"abXYef"}


def test_new_name_without_directory_sync() -> None:
    """A synced file whose directory was not synced may vanish."""
    disk, _file = disk_with()
    new = disk.create(DATA / "b")
    new.write_at(0, [b"synced"])
    new.sync()
    assert not disk.crash(keep_none).exists(DATA / "b")
    assert disk.crash(keep_all).contents(DATA / "b") == b"synced"
    disk.sync_directory(DATA)
    assert disk.crash(keep_none).contents(DATA / "b") == b"synced"


def test_rename_without_directory_sync() -> None:
    """A rename without a directory sync is undone or done as a whole; never are both names or none there."""
    disk, file = disk_with(b"content")
    file.sync()
    disk.rename(NAME, DATA / "b")
    assert disk.list_directory(DATA) == ["b"]
    found = {tuple(disk.crash(keep_some(seed)).list_directory(DATA)) for seed in range(30)}
    assert found == {("a",), ("b",)}
    disk.sync_directory(DATA)
    assert disk.crash(keep_none).list_directory(DATA) == ["b"]


def test_rename_replaces_its_target() -> None:
    """A rename over an existing name leaves the old content or the new one, never nothing."""
    disk, _file = disk_with(b"old")
    new = disk.create(DATA / "a.new")
    new.write_at(0, [b"new"])
    new.sync()
    disk.sync_directory(DATA)
    disk.rename(DATA / "a.new", NAME)
    assert {disk.crash(keep_some(seed)).contents(NAME) for seed in range(30)} == {b"old", b"new"}


def test_remove_without_directory_sync() -> None:
    """A removed name may come back, with its durable content."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"new"])
    disk.remove(NAME)
    assert not disk.exists(NAME)
    assert disk.crash(keep_none).contents(NAME) == b"old"
    assert disk.crash(keep_all).list_directory(DATA) == []
    assert file.read_at(0, 3) == b"new"


def test_syncing_one_directory_does_not_sync_another() -> None:
    """Syncing a directory makes durable its own names and what they build upon, nothing else."""
    disk, _file = disk_with()
    disk.make_directory(DATA / "sub")
    disk.create(DATA / "unrelated")
    disk.create(DATA / "sub" / "x")
    disk.sync_directory(DATA / "sub")
    after = disk.crash(keep_none)
    assert (after.list_directory(DATA), after.list_directory(DATA / "sub")) == (["a", "sub"], ["x"])


def test_rename_between_directories() -> None:
    """Syncing one of two directories makes a rename between them durable as a whole."""
    disk, _file = disk_with(b"content")
    disk.make_directory(DATA / "sub")
    disk.rename(NAME, DATA / "sub" / "b")
    disk.sync_directory(DATA / "sub")
    assert list(disk.crash(keep_none).files()) == ["/data/sub/b"]


def test_truncate_is_pending_too() -> None:
    """A truncation without a sync may be undone; what it cut off reads as zeros when the file grows again."""
    disk, file = disk_with(b"x" * 1000)
    file.truncate(600)
    file.truncate(800)
    assert file.read_at(0, 2000) == b"x" * 600 + bytes(200)
    assert disk.crash(keep_none).contents(NAME) == b"x" * 1000
    file.sync()
    assert disk.crash(keep_none).contents(NAME) == b"x" * 600 + bytes(200)


def test_failed_sync_leaves_clean_pages_that_are_not_durable() -> None:
    """After EIO from a sync, a second sync succeeds and does not write what the first one lost."""
    disk, file = disk_with(b"o" * 1024)
    file.write_at(0, [b"n" * 1024])
    disk.fail("sync")
    with pytest.raises(OSError, match="Input/output") as caught:
        file.sync()
    assert caught.value.errno == errno.EIO
    file.sync()
    assert file.read_at(0, 1024) == b"n" * 1024
    assert disk.crash(keep_none).contents(NAME) == b"o" * 1024
    assert disk.crash(keep_all).contents(NAME) == b"n" * 1024
    file.write_at(0, [b"m"])
    file.sync()
    assert disk.crash(keep_none).contents(NAME) == b"m" + b"n" * 511 + b"o" * 512


def test_every_open_handle_is_told_once_of_a_failed_sync() -> None:
    """Each handle that was open gets EIO once for a sync that failed through another one; a later handle gets none."""
    disk, file = disk_with(b"old")
    beside = disk.another_process().open(NAME, write=True)
    disk.fail("sync")
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    with pytest.raises(OSError, match="Input/output"):
        beside.sync()
    beside.sync()
    file.sync()
    disk.open(NAME).sync()


def test_a_sync_fails_with_one_that_fails_meanwhile() -> None:
    """A sync that is going on while another one of the same file fails is told, and makes nothing durable."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"new"])
    other = disk.another_process()
    other.fail("sync")

    def fail_beside(_path: Path) -> None:
        with pytest.raises(OSError, match="Input/output"):
            other.open(NAME, write=True).sync()

    disk.on_sync = fail_beside
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    assert disk.crash(keep_none).contents(NAME) == b"old"


def test_two_syncs_at_once() -> None:
    """A sync that overtakes another leaves what was written in between to neither."""
    disk, file = disk_with(b"....")
    other = disk.another_process()
    file.write_at(0, [b"1"])

    def overtake(_path: Path) -> None:
        other.open(NAME).sync()
        file.write_at(512, [b"2"])

    disk.on_sync = overtake
    file.sync()
    assert disk.crash(keep_none).contents(NAME) == b"1..."


def test_data_behind_a_lost_size_is_durable_after_a_new_write() -> None:
    """A write and sync after a failed sync that had grown the file makes the new data and the size durable."""
    disk, file = disk_with()
    file.write_at(0, [b"n" * 1024])
    disk.fail("sync")
    with pytest.raises(OSError):
        file.sync()
    file.write_at(512, [b"m" * 512])
    file.sync()
    assert disk.crash(keep_none).contents(NAME) == bytes(512) + b"m" * 512


def test_fault_at_the_nth_operation() -> None:
    """A fault strikes at the operation that was named, as often as was said, and on the named path only."""
    disk, file = disk_with()
    other = disk.create(DATA / "other.txt")
    disk.fail("write", 2, errno.ENOSPC, times=2, path="/a")
    outcomes: list[int | None] = []
    for _attempt in range(4):
        other.write_at(0, [b"x"])
        try:
            file.write_at(0, [b"x"])
            outcomes.append(0)
        except OSError as error:
            outcomes.append(error.errno)
    assert outcomes == [0, errno.ENOSPC, errno.ENOSPC, 0]


def test_fault_for_ever_and_healing() -> None:
    """A fault without an end strikes until the disk is healed."""
    disk, file = disk_with()
    disk.fail("read", times=None)
    for _attempt in range(3):
        with pytest.raises(OSError):
            file.read_at(0, 1)
    disk.heal()
    assert file.read_at(0, 1) == b""


def test_short_write_before_an_error() -> None:
    """A failing write may have written a part."""
    disk, file = disk_with(b"......")
    disk.fail("write", error=errno.EIO, after_bytes=2)
    with pytest.raises(OSError):
        file.write_at(1, [b"abcd"])
    assert file.read_at(0, 10) == b".ab..."


def test_capacity() -> None:
    """A full disk refuses growth after writing what fits, allows overwriting, and has room again after a removal."""
    disk, file = disk_with(bytes(1024))
    disk.capacity_bytes = 2048
    big = disk.create(DATA / "big")
    with pytest.raises(OSError) as caught:
        disk.write_zeros(big, 4096)
    assert (caught.value.errno, big.size(), disk.used_bytes()) == (errno.ENOSPC, 1024, 2048)
    file.write_at(0, [b"x" * 1024])
    with pytest.raises(OSError):
        file.write_at(1024, [b"x"])
    disk.remove(DATA / "big")
    with pytest.raises(OSError):
        file.write_at(1024, [b"x"])
    big.close()
    file.write_at(1024, [b"x"])
    assert disk.used_bytes() == 1536


def test_sync_lets_time_pass() -> None:
    """The hook is called during a sync with no lock held, and the sync covers only what was written before it."""
    disk, file = disk_with(b"0")
    seen: list[Path] = []

    def write_more(path: Path) -> None:
        seen.append(path)
        writer = threading.Thread(target=file.write_at, args=(512, [b"2"]))
        writer.start()
        writer.join(timeout=10)

    file.write_at(0, [b"1"])
    disk.on_sync = write_more
    file.sync()
    assert seen == [NAME]
    assert disk.crash(keep_none).contents(NAME) == b"1"
    assert disk.crash(keep_all).contents(NAME) == b"1" + bytes(511) + b"2"


def test_locks() -> None:
    """A lock is exclusive over processes and within one, and dies with its process."""
    disk = SimulatedDisk()
    other = disk.another_process()
    lock = disk.lock(Path("/lock"))
    for process in (disk, other):
        with pytest.raises(LockHeldError) as caught:
            process.lock(Path("/lock"))
        assert caught.value.owner_pid == disk.pid
    lock.release()
    lock.release()
    other.lock(Path("/lock"))
    other.kill().lock(Path("/lock"))


def test_a_late_release_does_not_free_anothers_lock() -> None:
    """A lock that died with its process cannot be released for its successor."""
    disk = SimulatedDisk()
    lock = disk.lock(Path("/lock"))
    successor = disk.kill()
    successor.lock(Path("/lock"))
    lock.release()
    with pytest.raises(LockHeldError):
        successor.another_process().lock(Path("/lock"))


def test_kill_keeps_what_was_written_unsynced() -> None:
    """After a kill the next process sees what was written, and a power cut can still take it."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"new"])
    successor = disk.kill()
    assert successor.contents(NAME) == b"new"
    assert successor.crash(keep_none).contents(NAME) == b"old"
    with pytest.raises(OSError):
        file.write_at(0, [b"late"])
    with pytest.raises(PowerCutError):
        disk.exists(NAME)


def test_power_cut_after_a_number_of_changes() -> None:
    """The ordered number of changing operations happens; everything after fails and leaves no trace."""
    disk, file = disk_with(b"old")
    disk.cut_power_after(2)
    file.write_at(0, [b"one"])
    file.sync()
    assert not disk.power_is_cut
    with pytest.raises(PowerCutError):
        file.write_at(0, [b"two"])
    with pytest.raises(PowerCutError):
        disk.list_directory(DATA)
    assert disk.power_is_cut
    assert disk.crash(keep_all).contents(NAME) == b"one"


def test_power_cut_during_a_sync() -> None:
    """A power cut in the middle of a sync leaves it open whether the data is durable."""
    disk, file = disk_with(b"old")
    file.write_at(0, [b"new"])
    disk.on_sync = lambda _path: disk.cut_power()
    with pytest.raises(PowerCutError):
        file.sync()
    assert {disk.crash(keep_some(seed)).contents(NAME) for seed in range(30)} == {b"old", b"new"}


def test_operations_are_listed() -> None:
    """Every operation that was begun is listed with its path, offset and size."""
    disk, file = disk_with()
    disk.operations.clear()
    file.write_at(5, [b"abc"])
    disk.rename(NAME, DATA / "b")
    assert disk.operations == [DiskOperation("write", "/data/a", 5, 3), DiskOperation("rename", "/data/b")]


def test_errors_are_those_of_the_system() -> None:
    """Missing and existing names, directories and closed or read-only handles give the operating system's errors."""
    disk, file = disk_with()
    with pytest.raises(FileExistsError):
        disk.create(NAME)
    with pytest.raises(FileExistsError):
        disk.make_directory(NAME)
    with pytest.raises(IsADirectoryError):
        disk.open(DATA)
    with pytest.raises(IsADirectoryError):
        disk.rename(NAME, DATA)
    for wrong in (
        lambda: disk.open(DATA / "none"),
        lambda: disk.remove(DATA / "none"),
        lambda: disk.create(Path("/none/a")),
        lambda: disk.rename(NAME, Path("/none/a")),
        lambda: disk.sync_directory(Path("/none")),
    ):
        with pytest.raises(FileNotFoundError):
            wrong()
    with pytest.raises(OSError, match="Bad file descriptor"):
        disk.open(NAME).write_at(0, [b"x"])
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_at(0, 1)
    assert (disk.list_directory(Path("/none")), disk.exists(Path("/none"))) == ([], False)


def test_damage() -> None:
    """Damage reaches the medium at once: flipped bits, zeroed ranges, cut, dropped, swapped and duplicated files."""
    disk, _file = disk_with(b"abcdef")
    disk.flip_bit(NAME, 1, 0)
    disk.zero(NAME, 4, 100)
    assert disk.crash(keep_none).contents(NAME) == b"accd\0\0"
    disk.cut(NAME, 3)
    disk.put(DATA / "b", b"bbb")
    disk.swap(NAME, DATA / "b")
    disk.duplicate(DATA / "b", DATA / "c")
    disk.overwrite(DATA / "c", 5, b"!")
    assert disk.crash(keep_none).files() == {"/data/a": b"bbb", "/data/b": b"acc", "/data/c": b"acc\0\0!"}
    disk.drop(NAME)
    with pytest.raises(FileNotFoundError):
        disk.drop(NAME)
    assert list(disk.copy().files()) == ["/data/b", "/data/c"]


def test_same_seed_same_crash() -> None:
    """A seeded chooser makes the same choices again, and different seeds make different ones."""
    disk, file = disk_with(bytes(64 * SECTOR_BYTES))
    file.write_at(0, [b"x" * 64 * SECTOR_BYTES])
    contents = [disk.crash(keep_some(seed)).contents(NAME) for seed in range(10)]
    assert contents == [disk.crash(keep_some(seed)).contents(NAME) for seed in range(10)]
    assert len(set(contents)) > 5


def test_many_threads() -> None:
    """Threads that write and sync at the same time lose nothing."""
    disk, file = disk_with()

    def work(number: int) -> None:
        for turn in range(20):
            file.write_at((number * 20 + turn) * 8, [b"%08d" % (number * 20 + turn)])
            file.sync()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert disk.crash(keep_none).contents(NAME) == b"".join(b"%08d" % number for number in range(160))
