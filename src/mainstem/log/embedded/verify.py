"""Checking a directory without owning or changing it: what is sound, and what is damaged where."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mainstem.host.disk import Disk
from mainstem.log.embedded.layout import META_NAME, SET_ASIDE_NAME, epoch_name, epochs, read_manifest, read_meta
from mainstem.log.embedded.recovery import refuse_headless_log
from mainstem.log.embedded.walk import walk
from mainstem.log.errors import LogCorruptError, LogFormatError, LogNotFoundError
from mainstem.log.frame import COMMIT

_LOOKS_BESIDE = 3


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
        gone: A sentence for each range of positions that an earlier repair found unreadable: no damage any more.
    """

    segments: int = 0
    commits: int = 0
    records: int = 0
    end_position: int = 0
    torn: str = ""
    findings: list[str] = []
    gone: list[str] = []

    @property
    def sound(self) -> bool:
        """Whether there is no damage."""
        return not self.findings


def verify_directory(disk: Disk, directory: Path) -> VerifyReport:
    """Read and check every frame of a log. Blocking; beside a running owner the last write may be reported as torn.

    Raises:
        LogNotFoundError: The directory holds no log.
    """
    report = _look(disk, directory)
    for _again in range(_LOOKS_BESIDE - 1):
        if report.sound or not _is_owned(disk, directory):
            break
        # The owner may have written, begun a segment or lost the log to another in mid look; damage stays damage.
        report = _look(disk, directory)
    return report


def _is_owned(disk: Disk, directory: Path) -> bool:
    return any(disk.lock_owner(directory / epoch_name(epoch)) for epoch in epochs(disk.list_directory(directory)))


def _look(disk: Disk, directory: Path) -> VerifyReport:
    report = VerifyReport()
    try:
        meta = read_meta(disk, directory)
        if meta is None:
            refuse_headless_log(disk, directory)
            raise LogNotFoundError(f"{directory} holds no log ({META_NAME} is missing). Nothing was changed.")
        _verify_segments(disk, directory, int(meta.log_id, 16), report)
    except (LogCorruptError, LogFormatError) as error:
        # Later segments cannot be judged: their frames chain to the one that is damaged.
        report.findings.append(error.message)
    except FileNotFoundError as error:
        report.findings.append(f"{error.filename} is missing. Nothing was changed.")
    return report


def _verify_segments(disk: Disk, directory: Path, log_id: int, report: VerifyReport) -> None:
    manifest = read_manifest(disk, directory)
    report.gone = [
        f"positions {hole.first_position} to {hole.next_position - 1}, since a repair ({SET_ASIDE_NAME} has the files)"
        for hole in manifest.holes
        if hole.next_position > hole.first_position
    ]
    for segment in walk(disk, directory, log_id, manifest):
        scan, place = segment.scan, segment.place
        report.segments += 1
        for frame in scan.frames:
            if frame.header.kind == COMMIT:
                report.commits += 1
                report.records += frame.header.record_count
        report.end_position = scan.frames[-1].header.next_position - 1
        report.torn = ""
        if scan.torn:
            report.torn = (
                f"{place.path} byte {scan.end_offset}: a write of {scan.torn_end_offset - scan.end_offset} bytes was "
                "never finished; it was not acknowledged, and the next opening sets it aside."
            )
