"""The verification accepts what is right, and notices every way in which a video is not its source."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest

from mainstem.services.media import PublishedRendition, VerifyReport, verify_video
from mainstem.services.media.errors import MediaError
from mainstem.services.media.verify import RenditionReport, find_misplaced, misplacements, parse_psnr, parse_times
from tests.services.media.clips import H264, Clips, ffmpeg, lavfi
from tests.services.media.pipeline import Published, publish
from tests.support import run

pytestmark = pytest.mark.usefixtures("no_children_left")


def verify(video: Published, source: Path) -> VerifyReport:
    return run(verify_video(video.playlist, source))


def test_the_right_source(clips: Clips, published: Callable[[str], Published]) -> None:
    """A video and its source: all frames, high likeness, nothing misplaced, and the figures that were published."""
    video = published("silent.mp4")
    report = verify(video, clips.get("silent.mp4"))
    assert report.ok and (report.source_frames, report.source_duration_s) == (50, 2.0)
    described: list[PublishedRendition] = list(video.manifest.renditions)
    for found, declared in zip(report.renditions, described, strict=True):
        assert (found.width, found.height, found.frames) == (declared.width, declared.height, declared.frames)
        assert found.bandwidth == declared.bandwidth_bps and found.uri == declared.playlist
        assert found.psnr_mean_db >= found.psnr_min_db > 20 and not found.misplaced


def test_a_lost_frame(clips: Clips, published: Callable[[str], Published]) -> None:
    """A video that lacks a frame of the source is noticed."""
    report = verify(published("one_frame_less.mp4"), clips.get("silent.mp4"))
    assert not report.ok and "320x180 has 49 frames, the source 50." in report.problems


def test_a_doubled_frame(clips: Clips, published: Callable[[str], Published]) -> None:
    """A frame that is shown twice in the place of the next one is noticed, although the number of frames is right."""
    report = verify(published("doubled.mp4"), clips.get("silent.mp4"))
    assert not report.ok and report.renditions[0].frames == 50
    assert report.renditions[0].misplaced and "look more like another frame" in report.problems[0]


def test_another_source(clips: Clips, published: Callable[[str], Published]) -> None:
    """Another source's pictures are noticed by their likeness, and other times by the clock."""
    report = verify(published("silent.mp4"), clips.get("ntsc.mp4"))
    assert not report.ok
    assert any("frames, the source 60" in problem for problem in report.problems)
    assert any("away from its time" in problem for problem in report.problems)


def test_a_source_that_is_no_video(clips: Clips, published: Callable[[str], Published]) -> None:
    """A source that cannot be read is an error that says why."""
    with pytest.raises(MediaError, match="no bytes"):
        verify(published("silent.mp4"), clips.get("empty.mp4"))


def test_a_missing_segment(clips: Clips, published: Callable[[str], Published], tmp_path: Path) -> None:
    """A video with a segment missing is an error or a problem, never accepted."""
    video = published("silent.mp4")
    for file in video.directory.iterdir():
        if not file.name.endswith(".m4s"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(MediaError):
        run(verify_video(tmp_path / "main.m3u8", clips.get("silent.mp4")))


def test_violations_are_musts(clips: Clips, published: Callable[[str], Published]) -> None:
    """Advice does not make a report bad; a broken MUST does."""
    report = verify(published("silent.mp4"), clips.get("silent.mp4"))
    assert report.violations == [] and list(report.findings) == []


def test_misplaced_frames() -> None:
    """A frame is misplaced when a neighbour's source is clearly more like it; what stands still, or starved, is not."""
    assert find_misplaced([40, 40, 40], [20, 20], [20, 20]) == []
    assert find_misplaced([40, 20, 40], [40, 20], [20, 20]) == [1]
    assert find_misplaced([40, 20, 40], [20, 20], [20, 40]) == [1]
    assert find_misplaced([40, 40, 40], [40.5, 40.5], [40.5, 40.5]) == []
    assert find_misplaced([40], [], []) == []
    assert find_misplaced([20, 20, 20], [40, 40], [20, 20]) == [1, 2]
    assert find_misplaced([36, 24, 36], [26, 20], [20, 20]) == []


def rendition(bandwidth: int, *misplaced: int, frames: int = 924) -> RenditionReport:
    """A report in which some frames are misplaced."""
    facts = {"uri": "v.m3u8", "width": 320, "height": 180, "frames": frames, "psnr_min_db": 30, "psnr_mean_db": 40}
    facts |= {"bandwidth": bandwidth, "time_error_max_s": 0, "misplaced": misplaced}
    return msgspec.convert(facts, RenditionReport)


def test_starved_encoders_are_told_from_faults() -> None:
    """Of a lower rendition one frame in a hundred may be a repeated picture, here and there; that is no problem."""
    assert misplacements([rendition(3), rendition(2, 5), rendition(1, 5, 6, 40, 41, 80, 100, 200, 300, 400)]) == []
    assert misplacements([rendition(2, frames=50), rendition(1, 20, frames=50)]) == []
    assert misplacements([]) == []


@pytest.mark.parametrize("doubled", [[5], [5, 6], [90, 91, 200, 201, 300, 301, 400, 401, 500]], ids=len)
def test_nothing_is_tolerated_in_the_best_rendition(doubled: list[int]) -> None:
    """Frames that are doubled on the way, in every rendition, are found, however few, wherever the best is listed."""
    for order in ([3, 2, 1], [1, 2, 3]):
        (problem,) = misplacements([rendition(bandwidth, *doubled) for bandwidth in order])
        assert f"{len(doubled)} of 924 frames look more like another frame" in problem
        assert f"from frame {doubled[0]} on; at most 0 may" in problem


@pytest.mark.parametrize(
    "misplaced",
    [range(20, 23), range(0, 924, 2), range(115, 924), range(0, 924, 90)],
    ids=["three in a row", "every other", "all but a few", "more than one in a hundred"],
)
def test_a_rendition_that_is_put_together_wrongly(misplaced: range) -> None:
    """A rendition of which a part is out of place is found, although it is a lower one and the others are right."""
    (problem,) = misplacements([rendition(3), rendition(2), rendition(1, *misplaced)])
    assert f"{len(misplaced)} of 924 frames" in problem and f"from frame {misplaced[0]} on; at most 9 may" in problem


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 325 frames, at so low a rate that its encoder has to leave things out."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    pictures = lavfi("testsrc2=size=320x180:rate=25:duration=13")
    ffmpeg(*pictures, "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-b:v", "150k", path)
    return path


def test_a_long_clip_at_a_low_rate(long_clip: Path, tmp_path: Path) -> None:
    """A clip that starves its encoders, but is all there, is right."""
    video = run(publish(long_clip, tmp_path))
    assert isinstance(video, Published)
    report = verify(video, long_clip)
    assert report.ok and report.source_frames == 325, report.problems


def test_one_doubled_frame_of_many(long_clip: Path, tmp_path: Path) -> None:
    """One frame of 325 that is shown in the place of the next one as well is found."""
    doubled = tmp_path / "doubled.mp4"
    double = "select=not(eq(n\\,201)),setpts=N/25/TB,loop=1:1:200,setpts=N/25/TB"
    ffmpeg("-i", long_clip, "-vf", double, *H264, doubled)
    video = run(publish(doubled, tmp_path))
    assert isinstance(video, Published)
    report = verify(video, long_clip)
    assert [rendition.frames for rendition in report.renditions] == [325] * 3
    assert not report.ok and any("look more like another frame" in problem for problem in report.problems)


def test_reading_what_ffmpeg_lists() -> None:
    """Times are relative to the first frame, in exact seconds; identical frames are at 100 dB."""
    lines = b"#tb 0: 1001/30000\n#media_type 0: video\n0, 10, 10, 1, 100, 0xab\n0, 11, 11, 1, 100, 0xcd\n"
    assert parse_times(lines) == [Fraction(0), Fraction(1001, 30000)]
    with pytest.raises(MediaError, match="decoded nothing"):
        parse_times(b"")
    assert parse_psnr(b"n:1 psnr_avg:31.5 psnr_y:30\nn:2 psnr_avg:inf psnr_y:inf\n") == [31.5, 100.0]
