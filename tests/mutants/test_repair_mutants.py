"""Promises of repairs, and of readers in the middle of a takeover, each with a small break that its test must catch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mainstem.log.embedded import repair, salvage
from mainstem.log.embedded.layout import MANIFEST_NAME, write_checked
from mainstem.log.embedded.reader import EmbeddedReader
from mainstem.log.embedded.salvage import Gone
from mainstem.log.embedded.scan import Frame, SegmentPlace, sound_frames, sound_headers
from mainstem.log.frame import ALIGNMENT, HEADER_BYTES
from tests.log import test_repair
from tests.log.families import test_readers_beside


def positions_given_again(patch: pytest.MonkeyPatch) -> None:
    """Where nobody knows how many records are gone, the log goes on as if there had been none."""
    patch.setattr(salvage, "UNKNOWN_POSITIONS", 0)


def bodies_unchecked(patch: pytest.MonkeyPatch) -> None:
    """A frame is kept for the sake of its header."""

    def by_header(data: bytes, place: SegmentPlace) -> Iterator[Frame]:
        yield from (frame for frame in sound_frames(data, place) if frame.header.offset == 0)
        for header in sound_headers(data, place, ALIGNMENT):
            yield Frame(header, data[header.offset + HEADER_BYTES :][: header.body_bytes])

    patch.setattr(salvage, "sound_frames", by_header)


def another_history_kept(patch: pytest.MonkeyPatch) -> None:
    """A sound frame is kept, whatever it chains to."""

    def takes(self: Any, number: int, header: Any) -> bool:
        if header.first_position < self._position:
            return False
        if not (self._unbroken and self._end == (number, header.offset) and self._follows(header)):
            self._hole_to(number, header.offset, header.first_position, header.chain)
        return True

    patch.setattr(salvage._Walk, "_takes", takes)


def copies_left_out(patch: pytest.MonkeyPatch) -> None:
    """Nothing is kept aside."""
    patch.setattr(repair, "_set_aside", lambda _disk, _directory, name: name)


def losses_untold(patch: pytest.MonkeyPatch) -> None:
    """What is gone is not named."""
    patch.setattr(salvage, "Gone", lambda first, _last, is_certain: Gone(first, first, is_certain=is_certain))


def owner_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """A log is repaired under its owner's hands."""
    patch.setattr(repair, "_refuse_owner", lambda _disk, _directory, but=0: but)


def done_without_being_told(patch: pytest.MonkeyPatch) -> None:
    """The epoch is claimed before it is known whether anything is to be done."""
    original = salvage.salvage

    def eager(disk: Any, directory: Any) -> Any:
        disk.put(directory / "epoch.000099", b"")
        return original(disk, directory)

    patch.setattr(repair, "salvage", eager)


def manifest_before_its_segment(patch: pytest.MonkeyPatch) -> None:
    """The manifest names the segment in which the log goes on before that is there."""
    begin = repair._begin_segment

    def begin_later(disk: Any, clock: Any, directory: Any, found: Any, epoch: int, *rest: Any) -> None:
        write_checked(disk, directory / MANIFEST_NAME, found.manifest(epoch))
        begin(disk, clock, directory, found, epoch, *rest)

    patch.setattr(repair, "_begin_segment", begin_later)


def last_frame_always_shown(patch: pytest.MonkeyPatch) -> None:
    """A reader shows what a deposed owner wrote while its successor has not said yet where it goes on."""
    patch.setattr(EmbeddedReader, "_is_between_owners", lambda _self: False)


CASES: list[tuple[Callable[[], None], Callable[[pytest.MonkeyPatch], None]]] = [
    (lambda: test_repair.test_damaged_set_of_segments("last missing"), positions_given_again),
    (test_repair.test_a_flipped_bit_costs_one_commit, bodies_unchecked),
    (test_repair.test_frames_of_another_history_are_not_kept, another_history_kept),
    (lambda: test_repair.test_damaged_set_of_segments("middle zeroed"), copies_left_out),
    (lambda: test_repair.test_damaged_set_of_segments("middle missing"), losses_untold),
    (test_repair.test_a_log_that_is_in_use_is_not_repaired, owner_not_looked_at),
    (test_repair.test_saying_what_would_be_done_changes_nothing, done_without_being_told),
    (lambda: test_repair.test_a_repair_may_die_anywhere("middle zeroed"), manifest_before_its_segment),
    (test_readers_beside.test_a_reader_at_each_operation_of_a_takeover, last_frame_always_shown),
]
"""Each promise's test, and the break that it must notice."""

IDS = [mutant.__name__ for _check, mutant in CASES]


@pytest.mark.parametrize(("check", "mutant"), CASES, ids=IDS)
def test_mutant(
    check: Callable[[], None], mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken code does not keep the promise, and its test notices."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()


@pytest.mark.parametrize(("check", "_mutant"), CASES, ids=IDS)
def test_whole_code_passes(check: Callable[[], None], _mutant: object) -> None:
    """The same tests pass where nothing is broken."""
    check()
