"""Writing and reading playlists."""

from __future__ import annotations

from fractions import Fraction

import m3u8
import pytest

from mainstem.services.media import parse
from mainstem.services.media.errors import PlaylistError
from mainstem.services.media.playlist import (
    AudioRendition,
    KeyFrame,
    MediaTrack,
    Segment,
    Variant,
    iframe_bandwidths,
    iframe_playlist,
    media_playlist,
    multivariant_playlist,
    peak_bps,
    target_duration_s,
)

SIX = Fraction(6)
KEYS = (KeyFrame(0, 1000, Fraction(2)), KeyFrame(4000, 500, Fraction(4)))


def track(*sizes: int, codec: str = "avc1.64001f", last: Fraction = SIX) -> MediaTrack:
    durations = [SIX] * (len(sizes) - 1) + [last]
    segments = [Segment(f"{n}.m4s", size, d, KEYS) for n, (size, d) in enumerate(zip(sizes, durations, strict=True))]
    return MediaTrack(init_uri="init.mp4", codec=codec, segments=segments)


def test_media_playlist() -> None:
    """A media playlist is VOD, complete, and says each segment's measured duration."""
    assert media_playlist(track(100, 200, last=Fraction(1001, 1000))) == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n"
        '#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:6.000000,\n0.m4s\n#EXTINF:1.001000,\n1.m4s\n#EXT-X-ENDLIST\n'
    )


def test_iframe_playlist() -> None:
    """An I-frame playlist has each key frame as a byte range, shown until the next one."""
    lines = iframe_playlist(track(9000)).splitlines()
    assert "#EXT-X-I-FRAMES-ONLY" in lines and "#EXT-X-TARGETDURATION:4" in lines
    assert lines[-7:] == [
        "#EXTINF:2.000000,", "#EXT-X-BYTERANGE:1000@0", "0.m4s",
        "#EXTINF:4.000000,", "#EXT-X-BYTERANGE:500@4000", "0.m4s", "#EXT-X-ENDLIST",
    ]  # fmt: skip


def test_multivariant_playlist() -> None:
    """The multivariant playlist declares what was measured, with the sound added to each variant."""
    video = Variant(
        uri="v.m3u8",
        iframe_uri="i.m3u8",
        track=track(6000, 12000),
        width=1280,
        height=720,
        frame_rate=Fraction(30000, 1001),
    )
    sound = AudioRendition(uri="a.m3u8", track=track(600, 600, codec="mp4a.40.2"), language="en", channels=2)
    text = multivariant_playlist([video], sound)
    assert 'LANGUAGE="en"' in text and 'CHANNELS="2"' in text and "#EXT-X-INDEPENDENT-SEGMENTS\n" in text
    assert "BANDWIDTH=16800,AVERAGE-BANDWIDTH=12800," in text  # 16000 + 800 and 12000 + 800
    assert (
        'CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,VIDEO-RANGE=SDR,AUDIO="sound"\nv.m3u8\n'
        in text
    )
    silent = multivariant_playlist([video], None)
    assert (
        "EXT-X-MEDIA" not in silent and "AUDIO=" not in silent and "BANDWIDTH=16000,AVERAGE-BANDWIDTH=12000," in silent
    )


def test_peak_is_over_half_to_one_and_a_half_targets() -> None:
    """A short last segment does not count by itself; two short ones count together."""
    assert peak_bps([(6000, SIX), (3000, Fraction(1))], 6) == 9000 * 8 // 7 + 1
    assert peak_bps([(6000, SIX), (1000, Fraction(1))], 6) == 8000
    assert peak_bps([(900, Fraction(2)), (900, Fraction(2))], 6) == 3600
    assert peak_bps([(100, Fraction(1))], 6) == 800


def test_target_duration() -> None:
    """The target is six seconds, less for a single shorter segment, more for a longer one."""
    assert target_duration_s(track(1, 1).segments) == 6
    assert target_duration_s(track(1, last=Fraction(14, 10)).segments) == 1
    assert target_duration_s(track(1, last=Fraction(1, 10)).segments) == 1
    assert target_duration_s(track(1, 1, last=Fraction(96, 10)).segments) == 10


def test_iframe_bandwidths() -> None:
    """Key frames have a peak and an average of their own."""
    assert iframe_bandwidths(track(9000)) == (4000, 2000)


def test_another_parser_agrees() -> None:
    """A parser that others wrote reads the same from the playlists."""
    video = Variant(
        uri="v.m3u8", iframe_uri="i.m3u8", track=track(6000, 12000), width=1280, height=720, frame_rate=Fraction(25)
    )
    sound = AudioRendition(uri="a.m3u8", track=track(600, codec="mp4a.40.2"), language="und", channels=1)
    main = m3u8.loads(multivariant_playlist([video], sound))
    [variant] = main.playlists
    assert (variant.uri, variant.stream_info.resolution, variant.stream_info.frame_rate) == (
        "v.m3u8",
        (1280, 720),
        25.0,
    )
    assert [one.uri for one in main.iframe_playlists] == ["i.m3u8"] and main.media[0].language == "und"
    media = m3u8.loads(media_playlist(video.track))
    assert media.is_endlist and media.playlist_type == "vod" and [one.duration for one in media.segments] == [6.0, 6.0]
    frames = m3u8.loads(iframe_playlist(video.track))
    assert frames.is_i_frames_only and frames.segments[1].byterange == "500@4000"


def test_reading_what_was_written() -> None:
    """Our own parser reads the same as well."""
    playlist = parse.parse_media(media_playlist(track(100, 200)).encode())
    assert playlist.map_uri == "init.mp4"
    assert [(one.uri, one.duration_s, one.range) for one in playlist.entries] == [
        ("0.m4s", 6.0, None),
        ("1.m4s", 6.0, None),
    ]
    frames = parse.parse_media(iframe_playlist(track(100)).encode())
    assert [one.range for one in frames.entries] == [(1000, 0), (500, 4000)]


def test_kinds_of_playlists() -> None:
    """A multivariant playlist is told from a media playlist."""
    video = Variant(uri="v", iframe_uri="i", track=track(1), width=2, height=2, frame_rate=Fraction(25))
    assert parse.is_multivariant(multivariant_playlist([video], None).encode())
    assert not parse.is_multivariant(media_playlist(track(1)).encode())


def test_attributes() -> None:
    """Attribute lists keep commas within quotes; malformed ones are errors."""
    assert parse.parse_attributes('A=1,CODECS="a,b",C=2x3') == {"A": "1", "CODECS": '"a,b"', "C": "2x3"}
    assert parse.unquote('"a,b"') == "a,b" and parse.unquote("YES") == "YES"
    with pytest.raises(PlaylistError, match="character 4"):
        parse.parse_attributes('A=1,"x"')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#EXTINF:1,\na",
        b"#EXTM3U\n\xff",
        b"#EXTM3U\na.m4s\n",
        b"#EXTM3U\n#EXTINF:x,\na.m4s\n",
        b"#EXTM3U\n" + bytes(17 << 20),
    ],
    ids=["empty", "no head", "not UTF-8", "no EXTINF", "no number", "too large"],
)
def test_malformed_playlists(data: bytes) -> None:
    """A malformed playlist is an error."""
    with pytest.raises(PlaylistError):
        parse.parse_media(data)


def test_byte_range_without_offset() -> None:
    """A byte range without an offset begins where the one before ended."""
    text = b"#EXTM3U\n#EXTINF:1,\n#EXT-X-BYTERANGE:10@5\na\n#EXTINF:1,\n#EXT-X-BYTERANGE:7\na\n"
    assert [one.range for one in parse.parse_media(text).entries] == [(10, 5), (7, 15)]
