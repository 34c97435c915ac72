"""One chunk, or all of the sound: run ffmpeg, measure what it wrote against the plan, keep it durably in the work
directory.

The work directory belongs to one video. Files get their final name only when they are complete and synced; what a crash
leaves under another name is removed with the directory.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mainstem.host.process import run_process
from mainstem.services.media import mp4
from mainstem.services.media.encode import audio_arguments, video_arguments
from mainstem.services.media.errors import EncodeError, Mp4Error, NoRoomError, SourceDamagedError
from mainstem.services.media.plan import AAC_FRAME_SAMPLES, AUDIO_RATE_HZ, AudioPlan, Chunk, Picture, Rendition, Timing
from mainstem.services.media.source import Limits

UNFINISHED_PREFIX = "unfinished-"
"""Names in a work directory that begin like this are an encoder's; where no encoder runs they are left from a crash."""

_NO_ROOM = os.strerror(errno.ENOSPC)
_OUTPUT_MAX_BYTES = 4 << 30


class Encoder(msgspec.Struct, frozen=True, kw_only=True):
    """What all encoding of one video has in common.

    Attributes:
        ffmpeg: Path of the program.
        source: The source file.
        work: The video's work directory; it exists.
        preset: Preset of x264.
        limits: Time and memory of each process.
    """

    ffmpeg: Path
    source: Path
    work: Path
    preset: str
    limits: Limits


class WorkFile(msgspec.Struct, frozen=True):
    """A durable file in the work directory.

    Attributes:
        name: Its name there.
        sha256: Of its bytes.
        size_bytes: How many they are.
    """

    name: str
    sha256: str
    size_bytes: int


class ChunkFiles(msgspec.Struct, frozen=True, tag="chunk"):
    """The result of one chunk: a file for each rendition, best first."""

    index: int
    files: Sequence[WorkFile]


async def encode_chunk(
    encoder: Encoder,
    picture: Picture,
    timing: Timing,
    renditions: Sequence[Rendition],
    chunk: Chunk,
    *,
    env: Mapping[str, str] | None = None,
) -> ChunkFiles:
    """Encode one chunk into all renditions; return once the files are durable.

    Reading begins where it is cheapest; when that does not give exactly the planned frames (some containers' indexes
    are not to be trusted), it begins again further back, at last at the source's beginning.

    Raises:
        EncodeError: ffmpeg failed.
        NoRoomError: The disk is full.
        SourceDamagedError: Even from the beginning, the source does not decode to the frames that its container
            promises.
    """
    finding = ""
    for seek_s in chunk.seeks_s:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=encoder.work) as name:
            directory = Path(name)
            arguments = video_arguments(
                encoder.source, picture, timing, renditions, chunk, seek_s=seek_s, preset=encoder.preset
            )
            said = await _run(encoder, arguments, directory, env)
            finding = await asyncio.to_thread(_check_chunk, directory, timing, renditions, chunk)
            if not finding:
                names = [f"chunk-{chunk.index:05d}-{rendition.name}.mp4" for rendition in renditions]
                files = [(directory / f"v{number}.mp4", name) for number, name in enumerate(names)]
                return ChunkFiles(chunk.index, await asyncio.to_thread(_keep, encoder.work, files))
            finding += f" ffmpeg said: {said[-300:]}" if said else ""
    raise SourceDamagedError(
        f"Frames {chunk.start_pts} to {chunk.end_pts} (chunk {chunk.index}) cannot be decoded: {finding}"
    )


async def encode_audio(
    encoder: Encoder, demuxer: str, audio: AudioPlan, *, env: Mapping[str, str] | None = None
) -> WorkFile:
    """Encode all of the sound; return once the file is durable.

    Raises:
        EncodeError: ffmpeg failed, or wrote sound of another length.
    """
    with tempfile.TemporaryDirectory(prefix=UNFINISHED_PREFIX, dir=encoder.work) as name:
        directory = Path(name)
        said = await _run(encoder, audio_arguments(encoder.source, demuxer, audio), directory, env)
        finding = await asyncio.to_thread(_check_audio, directory / "audio.mp4", audio)
        if finding:
            raise EncodeError(
                f"The sound of {encoder.source.name}: {finding} ffmpeg said: {said[-300:] or '(nothing)'}"
            )
        [kept] = await asyncio.to_thread(_keep, encoder.work, [(directory / "audio.mp4", "audio.mp4")])
        return kept


async def _run(encoder: Encoder, arguments: list[str], directory: Path, env: Mapping[str, str] | None) -> str:
    result = await run_process(
        [encoder.ffmpeg, *arguments],
        timeout_s=encoder.limits.encode_timeout_s,
        address_space_max_bytes=encoder.limits.encode_memory_max_bytes,
        file_size_max_bytes=_OUTPUT_MAX_BYTES,
        cwd=directory,
        env=env,
    )
    if _NO_ROOM in result.stderr_text:
        # Also where ffmpeg ends as if all were well: what it wrote may be cut short, and the source is not to blame.
        raise NoRoomError(f"The disk is full: ffmpeg could not write what it made of {encoder.source.name}.")
    if result.exit_code != 0:
        how = f"was ended by signal {-result.exit_code}" if result.exit_code < 0 else f"exited with {result.exit_code}"
        raise EncodeError(
            f"ffmpeg {how} on {encoder.source.name}; it said: {result.stderr_text[-1000:] or '(nothing)'}"
        )
    return result.stderr_text


def _check_chunk(directory: Path, timing: Timing, renditions: Sequence[Rendition], chunk: Chunk) -> str:
    """Return how the files differ from the plan; empty when they do not. Gives each group its exact length."""
    for number, rendition in enumerate(renditions):
        path = directory / f"v{number}.mp4"
        try:
            data = path.read_bytes()
            init, spans = mp4.split_init(data)
            finding = check_groups(data, mp4.read_track(init), chunk, timing)
        except (FileNotFoundError, Mp4Error) as error:
            # No frame at all leaves no file, or one without a track: a finding like any other.
            return f"{rendition.name}: {error}"
        if finding:
            return f"{rendition.name}: {finding}"
        path.write_bytes(init + exact_groups(data, spans, chunk))
    return ""


def check_groups(data: bytes, track: mp4.Track, chunk: Chunk, timing: Timing) -> str:
    """Return how the fragments of a chunk differ from its plan; an empty string when they do not."""
    fragments = mp4.read_fragments(data)
    frames = sum(len(fragment.samples) for fragment in fragments)
    if frames != chunk.frames:
        return f"{frames} frames where {chunk.frames} were planned."
    if track.timescale != timing.timescale:
        return f"a timescale of {track.timescale} where {timing.timescale} was planned."
    starts = [fragment.decode_time for fragment in fragments]
    if starts != list(chunk.group_starts):
        return f"groups begin at {starts} where {list(chunk.group_starts)} were planned."
    for fragment in fragments:
        if not mp4.is_idr(data, fragment.samples[0], track.nal_length_bytes):
            return f"the group at {fragment.decode_time} does not begin with an IDR picture."
        if fragment.samples[0].composition_offset or fragment.presentation_times[0] != fragment.decode_time:
            return f"the group at {fragment.decode_time} does not present its first picture first."
    return ""


def exact_groups(data: bytes, spans: Sequence[tuple[int, int]], chunk: Chunk) -> bytes:
    """Return the fragments, the last frame of each lasting until the next group (or the chunk's end)."""
    ends = [*chunk.group_starts[1:], chunk.duration]
    moved = []
    for number, (fragment, (start, end), group_end) in enumerate(
        zip(mp4.read_fragments(data), spans, ends, strict=True)
    ):
        excess = fragment.decode_time + fragment.duration - group_end
        last = fragment.samples[-1].duration - excess
        moved.append(
            mp4.move_fragment(
                data[start:end], sequence_number=number + 1, decode_time_shift=0, last_duration=last if excess else None
            )
        )
    return b"".join(moved)


def _check_audio(path: Path, audio: AudioPlan) -> str:
    data = path.read_bytes()
    init, _spans = mp4.split_init(data)
    track = mp4.read_track(init)
    fragments = mp4.read_fragments(data)
    samples = sum(fragment.duration for fragment in fragments)
    wanted = audio.duration_s * AUDIO_RATE_HZ
    if track.timescale != AUDIO_RATE_HZ or abs(samples - wanted) > 2 * AAC_FRAME_SAMPLES:
        return f"{samples} samples at {track.timescale} Hz where {wanted:.0f} at {AUDIO_RATE_HZ} Hz were planned."
    if fragments[0].decode_time != 0:
        return f"it begins at {fragments[0].decode_time} instead of 0."
    return ""


def _keep(work: Path, files: Sequence[tuple[Path, str]]) -> list[WorkFile]:
    """Make files durable under their final names, replacing what an earlier attempt left."""
    kept = []
    for path, name in files:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        size_bytes = path.stat().st_size
        path.rename(work / name)
        kept.append(WorkFile(name, sha256, size_bytes))
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return kept


def remove_work(directory: Path) -> None:
    """Remove a work directory, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)
