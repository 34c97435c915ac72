"""Look at one media file and say what it is: a program of its own, because hostile files are meant to kill what reads
them.

Run as ``python -m mainstem.services.media._probe_child PATH``; the limits come as JSON on standard input. The answer
goes to standard output: one JSON object, :class:`~mainstem.services.media.source.SourceFacts` or
:class:`~mainstem.services.media.source.Refusal`. Only the file itself is ever opened: containers that refer to other
files or addresses (playlists, concatenations) are not in the list of formats.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import msgspec

from mainstem.services.media.extent import declared_size_bytes
from mainstem.services.media.source import AudioFacts, Limits, Refusal, SourceFacts

FORMATS = "mov,matroska,mpegts,mpeg,avi,flv,ogg,asf,mp3,wav,flac,aac"
"""Containers that are opened. All hold their data themselves."""

_WITH_INDEX = ("mov", "matroska")
"""Containers whose packets are frames with presentation times of their own; in others, only decoding tells."""

_TELLS_DURATION = ("flv",)
"""Containers that tell how long they last, but not how many bytes they have."""

_MISSING_MIN_S = 0.5
_MISSING_MIN_SHARE = 0.05

_NO_TIME = -(1 << 63)


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


_FRAMES_PER_S_MIN = 0.001
"""A playlist tells a rate with three decimals; one that is smaller would be none."""


class _Frames:
    """Times of the frames of one stream, as they are gathered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.times: list[int] = []
        self.key_times: list[int] = []
        self.last: tuple[int, int] = (-(1 << 62), 0)
        self.all_end_s = -1.0

    def add(self, time: int, duration: int, *, is_key: bool) -> None:
        if len(self.times) >= self._limits.frames_max:
            raise _refused("too_long", f"The video has more than {self._limits.frames_max:,} frames.")
        self.times.append(time)
        if is_key:
            self.key_times.append(time)
        self.last = max(self.last, (time, duration))

    def add_hidden(self, time: int | None, *, is_key: bool) -> None:
        if is_key and time is not None and len(self.key_times) < self._limits.frames_max:
            self.key_times.append(time)


def main() -> None:
    """Read the limits, probe the file named by the only argument, print the answer."""
    av.logging.set_level(av.logging.PANIC)
    limits = msgspec.json.decode(sys.stdin.buffer.read(), type=Limits)
    answer: SourceFacts | Refusal
    try:
        answer = probe(sys.argv[1], limits)
    except _RefusedError as refused:
        answer = refused.refusal
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def probe(path: str, limits: Limits) -> SourceFacts:
    """Return the facts of a file, or raise with the refusal."""
    if Path(path).stat().st_size == 0:
        raise _refused("empty", "The file is empty: it has no bytes at all.")
    container = _open(path)
    with container:
        streams_count = len(container.streams)
        if streams_count > limits.streams_max:
            raise _refused(
                "too_many_streams", f"The file has {streams_count} streams; at most {limits.streams_max} are accepted."
            )
        video = _choose_video(container, limits)
        frames = _Frames(limits)
        try:
            first = _gather_packets(container, video, frames)
        except av.error.FFmpegError as error:
            raise _refused("damaged", f"The video cannot be read ({error.strerror}).") from None
        _refuse_missing_time(container, frames.all_end_s)
        _refuse_missing_bytes(path, container.format.name, video)
        if frames.times and not _packets_are_frames(container.format.name, frames):
            frames = _Frames(limits)
            with _open(path) as again:
                _gather_decoded(again, again.streams[video.index], frames)
        if first is None or not frames.times:
            raise _refused("damaged", "Not a single frame of the video can be decoded.")
        return _facts(container, video, first, frames, limits)


def _open(path: str) -> Any:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path}", options=options)
    except (av.error.FFmpegError, ValueError) as error:
        with Path(path).open("rb") as file:
            begins_as_mp4 = file.read(12)[4:8] == b"ftyp"
        if begins_as_mp4:
            raise _refused("truncated", "The file begins as MP4 but has no index (moov): it is incomplete.") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused("not_media", f"The file is not in a video format that is understood ({reason}).") from None


def _choose_video(container: Any, limits: Limits) -> Any:
    videos = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not videos:
        holds = "only sound" if container.streams.audio else "neither picture nor sound"
        raise _refused("no_video", f"The file holds {holds}: a video stream is needed.")
    video = max(videos, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > limits.pixels_max:
        raise _refused(
            "too_large", f"The video has {width} × {height} pixels; at most {limits.pixels_max:,} are accepted."
        )
    seconds = float((container.duration or 0) / av.time_base)
    if seconds > limits.duration_max_s:
        raise _refused(
            "too_long", f"The video lasts {seconds:.0f} s; at most {limits.duration_max_s:.0f} s are accepted."
        )
    return video


def _is_cover(stream: Any) -> bool:
    """Tell whether a video stream is the cover picture of a song."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic) or stream.codec_context is None


def _gather_packets(container: Any, video: Any, frames: _Frames) -> Any:
    """Gather times from packets, and return the first frame that can be decoded."""
    first: Any = None
    tells_duration = container.format.name in _TELLS_DURATION
    for packet in container.demux() if tells_duration else container.demux(video):
        if tells_duration and packet.pts is not None:
            frames.all_end_s = max(frames.all_end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.size == 0 or packet.stream.index != video.index:
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.is_discard:  # hidden by an edit list: never shown, but what is shown may need it
            frames.add_hidden(time, is_key=packet.is_keyframe)
        else:
            frames.add(_NO_TIME if time is None else time, packet.duration or 0, is_key=packet.is_keyframe)
        if first is None:
            first = next(iter(_decode(packet)), None)
    if first is None:
        first = next(iter(_decode(None, video)), None)
    return first


def _decode(packet: Any, video: Any = None) -> Any:
    try:
        return packet.decode() if packet is not None else video.codec_context.decode(None)
    except av.error.FFmpegError:
        return ()  # a damaged start is no reason to refuse: a later packet may decode


def _gather_decoded(container: Any, video: Any, frames: _Frames) -> None:
    video.thread_type = "NONE"
    for packet in container.demux(video):
        for frame in _decode(packet):
            if frame.pts is not None:
                frames.add(frame.pts, frame.duration or 0, is_key=bool(frame.key_frame))


def _packets_are_frames(format_name: str, frames: _Frames) -> bool:
    return (
        format_name.startswith(_WITH_INDEX)
        and _NO_TIME not in frames.times
        and len(set(frames.times)) == len(frames.times)
    )


def _refuse_missing_bytes(path: str, format_name: str, video: Any) -> None:
    """Refuse a file that ends before the bytes that its own index names, or before it says itself that it ends."""
    size_bytes = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        declared_bytes = declared_size_bytes(file, format_name)
    if declared_bytes is not None and declared_bytes > size_bytes:
        raise _refused(
            "truncated",
            f"The file ends at byte {size_bytes:,}; by what its beginning says it has at least {declared_bytes:,}.",
        )
    ends = [entry.pos + entry.size for entry in video.index_entries]
    missing = sum(1 for end in ends if end > size_bytes)
    if missing:
        raise _refused(
            "truncated",
            f"The file ends at byte {size_bytes:,}, before {missing} of the {len(ends)} frames that its index names.",
        )


def _refuse_missing_time(container: Any, end_s: float) -> None:
    """Refuse a file of a format that tells a duration at its beginning, and no size, when it is clearly shorter.

    A duration may be an old one, of before a cut, or counted in another way: a little is no reason.
    """
    if container.format.name not in _TELLS_DURATION or container.duration is None or end_s < 0:
        return
    declared_s = container.duration / av.time_base
    if end_s < declared_s - max(_MISSING_MIN_S, _MISSING_MIN_SHARE * declared_s):
        raise _refused(
            "truncated", f"The file ends after {end_s:.1f} s; by what its beginning says it lasts {declared_s:.1f} s."
        )


def _facts(container: Any, video: Any, first: Any, frames: _Frames, limits: Limits) -> SourceFacts:
    times = sorted(frames.times)
    # The last frame lasts too: as long as the file says, else as long as the others on average, as in the plan.
    last = frames.last[1] or (times[-1] - times[0]) // max(1, len(times) - 1)
    seconds = float((times[-1] - times[0] + last) * video.time_base)
    if seconds > limits.duration_max_s:
        raise _refused(
            "too_long", f"The video lasts {seconds:.0f} s; at most {limits.duration_max_s:.0f} s are accepted."
        )
    if seconds * _FRAMES_PER_S_MIN > len(times):
        raise _refused(
            "damaged",
            f"The video has {len(times)} frames in {seconds:.0f} s: at least one in {1 / _FRAMES_PER_S_MIN:.0f} s is "
            "expected.",
        )
    audio = next((stream for stream in container.streams.audio if stream.codec_context is not None), None)
    aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio
    rates = [video.average_rate, video.guessed_rate, video.base_rate]
    return SourceFacts(
        demuxer=container.format.name.split(",")[0],
        stream_index=video.index,
        codec=video.codec_context.name,
        width=first.width,
        height=first.height,
        sample_aspect=(aspect.numerator, aspect.denominator) if aspect and aspect > 0 else (1, 1),
        rotation_degrees=round(first.rotation / 90) * 90 % 360,
        interlaced=bool(first.interlaced_frame),
        time_base=(video.time_base.numerator, video.time_base.denominator),
        rates=[(rate.numerator, rate.denominator) for rate in rates if rate],
        frame_times=times,
        key_times=sorted(frames.key_times),
        last_duration=frames.last[1],
        audio=None
        if audio is None
        else AudioFacts(audio.index, audio.codec_context.name, audio.codec_context.channels, audio.language or ""),
    )


def _refused(reason: Any, message: str) -> _RefusedError:
    return _RefusedError(Refusal(reason, message))


if __name__ == "__main__":
    main()
