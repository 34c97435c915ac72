"""Writing HLS playlists (RFC 8216) from measured segments. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import msgspec

from mainstem.services.media.plan import SEGMENT_S

_PEAK_SHORTEST = Fraction(1, 2)
_PEAK_LONGEST = Fraction(3, 2)


class KeyFrame(msgspec.Struct, frozen=True):
    """A picture that can be decoded alone: its bytes within its segment's file, and how many seconds it is shown."""

    offset: int
    size_bytes: int
    duration: Fraction


class Segment(msgspec.Struct, frozen=True):
    """One media segment, as it was measured.

    Attributes:
        uri: Its address, relative to the playlist.
        size_bytes: Size of its file.
        duration: Seconds, exactly.
        key_frames: Where decoding can begin; empty for sound.
    """

    uri: str
    size_bytes: int
    duration: Fraction
    key_frames: Sequence[KeyFrame] = ()


class MediaTrack(msgspec.Struct, frozen=True, kw_only=True):
    """All segments of one rendition or of the sound.

    Attributes:
        init_uri: Address of the initialisation segment.
        codec: For CODECS.
        segments: In order.
    """

    init_uri: str
    codec: str
    segments: Sequence[Segment]

    @property
    def duration(self) -> Fraction:
        """Seconds, exactly."""
        return sum((segment.duration for segment in self.segments), Fraction(0))

    @property
    def average_bps(self) -> int:
        """All bits over all seconds, rounded up."""
        return math.ceil(8 * sum(segment.size_bytes for segment in self.segments) / self.duration)

    @property
    def peak_bps(self) -> int:
        """Peak segment bit rate, see :func:`peak_bps`."""
        sizes = [(segment.size_bytes, segment.duration) for segment in self.segments]
        return peak_bps(sizes, target_duration_s(self.segments))


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One rendition in the multivariant playlist.

    Attributes:
        uri: Address of its media playlist.
        iframe_uri: Address of its I-frame playlist.
        track: Its measured segments.
        width: Pixels.
        height: Pixels.
        frame_rate: Frames a second.
    """

    uri: str
    iframe_uri: str
    track: MediaTrack
    width: int
    height: int
    frame_rate: Fraction


class AudioRendition(msgspec.Struct, frozen=True, kw_only=True):
    """The sound in the multivariant playlist.

    Attributes:
        uri: Address of its media playlist.
        track: Its measured segments.
        language: RFC 5646 tag.
        channels: Number of channels.
    """

    uri: str
    track: MediaTrack
    language: str
    channels: int


def peak_bps(segments: Sequence[tuple[int, Fraction]], target_s: int) -> int:
    """Return the peak segment bit rate (RFC 8216, 4.3.4.2), rounded up.

    It is the largest bit rate of contiguous segments that last 0.5 to 1.5 times the target duration together; where
    there are none (all are shorter together), that of all.

    Args:
        segments: Size in bytes and duration in seconds of each.
        target_s: The target duration.
    """
    best = Fraction(0)
    for first in range(len(segments)):
        size_bytes, duration = 0, Fraction(0)
        for following_bytes, following_s in segments[first:]:
            size_bytes += following_bytes
            duration += following_s
            if duration > _PEAK_LONGEST * target_s and size_bytes != following_bytes:
                break
            if duration >= _PEAK_SHORTEST * target_s:
                best = max(best, 8 * size_bytes / duration)
    if not best:
        best = 8 * sum(size for size, _ in segments) / sum((duration for _, duration in segments), Fraction(0))
    return math.ceil(best)


def target_duration_s(segments: Sequence[Segment]) -> int:
    """Return EXT-X-TARGETDURATION: no segment, rounded to the nearest integer, is longer (RFC 8216, 4.3.3.1)."""
    longest = max((segment.duration for segment in segments), default=Fraction(0))
    return max(1, math.floor(longest + Fraction(1, 2)), SEGMENT_S if len(segments) > 1 else 1)


def media_playlist(track: MediaTrack) -> str:
    """Return the media playlist of a track."""
    lines = _head(7, target_duration_s(track.segments), track.init_uri)
    for segment in track.segments:
        lines += [f"#EXTINF:{_seconds(segment.duration)},", segment.uri]
    return _text([*lines, "#EXT-X-ENDLIST"])


def iframe_playlist(track: MediaTrack) -> str:
    """Return the I-frame playlist of a video track: each key frame as a byte range (RFC 8216, 4.3.3.6)."""
    frames = [frame for segment in track.segments for frame in segment.key_frames]
    longest = max(frame.duration for frame in frames)
    lines = _head(7, max(1, math.floor(longest + Fraction(1, 2))), track.init_uri, iframes=True)
    for segment in track.segments:
        for frame in segment.key_frames:
            lines += [
                f"#EXTINF:{_seconds(frame.duration)},",
                f"#EXT-X-BYTERANGE:{frame.size_bytes}@{frame.offset}",
                segment.uri,
            ]
    return _text([*lines, "#EXT-X-ENDLIST"])


def multivariant_playlist(variants: Sequence[Variant], audio: AudioRendition | None) -> str:
    """Return the multivariant playlist, the first variant being the one that players begin with.

    BANDWIDTH and AVERAGE-BANDWIDTH are those of the measured segments, with the sound's added (RFC 8216, 4.3.4.2).
    """
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    if audio is not None:
        attributes = [
            'TYPE=AUDIO,GROUP-ID="sound",NAME="Sound",DEFAULT=YES,AUTOSELECT=YES',
            f'LANGUAGE="{audio.language}",CHANNELS="{audio.channels}",URI="{audio.uri}"',
        ]
        lines.append(f"#EXT-X-MEDIA:{','.join(attributes)}")
    sound = audio.track if audio is not None else None
    for variant in variants:
        codecs = variant.track.codec + (f",{sound.codec}" if sound else "")
        attributes = [
            f"BANDWIDTH={variant.track.peak_bps + (sound.peak_bps if sound else 0)}",
            f"AVERAGE-BANDWIDTH={variant.track.average_bps + (sound.average_bps if sound else 0)}",
            f'CODECS="{codecs}"',
            f"RESOLUTION={variant.width}x{variant.height}",
            f"FRAME-RATE={float(variant.frame_rate):.3f}",
            "VIDEO-RANGE=SDR",
            *(['AUDIO="sound"'] if sound else []),
        ]
        lines += [f"#EXT-X-STREAM-INF:{','.join(attributes)}", variant.uri]
    for variant in variants:
        peak, average = iframe_bandwidths(variant.track)
        attributes = [
            f"BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}",
            f'CODECS="{variant.track.codec}",RESOLUTION={variant.width}x{variant.height}',
            f'VIDEO-RANGE=SDR,URI="{variant.iframe_uri}"',
        ]
        lines.append(f"#EXT-X-I-FRAME-STREAM-INF:{','.join(attributes)}")
    return _text(lines)


def iframe_bandwidths(track: MediaTrack) -> tuple[int, int]:
    """Return peak and average bit rate of a track's key frames at their own pace."""
    frames = [(frame.size_bytes, frame.duration) for segment in track.segments for frame in segment.key_frames]
    target_s = max(1, math.floor(max(duration for _size, duration in frames) + Fraction(1, 2)))
    duration = sum((duration for _size, duration in frames), Fraction(0))
    return peak_bps(frames, target_s), math.ceil(8 * sum(size for size, _duration in frames) / duration)


def _head(version: int, target_s: int, init_uri: str, *, iframes: bool = False) -> list[str]:
    return [
        "#EXTM3U",
        f"#EXT-X-VERSION:{version}",
        f"#EXT-X-TARGETDURATION:{target_s}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        *(["#EXT-X-I-FRAMES-ONLY"] if iframes else ["#EXT-X-INDEPENDENT-SEGMENTS"]),
        f'#EXT-X-MAP:URI="{init_uri}"',
    ]


def _seconds(duration: Fraction) -> str:
    return f"{float(duration):.6f}"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
