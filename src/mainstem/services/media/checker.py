"""Checking a published video against Apple's "HLS Authoring Specification for Apple Devices" (numbers as of 2025) and
RFC 8216.

Everything is measured from the segments' bytes; nothing that a playlist declares is believed. Each finding cites its
rule, by Apple's number (``"6.1"``) or the section of the RFC (``"RFC 8216 4.3.2.1"``). Segments must be fragmented MP4
with one track each. Rule 10.1 (playlists are delivered with gzip) is about the server, so :func:`check_delivery` has
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from mainstem.services.media import mp4, parse
from mainstem.services.media.errors import Mp4Error, PlaylistError
from mainstem.services.media.parse import MediaPlaylist, MultivariantPlaylist, Stream, unquote
from mainstem.services.media.playlist import peak_bps

Resolver = Callable[[str], bytes]
"""Gives the bytes at an address relative to the multivariant playlist; raises ``OSError`` where there are none."""

_DECLARED_TOLERANCE = 0.10
_SEGMENT_EXCESS_S = 0.5
_IDR_DISTANCE_S = 2.0
_TARGET_S = 6
_FRAME_RATE_MAX = 60
_LEVEL_MAX = 52
_ASPECT_TOLERANCE = 0.01


class Finding(msgspec.Struct, frozen=True):
    """One place where a rule is not met.

    Attributes:
        rule: Its number.
        level: ``"must"`` or ``"should"``.
        where: Address of the playlist or segment.
        message: What was expected and what was found.
    """

    rule: str
    level: Literal["must", "should"]
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.level.upper()} {self.rule}: {self.message}"


class MeasuredSegment(msgspec.Struct, frozen=True):
    """A segment, measured: bytes, exact seconds, its start, frames, times of its IDR pictures, all in seconds from the
    track's start.
    """

    uri: str
    size_bytes: int
    start: Fraction
    duration: Fraction
    frames: int
    begins_with_idr: bool
    idr_times: Sequence[Fraction]
    key_ranges: Sequence[tuple[int, int]]


class MeasuredTrack(msgspec.Struct, frozen=True):
    """A media playlist and what its segments really hold."""

    uri: str
    playlist: MediaPlaylist
    track: mp4.Track
    segments: Sequence[MeasuredSegment]

    @property
    def duration(self) -> Fraction:
        """Seconds of all segments."""
        return sum((segment.duration for segment in self.segments), Fraction(0))

    @property
    def frame_s(self) -> float:
        """Seconds of an average frame."""
        return float(self.duration) / max(1, sum(segment.frames for segment in self.segments))

    @property
    def average_bps(self) -> float:
        """All bits over all seconds."""
        return float(8 * sum(segment.size_bytes for segment in self.segments) / self.duration)

    @property
    def measured_peak_bps(self) -> float:
        """Peak segment bit rate."""
        target_s = _integer(self.playlist.tags.get("EXT-X-TARGETDURATION", "")) or _TARGET_S
        return peak_bps([(segment.size_bytes, segment.duration) for segment in self.segments], target_s)


class _Check:
    """One check of one video: what was found so far."""

    def __init__(self, resolve: Resolver) -> None:
        self.resolve = resolve
        self.findings: list[Finding] = []

    def must(self, rule: str, where: str, condition: object, message: str) -> bool:
        return self._note("must", rule, where, condition, message)

    def should(self, rule: str, where: str, condition: object, message: str) -> bool:
        return self._note("should", rule, where, condition, message)

    def _note(self, level: Literal["must", "should"], rule: str, where: str, condition: object, message: str) -> bool:
        if not condition:
            self.findings.append(Finding(rule, level, where, message))
        return bool(condition)


def directory_resolver(directory: Path) -> Resolver:
    """Return a resolver for the files of a directory; an address that leads out of it has no bytes."""
    root = directory.resolve()

    def resolve(uri: str) -> bytes:
        path = (root / uri).resolve()
        if not path.is_relative_to(root):
            raise FileNotFoundError(f"{uri} leads out of {root}")
        return path.read_bytes()

    return resolve


def check_video(resolve: Resolver, uri: str = "main.m3u8") -> list[Finding]:
    """Return every place where a video does not meet the rules; an empty list when it meets all.

    Args:
        resolve: Gives the bytes behind the addresses.
        uri: Address of the multivariant playlist.
    """
    check = _Check(resolve)
    try:
        playlist = parse.parse_multivariant(resolve(uri))
    except (OSError, PlaylistError) as error:
        check.must("RFC 8216 4", uri, False, str(error))
        return check.findings
    if not check.must("9.1", uri, playlist.variants, "the multivariant playlist has no variants."):
        return check.findings
    check.must("9.9", uri, len(playlist.variants) > 1, "there is only one bit rate.")
    check.should("9.11", uri, "EXT-X-INDEPENDENT-SEGMENTS" in playlist.tags, "EXT-X-INDEPENDENT-SEGMENTS is missing.")
    muxed = any(
        "mp4a" in stream.attributes.get("CODECS", "") and "AUDIO" not in stream.attributes
        for stream in playlist.variants
    )
    check.should("9.5", uri, not muxed, "the sound is not apart from the pictures.")
    sounds = _measure_sounds(check, uri, playlist)
    variants = [(stream, _measure(check, stream.uri)) for stream in playlist.variants]
    for stream, track in variants:
        if track is not None:
            _check_variant(check, uri, stream, track, sounds)
    _check_iframes(check, uri, playlist, [track for _stream, track in variants if track is not None])
    _check_alignment(
        check, uri, [track for _stream, track in variants if track is not None and track.track.kind == "video"]
    )
    return check.findings


def check_delivery(playlist_headers: Mapping[str, str]) -> list[Finding]:
    """Return what is wrong with how a playlist was delivered to a client that accepts gzip.

    Args:
        playlist_headers: Headers of the response, names in lower case.
    """
    check = _Check(lambda _uri: b"")
    check.must("10.1", "", playlist_headers.get("content-encoding") == "gzip", "playlists must be delivered with gzip.")
    content_type = playlist_headers.get("content-type", "").split(";")[0].lower()
    check.must(
        "RFC 8216 4",
        "",
        content_type in ("application/vnd.apple.mpegurl", "audio/mpegurl"),
        f"the playlist's media type is {content_type!r}.",
    )
    return check.findings


def _measure_sounds(check: _Check, uri: str, playlist: MultivariantPlaylist) -> dict[str, list[MeasuredTrack]]:
    sounds: dict[str, list[MeasuredTrack]] = {}
    for media in playlist.media:
        attributes = media.attributes
        name = attributes.get("NAME", "(without a name)")
        check.must("8.10", uri, unquote(attributes.get("LANGUAGE", "")), f"EXT-X-MEDIA {name} has no LANGUAGE.")
        if attributes.get("TYPE") == "AUDIO" and media.uri:
            track = _measure(check, media.uri)
            if track is not None:
                sounds.setdefault(unquote(attributes.get("GROUP-ID", "")), []).append(track)
    return sounds


def _measure(check: _Check, uri: str) -> MeasuredTrack | None:
    """Read a media playlist and all its segments; check what concerns them alone."""
    try:
        playlist = parse.parse_media(check.resolve(uri))
    except (OSError, PlaylistError) as error:
        check.must("RFC 8216 4", uri, False, str(error))
        return None
    _check_media_tags(check, uri, playlist)
    if not playlist.map_uri:
        return None  # without an initialisation segment nothing can be measured; rule 8.20 has said so
    try:
        track = mp4.read_track(check.resolve(playlist.map_uri))
        segments = [_measure_segment(check.resolve(entry.uri), entry.uri, track) for entry in playlist.entries]
    except (OSError, Mp4Error) as error:
        check.must("RFC 8216 3.3", uri, False, f"a segment cannot be measured: {error}")
        return None
    if not check.must("RFC 8216 4", uri, segments, "the playlist has no segments."):
        return None
    measured = MeasuredTrack(uri, playlist, track, segments)
    _check_segments(check, measured)
    return measured


def _check_media_tags(check: _Check, uri: str, playlist: MediaPlaylist) -> None:
    tags = playlist.tags
    target = _integer(tags.get("EXT-X-TARGETDURATION", ""))
    check.must("RFC 8216 4.3.3.1", uri, target, "EXT-X-TARGETDURATION is missing or no integer.")
    check.must("8.6", uri, tags.get("EXT-X-PLAYLIST-TYPE") == "VOD", "EXT-X-PLAYLIST-TYPE is not VOD.")
    check.must("8.6", uri, "EXT-X-ENDLIST" in tags, "a VOD playlist has no EXT-X-ENDLIST.")
    check.must("8.20", uri, playlist.map_uri, "a playlist of fragmented MP4 has no EXT-X-MAP.")


def _measure_segment(data: bytes, uri: str, track: mp4.Track) -> MeasuredSegment:
    fragments = mp4.read_fragments(data)
    if not fragments:
        raise Mp4Error(f"segment {uri} holds no fragment.")
    is_video = track.kind == "video"
    idr_times: list[Fraction] = []
    key_ranges: list[tuple[int, int]] = []
    begins_with_idr = not is_video
    for number, fragment in enumerate(fragments):
        now = fragment.decode_time
        for place, sample in enumerate(fragment.samples):
            if is_video and mp4.is_idr(data, sample, track.nal_length_bytes):
                idr_times.append(Fraction(now + sample.composition_offset, track.timescale))
                begins_with_idr = begins_with_idr or (number == 0 and place == 0)
                if place == 0:
                    key_ranges.append((sample.offset + sample.size_bytes - fragment.start, fragment.start))
            now += sample.duration
    return MeasuredSegment(
        uri=uri,
        size_bytes=len(data),
        start=Fraction(fragments[0].decode_time, track.timescale),
        duration=Fraction(sum(fragment.duration for fragment in fragments), track.timescale),
        frames=sum(len(fragment.samples) for fragment in fragments),
        begins_with_idr=begins_with_idr,
        idr_times=idr_times,
        key_ranges=key_ranges,
    )


def _check_segments(check: _Check, measured: MeasuredTrack) -> None:
    """Rules about the segments of one media playlist."""
    uri, segments = measured.uri, measured.segments
    target = _integer(measured.playlist.tags.get("EXT-X-TARGETDURATION", "")) or 0
    frame_s = measured.frame_s
    declared_sum = measured_sum = 0.0
    expected_start = segments[0].start
    for entry, segment in zip(measured.playlist.entries, segments, strict=True):
        where = f"{uri} → {segment.uri}"
        seconds = float(segment.duration)
        check.must("7.4", where, segment.begins_with_idr, "the segment does not begin with an IDR picture.")
        check.must(
            "7.7", where, seconds <= target + _SEGMENT_EXCESS_S, f"it lasts {seconds:.3f} s, the target is {target} s."
        )
        check.must(
            "RFC 8216 4.3.3.1",
            where,
            math.floor(entry.duration_s + 0.5) <= target,
            f"EXTINF {entry.duration_s} exceeds {target}.",
        )
        declared_sum += entry.duration_s
        measured_sum += seconds
        off = abs(declared_sum - measured_sum)
        check.must(
            "8.1",
            where,
            off <= frame_s,
            f"up to here EXTINF adds up to {declared_sum:.3f} s, frames to {measured_sum:.3f} s.",
        )
        gap = abs(float(segment.start - expected_start))
        check.must("7.3", where, gap <= frame_s, f"it begins {gap:.3f} s away from the end of the segment before.")
        expected_start = segment.start + segment.duration
    check.should(
        "7.5", uri, len(segments) == 1 or target == _TARGET_S, f"the target duration is {target} s, not {_TARGET_S}."
    )
    times = [time for segment in segments for time in segment.idr_times]
    times.append(segments[0].start + measured.duration)
    if measured.track.kind == "video":
        longest = max((float(after - before) for before, after in pairwise(times)), default=0.0)
        allowed = _IDR_DISTANCE_S + frame_s
        check.should(
            "1.13",
            uri,
            longest <= allowed,
            f"IDR pictures are up to {longest:.3f} s apart, not {_IDR_DISTANCE_S:.0f} s.",
        )
    peak, average = measured.measured_peak_bps, measured.average_bps
    check.should(
        "1.30",
        uri,
        peak <= 2 * average,
        f"the peak, {peak:.0f} bit/s, is over 200 % of the average, {average:.0f} bit/s.",
    )


def _check_variant(
    check: _Check, uri: str, stream: Stream, track: MeasuredTrack, sounds: Mapping[str, Sequence[MeasuredTrack]]
) -> None:
    attributes = stream.attributes
    where = f"{uri} → {stream.uri}"
    group = [sound for sound in sounds.get(unquote(attributes.get("AUDIO", "")), []) if sound.uri != track.uri]
    codecs = {codec.strip() for codec in unquote(attributes.get("CODECS", "")).split(",") if codec.strip()}
    expected = {track.track.codec, *(sound.track.codec for sound in group)}
    check.must("9.1", where, codecs, "CODECS is missing.")
    check.must(
        "9.1",
        where,
        not codecs or codecs == expected,
        f"CODECS are {sorted(codecs)}, the segments' {sorted(expected)}.",
    )
    _check_bandwidth(check, where, attributes, track, group)
    if track.track.kind == "video":
        _check_pictures(check, where, attributes, track)
        for sound in group:
            _check_sound(check, where, track, sound)


def _check_pictures(check: _Check, where: str, attributes: Mapping[str, str], track: MeasuredTrack) -> None:
    resolution = f"{track.track.width}x{track.track.height}"
    declared = attributes.get("RESOLUTION", "")
    check.must(
        "9.2", where, declared == resolution, f"RESOLUTION is {declared or 'missing'}, the segments' is {resolution}."
    )
    rate = 1 / track.frame_s
    declared_rate = _number(attributes.get("FRAME-RATE", ""))
    if check.must("9.15", where, declared_rate is not None, "FRAME-RATE is missing.") and declared_rate is not None:
        check.must(
            "9.15",
            where,
            abs(declared_rate - rate) <= 0.01 * rate,
            f"FRAME-RATE is {declared_rate}, measured {rate:.3f}.",
        )
    check.must(
        "1.19", where, rate <= _FRAME_RATE_MAX + 0.01, f"{rate:.3f} frames a second are more than {_FRAME_RATE_MAX}."
    )
    level = int(track.track.codec[-2:], 16)
    check.must("1.3b", where, level <= _LEVEL_MAX, f"the H.264 level is {level / 10}, more than 5.2.")


def _check_sound(check: _Check, where: str, track: MeasuredTrack, sound: MeasuredTrack) -> None:
    targets = [one.playlist.tags.get("EXT-X-TARGETDURATION") for one in (track, sound)]
    check.must("8.2", where, targets[0] == targets[1], f"the target durations of pictures and sound differ: {targets}.")
    off = abs(float(track.duration - sound.duration))
    check.must(
        "8.3", where, off <= max(track.frame_s, sound.frame_s), f"pictures and sound differ by {off:.3f} s in duration."
    )
    starts = [[float(segment.start) for segment in one.segments] for one in (track, sound)]
    aligned = len(starts[0]) == len(starts[1]) and all(
        abs(one - other) <= sound.frame_s for one, other in zip(*starts, strict=True)
    )
    check.should("8.22", where, aligned, "the segments of pictures and sound do not begin at the same times.")


def _check_bandwidth(
    check: _Check, where: str, attributes: Mapping[str, str], track: MeasuredTrack, group: Sequence[MeasuredTrack]
) -> None:
    peak = track.measured_peak_bps + max((sound.measured_peak_bps for sound in group), default=0.0)
    average = track.average_bps + max((sound.average_bps for sound in group), default=0.0)
    for rule, close_rule, name, measured in (
        ("9.13", "1.27", "BANDWIDTH", peak),
        ("9.14", "1.26", "AVERAGE-BANDWIDTH", average),
    ):
        declared = _number(attributes.get(name, ""))
        if check.must(rule, where, declared is not None, f"{name} is missing.") and declared is not None:
            off = abs(declared - measured) / measured
            check.must(
                close_rule,
                where,
                off <= _DECLARED_TOLERANCE,
                f"{name} is {declared:.0f}, measured {measured:.0f}: {off:.0%} off.",
            )
    declared = _number(attributes.get("BANDWIDTH", ""))
    check.must(
        "9.13",
        where,
        declared is None or declared >= peak - 1,
        f"BANDWIDTH {declared} is less than the peak, {peak:.0f}.",
    )


def _check_iframes(check: _Check, uri: str, playlist: MultivariantPlaylist, tracks: Sequence[MeasuredTrack]) -> None:
    check.must("6.1", uri, playlist.iframes, "there is no I-frame playlist (EXT-X-I-FRAME-STREAM-INF).")
    segments = {segment.uri: segment for track in tracks for segment in track.segments}
    for stream in playlist.iframes:
        where = f"{uri} → {stream.uri}"
        for rule, name in (("RFC 8216 4.3.4.3", "BANDWIDTH"), ("9.3", "CODECS"), ("9.4", "RESOLUTION")):
            check.must(rule, where, stream.attributes.get(name), f"{name} is missing.")
        try:
            frames = parse.parse_media(check.resolve(stream.uri))
        except (OSError, PlaylistError) as error:
            check.must("6.1", where, False, str(error))
            continue
        check.must("6.1", where, "EXT-X-I-FRAMES-ONLY" in frames.tags, "EXT-X-I-FRAMES-ONLY is missing.")
        _check_media_tags(check, stream.uri, frames)
        for entry in frames.entries:
            segment = segments.get(entry.uri)
            known = segment is not None and entry.range in segment.key_ranges
            check.must(
                "6.1", f"{where} → {entry.uri}", known, f"bytes {entry.range} are not an IDR picture with its header."
            )
        total = sum(entry.duration_s for entry in frames.entries)
        longest = max((float(track.duration) for track in tracks), default=total)
        check.must(
            "8.1", where, abs(total - longest) <= 0.5, f"the key frames last {total:.3f} s, the video {longest:.3f} s."
        )


def _check_alignment(check: _Check, uri: str, tracks: Sequence[MeasuredTrack]) -> None:
    """Variants show the same moment at the same time (RFC 8216, 6.2.4)."""
    if not tracks:
        return
    starts = [[round(float(segment.start), 3) for segment in track.segments] for track in tracks]
    same = all(each == starts[0] for each in starts[1:])
    check.must("RFC 8216 6.2.4", uri, same, "the variants' segments do not begin at the same times.")
    aspects = [track.track.width / max(1, track.track.height) for track in tracks]
    equal = all(abs(aspect / aspects[0] - 1) <= _ASPECT_TOLERANCE for aspect in aspects)
    check.should(
        "1.33", uri, equal, f"the variants have different aspect ratios: {[round(aspect, 3) for aspect in aspects]}."
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _integer(text: str) -> int | None:
    return int(text) if text.isdigit() else None
