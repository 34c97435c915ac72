"""Reading a directory without owning it: beside a running owner, or when nobody runs. Changes nothing.

A record is shown only after the reader itself has synced the file that holds it, so it never shows what a power cut
can take back.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from google_crc32c import value as crc32c

from mainstem.base.names import check_stream
from mainstem.host.clock import Clock
from mainstem.host.disk import Disk, File
from mainstem.log.contract import LogStats, StoredRecord
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import LogSettings, epoch_name, epochs, read_manifest, read_meta
from mainstem.log.embedded.recovery import refuse_headless_log
from mainstem.log.embedded.scan import Frame, SegmentPlace, check_start, iterate_frames
from mainstem.log.embedded.store import CommitStore
from mainstem.log.embedded.walk import place_after
from mainstem.log.errors import LogCorruptError, LogNotFoundError
from mainstem.log.frame import (
    CLEAN_END,
    COMMIT,
    FORMAT_VERSION,
    HEADER_BYTES,
    ROLLED_END,
    Commit,
    FrameHeader,
    parse_header,
)

_POLL_S = 0.05
_TAIL_BATCH_RECORDS = 1000
_GROWTH_BYTES = 1 << 20
_FOLLOWING = (COMMIT, CLEAN_END, ROLLED_END)


class EmbeddedReader:
    """What is durable in a log's directory; see :class:`mainstem.log.contract.ReadableLog`. Made by ``open_reader``."""

    def __init__(self, disk: Disk, clock: Clock, directory: Path, settings: LogSettings) -> None:
        meta = read_meta(disk, directory)
        if meta is None:
            refuse_headless_log(disk, directory)
            raise LogNotFoundError(
                f"{directory} holds no log. Start the application once, or name its data directory with --data.",
                try_command="mainstem dev app.py",
            )
        self._disk = disk
        self._clock = clock
        self._directory = directory
        self._log_id = int(meta.log_id, 16)
        self._index = LogIndex(dedup_window_calls=0)
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="mainstem-reader")
        self._epoch = 0
        self._manifest = read_manifest(disk, directory)
        self._store = CommitStore(disk, directory, self._manifest, self._index, settings.cache_bytes, self._threads)
        self._previous: FrameHeader | None = None
        self._number = 1
        self._ends: dict[int, FrameHeader] = {}
        self._sizes: dict[int, int] = {}
        self._file: File | None = None
        self._refreshing = asyncio.Lock()
        self._looking = threading.Lock()
        self._found: deque[Frame] = deque()
        self._seen_position = 0

    def __repr__(self) -> str:
        return f"<EmbeddedReader {self._directory} at {self.end_position}>"

    @property
    def end_position(self) -> int:
        """Position of the last durable record that this reader has seen."""
        return self._index.end_position

    async def refresh(self) -> None:
        """Take in what has become durable since the last look.

        Raises:
            LogCorruptError: Acknowledged bytes are damaged or missing.
        """
        async with self._refreshing:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._look)
            while self._found:
                frame = self._found.popleft()
                commit = Commit(frame.header, frame.body)
                self._store.add(frame.header, commit, commit.stream_of_record, commit.calls)

    def _look(self) -> None:
        """Collect new commits in ``_found``. A caller that is cancelled meanwhile leaves them to the next one."""
        with self._looking:
            self._follow_owner()
            while True:
                if self._file is None and not self._open_segment():
                    return
                assert self._file is not None
                # Asked before reading: when the next segment is there, all of this one's commits are.
                following, followed = self._manifest.following(self._number)
                followed = followed or self._disk.exists(self._path(following))
                frames = self._new_frames(self._file)
                if frames:
                    self._file.sync()
                    if self._follow_owner():
                        continue  # written by an owner that was deposed meanwhile: perhaps no part of the log
                    if not followed and frames[-1].header.kind == COMMIT and self._is_between_owners():
                        del frames[-1]  # the next look takes it, if the new owner did
                if frames:
                    self._take(frames)
                if not followed and (self._previous is None or self._previous.kind != ROLLED_END):
                    return
                if self._previous is not None:
                    self._ends[self._number] = self._previous
                self._close_file()
                self._number = following

    def _take(self, frames: Sequence[Frame]) -> None:
        self._previous = frames[-1].header
        for frame in frames:
            # Behind a change of owners the segment is read once more, from its beginning.
            if frame.header.kind == COMMIT and frame.header.first_position > self._seen_position:
                self._found.append(frame)
                self._seen_position = frame.header.next_position - 1

    def _follow_owner(self) -> bool:
        """Look whether another owner has claimed the log; where it goes on in other files, turn to those."""
        epoch = (epochs(self._disk.list_directory(self._directory)) or [0])[-1]
        # Read each time: a new owner claims its epoch first, and says in which files it goes on when it has made them.
        manifest = read_manifest(self._disk, self._directory)
        if (epoch, manifest) == (self._epoch, self._manifest):
            return False
        first = next((new.first_segment for new in manifest.lines if new not in self._manifest.lines), None)
        self._epoch, self._manifest, self._store.manifest = epoch, manifest, manifest
        if first is not None and first <= self._number:
            self._close_file()
            self._number, self._previous = first, self._ends.get(first - 1)
        return True

    def _is_between_owners(self) -> bool:
        """Tell whether somebody has claimed the log and not yet said in which files it goes on.

        Until then the owner before may write one frame more, in vain: each further one only once that was acknowledged.
        Where neither lives, the next one to open the log takes in whatever it finds.
        """
        line = self._manifest.lines[-1].epoch
        claimed = [one for one in epochs(self._disk.list_directory(self._directory)) if one >= line]
        return len(claimed) > 1 and any(self._disk.lock_owner(self._directory / epoch_name(one)) for one in claimed)

    def _path(self, number: int) -> Path:
        return self._directory / self._manifest.segment_name(number)

    def _open_segment(self) -> bool:
        while self._manifest.skips(self._number):
            self._number += 1
        path = self._path(self._number)
        if not self._disk.exists(path):
            self._refuse_missing_segment()
            return False
        self._file = self._disk.open(path)
        self._sizes[self._number] = self._file.size()
        return True

    def _refuse_missing_segment(self) -> None:
        numbers = self._manifest.segments(self._disk.list_directory(self._directory))
        if self._number in numbers or self._follow_owner():
            return  # it came this very moment; the next look takes it
        closed = self._previous is not None and self._previous.kind == ROLLED_END
        if self._number == 1 or closed or (numbers and numbers[-1] > self._number):
            raise LogCorruptError(
                f"{self._path(self._number)} is missing. Nothing was changed.",
                try_command=f"mainstem log verify {self._directory}",
            )

    def _new_frames(self, file: File) -> list[Frame]:
        try:
            return self._scan(file)
        except LogCorruptError:
            # The owner may have written the frame between two reads of ours; what is acknowledged reads the same a
            # second time.
            return self._scan(file)

    def _scan(self, file: File) -> list[Frame]:
        frames: list[Frame] = []
        head = self._previous
        if head is not None and head.segment == self._number:
            # The usual look: whole frames behind the last one, and then zeros. No need to read the rest of the segment.
            while (frame := _frame_behind(file, head)) is not None:
                frames.append(frame)
                head = frame.header
            start = head.end_offset
            holes = self._manifest.holes_from(self._number)
            place = SegmentPlace(
                str(self._path(self._number)),
                self._log_id,
                self._number,
                head.checksum,
                head.next_position,
                holes=holes,
            )
            if place.hole_at(start) is None and (
                head.kind == ROLLED_END or not any(file.read_at(start, _GROWTH_BYTES))
            ):
                return frames
            return frames + list(iterate_frames(bytes(start) + file.read_at(start, file.size() - start), place, start))
        data = file.read_at(0, file.size())
        place = place_after(self._directory, self._manifest, self._log_id, self._number, head)
        frames = list(iterate_frames(data, place, place.begin_offset))
        check_start(frames, len(data), place)
        return frames

    async def read(self, pattern: str, after: int = 0, limit: int = 1000) -> Sequence[StoredRecord]:
        """Return durable records; see :meth:`mainstem.log.contract.ReadableLog.read`."""
        await self.refresh()
        return await self._store.read(pattern, after, limit)

    async def tail(self, pattern: str, after: int = 0) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of durable records for ever, looking for new ones 20 times a second."""
        while True:
            await self.refresh()
            seen = self.end_position
            records = await self._store.read(pattern, after, _TAIL_BATCH_RECORDS)
            if records:
                after = records[-1].position
                yield records
                continue
            after = max(after, seen)
            await self._clock.sleep(_POLL_S)

    async def last(self, stream: str) -> StoredRecord | None:
        """Return the last durable record of one stream, or ``None``."""
        check_stream(stream)
        await self.refresh()
        position = self._index.last_position(stream)
        if not position:
            return None
        return (await self._store.read(stream, position - 1, 1))[0]

    async def stats(self) -> LogStats:
        """Return the log's size in records, streams and bytes."""
        await self.refresh()
        index = self._index
        return LogStats(index.end_position, index.records, index.stream_count, self._number, sum(self._sizes.values()))

    async def close(self) -> None:
        """Close the files."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._close_segment)
        await self._store.close()
        self._threads.shutdown(wait=False)

    def _close_segment(self) -> None:
        with self._looking:  # a look whose caller was cancelled may still be reading
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _frame_behind(file: File, head: FrameHeader) -> Frame | None:
    """Return the frame that follows another one, if it is there and whole; all else is for a full scan to judge."""
    header = parse_header(file.read_at(head.end_offset, HEADER_BYTES))
    if header is None or header.version != FORMAT_VERSION or header.features or header.kind not in _FOLLOWING:
        return None
    if (header.log_id, header.segment, header.offset) != (head.log_id, head.segment, head.end_offset):
        return None
    if (header.chain, header.first_position) != (head.checksum, head.next_position):
        return None
    body = file.read_at(head.end_offset + HEADER_BYTES, header.body_bytes)
    return Frame(header, body) if crc32c(body) == header.body_checksum else None
