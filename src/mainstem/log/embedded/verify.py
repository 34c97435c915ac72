"""Checking a directory without owning or changing it: what is sound, and what is damaged where."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainstem.host.disk import Disk
from mainstem.log.embedded.layout import META_NAME, check_segment_numbers, read_meta, segment_name, segment_numbers
from mainstem.log.embedded.recovery import (
    ScannedSegment,
    check_closed,
    place_after,
    read_segment,
    refuse_headless_log,
)
from mainstem.log.errors import LogCorruptError, LogFormatError, LogNotFoundError
from mainstem.log.frame import COMMIT


class VerifyReport(msgspec.Struct):
    """What a check of a directory found.

    Attributes:
        segments: Number of segments that were read.
        commits: Number of sound commits.
        records: Number of records in them.
        end_position: Position of the last of them.
        torn: A sentence about an unfinished write at the end: no damage, the next opening sets it aside. Empty for
            none.
        findings: A sentence for each damage, which names file and byte.
    """

    segments: int = 0
    commits: int = 0
    records: int = 0
    end_position: int = 0
    torn: str = ""
    findings: list[str] = []

    @property
    def sound(self) -> bool:
        """Whether there is no damage."""
        return not self.findings


def verify_directory(disk: Disk, directory: Path) -> VerifyReport:
    """Read and check every frame of a log. Blocking; beside a running owner the last write may be reported as torn.

    Raises:
        LogNotFoundError: The directory holds no log.
    """
    report = VerifyReport()
    try:
        meta = read_meta(disk, directory)
        if meta is None:
            refuse_headless_log(disk, directory)
    except (LogCorruptError, LogFormatError) as error:
        report.findings.append(error.message)
        return report
    if meta is None:
        raise LogNotFoundError(f"{directory} holds no log ({META_NAME} is missing). Nothing was changed.")
    numbers = segment_numbers(disk.list_directory(directory))
    try:
        check_segment_numbers(directory, numbers)
        _verify_segments(disk, directory, int(meta.log_id, 16), numbers, report)
    except (LogCorruptError, LogFormatError) as error:
        # Later segments cannot be judged: their frames chain to the one that is damaged.
        report.findings.append(error.message)
    return report


def _verify_segments(disk: Disk, directory: Path, log_id: int, numbers: list[int], report: VerifyReport) -> None:
    before: ScannedSegment | None = None
    for number in numbers:
        previous = before.scan.frames[-1].header if before is not None else None
        scanned = read_segment(disk, place_after(directory, log_id, number, previous))
        if before is not None:
            check_closed(before, scanned, is_last=number == numbers[-1])
        scan = scanned.scan
        report.segments += 1
        for frame in scan.frames:
            if frame.header.kind == COMMIT:
                report.commits += 1
                report.records += frame.header.record_count
        report.end_position = scan.frames[-1].header.next_position - 1
        before = scanned
    if before is not None and before.scan.rolled:
        raise LogCorruptError(
            f"{directory / segment_name(numbers[-1] + 1)} is missing: {before.place.path} says that the log goes on "
            "in it."
        )
    if before is not None and before.scan.torn:
        size = before.scan.torn_end_offset - before.scan.end_offset
        report.torn = (
            f"{before.place.path} byte {before.scan.end_offset}: a write of {size} bytes was never finished; it was "
            "not acknowledged, and the next opening sets it aside."
        )
