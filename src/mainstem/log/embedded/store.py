"""Reading commits back: frames by number, verified, the latest in memory. Shared by the owner and readers beside it."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

from google_crc32c import value as crc32c

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_pattern, is_exact, matcher
from mainstem.host.disk import Disk, File
from mainstem.log.contract import StoredRecord
from mainstem.log.embedded.index import FramePlace, LogIndex
from mainstem.log.embedded.layout import Manifest
from mainstem.log.errors import LogCorruptError
from mainstem.log.frame import HEADER_BYTES, Commit, FrameHeader, parse_header

READ_MAX_RECORDS = 65_536
"""Most records that one read may ask for."""

_READ_MAX_BYTES = 16 << 20
_LOAD_MAX_FRAMES = 256
_LOAD_MAX_BYTES = 4 << 20
_OPEN_FILES_MAX = 32
_CACHED_OVERHEAD_BYTES = 1024


class CommitStore:
    """Commits by frame number. ``read`` answers from the index, so only durable records are seen."""

    def __init__(
        self, disk: Disk, directory: Path, manifest: Manifest, index: LogIndex, cache_bytes: int, threads: Executor
    ) -> None:
        self.index = index
        self.manifest = manifest
        self._disk = disk
        self._threads = threads
        self._directory = directory
        self._cache: OrderedDict[int, Commit] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._files: OrderedDict[int, File] = OrderedDict()
        self._loading = asyncio.Lock()
        self._files_guard = threading.Lock()

    def add(
        self,
        header: FrameHeader,
        commit: Commit,
        stream_of_record: Sequence[int],
        calls: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Take in a commit that has just become durable.

        Who wrote it has its columns at hand, so it is decoded only when somebody reads it.
        """
        number = self.index.add(header, commit.names, stream_of_record, calls)
        self._cache[number] = commit
        self._cached_bytes += commit.size_bytes + _CACHED_OVERHEAD_BYTES
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            _number, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.size_bytes + _CACHED_OVERHEAD_BYTES

    async def read(self, pattern: str, after: int, limit: int) -> list[StoredRecord]:
        """Return records as :meth:`mainstem.log.contract.ReadableLog.read` promises."""
        check_pattern(pattern)
        if not 1 <= limit <= READ_MAX_RECORDS or after < 0:
            raise InvalidArgumentError(
                f"read(after={after}, limit={limit}): expected after ≥ 0 and a limit of 1 to {READ_MAX_RECORDS}."
            )
        if is_exact(pattern):
            return await self._read_stream(pattern, after, limit)
        return await self._read_matching(pattern, after, limit)

    async def _read_stream(self, stream: str, after: int, limit: int) -> list[StoredRecord]:
        positions = self.index.positions_after(stream, after, limit)
        records: list[StoredRecord] = []
        size = 0
        begin = 0
        while begin < len(positions) and size < _READ_MAX_BYTES:
            chunk = positions[begin : begin + _LOAD_MAX_FRAMES]
            begin += len(chunk)
            numbers = [self.index.frame_of(position) for position in chunk]
            commits = await self._commits(dict.fromkeys(numbers))
            for position, number in zip(chunk, numbers, strict=True):
                if number not in commits:
                    return records  # the rest of the chunk was over the size of one load; the caller reads on from here
                record = commits[number].record(position - commits[number].first_position)
                records.append(record)
                size += len(record.value)
        return records

    async def _read_matching(self, pattern: str, after: int, limit: int) -> list[StoredRecord]:
        matches = matcher(pattern)
        records: list[StoredRecord] = []
        size = 0
        number = self.index.first_frame_after(after)
        while number < self.index.frame_count and len(records) < limit and size < _READ_MAX_BYTES:
            commits = await self._commits(range(number, min(number + _LOAD_MAX_FRAMES, self.index.frame_count)))
            for commit in commits.values():
                wanted = [matches(name) for name in commit.names]
                if True in wanted:
                    first = commit.first_position
                    for row in commit.rows_of(wanted):
                        if first + row > after:
                            record = commit.record(row)
                            records.append(record)
                            size += len(record.value)
                            if len(records) == limit:
                                return records
                if size >= _READ_MAX_BYTES:
                    return records
            number += len(commits)
            await asyncio.sleep(0)  # a long scan leaves the event loop to others between two loads
        return records

    async def _commits(self, numbers: Iterable[int]) -> dict[int, Commit]:
        """Return commits by number, in the given order: all that fit into one load, and at least one."""
        wanted: list[int] = []
        found: dict[int, Commit] = {}
        missing: list[FramePlace] = []
        size = 0
        for number in numbers:
            commit = self._cache.get(number)
            if commit is not None:
                found[number] = commit
            else:
                place = self.index.place(number)
                if size and size + place.frame_bytes > _LOAD_MAX_BYTES:
                    break
                size += place.frame_bytes
                missing.append(place)
            wanted.append(number)
        if not missing:
            return found
        async with self._loading:
            found.update(await asyncio.get_running_loop().run_in_executor(self._threads, self._load, missing))
        return {number: found[number] for number in wanted}

    def _load(self, places: Sequence[FramePlace]) -> dict[int, Commit]:
        """Read and verify frames; runs in a thread. Neighbouring frames are read with one call."""
        # The lock of the loop is let go when a caller is cancelled; its thread may still be here, reading from these
        # files.
        with self._files_guard:
            return self._load_guarded(places)

    def _load_guarded(self, places: Sequence[FramePlace]) -> dict[int, Commit]:
        commits: dict[int, Commit] = {}
        begin = 0
        while begin < len(places):
            end = begin + 1
            while end < len(places) and _adjoin(places[end - 1], places[end]):
                end += 1
            first, last = places[begin], places[end - 1]
            data = self._file(first.segment).read_at(first.offset, last.offset + last.frame_bytes - first.offset)
            for place in places[begin:end]:
                start = place.offset - first.offset
                commits[place.number] = self._verified(place, data[start : start + place.frame_bytes])
            begin = end
        return commits

    def _verified(self, place: FramePlace, data: bytes) -> Commit:
        header = parse_header(data[:HEADER_BYTES])
        if header is not None and header.first_position == place.first_position:
            body = data[HEADER_BYTES : HEADER_BYTES + header.body_bytes]
            if crc32c(body) == header.body_checksum:
                return Commit(header, body)
        raise LogCorruptError(
            f"{self._path(place.segment)} byte {place.offset}: the frame at position "
            f"{place.first_position} no longer has the bytes that were acknowledged. Nothing was changed.",
            try_command=f"mainstem log verify {self._directory}",
        )

    def _path(self, segment: int) -> Path:
        return self._directory / self.manifest.segment_name(segment)

    def _file(self, segment: int) -> File:
        file = self._files.get(segment)
        if file is None:
            if len(self._files) >= _OPEN_FILES_MAX:
                self._files.popitem(last=False)[1].close()
            file = self._files[segment] = self._disk.open(self._path(segment))
        return file

    async def close(self) -> None:
        """Close the files, once nobody loads from them."""
        async with self._loading:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._close_files)

    def _close_files(self) -> None:
        with self._files_guard:
            while self._files:
                self._files.popitem()[1].close()


def _adjoin(left: FramePlace, right: FramePlace) -> bool:
    return left.segment == right.segment and left.offset + left.frame_bytes == right.offset
