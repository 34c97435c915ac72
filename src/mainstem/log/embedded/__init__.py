"""The embedded engine: write-ahead segments in one directory, owned by one process.

Where to look: ``../frame.py`` has the format; ``layout.py`` names the files; ``scan.py`` and ``walk.py`` tell torn from
damaged; ``recovery.py`` opens;
``commit.py`` decides what one commit holds; ``engine.py`` writes it; ``store.py`` and ``index.py`` read it back;
``reader.py`` reads beside an owner.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from mainstem.host.clock import Clock, SystemClock
from mainstem.host.disk import Disk, SystemDisk
from mainstem.log.embedded.engine import EmbeddedLog
from mainstem.log.embedded.layout import LogSettings, epoch_name, epochs
from mainstem.log.embedded.reader import EmbeddedReader
from mainstem.log.embedded.recovery import Recovered, recover

__all__ = ["EmbeddedLog", "EmbeddedReader", "LogSettings", "open_log", "open_reader", "owner_pid"]

_logger = logging.getLogger(__name__)


async def open_log(
    directory: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
    settings: LogSettings | None = None,
    depose: int = 0,
    claim_first: bool = False,
) -> EmbeddedLog:
    """Open the log in a directory as its owner, creating it where there is none; a torn tail is set aside and reported.

    Args:
        directory: Where the log is, or is to be.
        disk: The file system.
        clock: Where times come from.
        settings: Sizes and limits.
        depose: The epoch of an owner that lives but does not answer, to take the log over from it: it acknowledges
            nothing more from that moment on, whatever it does when it wakes up. An owner of another epoch is let be.
        claim_first: Whether to claim the log before it is read and verified, for those who know that it is sound: of
            many who try, only one then reads it.

    Raises:
        LogInUseError: Another process owns it (or this one already does).
        LogCorruptError: Acknowledged bytes are damaged or missing; nothing was changed.
        LogFormatError: Another version of mainstem wrote it; nothing was changed.
        OSError: The disk failed or is full.
    """
    path = Path(directory)
    disk, clock, settings = disk or SystemDisk(), clock or SystemClock(), settings or LogSettings()
    opening = asyncio.ensure_future(asyncio.to_thread(_open, disk, clock, path, settings, depose, claim_first))
    try:
        recovered = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_let_go)
        raise
    if recovered.torn is not None:
        torn = recovered.torn
        _logger.warning(
            "%s byte %d: a write of %d bytes was never finished and not acknowledged; it was set aside in %s",
            torn.segment,
            torn.offset,
            torn.size_bytes,
            torn.copy,
        )
    return EmbeddedLog(disk, clock, path, settings, recovered)


def _open(disk: Disk, clock: Clock, path: Path, settings: LogSettings, depose: int, claim_first: bool) -> Recovered:
    disk.make_directory(path)
    return recover(disk, clock, path, settings, depose=depose, claim_first=claim_first)


def _let_go(opening: asyncio.Future[Recovered]) -> None:
    """Give back what an opening took whose caller was cancelled meanwhile."""
    if not opening.cancelled() and opening.exception() is None:
        recovered = opening.result()
        recovered.active.file.close()
        recovered.lock.release()


def owner_pid(directory: str | os.PathLike[str], *, disk: Disk | None = None) -> int:
    """Return the id of the process that owns the log in a directory; 0 when nobody does, or there is none."""
    disk, path = disk or SystemDisk(), Path(directory)
    latest = epochs(disk.list_directory(path))[-1:]
    return disk.lock_owner(path / epoch_name(latest[0])) if latest else 0


async def open_reader(
    directory: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
    settings: LogSettings | None = None,
) -> EmbeddedReader:
    """Open the log in a directory for reading only: beside a running owner, or when nobody runs.

    Raises:
        LogNotFoundError: There is no log.
        LogCorruptError: Acknowledged bytes are damaged or missing.
        LogFormatError: Another version of mainstem wrote it.
    """
    reader = await asyncio.to_thread(
        EmbeddedReader, disk or SystemDisk(), clock or SystemClock(), Path(directory), settings or LogSettings()
    )
    await reader.refresh()
    return reader
