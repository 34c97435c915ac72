"""The events and records by which others know of videos. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mainstem.services.media.manifest import PublishedRendition
from mainstem.services.media.source import RefusalReason

MEDIA_PREFIX = "$media."
"""Streams of a video's progress are this prefix and the video's id."""

VIDEO_READY = "video.ready"
"""Stream of the events that make a video visible."""

VIDEO_REFUSED = "video.refused"
"""Stream of the events that say why an upload does not become a video."""

WORKFLOW = "video"
"""Name of the workflow that makes a video, in histories and in the ids of its runs."""

UPLOAD_COMPLETED = "upload.completed"
"""Stream of the events that start the work."""


class UploadCompleted(msgspec.Struct, frozen=True):
    """What the media service needs of an ``upload.completed`` event. Names in it are a stranger's, for display only.

    Attributes:
        upload_id: The upload; the video gets its id.
        blob: SHA-256 of the source.
        filename: What the uploader calls it.
    """

    upload_id: str
    blob: str
    filename: str = ""


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    """The source was looked at; the work is known. In ``$media.<video id>``.

    Attributes:
        chunks_total: How many chunks are to be encoded.
        frames: Number of frames.
        duration_s: Seconds of the video.
        renditions: Their names, best first.
        filename: What the uploader calls it.
    """

    chunks_total: int
    frames: int
    duration_s: float
    renditions: Sequence[str]
    filename: str = ""


class ChunkEncoded(msgspec.Struct, frozen=True, kw_only=True, tag="chunk"):
    """A chunk's files are durable. A chunk that is encoded again after a crash is recorded again.

    Attributes:
        index: The chunk, from 0.
        chunks_total: Of how many.
        frames: Its frames.
        size_bytes: Of all its files.
        seconds: How long the work took.
    """

    index: int
    chunks_total: int
    frames: int
    size_bytes: int
    seconds: float


class SoundEncoded(msgspec.Struct, frozen=True, kw_only=True, tag="sound"):
    """All of the sound is durable."""

    size_bytes: int
    seconds: float


Progress = Planned | ChunkEncoded | SoundEncoded
"""A record of ``$media.<video id>``."""


class VideoReady(msgspec.Struct, frozen=True, kw_only=True):
    """The event that makes a video visible, about ``upload:<id>`` and ``video:<id>``.

    Attributes:
        video_id: Its id; its address is ``<prefix>/media/videos/<video id>/main.m3u8``.
        upload_id: The upload it was made from.
        source_blob: The source.
        filename: What the uploader calls it.
        playlist: Address of the multivariant playlist, relative to where the application is mounted.
        manifest: Blob of the :class:`~mainstem.services.media.manifest.Manifest`.
        duration_s: Seconds.
        frames: Number of frames.
        frame_rate: Frames a second; the average where it varies; at most 60.
        has_audio: Whether it has sound.
        chunks: How many chunks were encoded.
        renditions: Best first.
        source_frame_rate: Frames a second of the source: more than ``frame_rate`` where it has more than 60.
    """

    video_id: str
    upload_id: str
    source_blob: str
    filename: str
    playlist: str
    manifest: str
    duration_s: float
    frames: int
    frame_rate: float
    has_audio: bool
    chunks: int
    renditions: Sequence[PublishedRendition]
    source_frame_rate: float = 0.0


class VideoRefused(msgspec.Struct, frozen=True, kw_only=True):
    """The event that says why an upload does not become a video, about ``upload:<id>`` and ``video:<id>``.

    Attributes:
        video_id: The id that the video would have had.
        upload_id: The upload.
        source_blob: The source.
        filename: What the uploader calls it.
        reason: A stable word.
        message: A sentence.
    """

    video_id: str
    upload_id: str
    source_blob: str
    filename: str
    reason: RefusalReason
    message: str


class VideoOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the workflow: one of the two, and a word for it."""

    outcome: Literal["ready", "refused"]
    video_id: str
    message: str = ""
