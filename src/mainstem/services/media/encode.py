"""Argument lists for ffmpeg. Pure.

One process decodes a chunk once and encodes all its renditions. What it writes does not depend on when, where or how
often it runs: one thread an encoder, no dates, no version marks. Only the file itself is opened, in the format that
the probe found.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from mainstem.services.media.plan import (
    AAC_FRAME_SAMPLES,
    AUDIO_RATE_HZ,
    SEGMENT_S,
    AudioPlan,
    Chunk,
    Picture,
    Rendition,
    Thinning,
    Timing,
)

PRESET = "veryfast"
"""Preset of x264 where the application does not choose."""

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""Presets of x264 that an application may choose, fastest first."""

_FRAGMENTED = "+cmaf+empty_moov+default_base_moof+skip_trailer"


def video_arguments(
    source: Path,
    picture: Picture,
    timing: Timing,
    renditions: Sequence[Rendition],
    chunk: Chunk,
    *,
    seek_s: float | None,
    preset: str,
) -> list[str]:
    """Return the arguments that encode a chunk into ``v0.mp4``, ``v1.mp4``, … in the working directory, best first.

    Args:
        source: The source file.
        picture: How it is read.
        timing: The published timeline.
        renditions: What is made of each frame.
        chunk: Which frames.
        seek_s: Where to begin reading, one of ``chunk.seeks_s``.
        preset: One of :data:`PRESETS`.
    """
    arguments = [*_common(), "-copyts"]
    if seek_s is not None:
        arguments += ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{seek_s:.6f}"]
    arguments += ["-threads", "1", *_input(source, picture.demuxer)]
    arguments += ["-filter_complex_threads", "1", "-filter_complex", _video_filter(picture, timing, renditions, chunk)]
    for number, rendition in enumerate(renditions):
        arguments += _video_output(number, rendition, timing, chunk, preset)
    return arguments


def _common() -> list[str]:
    return ["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]


def _input(source: Path, demuxer: str) -> list[str]:
    return ["-protocol_whitelist", "file", "-f", demuxer, "-i", f"file:{source}"]


def _video_filter(picture: Picture, timing: Timing, renditions: Sequence[Rendition], chunk: Chunk) -> str:
    steps = [f"trim=start_pts={chunk.start_pts}:end_pts={chunk.end_pts}"]
    if picture.interlaced:
        steps.append("bwdif=mode=send_frame:deint=interlaced")
    if picture.thinning is not None:
        steps.append(thinning_filter(picture.thinning, chunk.first_frame))
    if timing.is_constant:
        steps += [f"settb={timing.rate[1]}/{timing.rate[0]}", "setpts=N"]
    else:
        steps += [f"setpts=PTS-{chunk.start_pts}", f"settb=1/{timing.timescale}"]
    branches = "".join(f"[s{number}]" for number in range(len(renditions)))
    scales = [
        f"[s{number}]scale={rendition.width}:{rendition.height}:flags=bicubic,setsar=1,format=yuv420p[v{number}]"
        for number, rendition in enumerate(renditions)
    ]
    return ";".join([f"[0:{picture.stream_index}]{','.join(steps)},split={len(renditions)}{branches}", *scales])


def thinning_filter(thinning: Thinning, first_frame: int) -> str:
    """Return the filter that lets those frames through that are shown.

    Args:
        thinning: Which they are. Its numbers are exact in the filter's arithmetic (doubles): products stay far below
            2**53.
        first_frame: Number within the source of the first frame that comes; it is shown.
    """
    a, b = thinning.slots
    if thinning.by_time:
        slot = f"floor((%s-({thinning.origin}))*{a}/{b})"
        return f"select='isnan(prev_pts)+gt({slot % 'pts'},{slot % 'prev_pts'})'"
    slot = f"floor((n+(%d))*{a}/{b})"
    return f"select='gt({slot % first_frame},{slot % (first_frame - 1)})'"


def _video_output(number: int, rendition: Rendition, timing: Timing, chunk: Chunk, preset: str) -> list[str]:
    unit = Fraction(timing.rate[1], timing.rate[0]) if timing.is_constant else Fraction(1, timing.timescale)
    return [
        *["-map", f"[v{number}]", "-c:v", "libx264", "-preset", preset, "-profile:v", "high", "-threads", "1"],
        *["-crf", str(rendition.crf), "-maxrate", str(rendition.max_bps), "-bufsize", str(rendition.buffer_bits)],
        *_groups(timing, chunk),
        *["-fps_mode", "passthrough", "-enc_time_base", f"{unit.numerator}:{unit.denominator}"],
        *["-flags:v", "+bitexact+cgop", "-fflags", "+bitexact", "-map_metadata", "-1", "-map_chapters", "-1"],
        *["-f", "mp4", "-movflags", f"{_FRAGMENTED}+frag_keyframe", "-video_track_timescale", str(timing.timescale)],
        f"v{number}.mp4",
    ]


def _groups(timing: Timing, chunk: Chunk) -> list[str]:
    """Return what puts an IDR picture at each group's start and nowhere else."""
    rate = f"fps={timing.rate[0]}/{timing.rate[1]}"
    if timing.is_constant:
        # The same for all chunks, also for a last one that is shorter: it decides what the initialisation segment says.
        length = str(timing.group_frames)
        return ["-g", length, "-keyint_min", length, "-sc_threshold", "0", "-x264-params", rate]
    # A tick less than the planned time: ffmpeg forces the first frame that is not earlier than the time given.
    times = ",".join(f"{max(0.0, (start - 0.5) / timing.timescale):.9f}" for start in chunk.group_starts)
    forced = ["-forced-idr", "1", "-force_key_frames", times]
    # Without B-frames decoding times are presentation times; with them, uneven times would make the two drift apart.
    return ["-bf", "0", "-g", str(1 << 20), "-sc_threshold", "0", *forced, "-x264-params", rate]


def audio_arguments(source: Path, demuxer: str, audio: AudioPlan) -> list[str]:
    """Return the arguments that encode all of the sound into ``audio.mp4`` in the working directory.

    The AAC encoder puts 1,024 samples before the first one. So the sound is cut 1,024 samples into the video and those
    take the place of what was cut: everything that is heard is in step with the picture, without an edit list that
    players disregard. Silence fills what the source leaves out, also at its end.
    """
    end_samples = round(audio.duration_s * AUDIO_RATE_HZ)
    steps = [
        f"asetpts=PTS-{audio.origin_s:.9f}/TB",
        # In two steps: in one, ffmpeg miscounts what it fills in or cuts off where the source's rate is another.
        f"aresample={AUDIO_RATE_HZ}",
        f"aresample=async=1:first_pts={AAC_FRAME_SAMPLES}",
        f"apad=whole_len={max(1, end_samples - AAC_FRAME_SAMPLES)}",
        f"atrim=end_pts={max(end_samples, AAC_FRAME_SAMPLES + 1)}",
    ]
    return [
        *_common(),
        "-copyts",
        *_input(source, demuxer),
        *["-filter_complex", f"[0:{audio.stream_index}]{','.join(steps)}[a]", "-map", "[a]"],
        *["-c:a", "aac", "-b:a", str(audio.bit_rate_bps), "-ac", str(audio.channels), "-ar", str(AUDIO_RATE_HZ)],
        *["-flags:a", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1", "-map_chapters", "-1"],
        *["-f", "mp4", "-movflags", _FRAGMENTED, "-frag_duration", str(SEGMENT_S * 1_000_000)],
        "audio.mp4",
    ]
