"""What of a damaged log can still be proven, and what is gone. Reads only; ``repair.py`` acts on it.

A frame is kept when its checksums hold and it says of itself that it belongs to this log, this segment and this byte.
Where nothing is damaged before it, it must also chain to the frame before it, as everywhere. Behind damage its own
positions tell its place: they must lie behind all that was kept so far, and what lies between is gone. A sound frame
that contradicts a sound one before it, by chain or by position, belongs to another history (a file that was exchanged
for an older one): neither it nor what chains to it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mainstem.host.disk import Disk
from mainstem.log.embedded.layout import (
    MANIFEST_NAME,
    META_NAME,
    Hole,
    Line,
    LogMeta,
    Manifest,
    parse_segment_name,
    read_file,
    read_manifest,
    read_meta,
)
from mainstem.log.embedded.scan import SegmentPlace, declared_size, last_nonzero, sound_frames, sound_headers
from mainstem.log.errors import LogCorruptError
from mainstem.log.frame import (
    COMMIT,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    ROLLED_END,
    SEGMENT_START,
    FrameHeader,
    parse_header,
)

T = TypeVar("T")

UNKNOWN_POSITIONS = 1 << 32
"""So many positions are left out where a file is gone that may have held any number of records."""

_RECORD_MIN_BYTES = 4
_STRAY_SEGMENTS = 1000
"""A file whose number is so much larger than there are files is no segment that was lost sight of."""


class Gone(msgspec.Struct, frozen=True):
    """Positions that cannot be read any more, and are not given again.

    Attributes:
        first_position: The first of them.
        last_position: The last of them.
        is_certain: Whether records stood at all of them. Otherwise nobody knows how many there were, and so many
            positions are left out that there cannot have been more.
    """

    first_position: int
    last_position: int
    is_certain: bool

    def __str__(self) -> str:
        if self.first_position == self.last_position:
            what = f"position {self.first_position:,}"
        else:
            what = f"positions {self.first_position:,} to {self.last_position:,}"
        return what if self.is_certain else f"{what}, as far as records stood there, which nobody can tell"


class Salvage(msgspec.Struct):
    """What a repair is to make of a damaged log.

    Attributes:
        log_id: The log's id.
        meta: The meta file to be written; ``None`` where it is sound.
        epochs: Of each segment, the epoch in its file's name.
        moved: Segments that were found under another segment's name, with the names.
        holes: What cannot be read; the last one leads to the segment that the repair begins.
        gone: The positions that are lost, and were not lost before.
        damaged: Names of the files of which something is not kept, or that are replaced.
        records: Number of records that are kept.
        next_segment: Number of the segment in which the log goes on.
    """

    log_id: int
    meta: LogMeta | None = None
    epochs: dict[int, int] = {}
    moved: dict[int, str] = {}
    holes: list[Hole] = []
    gone: list[Gone] = []
    damaged: list[str] = []
    records: int = 0
    next_segment: int = 1

    def manifest(self, epoch: int) -> Manifest:
        """Return the manifest of the log as an owner of this epoch repairs it."""
        lines: list[Line] = []
        for number in range(1, self.next_segment):
            one = epoch if number in self.moved else self.epochs[number]
            if not lines or lines[-1].epoch != one:
                lines.append(Line(number, one))
        if not lines or lines[-1].epoch != epoch:
            lines.append(Line(self.next_segment, epoch))
        return Manifest(tuple(lines), tuple(self.holes))


class _Files:
    """The directory's segment files: what their names say, and what their contents say."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory
        names = disk.list_directory(directory)
        self.by_name = {name: parsed for name in names if (parsed := parse_segment_name(name))}
        self.first_headers = {name: self._first_header(name) for name in self.by_name}

    def read(self, name: str) -> bytes:
        return read_file(self._disk, self._directory / name)

    def _first_header(self, name: str) -> FrameHeader | None:
        """Return the first sound header that stands where it says, of whatever log."""
        data = self.read(name)
        at = data.find(MAGIC)
        while at >= 0:
            header = parse_header(data[at : at + HEADER_BYTES])
            if header is not None and header.offset == at:
                return header
            at = data.find(MAGIC, at + 1)
        return None

    def most_common_log(self) -> int:
        """Return the log id that most files name.

        Raises:
            LogCorruptError: None names any.
        """
        counts = Counter(header.log_id for header in self.first_headers.values() if header is not None)
        if not counts:
            raise LogCorruptError(
                f"{self._directory}: neither {META_NAME} nor any frame can be read, so there is nothing to repair "
                "from. Nothing was changed. Restore the directory from a copy."
            )
        return counts.most_common(1)[0][0]

    def segment_in(self, name: str, log_id: int) -> int:
        """Return the number of the segment that a file's content belongs to; 0 where nothing tells."""
        header = self.first_headers[name]
        return header.segment if header is not None and header.log_id == log_id else 0


def salvage(disk: Disk, directory: Path) -> Salvage:
    """Look at a damaged log's files, and return what a repair can make of them. Changes nothing.

    Raises:
        LogCorruptError: Nothing in the directory can be read.
        LogFormatError: Another version of mainstem wrote it.
    """
    files = _Files(disk, directory)
    meta = _or_none(read_meta, disk, directory)
    manifest = _or_none(read_manifest, disk, directory)
    log_id = int(meta.log_id, 16) if meta is not None else files.most_common_log()
    result = Salvage(log_id)
    if meta is None:
        times = [header.time_ns for header in files.first_headers.values() if header and header.log_id == log_id]
        result.meta = LogMeta(FORMAT_VERSION, 0, f"{log_id:016x}", min(times))
    result.damaged = [
        name
        for name, sound in ((META_NAME, meta), (MANIFEST_NAME, manifest))
        if sound is None and disk.exists(directory / name)
    ]
    _Walk(files, manifest, result, directory).run()
    return result


def _or_none(read: Callable[[Disk, Path], T], disk: Disk, directory: Path) -> T | None:
    try:
        return read(disk, directory)
    except LogCorruptError:
        return None  # it is made anew from what the frames say


class _Walk:
    """Goes through the segments in order, and keeps what can be proven."""

    def __init__(self, files: _Files, manifest: Manifest | None, result: Salvage, directory: Path) -> None:
        self._files = files
        self._manifest = manifest
        self._result = result
        self._directory = directory
        self._chain = 0
        self._position = 1
        self._end = (1, 0)
        """Segment and offset behind the last frame that was kept."""
        self._unbroken = True
        """Whether all that stood before is known, so that the next frame must follow."""
        self._foreign: set[int] = set()
        self._started = False
        self._declared = 0
        self._rolled = False

    def run(self) -> None:
        """Fill the result."""
        highest = self._highest()
        data = b""
        for number in range(1, highest + 1):
            name = self._choose(number)
            data = self._files.read(name) if name else b""
            self._segment(number, name, data, is_last=number == highest)
        self._go_on_behind(highest, data)

    # ---- which file is which segment

    def _is_current(self, name: str) -> bool:
        """Tell whether a name is that of a segment's file by the manifest; where that is lost, any may be."""
        return self._manifest is None or name == self._manifest.segment_name(self._files.by_name[name][0])

    def _holds(self, name: str) -> int:
        return self._files.segment_in(name, self._result.log_id)

    def _highest(self) -> int:
        known = self._manifest.lines[-1].first_segment if self._manifest is not None else 1
        current = [name for name in self._files.by_name if self._is_current(name)]
        numbers = [*(self._files.by_name[name][0] for name in current), *map(self._holds, current)]
        return max([known, *(one for one in numbers if one <= known + len(current) + _STRAY_SEGMENTS)])

    def _choose(self, number: int) -> str | None:
        """Return the file that holds a segment: the one of its name, else one that was found under another's."""
        names = self._files.by_name
        holding = [name for name in names if self._is_current(name) and self._holds(name) == number]
        rightly = sorted((name for name in holding if names[name][0] == number), key=lambda name: -names[name][1])
        # More than one only where the manifest is lost: then the one that follows, else that of the latest owner.
        following = [name for name in rightly if self._follows(self._files.first_headers[name])]
        return next(iter([*following, *rightly, *holding]), None)

    def _follows(self, header: FrameHeader | None) -> bool:
        return (
            header is not None
            and self._unbroken
            and (header.chain, header.first_position) == (self._chain, self._position)
        )

    # ---- what of it is kept

    def _segment(self, number: int, name: str | None, data: bytes, *, is_last: bool) -> None:
        holes, foreign = len(self._result.holes), len(self._foreign)
        self._started = self._rolled = False
        self._declared = 0
        kept = False
        for header, body in self._sound(number, data):
            if self._rolled:
                break
            if self._takes(number, header):
                self._keep(number, header, body)
                kept = True
            else:
                self._foreign.add(header.checksum)
                self._unbroken = False
        self._name(number, name if kept else None)
        of_it = [one for one in self._result.holes[holes:] if one.begin_segment == number or one.end_offset]
        if of_it or len(self._foreign) > foreign:
            self._note_damage(number, name)
        if is_last:
            return
        whole = kept and self._unbroken and self._rolled and self._nothing_behind(data)
        if whole and len(data) >= self._declared:
            self._end = (number + 1, 0)
        else:
            self._unbroken = False
            if not self._is_known_end():
                self._note_damage(number, name)

    def _sound(self, number: int, data: bytes) -> Iterator[tuple[FrameHeader, bytes]]:
        place = SegmentPlace(str(self._directory / f"segment {number}"), self._result.log_id, number, 0, 0)
        return ((frame.header, frame.body) for frame in sound_frames(data, place))

    def _takes(self, number: int, header: FrameHeader) -> bool:
        """Tell whether a sound frame is of this history; where it does not follow, a hole leads to it."""
        if (header.kind == SEGMENT_START) != (header.offset == 0):
            return False
        adjoins = self._unbroken and self._end == (number, header.offset)
        if adjoins and self._follows(header):
            return True
        if header.chain in self._foreign or header.first_position < self._position + adjoins:
            return False
        self._hole_to(number, header.offset, header.first_position, header.chain)
        return True

    def _hole_to(self, number: int, offset: int, next_position: int, chain: int) -> None:
        segment, begin = self._end
        hole = Hole(segment, begin, number, offset, self._position, next_position, chain)
        self._result.holes.append(hole)
        known = self._manifest is not None and hole in self._manifest.holes
        if next_position > self._position and not known:
            self._result.gone.append(Gone(self._position, next_position - 1, is_certain=True))

    def _keep(self, number: int, header: FrameHeader, body: bytes) -> None:
        if header.kind == SEGMENT_START:
            self._started, self._declared = True, declared_size(body)
        if header.kind == COMMIT:
            self._result.records += header.record_count
        self._rolled = header.kind == ROLLED_END
        # A roll's mark is no part of the chain.
        self._chain = header.chain if self._rolled else header.checksum
        self._position = header.next_position
        self._end = (number, header.end_offset)
        self._unbroken = True

    def _is_known_end(self) -> bool:
        """Tell whether an earlier repair found the end of what is kept here."""
        holes = self._manifest.holes if self._manifest is not None else ()
        return any((hole.begin_segment, hole.begin_offset) == self._end for hole in holes)

    def _nothing_behind(self, data: bytes) -> bool:
        return last_nonzero(data, self._end[1]) == self._end[1]

    def _name(self, number: int, name: str | None) -> None:
        """Note which file the segment is read from, if from any."""
        result, epochs = self._result, self._result.epochs
        if name is not None and self._files.by_name[name][0] != number:
            result.moved[number] = name
            self._note_damage(number, name)
        elif name is not None:
            epochs[number] = self._files.by_name[name][1]
        if number not in epochs:
            known = self._manifest.line_of(number).epoch if self._manifest is not None else 0
            epochs[number] = known or epochs.get(number - 1, 1)

    def _note_damage(self, number: int, name: str | None) -> None:
        """Note the files to be kept aside: the segment's own, whatever is in it, and the one that it was read from."""
        own = [one for one, (of, _epoch) in self._files.by_name.items() if of == number]
        for one in (*own, *((name,) if name else ())):
            if one not in self._result.damaged:
                self._result.damaged.append(one)

    # ---- the end

    def _go_on_behind(self, highest: int, data: bytes) -> None:
        """Let the log go on in a segment of its own, behind all positions that may have been given."""
        at_least, bound = self._lost_at_the_end(highest, data)
        lost = bound > self._position
        if lost or not self._unbroken or not self._nothing_behind_end(highest, data):
            self._note_damage(highest, self._choose(highest))
        self._result.next_segment = highest + 1
        segment, begin = self._end
        self._result.holes.append(
            Hole(segment, begin, highest + 1, 0, self._position, max(bound, self._position), self._chain)
        )
        if at_least > self._position:
            self._result.gone.append(Gone(self._position, at_least - 1, is_certain=True))
        if bound > max(at_least, self._position):
            self._result.gone.append(Gone(max(at_least, self._position), bound - 1, is_certain=False))

    def _nothing_behind_end(self, highest: int, data: bytes) -> bool:
        return self._end[0] == highest and self._nothing_behind(data)

    def _lost_at_the_end(self, highest: int, data: bytes) -> tuple[int, int]:
        """Return the next position behind what certainly stood at the end, and behind what may have stood there."""
        end = self._end[1]
        # Where neither the first frame tells how long the file was nor zeros that nothing stood behind, it may be cut.
        cut = not self._started and len(data) < end + HEADER_BYTES
        if self._rolled or self._end[0] != highest or cut:
            return self._position, self._position + UNKNOWN_POSITIONS
        place = SegmentPlace("", self._result.log_id, highest, 0, 0)
        headers = list(sound_headers(data, place, end))
        short = len(data) < self._declared
        if not short and self._unbroken and self._nothing_behind(data):
            return self._position, self._position
        at_least = max([self._position, *(header.next_position for header in headers)])
        if not short and self._unbroken and _is_torn(data, end, headers):
            # A write that was never finished looks the same as a last one that was damaged: the positions are left out.
            return self._position, max(at_least, self._position + (last_nonzero(data, end) - end) // _RECORD_MIN_BYTES)
        used = self._declared if short else last_nonzero(data, end)
        return at_least, at_least + (used - end) // _RECORD_MIN_BYTES


def _is_torn(data: bytes, end: int, headers: list[FrameHeader]) -> bool:
    """Tell whether what stands behind the last sound frame can be one write that was never finished, or nothing."""
    if not headers:
        return True
    first, *more = headers
    if more or first.offset != end:
        return False
    return first.end_offset > len(data) or last_nonzero(data, first.end_offset) == first.end_offset
