"""The segment that is being written, the next one that is prepared, and the step from one to the other."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import msgspec

from mainstem.host.clock import Clock
from mainstem.host.disk import Disk, File
from mainstem.log.embedded.layout import NEW_SUFFIX, LogSettings
from mainstem.log.embedded.recovery import Recovered
from mainstem.log.embedded.segment import OpenSegment, allocate, begin, write_end_mark
from mainstem.log.frame import CLEAN_END, ROLLED_END

_logger = logging.getLogger(__name__)

_SEGMENT_OVERHEAD_BYTES = 1024

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What can pass: no space, no descriptor or no memory for a new segment, before anything was written of it."""


class _Spare(msgspec.Struct, frozen=True):
    """A segment's file that was allocated before it is needed."""

    name: str
    size_bytes: int
    file: File


class Rolling:
    """Where frames go, and where they go on when that is full.

    Attributes:
        active: The segment that is being written.
        closed_bytes: Size of all segments before it.
    """

    def __init__(
        self, disk: Disk, clock: Clock, directory: Path, settings: LogSettings, recovered: Recovered, threads: Executor
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._directory = directory
        self._settings = settings
        self._manifest = recovered.manifest
        self._log_id = recovered.log_id
        self._threads = threads
        self.active = recovered.active
        self.closed_bytes = recovered.closed_bytes
        self._spare: _Spare | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._full_until_s: float | None = None

    @property
    def size_bytes(self) -> int:
        """Space that all segments take."""
        return self.closed_bytes + self.active.size_bytes

    @property
    def next_size_bytes(self) -> int:
        """Planned size of the next segment."""
        return self._settings.segment_bytes(self.active.number + 1)

    @property
    def is_full(self) -> bool:
        """Whether there was no room for a further segment of late."""
        return self._full_until_s is not None and self._clock.monotonic_s() < self._full_until_s

    def room_bytes(self, *, with_reserve: bool) -> int:
        """Return the space for further frames in this segment, with what is kept back for a full disk or without."""
        return self.active.room_bytes - (0 if with_reserve else self._settings.reserve_bytes)

    # ---- the next one

    def prepare(self, then: Callable[[], None]) -> None:
        """Allocate the next segment in the background, unless that was done or is not possible; call ``then`` behind
        that.
        """
        if self._spare is None and self._preparing is None and not self.is_full:
            self._preparing = asyncio.get_running_loop().create_task(self._prepare(then))

    async def _prepare(self, then: Callable[[], None]) -> None:
        name, size = self._manifest.segment_name(self.active.number + 1), self.next_size_bytes
        loop = asyncio.get_running_loop()
        try:
            file = await loop.run_in_executor(self._threads, allocate, self._disk, self._directory, name, size)
        except OSError as error:
            # Not fatal: the roll tries again, and what it meets decides.
            _logger.warning("log %s: no room for %s yet: %s", self._directory, name, error)
            self._full_until_s = self._clock.monotonic_s() + self._settings.full_retry_s
        else:
            self._spare = _Spare(name, size, file)
        finally:
            self._preparing = None
            then()

    def when_prepared(self, then: Callable[[], None]) -> None:
        """Call ``then`` once nothing is being allocated: at once, or behind that."""
        if self._preparing is not None:
            self._preparing.add_done_callback(lambda _task: then())
        else:
            then()

    async def settled(self) -> None:
        """Return once nothing is being allocated."""
        if self._preparing is not None:
            await asyncio.wait([self._preparing])

    # ---- the step

    def step(self, needed_bytes: int, next_position: int) -> Callable[[], OpenSegment | OSError]:
        """Return what makes the step; it blocks, and gives the new segment, or why there is none yet."""
        old, spare, self._spare = self.active, self._spare, None
        number = old.number + 1
        name = self._manifest.segment_name(number)
        size = max(self.next_size_bytes, needed_bytes + self._settings.reserve_bytes + _SEGMENT_OVERHEAD_BYTES)

        def job() -> OpenSegment | OSError:
            try:
                file, size_bytes = self._spare_or_new(spare, name, size)
            except OSError as error:
                return error
            segment = begin(
                self._disk,
                self._clock,
                self._directory,
                name,
                file,
                number=number,
                size_bytes=size_bytes,
                log_id=self._log_id,
                chain=old.head.checksum,
                next_position=next_position,
            )
            write_end_mark(old, ROLLED_END, self._clock.time_ns())
            old.file.close()
            return segment

        return job

    def _spare_or_new(self, spare: _Spare | None, name: str, size: int) -> tuple[File, int]:
        if spare is not None and spare.size_bytes >= size:
            return spare.file, spare.size_bytes
        if spare is not None:
            spare.file.close()
        return allocate(self._disk, self._directory, name, size), size

    def stepped(self, segment: OpenSegment) -> None:
        """Take in that the step was made."""
        self.closed_bytes += self.active.size_bytes
        self.active = segment
        self._full_until_s = None

    def found_no_room(self, error: OSError) -> None:
        """Take in that there is no room for a further segment."""
        self._full_until_s = self._clock.monotonic_s() + self._settings.full_retry_s
        _logger.error("log %s: the disk is full: %s", self._directory, error)

    # ---- the end

    def write_last(self) -> None:
        """Write the end mark, where there is none already and room for one; drop a segment that was prepared."""
        active = self.active
        if active.head.kind != CLEAN_END and active.room_bytes >= 0:
            write_end_mark(active, CLEAN_END, self._clock.time_ns())
        if self._spare is not None:
            self._spare.file.close()
            self._disk.remove(self._directory / (self._spare.name + NEW_SUFFIX))
