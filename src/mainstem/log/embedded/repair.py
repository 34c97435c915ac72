"""Repairing a log that opening refuses. What is damaged is kept aside, and what is gone is said.

No segment is written to. A repair copies every file of which something is not kept to ``set-aside/``, begins a segment
of its own for the log to go on in, and then puts a manifest in place that names the **holes**: from which byte of which
segment to which other one the log is to be read in one step, and which positions are gone between. That one rename is
the repair. Before it nothing has changed for anybody, so a repair that dies is simply done again; behind it the log is
sound, and whatever was kept is still verified by its own checksums, and chained, byte for byte as it was acknowledged.

Positions that are gone are never given again: a cursor that stands among them, or behind them, goes on with what comes
behind. Where nobody can tell how many records stood at the end, the log goes on so far behind that none can be met
twice. The segment that a repair begins holds one record, in ``$log.repaired``, which says what was done.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from google_crc32c import value as crc32c

from mainstem.host.clock import Clock
from mainstem.host.disk import Disk
from mainstem.log.embedded.layout import (
    MANIFEST_NAME,
    META_NAME,
    SET_ASIDE_NAME,
    LogSettings,
    epoch_name,
    epochs,
    read_file,
    segment_name,
    set_aside,
    write_checked,
    write_file,
)
from mainstem.log.embedded.recovery import claim, latest_epoch
from mainstem.log.embedded.salvage import Gone, Salvage, salvage
from mainstem.log.embedded.segment import create_segment, write_end_mark
from mainstem.log.embedded.verify import verify_directory
from mainstem.log.errors import LogInUseError
from mainstem.log.frame import CLEAN_END, COMMIT, Column, encode_commit

REPAIRED_STREAM = "$log.repaired"
"""The stream in which each repair says what it did."""

_OVERHEAD_BYTES = 1024


class RepairReport(msgspec.Struct):
    """What a repair did, or would do.

    Attributes:
        done: Whether it was done; otherwise nothing was changed.
        findings: A sentence for each damage that was found first; empty where the log is sound, and then nothing is
            done.
        records: Number of records that are kept.
        gone: The positions that are lost.
        set_aside: Paths of the copies of all files of which something is not kept, relative to the log's directory;
            of the files themselves, where nothing was done.
        restored: Names of files that were found under another segment's name, and are read as what they are.
        next_position: Position of the first record behind the repair, which is its own; 0 where nothing is to be done.
    """

    done: bool = False
    findings: list[str] = []
    records: int = 0
    gone: list[Gone] = []
    set_aside: list[str] = []
    restored: list[str] = []
    next_position: int = 0


def repair_directory(
    disk: Disk, clock: Clock, directory: Path, *, carry_out: bool, settings: LogSettings | None = None
) -> RepairReport:
    """Repair a log that is damaged, or say what that would do. Blocking; a sound log is left as it is.

    Raises:
        LogNotFoundError: The directory holds no log.
        LogInUseError: A process owns it; nothing was changed.
        LogCorruptError: Nothing in it can be read; nothing was changed.
        LogFormatError: Another version of mainstem wrote it; nothing was changed.
        OSError: The disk failed or is full. The log is as it was, or is repaired; to do it again is safe.
    """
    _refuse_owner(disk, directory)
    verified = verify_directory(disk, directory)
    if verified.sound:
        return RepairReport(records=verified.records)
    report = RepairReport(findings=[one.replace(" Nothing was changed.", "") for one in verified.findings])
    found = salvage(disk, directory)
    _tell(report, found, found.damaged)
    if not carry_out:
        return report
    epoch = latest_epoch(disk, directory) + 1
    lock = claim(disk, directory, epoch)
    try:
        # Looked at once more: nobody else changes anything from here on.
        _refuse_owner(disk, directory, but=epoch)
        found = salvage(disk, directory)
        copies = [_set_aside(disk, directory, name) for name in found.damaged]
        _tell(report, found, copies)
        _restore_moved(disk, directory, found, epoch)
        _begin_segment(disk, clock, directory, found, epoch, settings or LogSettings(), report)
        write_checked(disk, directory / MANIFEST_NAME, found.manifest(epoch))
        if found.meta is not None:
            write_checked(disk, directory / META_NAME, found.meta)
        report.done = True
    finally:
        lock.release()
    return report


def _refuse_owner(disk: Disk, directory: Path, but: int = 0) -> None:
    """Refuse a log that a process owns (but for one epoch), or owned and was deposed from: it may still write."""
    for epoch in epochs(disk.list_directory(directory)):
        owner = disk.lock_owner(directory / epoch_name(epoch))
        if owner and epoch != but:
            raise LogInUseError(str(directory), owner)


def _tell(report: RepairReport, found: Salvage, copies: list[str]) -> None:
    report.records = found.records
    report.gone = found.gone
    report.set_aside = copies
    report.restored = sorted(found.moved.values())
    report.next_position = found.holes[-1].next_position


def _set_aside(disk: Disk, directory: Path, name: str) -> str:
    """Copy a whole file, durably; named by its content, so that a repair that is done again makes no second copy."""
    data = read_file(disk, directory / name)
    target = set_aside(disk, directory, f"{name}-{crc32c(data):08x}.damaged", data)
    return f"{SET_ASIDE_NAME}/{target.name}"


def _restore_moved(disk: Disk, directory: Path, found: Salvage, epoch: int) -> None:
    """Copy segments that were found under other names to names of their own."""
    for number, name in found.moved.items():
        write_file(disk, directory / segment_name(number, epoch), read_file(disk, directory / name))


def _begin_segment(
    disk: Disk,
    clock: Clock,
    directory: Path,
    found: Salvage,
    epoch: int,
    settings: LogSettings,
    report: RepairReport,
) -> None:
    """Write the segment in which the log goes on, with the repair's own record, closed in good order."""
    hole = found.holes[-1]
    note = msgspec.json.encode({"gone": report.gone, "set_aside": report.set_aside, "restored": report.restored})
    body = encode_commit((REPAIRED_STREAM,), (), None, None, Column.of([note]), ())
    size_bytes = max(settings.segment_bytes(found.next_segment), len(body) + settings.reserve_bytes + _OVERHEAD_BYTES)
    segment = create_segment(
        disk,
        clock,
        directory,
        segment_name(found.next_segment, epoch),
        number=found.next_segment,
        size_bytes=size_bytes,
        log_id=found.log_id,
        chain=hole.chain,
        next_position=hole.next_position,
    )
    try:
        header, buffers = segment.next_frame(COMMIT, body, hole.next_position, 1, clock.time_ns())
        segment.file.write_at(header.offset, buffers)
        segment.advance(header)
        write_end_mark(segment, CLEAN_END, clock.time_ns())
    finally:
        segment.file.close()
