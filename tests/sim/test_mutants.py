"""Each promise of durability, broken on purpose: the random histories must find it out."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.host.disk import Buffer, File
from mainstem.log import StoredRecord
from mainstem.log.embedded import engine, reader, recovery, scan, walk
from mainstem.log.embedded.calls import Call
from mainstem.log.embedded.commit import CommitPlan
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import Manifest
from mainstem.log.embedded.segment import allocate
from mainstem.log.errors import LogCorruptError
from mainstem.testing import SimulatedDisk
from mainstem.testing.disk import SimulatedFile
from tests.sim.history import OracleError, run_history

SEEDS_MAX = 200


class _EqualToAll(int):
    """A checksum that is never found wrong."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def sync_left_out(patch: pytest.MonkeyPatch) -> None:
    """Commits are written, never synced."""

    def write_only(self: engine.EmbeddedLog, file: File, offset: int, buffers: Sequence[Buffer]) -> float:
        file.write_at(offset, buffers)
        self._check_not_deposed()
        return 0.0

    patch.setattr(engine.EmbeddedLog, "_write_and_sync", write_only)


def acknowledged_before_its_sync(patch: pytest.MonkeyPatch) -> None:
    """A commit is acknowledged once it is written; its sync comes with the next one."""
    unsynced: list[File] = []

    def late_sync(self: engine.EmbeddedLog, file: File, offset: int, buffers: Sequence[Buffer]) -> float:
        while unsynced:
            unsynced.pop().sync()
        file.write_at(offset, buffers)
        unsynced.append(file)
        self._check_not_deposed()
        return 0.0

    patch.setattr(engine.EmbeddedLog, "_write_and_sync", late_sync)


def failed_sync_tried_again(patch: pytest.MonkeyPatch) -> None:
    """After EIO the sync is tried again instead of ending the log's life; the second one "succeeds"."""

    def insist(self: engine.EmbeddedLog, file: File, offset: int, buffers: Sequence[Buffer]) -> float:
        file.write_at(offset, buffers)
        try:
            file.sync()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            file.sync()
        self._check_not_deposed()
        return 0.0

    patch.setattr(engine.EmbeddedLog, "_write_and_sync", insist)


def checksum_unchecked(patch: pytest.MonkeyPatch) -> None:
    """A body is taken as it is found, whatever its checksum says."""
    patch.setattr(scan, "crc32c", lambda _data: _EqualToAll())


class _SyncsTwice:
    """A file whose first sync, when it was allocated, is real, and whose second one is not."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._skips = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        """Skip the first call, then sync."""
        self._skips -= 1
        if self._skips < 0:
            self._file.sync()


def copy_not_synced(patch: pytest.MonkeyPatch) -> None:
    """What a dead owner left in the page cache is copied and served, and the copy is not made durable first."""
    patch.setattr(recovery, "allocate", lambda *arguments, **options: _SyncsTwice(allocate(*arguments, **options)))


def served_in_place(patch: pytest.MonkeyPatch) -> None:
    """A new owner goes on in the files of one that did not close the log, and may still write to them."""

    def in_place(disk: SimulatedDisk, _directory: Path, source: walk.Segment, _name: str) -> File:
        return disk.open(Path(source.place.path), write=True)

    patch.setattr(recovery, "_copy", in_place)
    patch.setattr(Manifest, "with_line", lambda self, _line: self)


def epoch_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """An owner acknowledges without looking whether another one has taken the log over."""
    original = SimulatedDisk.exists

    def blind(self: SimulatedDisk, path: Path) -> bool:
        return not path.name.startswith("epoch.") and original(self, path)

    patch.setattr(SimulatedDisk, "exists", blind)


def epoch_not_looked_at_by_readers(patch: pytest.MonkeyPatch) -> None:
    """A reader beside the owners shows what a deposed one wrote."""

    def once(self: reader.EmbeddedReader) -> bool:
        return not self._epoch and original(self)

    original = reader.EmbeddedReader._follow_owner
    patch.setattr(reader.EmbeddedReader, "_follow_owner", once)
    patch.setattr(reader.EmbeddedReader, "_is_between_owners", lambda _self: False)


def failed_frame_left_for_readers(patch: pytest.MonkeyPatch) -> None:
    """A frame whose sync failed stays visible in the page cache, where a reader beside the owner finds it."""

    def leave(self: engine.EmbeddedLog, file: File, offset: int, buffers: Sequence[Buffer]) -> float:
        file.write_at(offset, buffers)
        file.sync()
        self._check_not_deposed()
        return 0.0

    patch.setattr(engine.EmbeddedLog, "_write_and_sync", leave)


def reader_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    """A reader beside the owner shows what it finds, synced or not."""

    class Blind:
        def __init__(self, file: SimulatedFile) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def sync(self) -> None:
            """Do nothing."""

    look = reader.EmbeddedReader._open_segment

    def open_blind(self: Any) -> bool:
        opened = look(self)
        if opened:
            self._file = Blind(self._file)
        return opened

    patch.setattr(reader.EmbeddedReader, "_open_segment", open_blind)


def directory_never_synced(patch: pytest.MonkeyPatch) -> None:
    """New segments get their names without a sync of the directory."""

    def nothing(self: SimulatedDisk, path: Path) -> None:
        """Leave the names pending."""

    patch.setattr(SimulatedDisk, "sync_directory", nothing)


def end_mark_trusted(patch: pytest.MonkeyPatch) -> None:
    """Recovery trusts an end mark that may stand in the page cache only."""
    patch.setattr(recovery, "_last_complete", lambda left: left.segments[-1])


def answers_forgotten(patch: pytest.MonkeyPatch) -> None:
    """The answers to named calls are not kept: a retry is written twice."""
    patch.setattr(LogIndex, "_remember", lambda _self, _calls: None)


def condition_ignored(patch: pytest.MonkeyPatch) -> None:
    """An append is let in whatever it expects."""
    patch.setattr(CommitPlan, "_conflict", lambda _self, _call: None)


def condition_answered_from_memory(patch: pytest.MonkeyPatch) -> None:
    """A conflict is answered at once, from commits that are not durable yet."""

    def add(self: CommitPlan, call: Call) -> None:
        original(self, call)
        if call.error is not None:
            call.settle()

    original = CommitPlan.add
    patch.setattr(CommitPlan, "add", add)


def tail_looks_away(patch: pytest.MonkeyPatch) -> None:
    """A tail takes the log's end after reading instead of before, and so steps over what came in between."""

    async def tail(self: engine.EmbeddedLog, pattern: str, after: int = 0) -> AsyncIterator[Sequence[StoredRecord]]:
        while True:
            records = await self._store.read(pattern, after, 1000)
            if records:
                yield records
                await asyncio.sleep(0)
            after = self.end_position
            self._check_open()
            await self._next_commit()

    patch.setattr(engine.EmbeddedLog, "tail", tail)


def torn_tail_taken_for_damage(patch: pytest.MonkeyPatch) -> None:
    """An unfinished write keeps the log from opening."""
    original = scan.SegmentScan.torn

    def refuse(self: scan.SegmentScan) -> bool:
        if original.__get__(self):
            raise LogCorruptError("a torn tail")
        return False

    patch.setattr(scan.SegmentScan, "torn", property(refuse))


MUTANTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    sync_left_out,
    acknowledged_before_its_sync,
    failed_sync_tried_again,
    checksum_unchecked,
    copy_not_synced,
    served_in_place,
    epoch_not_looked_at,
    epoch_not_looked_at_by_readers,
    failed_frame_left_for_readers,
    reader_without_a_sync,
    directory_never_synced,
    end_mark_trusted,
    answers_forgotten,
    condition_ignored,
    condition_answered_from_memory,
    tail_looks_away,
    torn_tail_taken_for_damage,
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_mutant_is_found(mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with this one promise broken does not get through the histories."""
    mutant(monkeypatch)
    for seed in range(SEEDS_MAX):
        try:
            run_history(seed)
        except OracleError:
            return  # found out, as it must be
    pytest.fail(f"{SEEDS_MAX} histories did not notice: {mutant.__doc__}")
