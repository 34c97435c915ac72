"""Sources of all kinds become right videos: every frame, upright, in step with the sound."""

from __future__ import annotations

import array
import asyncio
import hashlib
import os
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from mainstem.services.media.checker import check_video, directory_resolver
from mainstem.services.media.chunks import ChunkFiles, WorkFile, encode_audio, encode_chunk
from mainstem.services.media.errors import EncodeError, PackageError, SourceDamagedError
from mainstem.services.media.package import Joiner
from mainstem.services.media.tools import find_ffmpeg
from mainstem.services.media.verify import verify_video
from tests.services.media.clips import Clips
from tests.services.media.pipeline import Published, encoder_for
from tests.support import children_of, run, until

pytestmark = pytest.mark.usefixtures("no_children_left")

GOOD = {
    "plain.mp4": (320, 180, 50),
    "open_groups.mkv": (320, 180, 50),
    "transport_stream.ts": (320, 180, 50),
    "ntsc.mp4": (320, 180, 60),
    "cut_with_edit_list.mp4": (320, 180, 27),
    "silent.mp4": (320, 180, 50),
    "portrait.mp4": (180, 320, 50),
    "odd_size.mp4": (320, 180, 25),
    "anamorphic.mp4": (352, 198, 25),
    "tiny.mp4": (96, 64, 20),
    "variable_rate.mp4": (320, 180, 27),
    "lost_frame.mkv": (320, 180, 49),
    "lost_frame.ts": (320, 180, 49),
    "lost_frame.webm": (320, 180, 49),
    "pause.mkv": (320, 180, 50),
    "late_sound.mkv": (320, 180, 50),
    "single_frame.mp4": (320, 180, 1),
    "whole_web.webm": (320, 180, 50),
    "whole_avi.avi": (320, 180, 50),
    "whole_flash.flv": (320, 180, 50),
    "live.mkv": (320, 180, 50),
}
"""Clips that become videos: size of the best rendition and number of frames."""


@pytest.mark.parametrize("name", GOOD)
def test_source(name: str, clips: Clips, published: Callable[[str], Published]) -> None:
    """Every frame of every rendition is the source's, in order and in time, and the checker finds nothing."""
    video = published(name)
    width, height, frames = GOOD[name]
    report = run(verify_video(video.playlist, clips.get(name)))
    assert report.ok and not report.problems, report
    assert [str(finding) for finding in report.findings] == []
    best = report.renditions[0]
    assert (best.width, best.height, report.source_frames) == (width, height, frames)
    assert len(report.renditions) == 3
    for rendition in report.renditions:
        assert rendition.frames == frames
        assert rendition.width <= best.width and rendition.width % 2 == rendition.height % 2 == 0
    if video.plan.timing.is_constant:
        assert max(rendition.time_error_max_s for rendition in report.renditions) < 0.001


FAST = {
    "fast_90.mp4": (90, 60.0),
    "fast_90.mkv": (90, 60.0),
    "fast_100.ts": (100, 60.0),
    "fast_240.mp4": (240, 60.0),
    "fast_variable.mkv": (153, 60.0),
}
"""Clips with more than 60 frames a second: how many they have, and at most so many are shown."""


@pytest.mark.parametrize("name", FAST)
def test_a_fast_source_is_shown_at_sixty(name: str, clips: Clips, published: Callable[[str], Published]) -> None:
    """Of more than 60 frames a second some are dropped, evenly: those that are shown are the source's, in order and
    at their time, the checker finds nothing, and the manifest tells both rates.
    """
    video = published(name)
    source_rate, shown_rate = FAST[name]
    report = run(verify_video(video.playlist, clips.get(name)))
    assert report.ok and not report.problems, report
    assert [str(finding) for finding in report.findings] == []
    assert report.source_frames == video.plan.frames == video.manifest.frames
    assert 50 <= video.manifest.frames <= 60 and video.manifest.frame_rate <= shown_rate
    assert video.manifest.source_frame_rate == pytest.approx(source_rate, rel=0.02)
    assert video.manifest.duration_s == pytest.approx(1.0, abs=1 / 60)
    assert max(rendition.time_error_max_s for rendition in report.renditions) < 1 / source_rate + 0.001


def test_variable_rate_keeps_every_time(published: Callable[[str], Published]) -> None:
    """A source of variable rate keeps its duration and the time of each frame, to the tick."""
    video = published("variable_rate.mp4")
    kept = [n for n in range(50) if n % 3 and not 30 <= n <= 39]
    rendition = video.plan.renditions[0].name
    sources = [(file, video.plan.chunks[index].start) for index, file in enumerate(_work_files(video, rendition))]
    joiner = Joiner(video.work, sources)
    assert sum((piece.duration for piece in joiner.pieces()), Fraction(0)) == Fraction(video.plan.duration, 12800)
    assert not video.plan.timing.is_constant and video.plan.frames == len(kept)
    starts = {round(chunk.start / 512) + kept[0] for chunk in video.plan.chunks}
    assert starts <= set(kept)


def _work_files(video: Published, rendition: str) -> list[WorkFile]:
    return [work_file(video.work, f"chunk-{chunk.index:05d}-{rendition}.mp4") for chunk in video.plan.chunks]


def work_file(directory: Path, name: str) -> WorkFile:
    data = (directory / name).read_bytes()
    return WorkFile(name, hashlib.sha256(data).hexdigest(), len(data))


def test_sound_is_in_step(published: Callable[[str], Published]) -> None:
    """A click one second into the pictures, in sound that begins half a second late, is heard at one second."""
    video = published("late_sound.mkv")
    [sound] = [
        one for one in video.manifest.files.values() if one.content_type == "audio/mp4" and one.size_bytes < 1500
    ]
    playlist = next(
        name
        for name in video.manifest.files
        if name.endswith(".m3u8")
        and b"#EXT-X-MAP" in (video.directory / name).read_bytes()
        and sound.sha256.encode() in (video.directory / name).read_bytes()
    )
    command = [
        str(find_ffmpeg()),
        "-v",
        "error",
        "-allowed_extensions",
        "m3u8,m4s,mp4",
        "-i",
        playlist,
        "-f",
        "s16le",
        "-ac",
        "1",
        "-",
    ]
    samples = array.array(
        "h", subprocess.run(command, cwd=video.directory, capture_output=True, check=True, timeout=60).stdout
    )
    loud = [number for number, sample in enumerate(samples) if abs(sample) > 8000]
    assert abs(loud[0] / 48000 - 1.0) < 0.005
    assert abs(len(samples) / 48000 - 2.0) < 0.03


def test_silent_source_has_no_sound(published: Callable[[str], Published]) -> None:
    """A source without sound is a video without sound."""
    video = published("silent.mp4")
    assert not video.manifest.has_audio
    assert b"EXT-X-MEDIA" not in video.playlist.read_bytes()


def test_names_are_content(published: Callable[[str], Published]) -> None:
    """Each file but the multivariant playlist is named by the SHA-256 of its bytes, and nothing else is there."""
    video = published("plain.mp4")
    on_disk = sorted(path.name for path in video.directory.iterdir())
    assert on_disk == sorted(video.manifest.files)
    for name, file in video.manifest.files.items():
        assert name == "main.m3u8" or name.split(".")[0] == file.sha256
        assert (video.directory / name).stat().st_size == file.size_bytes


def test_a_chunk_encoded_again_has_the_same_bytes(
    clips: Clips, published: Callable[[str], Published], tmp_path: Path
) -> None:
    """Encoding a chunk, or the sound, a second time gives the same bytes."""
    video = published("plain.mp4")
    plan = video.plan
    encoder = encoder_for(clips.get("plain.mp4"), tmp_path / "again")
    result = run(encode_chunk(encoder, plan.picture, plan.timing, plan.renditions, plan.chunks[2]))
    for file in result.files:
        assert (encoder.work / file.name).read_bytes() == (video.work / file.name).read_bytes()
    assert plan.audio is not None
    sound = run(encode_audio(encoder, plan.picture.demuxer, plan.audio))
    assert (encoder.work / sound.name).read_bytes() == (video.work / sound.name).read_bytes()
    assert sorted(path.name for path in encoder.work.iterdir()) == sorted(
        [sound.name, *(file.name for file in result.files)]
    )


def test_a_seek_that_misses_is_made_up_for(clips: Clips, published: Callable[[str], Published], tmp_path: Path) -> None:
    """When reading begins behind the first wanted frame, the chunk is read again from further back, at last from the
    beginning.
    """
    plan = published("open_groups.mkv").plan
    encoder = encoder_for(clips.get("open_groups.mkv"), tmp_path / "work")
    chunk = plan.chunks[1]

    def encode(**changes: object) -> ChunkFiles:
        changed = msgspec.structs.replace(chunk, **changes)
        return run(encode_chunk(encoder, plan.picture, plan.timing, plan.renditions, changed))

    behind_s = 9.2  # of a clip from 7.5 to 9.5 s; the chunk ends at 8.5 s
    with pytest.raises(SourceDamagedError, match="planned"):
        encode(seeks_s=[behind_s])
    assert encode(seeks_s=[behind_s, None]) == encode() == encode(seeks_s=[None])
    with pytest.raises(SourceDamagedError, match="12 frames where 13 were planned"):
        encode(frames=chunk.frames + 1)


def test_failing_encoder(clips: Clips, published: Callable[[str], Published], tmp_path: Path) -> None:
    """When ffmpeg fails, the error has what it said, and nothing is left in the work directory."""
    plan = published("plain.mp4").plan
    encoder = encoder_for(tmp_path / "is-not-there.mp4", tmp_path / "work")
    with pytest.raises(EncodeError, match="No such file"):
        run(encode_chunk(encoder, plan.picture, plan.timing, plan.renditions, plan.chunks[0]))
    assert list(encoder.work.iterdir()) == []


def test_cancelled_encoding_leaves_nothing(clips: Clips, published: Callable[[str], Published], tmp_path: Path) -> None:
    """A cancelled chunk leaves neither files nor processes."""
    plan = published("plain.mp4").plan
    encoder = encoder_for(clips.get("plain.mp4"), tmp_path / "work")

    async def scenario() -> None:
        task = asyncio.create_task(encode_chunk(encoder, plan.picture, plan.timing, plan.renditions, plan.chunks[0]))
        await until(lambda: children_of(os.getpid()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not children_of(os.getpid())

    run(scenario())
    assert list(encoder.work.iterdir()) == []


def test_other_settings_do_not_mix(clips: Clips, published: Callable[[str], Published], tmp_path: Path) -> None:
    """Chunks with different initialisation segments are not joined."""
    small, large = published("plain.mp4"), published("anamorphic.mp4")
    for video, name in ((small, "one.mp4"), (large, "two.mp4")):
        source = next(video.work.glob("chunk-00000-*p.mp4"))
        (tmp_path / name).write_bytes(source.read_bytes())
    files = [work_file(tmp_path, name) for name in ("one.mp4", "two.mp4")]
    first = small.plan.chunks[0]
    with pytest.raises(PackageError, match="another initialisation segment"):
        list(Joiner(tmp_path, [(files[0], 0), (files[1], first.duration)]).pieces())
    with pytest.raises(PackageError, match="begins at 1 where the chunk before it ends at 0"):
        list(Joiner(tmp_path, [(files[0], 1)]).pieces())
    (tmp_path / "one.mp4").write_bytes(b"changed")
    with pytest.raises(PackageError, match="no longer has the bytes"):
        list(Joiner(tmp_path, [(files[0], 0)]).pieces())


def test_checker_reads_directories_only(published: Callable[[str], Published]) -> None:
    """An address that leads out of the directory has no bytes."""
    resolve = directory_resolver(published("plain.mp4").directory)
    with pytest.raises(FileNotFoundError, match="leads out"):
        resolve("../../../../etc/passwd")
    assert check_video(resolve, "../main.m3u8")[0].rule == "RFC 8216 4"
