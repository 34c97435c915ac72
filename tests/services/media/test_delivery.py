"""How files are delivered: conditions, ranges, compression."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.services.media.delivery import accepts_gzip, deliver, parse_range
from mainstem.services.media.manifest import PLAYLIST_TYPE, VIDEO_TYPE, PublishedFile

SEGMENT = PublishedFile("ab" * 32, 1000, VIDEO_TYPE)
PLAYLIST = PublishedFile("cd" * 32, 500, PLAYLIST_TYPE)
ETAG = f'"{SEGMENT.sha256}"'


def test_whole_segment() -> None:
    """A segment may be kept for ever, and says that it takes ranges."""
    answer = deliver("x.m4s", SEGMENT, {})
    assert (answer.status, answer.start, answer.length) == (200, 0, 1000)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["etag"] == ETAG and answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4" and answer.headers["content-length"] == "1000"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", (206, 0, 100, "bytes 0-99/1000")),
        ("bytes=900-", (206, 900, 100, "bytes 900-999/1000")),
        ("bytes=-10", (206, 990, 10, "bytes 990-999/1000")),
        ("bytes=990-5000", (206, 990, 10, "bytes 990-999/1000")),
        ("bytes=-5000", (200, 0, 1000, None)),
        ("bytes=0-", (200, 0, 1000, None)),
        ("bytes=1000-", (416, 0, 0, "bytes */1000")),
        ("bytes=-0", (416, 0, 0, "bytes */1000")),
        ("bytes=5-2", (200, 0, 1000, None)),
        ("bytes=0-1,5-6", (200, 0, 1000, None)),
        ("lines=1-2", (200, 0, 1000, None)),
        ("bytes=-", (200, 0, 1000, None)),
        ("bytes=" + "9" * 40 + "-", (200, 0, 1000, None)),
    ],
)
def test_ranges(header: str, expected: tuple[int, int, int, str | None]) -> None:
    """A single satisfiable range gives 206, one outside 416, anything else the whole file (RFC 9110, 14)."""
    answer = deliver("x.m4s", SEGMENT, {"range": header})
    assert (answer.status, answer.start, answer.length, answer.headers.get("content-range")) == expected
    assert answer.headers["content-length"] == str(answer.length)


@given(st.text(max_size=30), st.integers(1, 10**9))
def test_any_range_lies_within_the_file(header: str, size: int) -> None:
    """Whatever a client sends, bytes outside of the file are never asked for."""
    for text in (header, f"bytes={header}"):
        span = parse_range(text, size)
        assert span is None or (span[0] >= 0 and span[1] > 0 and sum(span) <= size)


def test_conditions() -> None:
    """A client that has the file gets 304; a range of another version gets the whole file."""
    for tag in (ETAG, f"W/{ETAG}", f'"other", {ETAG}', "*"):
        answer = deliver("x.m4s", SEGMENT, {"if-none-match": tag, "range": "bytes=0-1"})
        assert (answer.status, answer.length) == (304, 0) and "content-length" not in answer.headers
    assert deliver("x.m4s", SEGMENT, {"if-none-match": '"other"'}).status == 200
    assert deliver("x.m4s", SEGMENT, {"range": "bytes=0-1", "if-range": '"other"'}).status == 200
    assert deliver("x.m4s", SEGMENT, {"range": "bytes=0-1", "if-range": ETAG}).status == 206


def test_playlists_are_compressed() -> None:
    """A playlist is compressed for who accepts it, under an entity tag of its own (Apple 10.1)."""
    answer = deliver("main.m3u8", PLAYLIST, {"accept-encoding": "gzip, br"})
    assert answer.gzip and answer.headers["content-encoding"] == "gzip" and answer.headers["vary"] == "accept-encoding"
    assert answer.headers["cache-control"] == "no-cache" and answer.headers["content-type"] == PLAYLIST_TYPE
    plain = deliver("main.m3u8", PLAYLIST, {"range": "bytes=0-1"})
    assert not plain.gzip and plain.headers["etag"] != answer.headers["etag"] and plain.status == 200
    named = deliver("ef.m3u8", PLAYLIST, {})
    assert "immutable" in named.headers["cache-control"]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("br;q=1, gzip;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("", False),
        ("identity", False),
        ("gzip;q=1.1.1", False),
        ("xgzip", False),
        ("*, gzip;q=0", False),
        ("br, GZIP ; Q = 0.2", True),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    """``Accept-Encoding`` is understood, weights included."""
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize("header", ["gzip" + " " * 60_000 + "x", "," + "\t" * 60_000 + "x", "gzip;q=" + "1" * 60_000])
def test_accept_encoding_of_any_length(header: str) -> None:
    """A header as long as a server lets through costs time in proportion to it, not to its square."""
    before_s = time.process_time()
    accepts_gzip(header)
    assert time.process_time() - before_s < 0.5
