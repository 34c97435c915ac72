"""Fragmented MP4: reading, moving and building fragments."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.services.media import mp4
from mainstem.services.media.errors import Mp4Error
from tests.services.media.pipeline import Published


def box(kind: str, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def fragment_bytes(*, sequence: int = 1, time: int = 0, wide: bool = True, own_durations: bool = True) -> bytes:
    """Return a fragment of two samples, b"abc" and b"de", lasting 10 and 20 (or 10 each by default)."""
    mfhd = box("mfhd", struct.pack(">II", 0, sequence))
    tfhd = box("tfhd", struct.pack(">III", 0x020008, 1, 10))
    tfdt = box("tfdt", struct.pack(">IQ", 1 << 24, time) if wide else struct.pack(">II", 0, time))
    rows = struct.pack(">IIiIIi", 10, 3, 0, 20, 2, -5) if own_durations else struct.pack(">IiIi", 3, 0, 2, -5)
    flags = 0x01000B01 if own_durations else 0x01000A01
    trun_size = 8 + 12 + len(rows)
    moof_size = 8 + len(mfhd) + 8 + len(tfhd) + len(tfdt) + trun_size
    trun = box("trun", struct.pack(">IIi", flags, 2, moof_size + 8), rows)
    return box("moof", mfhd, box("traf", tfhd, tfdt, trun)) + box("mdat", b"abcde")


def test_boxes() -> None:
    """Boxes are found one after the other, also with a long size."""
    data = box("ftyp", b"x") + struct.pack(">I4sQ", 1, b"free", 18) + b"yz"
    assert [(one.kind, data[one.body : one.end]) for one in mp4.iter_boxes(data)] == [("ftyp", b"x"), ("free", b"yz")]


@pytest.mark.parametrize(
    "data",
    [
        b"abc",
        box("moov", b"1234")[:-1],
        struct.pack(">I4s", 4, b"moov"),
        struct.pack(">I4s", 1, b"moov"),
        struct.pack(">I4sQ", 1, b"moov", 8),
    ],
    ids=["stray", "cut", "too small", "long size cut", "long size too small"],
)
def test_boxes_that_do_not_fit(data: bytes) -> None:
    """A box whose size does not fit is an error that says where."""
    with pytest.raises(Mp4Error, match="offset 0"):
        list(mp4.iter_boxes(data))


def test_missing_box() -> None:
    """A box that is not there is an error that names its path."""
    with pytest.raises(Mp4Error, match="'moov/trak'"):
        mp4.find_box(box("free"), "moov/trak")
    assert mp4.find_box(box("moov", box("trak", b"1")), "moov/trak").kind == "trak"


def test_fragment() -> None:
    """A fragment's samples have their offsets, sizes, durations and composition offsets."""
    data = fragment_bytes(sequence=7, time=1000)
    [fragment] = mp4.read_fragments(data)
    assert (fragment.sequence_number, fragment.decode_time, fragment.duration) == (7, 1000, 30)
    assert [data[one.offset : one.offset + one.size_bytes] for one in fragment.samples] == [b"abc", b"de"]
    assert fragment.presentation_times == [1000, 1005]
    assert (fragment.start, fragment.end) == (0, len(data))


def test_default_durations() -> None:
    """Where a sample has no duration of its own, the fragment's default counts."""
    [fragment] = mp4.read_fragments(fragment_bytes(own_durations=False, wide=False, time=5))
    assert (fragment.duration, fragment.decode_time) == (20, 5)


def test_moving_changes_three_numbers_only() -> None:
    """A moved fragment is, byte for byte, the one that had these numbers from the beginning."""
    moved = mp4.move_fragment(fragment_bytes(sequence=1, time=50), sequence_number=9, decode_time_shift=4000)
    assert moved == fragment_bytes(sequence=9, time=4050)


def test_moving_a_narrow_time() -> None:
    """A time of 32 bits is moved in place, and refused where it would not fit."""
    narrow = fragment_bytes(time=50, wide=False)
    assert mp4.move_fragment(narrow, sequence_number=2, decode_time_shift=1) == fragment_bytes(
        sequence=2, time=51, wide=False
    )
    with pytest.raises(Mp4Error, match="does not fit"):
        mp4.move_fragment(narrow, sequence_number=2, decode_time_shift=1 << 32)
    with pytest.raises(Mp4Error, match="-1 does not fit"):
        mp4.move_fragment(narrow, sequence_number=2, decode_time_shift=-51)


def test_last_duration() -> None:
    """The last sample's duration is replaced; samples that share a default get durations of their own where it is
    another, and their bytes are where they are looked for.
    """
    moved = mp4.move_fragment(fragment_bytes(), sequence_number=1, decode_time_shift=0, last_duration=33)
    assert [one.duration for one in mp4.read_fragments(moved)[0].samples] == [10, 33]
    shared = fragment_bytes(own_durations=False)
    assert mp4.move_fragment(shared, sequence_number=1, decode_time_shift=0, last_duration=10) == shared
    own = mp4.move_fragment(shared, sequence_number=9, decode_time_shift=7, last_duration=20)
    assert own == fragment_bytes(sequence=9, time=7)
    for wrong in (0, -1, 1 << 32):
        with pytest.raises(Mp4Error, match="does not fit"):
            mp4.move_fragment(shared, sequence_number=1, decode_time_shift=0, last_duration=wrong)


@given(st.data())
def test_any_damage_is_an_error_or_a_fragment(data: st.DataObject) -> None:
    """Whatever byte is changed, giving the last sample a duration ends with a fragment or with Mp4Error."""
    whole = bytearray(fragment_bytes(own_durations=False))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        moved = mp4.move_fragment(bytes(whole), sequence_number=1, decode_time_shift=0, last_duration=33)
    except Mp4Error:
        return  # the other of the two answers that are right
    assert 0 <= len(moved) - len(whole) <= 4 * len(whole)


@given(
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**40),
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 5000)), min_size=1, max_size=20),
)
def test_building_and_reading(sequence: int, time: int, samples: list[tuple[bytes, int]]) -> None:
    """What is built is read back."""
    data = mp4.build_fragment(sequence_number=sequence, decode_time=time, samples=samples)
    [fragment] = mp4.read_fragments(data)
    assert (fragment.sequence_number, fragment.decode_time) == (sequence, time)
    found = [(data[one.offset : one.offset + one.size_bytes], one.duration) for one in fragment.samples]
    assert found == samples


@pytest.mark.parametrize(
    "data",
    [
        box("mdat", b"x"),
        box("moof", box("mfhd", bytes(8))) + box("mdat", b"x"),
        fragment_bytes()[:-5] + b"",
    ],
    ids=["mdat alone", "no traf", "mdat cut"],
)
def test_damaged_fragments(data: bytes) -> None:
    """A fragment that is not whole is an error."""
    with pytest.raises(Mp4Error):
        mp4.read_fragments(data)


@given(st.data())
def test_any_damage_is_an_error_or_a_value(data: st.DataObject) -> None:
    """Whatever byte is changed, reading ends with fragments or with Mp4Error."""
    whole = bytearray(fragment_bytes(time=77))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        fragments = mp4.read_fragments(bytes(whole))
    except Mp4Error:
        return  # the other of the two answers that are right
    assert all(isinstance(fragment, mp4.Fragment) for fragment in fragments)


def test_tracks(published: Callable[[str], Published]) -> None:
    """An initialisation segment tells kind, timescale, size and codecs (RFC 6381) of what ffmpeg encoded."""
    video = published("plain.mp4")
    sizes = []
    for rendition in video.plan.renditions:
        init, spans = mp4.split_init((video.work / f"chunk-00000-{rendition.name}.mp4").read_bytes())
        track = mp4.read_track(init)
        assert (track.kind, track.timescale, track.nal_length_bytes) == ("video", 12800, 4)
        assert track.codec.startswith("avc1.") and len(track.codec) == 11 and spans
        sizes.append((track.width, track.height))
    assert sizes == [(one.width, one.height) for one in video.plan.renditions]
    init, _spans = mp4.split_init((video.work / "audio.mp4").read_bytes())
    track = mp4.read_track(init)
    assert (track.kind, track.codec, track.sample_rate_hz, track.channels) == ("audio", "mp4a.40.2", 48000, 1)


def test_first_pictures_are_idr(published: Callable[[str], Published]) -> None:
    """Of a group's pictures the first is an IDR picture and the others are not."""
    video = published("plain.mp4")
    data = (video.work / f"chunk-00000-{video.plan.renditions[0].name}.mp4").read_bytes()
    for fragment in mp4.read_fragments(data):
        kinds = [mp4.is_idr(data, sample, 4) for sample in fragment.samples]
        assert kinds == [True] + [False] * (len(kinds) - 1)


def test_broken_pictures() -> None:
    """A picture whose units do not add up is an error; one without a slice is no IDR picture."""
    with pytest.raises(Mp4Error, match="NAL unit of 255 bytes"):
        mp4.is_idr(b"\x00\x00\x00\xff\x65", mp4.Sample(0, 5, 1, 0), 4)
    assert not mp4.is_idr(b"\x00\x00\x00\x02\x06\x00", mp4.Sample(0, 6, 1, 0), 4)


def test_no_fragmented_file() -> None:
    """A file without fragments, or with several tracks, is refused."""
    with pytest.raises(Mp4Error, match="mvex"):
        mp4.split_init(box("ftyp", b"isom") + box("moov", b""))
    with pytest.raises(Mp4Error, match="2 tracks"):
        mp4.read_track(box("moov", box("trak"), box("trak")))
