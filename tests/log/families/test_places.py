"""Sound frames where they do not belong (family 6)."""

from __future__ import annotations

import pytest

from mainstem.log import AppendOutcomeUnknownError, Record, open_log
from mainstem.log.embedded.layout import epochs
from mainstem.testing import SimulatedClock, SimulatedDisk
from tests.log.faults import (
    DIRECTORY,
    SETTINGS,
    current,
    headers_of,
    open_on,
    refused,
    reopened,
    segment,
    stored,
    written_log,
)
from tests.support import run


def test_frame_of_another_segment() -> None:
    """A frame of one segment in the same place of another is refused, or set aside where it stands behind the end."""
    base = written_log(8)
    one, two = headers_of(base, 1), headers_of(base, 2)
    assert [frame.offset for frame in one[:2]] == [frame.offset for frame in two[:2]]
    disk = base.copy()
    disk.overwrite(segment(2), one[1].offset, base.contents(segment(1))[one[1].offset : one[1].end_offset])
    with refused(disk, f"{segment(2)} byte {two[1].offset}:"):
        reopened(disk)
    last = [number for number in range(1, 9) if base.exists(segment(number))][-1]
    end = headers_of(base, last)[-1].end_offset
    foreign = next(frame for frame in headers_of(base, 1) if frame.offset >= 128)
    disk = base.copy()
    room = len(base.contents(segment(last))) - end
    piece = base.contents(segment(1))[foreign.offset : foreign.end_offset][:room]
    disk.overwrite(segment(last), end, piece)
    torn = reopened(disk)
    assert torn is not None and torn.offset == end
    assert stored(disk) == stored(base)


def test_segment_of_a_deposed_owner() -> None:
    """The file of a deposed owner in the place of its successor's, sound in itself, is refused: it does not follow."""

    async def scenario() -> SimulatedDisk:
        disk = SimulatedDisk()
        old = await open_on(disk)
        await old.append("a", [Record(b"1")])
        process = disk.another_process()
        latest = epochs(disk.list_directory(DIRECTORY))[-1]
        new = await open_log(DIRECTORY, disk=process, clock=SimulatedClock(), settings=SETTINGS, depose=latest)
        with pytest.raises(AppendOutcomeUnknownError):
            await old.append("a", [Record(b"never" * 40)])
        for number in range(2, 8):
            await new.append("a", [Record(b"%d" % number + b"x" * 900)])
        await new.close()
        assert disk.exists(segment(1)) and current(disk, 1) == segment(1, epoch=2)
        disk.duplicate(segment(1), segment(1, epoch=2))
        await old.close()
        return disk

    disk = run(scenario())
    with refused(disk, str(DIRECTORY)):
        reopened(disk)
