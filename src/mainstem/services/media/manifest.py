"""What a published video consists of: the record of its files, and where they are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

MULTIVARIANT_NAME = "main.m3u8"
"""Name of the multivariant playlist within a video."""

PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
"""Media type of playlists (RFC 8216, section 4)."""

VIDEO_TYPE = "video/mp4"
"""Media type of video segments."""

AUDIO_TYPE = "audio/mp4"
"""Media type of sound segments."""


class PublishedFile(msgspec.Struct, frozen=True):
    """One file of a video.

    Attributes:
        sha256: Name of its blob.
        size_bytes: Its size.
        content_type: Its media type.
    """

    sha256: str
    size_bytes: int
    content_type: str


class PublishedRendition(msgspec.Struct, frozen=True, kw_only=True):
    """One rendition, as it was measured.

    Attributes:
        name: ``"720p"``.
        width: Pixels.
        height: Pixels.
        frames: Number of frames.
        bandwidth_bps: BANDWIDTH of its variant, sound included.
        average_bandwidth_bps: AVERAGE-BANDWIDTH of its variant, sound included.
        codecs: CODECS of its variant.
        playlist: Name of its media playlist.
    """

    name: str
    width: int
    height: int
    frames: int
    bandwidth_bps: int
    average_bandwidth_bps: int
    codecs: str
    playlist: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A published video.

    Attributes:
        video_id: Its id.
        source_blob: The source it was made from.
        duration_s: How long it lasts.
        frames: Number of frames.
        frame_rate: Frames a second; the average where it varies; at most 60.
        has_audio: Whether it has sound.
        renditions: Best first.
        files: All its files by name. Playlists refer to the others by these names. All but ``main.m3u8`` are named by
            the SHA-256 of their content, so a name never means anything else.
        source_frame_rate: Frames a second of the source: more than ``frame_rate`` where frames had to be dropped,
            evenly, because it has more than 60. 0 where an earlier version did not tell.
    """

    video_id: str
    source_blob: str
    duration_s: float
    frames: int
    frame_rate: float
    has_audio: bool
    renditions: Sequence[PublishedRendition]
    files: Mapping[str, PublishedFile]
    source_frame_rate: float = 0.0
