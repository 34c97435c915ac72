"""What a source is: the facts that the probe found, and why a source is refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

RefusalReason = Literal[
    "empty",
    "not_media",
    "no_video",
    "truncated",
    "damaged",
    "too_long",
    "too_large",
    "too_many_streams",
    "probe_limits",
]
"""Why a source is refused: a stable word for programs; the sentence beside it is for people."""


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The answer to a source that cannot become a video.

    Attributes:
        reason: See :data:`RefusalReason`.
        message: One sentence: what was found, what was expected.
    """

    reason: RefusalReason
    message: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a source may cost. Beyond a limit it is refused with the number.

    Attributes:
        duration_max_s: Longest video.
        frames_max: Most frames.
        pixels_max: Most pixels of a frame.
        streams_max: Most streams in the container.
        probe_timeout_s: Wall-clock limit of the probing process.
        probe_cpu_max_s: CPU limit of the probing process.
        probe_memory_max_bytes: Address space limit of the probing process.
        encode_timeout_s: Wall-clock limit of each encoding process.
        encode_memory_max_bytes: Address space limit of each encoding process.
    """

    duration_max_s: float = 6 * 3600.0
    frames_max: int = 2_000_000
    pixels_max: int = 8192 * 4352
    streams_max: int = 32
    probe_timeout_s: float = 120.0
    probe_cpu_max_s: float = 60.0
    probe_memory_max_bytes: int = 2 << 30
    encode_timeout_s: float = 1800.0
    encode_memory_max_bytes: int = 8 << 30


class AudioFacts(msgspec.Struct, frozen=True):
    """The audio stream that is used.

    Attributes:
        stream_index: Its number within the container.
        codec: Name of its codec.
        channels: Number of channels.
        language: ISO 639-2 code, or empty.
    """

    stream_index: int
    codec: str
    channels: int
    language: str = ""


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True, tag="facts"):
    """What the probe found. Times are in units of the video stream's time base, as stored in the container.

    Attributes:
        demuxer: ffmpeg's name of the container format.
        stream_index: Number of the video stream within the container.
        codec: Name of the video codec.
        width: Coded width in pixels, before rotation.
        height: Coded height in pixels, before rotation.
        sample_aspect: Width to height of a pixel.
        rotation_degrees: By which the picture is to be turned, counter-clockwise; a multiple of 90.
        interlaced: Whether frames hold two fields.
        time_base: Seconds per unit, as a fraction.
        rates: Frame rates that the container claims, best first, as fractions.
        frame_times: Presentation times of all frames, ascending.
        key_times: Presentation times of the frames at which decoding can begin, ascending.
        last_duration: Duration of the last frame; 0 where the container does not tell.
        audio: The audio stream, if there is one.
    """

    demuxer: str
    stream_index: int
    codec: str
    width: int
    height: int
    sample_aspect: tuple[int, int]
    rotation_degrees: int
    interlaced: bool
    time_base: tuple[int, int]
    rates: Sequence[tuple[int, int]]
    frame_times: Sequence[int]
    key_times: Sequence[int]
    last_duration: int
    audio: AudioFacts | None
