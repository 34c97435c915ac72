"""Reading fragmented MP4 (ISO/IEC 14496-12): what segments hold, measured from their bytes, and moving them in time.

Everything is pure: bytes in, values or bytes out. Only what our own encoder writes is understood; anything else raises
:class:`Mp4Error` with the place, and nothing is guessed.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, ParamSpec, TypeVar

import msgspec

from mainstem.services.media.errors import Mp4Error

P = ParamSpec("P")
R = TypeVar("R")

_NAL_IDR = 5
_NAL_SLICE = 1
_DEFAULT_BASE_IS_MOOF = 0x020000
_SYNC_SAMPLE = 0x02000000
"""Sample flags: depends on no other sample (ISO/IEC 14496-12, 8.8.3.1)."""

_OWN_DURATIONS = 0x100
"""Flag of a ``trun``: each sample has a duration of its own (the same, 8.8.8.1)."""

_TFHD_DEFAULTS = ((0x08, "duration"), (0x10, "size"), (0x20, "flags"))


class Box(msgspec.Struct, frozen=True, gc=False):
    """Where a box lies, as offsets: ``start`` of its header, ``body`` of its content, and ``end``."""

    kind: str
    start: int
    body: int
    end: int


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One coded frame.

    Attributes:
        offset: Of its bytes, from the start of the bytes given.
        size_bytes: How many they are.
        duration: In units of the track's timescale.
        composition_offset: Presentation time less decoding time, in the same units.
    """

    offset: int
    size_bytes: int
    duration: int
    composition_offset: int


class Fragment(msgspec.Struct, frozen=True):
    """One ``moof`` box with its ``mdat``.

    Attributes:
        start: Offset of the ``moof``.
        end: Offset behind the ``mdat``.
        decode_time: Decoding time of its first sample (``tfdt``), in units of the timescale.
        sequence_number: Its number within its file (``mfhd``).
        samples: Its samples, in decoding order.
    """

    start: int
    end: int
    decode_time: int
    sequence_number: int
    samples: Sequence[Sample]

    @property
    def duration(self) -> int:
        """Sum of the samples' durations, in units of the timescale."""
        return sum(sample.duration for sample in self.samples)

    @property
    def presentation_times(self) -> list[int]:
        """Presentation times of the samples, ascending, in units of the timescale."""
        times = []
        now = self.decode_time
        for sample in self.samples:
            times.append(now + sample.composition_offset)
            now += sample.duration
        return sorted(times)


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """What the initialisation segment says of its single track.

    Attributes:
        kind: ``"video"`` or ``"audio"``.
        timescale: Units a second of all times of the track.
        codec: For the CODECS attribute (RFC 6381), e.g. ``"avc1.64001f"`` or ``"mp4a.40.2"``.
        width: Pixels; 0 for audio.
        height: Pixels; 0 for audio.
        channels: Audio channels; 0 for video.
        sample_rate_hz: Of audio; 0 for video.
        nal_length_bytes: How many bytes precede each NAL unit; 0 for audio.
    """

    kind: Literal["video", "audio"]
    timescale: int
    codec: str
    width: int = 0
    height: int = 0
    channels: int = 0
    sample_rate_hz: int = 0
    nal_length_bytes: int = 0


def _damage_is_an_error(read: Callable[P, R]) -> Callable[P, R]:
    """Turn what reading behind the end of damaged bytes raises into :class:`Mp4Error`."""

    @functools.wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except (struct.error, IndexError) as error:
            raise Mp4Error(f"the bytes end within a box that should go on ({error}).") from error

    return reading


def iter_boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes between two offsets, in order.

    Raises:
        Mp4Error: A box's size does not fit.
    """
    limit = len(data) if end is None else end
    while start < limit:
        if limit - start < 8:
            raise Mp4Error(f"{limit - start} stray bytes at offset {start}: expected a box header of 8 bytes.")
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            if limit - body < 8:
                raise Mp4Error(f"box {kind!r} at offset {start}: its long size is cut off.")
            size = struct.unpack_from(">Q", data, body)[0]
            body += 8
        if size < body - start or start + size > limit:
            raise Mp4Error(
                f"box {kind!r} at offset {start}: its size {size} does not fit the {limit - start} bytes there."
            )
        yield Box(kind.decode("latin-1"), start, body, start + size)
        start += size


def find_box(data: bytes, path: str, start: int = 0, end: int | None = None) -> Box:
    """Return the first box at a path such as ``"moov/trak/mdia"``.

    Raises:
        Mp4Error: There is none.
    """
    first, _, rest = path.partition("/")
    for box in iter_boxes(data, start, end):
        if box.kind == first:
            return find_box(data, rest, box.body, box.end) if rest else box
    raise Mp4Error(f"no box {path!r} between offsets {start} and {len(data) if end is None else end}.")


@_damage_is_an_error
def split_init(data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Split a fragmented file into its initialisation segment and the spans (start, end) of its fragments.

    The initialisation segment is ``ftyp`` and ``moov``; indexes and other boxes around the fragments are left out,
    since their offsets would no longer be right.

    Raises:
        Mp4Error: It is no fragmented file.
    """
    init = b""
    spans: list[tuple[int, int]] = []
    moof: Box | None = None
    for box in iter_boxes(data):
        if box.kind in ("ftyp", "moov"):
            init += data[box.start : box.end]
        elif box.kind == "moof":
            moof = box
        elif box.kind == "mdat":
            if moof is None or moof.end != box.start:
                raise Mp4Error(f"mdat at offset {box.start} does not follow a moof: not a fragmented file.")
            spans.append((moof.start, box.end))
            moof = None
    find_box(init, "moov/mvex")
    return init, spans


@_damage_is_an_error
def read_fragments(data: bytes) -> list[Fragment]:
    """Return all fragments of a segment (or of a whole fragmented file).

    Raises:
        Mp4Error: A fragment has several tracks, or anything else that our encoder does not write.
    """
    fragments: list[Fragment] = []
    moof: Box | None = None
    for box in iter_boxes(data):
        if box.kind == "moof":
            moof = box
        elif box.kind == "mdat":
            if moof is None or moof.end != box.start:
                raise Mp4Error(f"mdat at offset {box.start} does not follow a moof.")
            fragments.append(_read_fragment(data, moof, box))
            moof = None
    return fragments


def _read_fragment(data: bytes, moof: Box, mdat: Box) -> Fragment:
    (sequence_number,) = struct.unpack_from(">I", data, find_box(data, "mfhd", moof.body, moof.end).body + 4)
    traf = find_box(data, "traf", moof.body, moof.end)
    defaults = _read_tfhd(data, find_box(data, "tfhd", traf.body, traf.end))
    decode_time = _read_tfdt(data, find_box(data, "tfdt", traf.body, traf.end))
    samples: list[Sample] = []
    for box in iter_boxes(data, traf.body, traf.end):
        if box.kind == "trun":
            samples.extend(_read_trun(data, box, moof.start, defaults))
    if not samples or samples[0].offset < mdat.body or samples[-1].offset + samples[-1].size_bytes > mdat.end:
        raise Mp4Error(f"fragment at offset {moof.start}: its samples do not lie in the mdat that follows.")
    return Fragment(moof.start, mdat.end, decode_time, sequence_number, samples)


def _read_tfhd(data: bytes, box: Box) -> dict[str, int]:
    flags = int.from_bytes(data[box.body + 1 : box.body + 4], "big")
    if flags & 0x01:
        raise Mp4Error(f"tfhd at offset {box.start}: base-data-offset is not relocatable.")
    at = box.body + 8 + (4 if flags & 0x02 else 0)
    defaults = {}
    for bit, name in _TFHD_DEFAULTS:
        if flags & bit:
            (defaults[name],) = struct.unpack_from(">I", data, at)
            at += 4
    return defaults


def _read_tfdt(data: bytes, box: Box) -> int:
    wide = data[box.body] == 1
    return int(struct.unpack_from(">Q" if wide else ">I", data, box.body + 4)[0])


def _read_trun(data: bytes, box: Box, base: int, defaults: dict[str, int]) -> list[Sample]:
    flags = int.from_bytes(data[box.body + 1 : box.body + 4], "big")
    (count,) = struct.unpack_from(">I", data, box.body + 4)
    at = box.body + 8
    offset = base
    if flags & 0x01:
        offset += struct.unpack_from(">i", data, at)[0]
        at += 4
    at += 4 if flags & 0x04 else 0
    fields = [
        name for bit, name in ((0x100, "duration"), (0x200, "size"), (0x400, "flags"), (0x800, "cto")) if flags & bit
    ]
    if at + 4 * len(fields) * count > box.end:
        raise Mp4Error(f"trun at offset {box.start}: {count} samples do not fit in it.")
    row = struct.Struct(">" + "".join("i" if name == "cto" else "I" for name in fields))
    samples = []
    for number in range(count):
        values = {**defaults, **dict(zip(fields, row.unpack_from(data, at + number * row.size), strict=True))}
        if "duration" not in values or "size" not in values:
            raise Mp4Error(f"trun at offset {box.start}: sample {number} has no duration or size.")
        samples.append(Sample(offset, values["size"], values["duration"], values.get("cto", 0)))
        offset += values["size"]
    return samples


@_damage_is_an_error
def move_fragment(
    data: bytes, *, sequence_number: int, decode_time_shift: int, last_duration: int | None = None
) -> bytes:
    """Return one fragment with a new number, moved in time, and if wanted with a new duration of its last sample.

    Nothing else changes; only where the samples share a default duration and the last one's is another, each gets a
    duration of its own, and the fragment becomes longer by these.

    Args:
        data: The bytes of one ``moof`` and its ``mdat``.
        sequence_number: New ``mfhd`` number, from 1.
        decode_time_shift: Added to ``tfdt``, in units of the track's timescale.
        last_duration: New duration of the last sample, same units.

    Raises:
        Mp4Error: The fragment cannot be moved: times would be negative or not fit.
    """
    result = bytearray(data)
    moof = find_box(data, "moof")
    mfhd = find_box(data, "mfhd", moof.body, moof.end)
    traf = find_box(data, "traf", moof.body, moof.end)
    tfdt = find_box(data, "tfdt", traf.body, traf.end)
    wide = data[tfdt.body] == 1
    decode_time = _read_tfdt(data, tfdt) + decode_time_shift
    if not 0 <= decode_time < (1 << (64 if wide else 32)):
        raise Mp4Error(f"tfdt at offset {tfdt.start}: the new time {decode_time} does not fit.")
    struct.pack_into(">I", result, mfhd.body + 4, sequence_number)
    struct.pack_into(">Q" if wide else ">I", result, tfdt.body + 4, decode_time)
    moved = bytes(result)
    return moved if last_duration is None else _with_last_duration(moved, last_duration)


def _with_last_duration(data: bytes, duration: int) -> bytes:
    if not 0 < duration < 1 << 32:
        raise Mp4Error(f"the last sample's new duration {duration} does not fit.")
    moof = find_box(data, "moof")
    traf = find_box(data, "traf", moof.body, moof.end)
    trun = _truns(data, traf)[-1]
    if not _trun_flags(data, trun) & _OWN_DURATIONS:
        default = _read_tfhd(data, find_box(data, "tfhd", traf.body, traf.end)).get("duration", 0)
        if default == duration:
            return data
        data = _with_own_durations(data, moof, traf, trun, default)
        trun = _truns(data, find_box(data, "moof/traf"))[-1]
    rows, row_bytes, count = _trun_rows(data, trun)
    result = bytearray(data)
    struct.pack_into(">I", result, rows + row_bytes * (count - 1), duration)
    return bytes(result)


def _with_own_durations(data: bytes, moof: Box, traf: Box, trun: Box, default: int) -> bytes:
    """Return a fragment in which each sample of one ``trun`` has the default duration as its own.

    ffmpeg writes a default where all frames of a fragment last equally long. The boxes around grow with it, and the
    offsets of the samples, which count from the ``moof``, by as much.
    """
    rows, row_bytes, count = _trun_rows(data, trun)
    growth = 4 * count
    result = bytearray(data)
    struct.pack_into(">I", result, trun.body, int.from_bytes(data[trun.body : trun.body + 4], "big") | _OWN_DURATIONS)
    for box in (moof, traf, trun):
        if box.body - box.start != 8:
            raise Mp4Error(f"box {box.kind!r} at offset {box.start} has a long size: not what our encoder writes.")
        struct.pack_into(">I", result, box.start, box.end - box.start + growth)
    for each in _truns(data, traf):
        if _trun_flags(data, each) & 0x01:
            (offset,) = struct.unpack_from(">i", data, each.body + 8)
            struct.pack_into(">i", result, each.body + 8, offset + growth)
    own = struct.pack(">I", default)
    starts = range(rows, rows + row_bytes * count, row_bytes) if row_bytes else [rows] * count
    table = b"".join(own + data[start : start + row_bytes] for start in starts)
    return bytes(result[:rows]) + table + bytes(result[rows + row_bytes * count :])


def _truns(data: bytes, traf: Box) -> list[Box]:
    truns = [box for box in iter_boxes(data, traf.body, traf.end) if box.kind == "trun"]
    if not truns:
        raise Mp4Error(f"traf at offset {traf.start} has no trun.")
    return truns


def _trun_flags(data: bytes, trun: Box) -> int:
    return int.from_bytes(data[trun.body + 1 : trun.body + 4], "big")


def _trun_rows(data: bytes, trun: Box) -> tuple[int, int, int]:
    """Return where the samples' rows begin, the bytes of each, and their number."""
    flags = _trun_flags(data, trun)
    (count,) = struct.unpack_from(">I", data, trun.body + 4)
    rows = trun.body + 8 + (4 if flags & 0x01 else 0) + (4 if flags & 0x04 else 0)
    row_bytes = 4 * sum(1 for bit in (_OWN_DURATIONS, 0x200, 0x400, 0x800) if flags & bit)
    if not 0 < count <= len(data) or rows + row_bytes * count > trun.end:
        raise Mp4Error(f"trun at offset {trun.start}: {count} samples do not fit in it.")
    return rows, row_bytes, count


def build_fragment(*, sequence_number: int, decode_time: int, samples: Sequence[tuple[bytes, int]]) -> bytes:
    """Return a fragment of track 1 in which every sample can be decoded alone (sound).

    Args:
        sequence_number: ``mfhd`` number, from 1.
        decode_time: Of the first sample, in units of the track's timescale.
        samples: Bytes and duration of each, the latter in the same units.
    """
    rows = b"".join(struct.pack(">II", duration, len(data)) for data, duration in samples)
    tfhd = _full_box("tfhd", 0, _DEFAULT_BASE_IS_MOOF | 0x20, struct.pack(">II", 1, _SYNC_SAMPLE))
    tfdt = _full_box("tfdt", 1, 0, struct.pack(">Q", decode_time))
    mfhd = _full_box("mfhd", 0, 0, struct.pack(">I", sequence_number))
    trun_bytes = 12 + 8 + len(rows)
    moof_bytes = 8 + len(mfhd) + 8 + len(tfhd) + len(tfdt) + trun_bytes
    trun = _full_box("trun", 0, 0x301, struct.pack(">Ii", len(samples), moof_bytes + 8) + rows)
    moof = _box("moof", mfhd + _box("traf", tfhd + tfdt + trun))
    return moof + _box("mdat", b"".join(data for data, _duration in samples))


def _box(kind: str, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind.encode("ascii")) + body


def _full_box(kind: str, version: int, flags: int, body: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + body)


@_damage_is_an_error
def read_track(init: bytes) -> Track:
    """Return what an initialisation segment says of its single track.

    Raises:
        Mp4Error: It has another number of tracks, or a codec that is neither H.264 nor AAC.
    """
    moov = find_box(init, "moov")
    traks = [box for box in iter_boxes(init, moov.body, moov.end) if box.kind == "trak"]
    if len(traks) != 1:
        raise Mp4Error(f"the initialisation segment has {len(traks)} tracks: expected one.")
    mdia = find_box(init, "mdia", traks[0].body, traks[0].end)
    mdhd = find_box(init, "mdhd", mdia.body, mdia.end)
    (timescale,) = struct.unpack_from(">I", init, mdhd.body + (20 if init[mdhd.body] == 1 else 12))
    stsd = find_box(init, "minf/stbl/stsd", mdia.body, mdia.end)
    entry = next(iter_boxes(init, stsd.body + 8, stsd.end), None)
    if entry is None:
        raise Mp4Error(f"stsd at offset {stsd.start} describes no sample.")
    if entry.kind in ("avc1", "avc3"):
        return _read_avc(init, entry, timescale)
    if entry.kind == "mp4a":
        return _read_aac(init, entry, timescale)
    raise Mp4Error(f"sample entry {entry.kind!r} at offset {entry.start}: expected avc1 or mp4a.")


def _read_avc(init: bytes, entry: Box, timescale: int) -> Track:
    width, height = struct.unpack_from(">HH", init, entry.body + 24)
    avcc = find_box(init, "avcC", entry.body + 78, entry.end)
    profile, compatibility, level, lengths = init[avcc.body + 1 : avcc.body + 5]
    return Track(
        kind="video",
        timescale=timescale,
        codec=f"{entry.kind}.{profile:02x}{compatibility:02x}{level:02x}",
        width=width,
        height=height,
        nal_length_bytes=(lengths & 3) + 1,
    )


def _read_aac(init: bytes, entry: Box, timescale: int) -> Track:
    (channels,) = struct.unpack_from(">H", init, entry.body + 16)
    (rate,) = struct.unpack_from(">I", init, entry.body + 24)
    esds = find_box(init, "esds", entry.body + 28, entry.end)
    object_type, audio_type = _read_esds(init, esds)
    return Track(
        kind="audio",
        timescale=timescale,
        codec=f"mp4a.{object_type:x}.{audio_type}",
        channels=channels,
        sample_rate_hz=rate >> 16,
    )


def _read_esds(init: bytes, box: Box) -> tuple[int, int]:
    """Return the object type indication and the AAC object type (ISO/IEC 14496-1, 7.2.6; 14496-3, 1.6.2)."""
    at, end = box.body + 4, box.end
    object_type = 0
    while at < end:
        tag = init[at]
        at += 1
        size = 0
        while at < end:
            byte = init[at]
            at += 1
            size = size << 7 | (byte & 0x7F)
            if not byte & 0x80:
                break
        if tag == 3:
            at += 3  # ES_ID and flags; our encoder sets none of the optional fields
        elif tag == 4:
            object_type = init[at]
            at += 13
        elif tag == 5 and size:
            audio_type = init[at] >> 3
            if audio_type == 31:
                audio_type = 32 + (struct.unpack_from(">H", init, at)[0] >> 5 & 0x3F)
            return object_type, audio_type
        else:
            at += size
    raise Mp4Error(f"esds at offset {box.start} has no decoder description.")


@_damage_is_an_error
def is_idr(data: bytes, sample: Sample, nal_length_bytes: int) -> bool:
    """Tell whether a sample of H.264 is an IDR picture: its slices are NAL units of type 5 (ITU-T H.264, table 7-1).

    Raises:
        Mp4Error: The sample's NAL units do not add up.
    """
    at, end = sample.offset, sample.offset + sample.size_bytes
    while at < end:
        size = int.from_bytes(data[at : at + nal_length_bytes], "big")
        at += nal_length_bytes
        if size == 0 or at + size > end:
            raise Mp4Error(f"sample at offset {sample.offset}: a NAL unit of {size} bytes does not fit in it.")
        kind = data[at] & 0x1F
        if _NAL_SLICE <= kind <= _NAL_IDR:
            return kind == _NAL_IDR
        at += size
    return False
