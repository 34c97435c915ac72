"""How long a file says that it is."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.services.media.extent import declared_size_bytes
from tests.services.media.clips import Clips
from tests.services.media.test_probe import facts_of

EBML = b"\x1a\x45\xdf\xa3\x84head"
SEGMENT = b"\x18\x53\x80\x67"
UNKNOWN = b"\x01\xff\xff\xff\xff\xff\xff\xff"


def riff(size: int, data: bytes = b"") -> bytes:
    return b"RIFF" + struct.pack("<I", size) + data


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (EBML + SEGMENT + b"\x85", 9 + 5 + 5),
        (EBML + SEGMENT + b"\x40\x05", 9 + 6 + 5),
        (EBML + SEGMENT + b"\x08\x00\x00\x00\x0a", 9 + 9 + 10),
        (EBML + b"\xec\x82xx" + SEGMENT + b"\x85", 9 + 4 + 5 + 5),
        (EBML + SEGMENT + UNKNOWN, None),
        (EBML + SEGMENT + b"\xff", None),
        (EBML + SEGMENT, None),
        (EBML[:3], None),
        (EBML + b"\x00", None),
        (EBML * 20, None),
        (b"", None),
    ],
)
def test_matroska(data: bytes, declared: int | None) -> None:
    """The segment's size counts from behind itself; one that is unknown, as in a live stream, tells nothing."""
    assert declared_size_bytes(io.BytesIO(data), "matroska,webm") == declared


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (riff(100), 100),
        (riff(4, b"AVI ") + riff(50, b"AVIX"), 12 + 50),
        (riff(3, b"odd\0") + riff(50), 12 + 50),
        (riff(4, b"AVI ") + b"junk", 4),
        (riff(0, b"AVI "), None),
        (riff(0xFFFFFFFF), None),
        (b"RIF", None),
        (b"", None),
    ],
)
def test_avi(data: bytes, declared: int | None) -> None:
    """The RIFF chunks follow one another; one whose size was never filled in tells nothing."""
    assert declared_size_bytes(io.BytesIO(data), "avi") == declared


def test_other_containers_tell_nothing() -> None:
    """Of other formats nothing is said."""
    assert declared_size_bytes(io.BytesIO(riff(100)), "mov,mp4,m4a,3gp,3g2,mj2") is None


@given(st.binary(max_size=200), st.sampled_from(["matroska,webm", "avi"]))
def test_any_bytes_give_a_number_or_none(data: bytes, format_name: str) -> None:
    """Whatever is in a file, the answer is a size or none."""
    for begin in (b"", EBML + SEGMENT, b"RIFF"):
        declared = declared_size_bytes(io.BytesIO(begin + data), format_name)
        assert declared is None or declared >= 0


def test_a_recording_that_was_broken_off_is_taken_as_it_is(clips: Clips) -> None:
    """A live stream does not say how long it is: what there is of it is a video."""
    facts = facts_of(clips.get("truncated_live.mkv"))
    assert 25 <= len(facts.frame_times) < 50
