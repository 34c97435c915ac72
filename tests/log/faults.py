"""What the fault tests of the log share: small logs on a simulated disk, opened after whatever was done to them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from mainstem.log import (
    AppendOutcomeUnknownError,
    EmbeddedLog,
    LogCorruptError,
    LogSettings,
    NotWrittenError,
    Record,
    open_log,
)
from mainstem.log.embedded.layout import read_manifest, segment_name
from mainstem.log.embedded.recovery import TornTail, recover
from mainstem.log.frame import COMMIT, HEADER_BYTES, Commit, FrameHeader, parse_header
from mainstem.testing import SimulatedClock, SimulatedDisk
from tests.support import run

DIRECTORY = Path("/data/log")
SETTINGS = LogSettings(first_segment_bytes=4096, segment_max_bytes=4096, reserve_bytes=256)

Values = list[tuple[int, str, bytes]]
"""Records as position, stream and value."""


def segment(number: int = 1, epoch: int = 1) -> Path:
    """Return the path of a segment, of the line that an epoch began."""
    return DIRECTORY / segment_name(number, epoch)


def current(disk: SimulatedDisk, number: int = 1) -> Path:
    """Return the path of a segment, of whatever line the log's manifest says."""
    return DIRECTORY / read_manifest(disk.another_process(), DIRECTORY).segment_name(number)


async def open_on(
    disk: SimulatedDisk, clock: SimulatedClock | None = None, settings: LogSettings = SETTINGS
) -> EmbeddedLog:
    """Open the log of a simulated disk."""
    return await open_log(DIRECTORY, disk=disk, clock=clock or SimulatedClock(), settings=settings)


def written_log(commits: int = 4, *, clean: bool = False, value_bytes: int = 700) -> SimulatedDisk:
    """Return a disk with a log of so many commits of two records each, killed or cleanly closed; all of it durable."""

    async def write() -> SimulatedDisk:
        disk = SimulatedDisk()
        log = await open_on(disk)
        for number in range(commits):
            small, large = b"%d" % number, b"%d:" % number + b"v" * value_bytes
            await log.append("orders", [Record(small, b"k"), Record(large, headers={"n": str(number)})])
        if clean:
            await log.close()
        left = disk.copy()
        disk.kill()
        await bury(log)
        return left

    return run(write())


async def bury(log: EmbeddedLog) -> None:
    """Let go of a log whose disk refuses everything."""
    with contextlib.suppress(OSError):  # the dead disk refuses the end mark: that is how a death looks
        await log.close()


def headers_of(disk: SimulatedDisk, number: int = 1) -> list[FrameHeader]:
    """Return the headers of a segment's frames, as far as they follow each other."""
    content = disk.contents(current(disk, number))
    headers: list[FrameHeader] = []
    offset = 0
    while (header := parse_header(content[offset : offset + HEADER_BYTES])) is not None:
        headers.append(header)
        offset = header.end_offset
    return headers


def last_commit(disk: SimulatedDisk, number: int = 1) -> FrameHeader:
    """Return the header of a segment's last commit."""
    return [header for header in headers_of(disk, number) if header.kind == COMMIT][-1]


def stored(disk: SimulatedDisk) -> Values:
    """Return every record in a log's segments, read frame by frame with no engine in between."""
    found: Values = []
    number = 1
    while disk.exists(current(disk, number)):
        content = disk.contents(current(disk, number))
        for header in headers_of(disk, number):
            if header.kind == COMMIT:
                commit = Commit(header, content[header.offset + HEADER_BYTES : header.end_offset])
                rows = [commit.record(row) for row in range(commit.record_count)]
                found += [(row.position, row.stream, row.value) for row in rows]
        number += 1
    return found


def reopened(disk: SimulatedDisk) -> TornTail | None:
    """Open a log as its owner does, synchronously; return what was set aside. Then the process is dead."""
    process = disk.another_process()
    process.make_directory(DIRECTORY)
    try:
        return recover(process, SimulatedClock(), DIRECTORY, SETTINGS).torn
    finally:
        process.kill()


@contextlib.contextmanager
def refused(disk: SimulatedDisk, *parts: str) -> Iterator[None]:
    """Expect damage to be found, in words that hold ``parts``, and nothing on the disk to be changed."""
    before = disk.files()
    with pytest.raises(LogCorruptError) as caught:
        yield
    for part in (*parts, "Nothing was changed"):
        assert part in str(caught.value)
    assert disk.files() == before


class Gate:
    """Holds every sync of a disk until it is let through, as a slow disk does."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        disk.on_sync = self._wait

    def _wait(self, _path: Path) -> None:
        self.entered.set()
        assert self.open.wait(30), "the gate stayed shut"


def slow_settings() -> LogSettings:
    """Settings under which no sync is done on the event loop: one call a commit would be, two are not."""
    return LogSettings(first_segment_bytes=1 << 16, segment_max_bytes=1 << 16, reserve_bytes=256)


async def outcome(append: Coroutine[Any, Any, int]) -> int | type[Exception]:
    """Return an append's position, or the class of its error."""
    try:
        return await append
    except (NotWrittenError, AppendOutcomeUnknownError) as error:
        return type(error)
