"""From encoded chunks to a published video: join, measure, name by content, write the playlists.

All renditions are cut into segments at the same groups of pictures. The initialisation segment must be the same in all
chunks of a rendition: that is checked, not assumed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import msgspec

from mainstem.host.blobs import BlobStore
from mainstem.services.media import mp4
from mainstem.services.media.chunks import ChunkFiles, WorkFile
from mainstem.services.media.errors import PackageError
from mainstem.services.media.manifest import (
    AUDIO_TYPE,
    MULTIVARIANT_NAME,
    PLAYLIST_TYPE,
    VIDEO_TYPE,
    Manifest,
    PublishedFile,
    PublishedRendition,
)
from mainstem.services.media.plan import SEGMENT_S, Plan, Rendition
from mainstem.services.media.playlist import (
    AudioRendition,
    KeyFrame,
    MediaTrack,
    Segment,
    Variant,
    iframe_playlist,
    media_playlist,
    multivariant_playlist,
)

_LONGER_MAX = Fraction(21, 20)
_LANGUAGES = {
    "eng": "en", "deu": "de", "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "ita": "it", "por": "pt", "nld": "nl",
    "dut": "nl", "swe": "sv", "nor": "no", "dan": "da", "fin": "fi", "pol": "pl", "ces": "cs", "cze": "cs", "rus": "ru",
    "ukr": "uk", "tur": "tr", "ara": "ar", "heb": "he", "hin": "hi", "zho": "zh", "chi": "zh", "jpn": "ja", "kor": "ko",
}  # fmt: skip
"""ISO 639-2 to the shortest code, which RFC 5646 demands, for the most frequent ones; others are valid as they are."""


class Piece(msgspec.Struct, frozen=True):
    """One fragment on its way into a segment.

    Attributes:
        data: Its bytes, in their final form.
        duration: Seconds.
        key_frame_bytes: From its start to the end of its first picture.
    """

    data: bytes
    duration: Fraction
    key_frame_bytes: int


async def package(
    blobs: BlobStore,
    work: Path,
    video_id: str,
    source_blob: str,
    plan: Plan,
    chunks: Sequence[ChunkFiles],
    audio: WorkFile | None,
) -> Manifest:
    """Put all segments and playlists of a video into the blob store and return its manifest. Idempotent.

    Nothing becomes visible by this: who publishes the manifest does that.

    Raises:
        PackageError: The chunks are not those of the plan, or do not fit together.
    """
    files: dict[str, PublishedFile] = {}
    variants: list[Variant] = []
    for number, rendition in enumerate(plan.renditions):
        sources = [(chunk.files[number], plan.chunks[chunk.index].start) for chunk in chunks]
        track = await _publish_track(blobs, files, work, sources, VIDEO_TYPE)
        await asyncio.to_thread(_check_video, work, rendition, sources)
        uri = await _publish_playlist(blobs, files, media_playlist(track))
        iframe_uri = await _publish_playlist(blobs, files, iframe_playlist(track))
        variants.append(
            Variant(
                uri=uri,
                iframe_uri=iframe_uri,
                track=track,
                width=rendition.width,
                height=rendition.height,
                frame_rate=Fraction(*plan.timing.rate),
            )
        )
    check_alignment([variant.track for variant in variants])
    sound: AudioRendition | None = None
    if audio is not None and plan.audio is not None:
        track = await _publish_sound(
            blobs, files, work, audio, [segment.duration for segment in variants[0].track.segments]
        )
        uri = await _publish_playlist(blobs, files, media_playlist(track))
        language = _LANGUAGES.get(plan.audio.language, plan.audio.language)
        sound = AudioRendition(uri=uri, track=track, language=language, channels=plan.audio.channels)
    await _publish_playlist(blobs, files, multivariant_playlist(variants, sound), name=MULTIVARIANT_NAME)
    return Manifest(
        video_id=video_id,
        source_blob=source_blob,
        duration_s=plan.duration_s,
        frames=plan.frames,
        frame_rate=plan.timing.rate[0] / plan.timing.rate[1],
        has_audio=sound is not None,
        renditions=[
            _describe(rendition, variant, sound, plan.frames)
            for rendition, variant in zip(plan.renditions, variants, strict=True)
        ],
        files=files,
        source_frame_rate=plan.source_frame_rate,
    )


def _describe(rendition: Rendition, variant: Variant, sound: AudioRendition | None, frames: int) -> PublishedRendition:
    return PublishedRendition(
        name=rendition.name,
        width=rendition.width,
        height=rendition.height,
        frames=frames,
        bandwidth_bps=variant.track.peak_bps + (sound.track.peak_bps if sound else 0),
        average_bandwidth_bps=variant.track.average_bps + (sound.track.average_bps if sound else 0),
        codecs=variant.track.codec + (f",{sound.track.codec}" if sound else ""),
        playlist=variant.uri,
    )


async def _publish_track(
    blobs: BlobStore,
    files: dict[str, PublishedFile],
    work: Path,
    sources: Sequence[tuple[WorkFile, int]],
    content_type: str,
) -> MediaTrack:
    """Join the files of one rendition, cut them into segments, put these into the blob store."""
    joiner = Joiner(work, sources)
    segments: list[Segment] = []
    cutter = cut_into_segments(joiner.pieces())
    while (segment := await asyncio.to_thread(next, cutter, None)) is not None:
        data, duration, key_frames = segment
        name = await _publish(blobs, files, data, ".m4s", content_type)
        is_video = content_type == VIDEO_TYPE
        segments.append(Segment(name, len(data), duration, key_frames if is_video else ()))
    if joiner.track is None or not segments:
        raise PackageError("A rendition has no segments at all; nothing was published.")
    init_uri = await _publish(blobs, files, joiner.init, ".mp4", content_type)
    return MediaTrack(init_uri=init_uri, codec=joiner.track.codec, segments=segments)


async def _publish_sound(
    blobs: BlobStore, files: dict[str, PublishedFile], work: Path, audio: WorkFile, durations: Sequence[Fraction]
) -> MediaTrack:
    """Cut the sound where the pictures are cut and put its segments into the blob store."""
    data = await asyncio.to_thread(_read, work, audio)
    init, _spans = mp4.split_init(data)
    track = mp4.read_track(init)
    segments = []
    for segment, duration in await asyncio.to_thread(lambda: list(cut_sound(data, track.timescale, durations))):
        name = await _publish(blobs, files, segment, ".m4s", AUDIO_TYPE)
        segments.append(Segment(name, len(segment), duration))
    return MediaTrack(
        init_uri=await _publish(blobs, files, init, ".mp4", AUDIO_TYPE), codec=track.codec, segments=segments
    )


def cut_sound(data: bytes, timescale: int, durations: Sequence[Fraction]) -> Iterator[tuple[bytes, Fraction]]:
    """Yield the sound's segments, bytes and seconds, each as long as the pictures' segment, to the nearest frame.

    Args:
        data: A fragmented file of one track of sound.
        timescale: Of that track.
        durations: Seconds of each segment of the pictures.
    """
    samples = [sample for fragment in mp4.read_fragments(data) for sample in fragment.samples]
    number = decode_time = sequence_number = 0
    wanted_end = Fraction(0)
    for place, duration in enumerate(durations):
        wanted_end += duration * timescale
        held: list[tuple[bytes, int]] = []
        end = decode_time
        is_last = place == len(durations) - 1
        while number < len(samples) and (is_last or end + samples[number].duration / 2 <= wanted_end):
            sample = samples[number]
            held.append((data[sample.offset : sample.offset + sample.size_bytes], sample.duration))
            end += sample.duration
            number += 1
        if held:
            sequence_number += 1
            segment = mp4.build_fragment(sequence_number=sequence_number, decode_time=decode_time, samples=held)
            yield segment, Fraction(end - decode_time, timescale)
        decode_time = end


class Joiner:
    """Puts the fragments of several files on one timeline.

    Args:
        work: Where the files are.
        sources: Each file with the time of its start, in units of the timescale.

    Attributes:
        init: The initialisation segment, once the first piece was yielded.
        track: What it says.
    """

    def __init__(self, work: Path, sources: Sequence[tuple[WorkFile, int]]) -> None:
        self._work = work
        self._sources = sources
        self.init = b""
        self.track: mp4.Track | None = None

    def pieces(self) -> Iterator[Piece]:
        """Yield all fragments in order, numbered and timed for the whole; one file is in memory at a time.

        Raises:
            PackageError: A file's bytes are not those that were recorded, or its initialisation differs from the
                first's.
        """
        sequence_number = 0
        now = 0
        for source, start in self._sources:
            data = _read(self._work, source)
            init, spans = mp4.split_init(data)
            if self.track is None:
                self.init, self.track = init, mp4.read_track(init)
            elif init != self.init:
                raise PackageError(
                    f"{source.name} has another initialisation segment than the chunks before it: they were encoded "
                    "with different settings or versions of ffmpeg. Nothing was published; start the video's run again."
                )
            if start != now:
                raise PackageError(
                    f"{source.name} begins at {start} where the chunk before it ends at {now}. Nothing was published."
                )
            for fragment, (begin, end) in zip(mp4.read_fragments(data), spans, strict=True):
                sequence_number += 1
                moved = mp4.move_fragment(data[begin:end], sequence_number=sequence_number, decode_time_shift=start)
                first = fragment.samples[0]
                key_frame_bytes = first.offset + first.size_bytes - fragment.start
                yield Piece(moved, Fraction(fragment.duration, self.track.timescale), key_frame_bytes)
                now += fragment.duration


def _read(work: Path, file: WorkFile) -> bytes:
    data = (work / file.name).read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise PackageError(
            f"{file.name} no longer has the bytes that were recorded ({file.sha256}). Nothing was published."
        )
    return data


def cut_into_segments(pieces: Iterator[Piece]) -> Iterator[tuple[bytes, Fraction, list[KeyFrame]]]:
    """Yield segments: bytes, duration, key frames. Each holds as many pieces as last for about the target duration."""
    held: list[Piece] = []
    for piece in pieces:
        if held and sum((each.duration for each in held), piece.duration) > SEGMENT_S * _LONGER_MAX:
            yield _join(held)
            held = []
        held.append(piece)
    if held:
        yield _join(held)


def _join(pieces: Sequence[Piece]) -> tuple[bytes, Fraction, list[KeyFrame]]:
    key_frames = []
    offset = 0
    for piece in pieces:
        key_frames.append(KeyFrame(offset, piece.key_frame_bytes, piece.duration))
        offset += len(piece.data)
    return b"".join(piece.data for piece in pieces), sum((piece.duration for piece in pieces), Fraction(0)), key_frames


def check_alignment(tracks: Sequence[MediaTrack]) -> None:
    """Check that all renditions are cut at the same times, so that a player can change between them.

    Raises:
        PackageError: They are not.
    """
    first = [segment.duration for segment in tracks[0].segments]
    for number, track in enumerate(tracks):
        durations = [segment.duration for segment in track.segments]
        if durations != first:
            raise PackageError(f"Rendition {number} is cut at other times than rendition 0. Nothing was published.")


def _check_video(work: Path, rendition: Rendition, sources: Sequence[tuple[WorkFile, int]]) -> None:
    init, _spans = mp4.split_init((work / sources[0][0].name).read_bytes())
    track = mp4.read_track(init)
    if (track.kind, track.width, track.height) != ("video", rendition.width, rendition.height):
        raise PackageError(
            f"{rendition.name}: expected video of {rendition.width} × {rendition.height}, got {track.kind} of "
            f"{track.width} × {track.height}. Nothing was published."
        )


async def _publish_playlist(blobs: BlobStore, files: dict[str, PublishedFile], text: str, *, name: str = "") -> str:
    return await _publish(blobs, files, text.encode(), ".m3u8", PLAYLIST_TYPE, name=name)


async def _publish(
    blobs: BlobStore, files: dict[str, PublishedFile], data: bytes, suffix: str, content_type: str, *, name: str = ""
) -> str:
    sha256 = await blobs.put_bytes(data)
    name = name or sha256 + suffix
    files[name] = PublishedFile(sha256, len(data), content_type)
    return name


def materialise(blobs: BlobStore, files: Mapping[str, PublishedFile], directory: Path) -> Path:
    """Put a video's files under their names into a directory (links where possible), for programs that read files.

    Returns:
        The path of the multivariant playlist there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        target = directory / name
        if not target.exists():
            try:
                target.hardlink_to(blobs.path(file.sha256))
            except OSError:  # another file system, or one without links
                target.write_bytes(blobs.path(file.sha256).read_bytes())
    return directory / MULTIVARIANT_NAME
