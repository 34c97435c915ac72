"""Verifying a published video against its source: every frame of every rendition is decoded and compared.

The video and its source are decoded in full by ffmpeg, from the playlist, as a player would. Frames are paired by their
order, not by their times, and each must look more like its own source frame than like the one before or after: so a
frame that is lost, doubled or out of place shows, also where neighbours look much alike.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import msgspec

from mainstem.host.process import run_process
from mainstem.services.media import parse
from mainstem.services.media.checker import Finding, check_video, directory_resolver
from mainstem.services.media.encode import thinning_filter
from mainstem.services.media.errors import MediaError
from mainstem.services.media.parse import Stream
from mainstem.services.media.plan import Plan, make_plan
from mainstem.services.media.probe import probe_source
from mainstem.services.media.source import Limits, Refusal
from mainstem.services.media.tools import find_ffmpeg

_PSNR = re.compile(rb"psnr_avg:(inf|[0-9.]+)")
_FRAME_LINE = re.compile(rb"^\d+,\s*-?\d+,\s*(-?\d+),", re.MULTILINE)
_TIME_BASE_LINE = re.compile(rb"^#tb 0: (\d+)/(\d+)", re.MULTILINE)
_PSNR_MAX_DB = 100.0
_OUTPUT_MAX_BYTES = 256 << 20

_SHIFTS = ((0, 0), (0, 1), (1, 0))
"""Comparisons in small, as (first frame of the video, first frame of the source)."""

_SMALL_WIDTH = 128
_CLEARLY_DB = 1.0
_AS_GOOD_DB = 3.0
_ONE_IN_STARVED = 100
"""One frame in so many (one at least) may be misplaced in a rendition that is not the best: a starved encoder repeats
a whole picture now and then.
"""

_RUN_MISPLACED = 3
"""So many misplaced frames in a row are no starved encoder: a segment, or the cut before it, is out of place."""

PSNR_MIN_DB = 18.0
"""What no frame may fall below. Unrelated frames are at 5 to 15 dB; a hard frame at a low bit rate is above 20 dB."""


class RenditionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rendition, decoded in full.

    Attributes:
        uri: Its media playlist.
        width: Pixels.
        height: Pixels.
        bandwidth: Its declared BANDWIDTH in bits a second.
        frames: Frames that were decoded.
        psnr_min_db: The frame that differs most from the source's.
        psnr_mean_db: All frames.
        time_error_max_s: Largest difference between when a frame is shown and when the source shows it.
        misplaced: Numbers, from 0, of the frames that look more like the source's frame before or after than like
            their own.
    """

    uri: str
    width: int
    height: int
    bandwidth: int
    frames: int
    psnr_min_db: float
    psnr_mean_db: float
    time_error_max_s: float
    misplaced: Sequence[int]


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the verification found.

    Attributes:
        playlist: Path of the multivariant playlist.
        source_frames: Frames that the source decodes to; of more than 60 a second those that are to be shown.
        source_duration_s: Their duration.
        renditions: Best first.
        findings: Of the playlist checker.
        problems: One sentence for each way in which the video is not what the source is; empty when all is well.
    """

    playlist: str
    source_frames: int
    source_duration_s: float
    renditions: Sequence[RenditionReport]
    findings: Sequence[Finding]
    problems: Sequence[str]

    @property
    def violations(self) -> Sequence[Finding]:
        """The findings that break a MUST; the others are advice, which unusual sources (a long still) cannot always
        meet.
        """
        return [finding for finding in self.findings if finding.level == "must"]

    @property
    def ok(self) -> bool:
        """Whether there are neither problems nor violations."""
        return not self.problems and not self.violations


async def verify_video(playlist: Path, source: Path, *, limits: Limits | None = None) -> VerifyReport:
    """Decode every rendition of a video in full and compare each frame with the source's.

    Args:
        playlist: The multivariant playlist, with all files that it names beside it
            (:func:`~mainstem.services.media.package.materialise` puts them there).
        source: The file that the video was made from.
        limits: Time and memory of the processes.

    Raises:
        MediaError: The source cannot be read, or ffmpeg failed.
        PlaylistError: The playlist is malformed.
    """
    limits = limits or Limits()
    facts = await probe_source(source, limits)
    if isinstance(facts, Refusal):
        raise MediaError(f"{source.name}: {facts.message}")
    plan = make_plan(facts)
    findings = await asyncio.to_thread(check_video, directory_resolver(playlist.parent), playlist.name)
    data = await asyncio.to_thread(playlist.read_bytes)
    variants = parse.parse_multivariant(data).variants
    source_times = await _decode_times(source, plan, limits)
    problems = []
    if len(source_times) != plan.frames:
        problems.append(f"The source decodes to {len(source_times)} frames where its container has {plan.frames}.")
    reports = []
    for variant in variants:
        report = await _verify_rendition(playlist.parent, variant, source, plan, source_times, limits)
        reports.append(report)
        problems += _problems(report, len(source_times), plan)
    problems += misplacements(reports)
    return VerifyReport(
        playlist=str(playlist),
        source_frames=len(source_times),
        source_duration_s=plan.duration_s,
        renditions=reports,
        findings=findings,
        problems=problems,
    )


def _problems(report: RenditionReport, source_frames: int, plan: Plan) -> list[str]:
    name = f"{report.width}x{report.height}"
    problems = []
    if report.frames != source_frames:
        problems.append(f"{name} has {report.frames} frames, the source {source_frames}.")
    if report.psnr_min_db < PSNR_MIN_DB:
        problems.append(
            f"{name}: a frame is at {report.psnr_min_db:.1f} dB of the source's, less than {PSNR_MIN_DB} dB."
        )
    frame_s = plan.timing.rate[1] / plan.timing.rate[0]
    if report.time_error_max_s > frame_s:
        problems.append(f"{name}: a frame is shown {report.time_error_max_s:.3f} s away from its time.")
    return problems


def misplacements(reports: Sequence[RenditionReport]) -> list[str]:
    """Return one sentence for each way in which frames are in another's place.

    What goes wrong where the source is decoded and cut shows in every rendition at the same frames, and most clearly in
    the best one, whose encoder has bits enough: nothing is tolerated there. What goes wrong where one rendition is put
    together shows in many of its frames, or in several in a row. A frame here and there in a lower rendition only is an
    encoder that had no bits left and repeated the picture before.
    """
    problems = []
    best = max(reports, key=lambda report: report.bandwidth, default=None)
    for report in reports:
        tolerated = 0 if report is best else max(1, report.frames // _ONE_IN_STARVED)
        there = set(report.misplaced)
        in_a_row = (n for n in report.misplaced if there.issuperset(range(n, n + _RUN_MISPLACED)))
        start = next(in_a_row, report.misplaced[0] if len(there) > tolerated else None)
        if start is not None:
            problems.append(
                f"{report.width}x{report.height}: {len(there)} of {report.frames} frames look more like another frame "
                f"of the source than like their own, from frame {start} on; at most {tolerated} may."
            )
    return problems


async def _decode_times(source: Path, plan: Plan, limits: Limits) -> list[Fraction]:
    """Decode the source and return the times of its frames that are shown, from the first one's."""
    arguments = ["-copyts", *_source_input(source, plan), "-map", f"0:{plan.picture.stream_index}"]
    if plan.picture.thinning is not None:
        arguments += ["-vf", thinning_filter(plan.picture.thinning, 0)]
    output = await _ffmpeg([*arguments, "-fps_mode", "passthrough", "-f", "framecrc", "-"], source.parent, limits)
    return parse_times(output)


def parse_times(output: bytes) -> list[Fraction]:
    """Return the times of frames, from the first one's, in seconds, from the lines of ffmpeg's ``framecrc``.

    Raises:
        MediaError: There is no time base in them.
    """
    base = _TIME_BASE_LINE.search(output)
    if base is None:
        raise MediaError("ffmpeg decoded nothing: there is no time base in its list of frames.")
    unit = Fraction(int(base[1]), int(base[2]))
    times = [int(match) for match in _FRAME_LINE.findall(output)]
    return [(time - times[0]) * unit for time in times]


async def _verify_rendition(
    directory: Path, variant: Stream, source: Path, plan: Plan, source_times: Sequence[Fraction], limits: Limits
) -> RenditionReport:
    width, _, height = variant.attributes.get("RESOLUTION", "0x0").partition("x")
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        scratch = Path(name)
        arguments = [*_source_input(source, plan), *_playlist_input(directory / variant.uri)]
        shifts = _SHIFTS if plan.frames > 1 else _SHIFTS[:1]  # a single frame has no neighbours
        arguments += ["-filter_complex", _comparison(plan, int(width), int(height), shifts)]
        arguments += ["-map", "[watched]", "-fps_mode", "passthrough", "-f", "framecrc", "-"]
        for number in range(len(shifts) + 1):
            arguments += ["-map", f"[psnr{number}]", "-fps_mode", "passthrough", "-f", "null", "-"]
        output = await _ffmpeg(arguments, scratch, limits)
        logs = [await asyncio.to_thread((scratch / f"{number}.log").read_bytes) for number in range(len(shifts) + 1)]
    values, own, *neighbours = map(parse_psnr, logs)
    after, before = neighbours or ([], [])
    times = parse_times(output)
    errors = [abs(float(mine - theirs)) for mine, theirs in zip(times, source_times, strict=False)]
    return RenditionReport(
        uri=variant.uri,
        width=int(width),
        height=int(height),
        bandwidth=int(variant.attributes.get("BANDWIDTH", "0")),
        frames=len(times),
        psnr_min_db=round(min(values), 2),
        psnr_mean_db=round(sum(values) / len(values), 2),
        time_error_max_s=round(max(errors), 6),
        misplaced=find_misplaced(own, before, after),
    )


def _comparison(plan: Plan, width: int, height: int, shifts: Sequence[tuple[int, int]]) -> str:
    """Return the filters that compare the n-th frame with the n-th of the source, and in small with its neighbours."""
    numbered = "settb=1/1000,setpts=N"
    upright = "bwdif=mode=send_frame:deint=interlaced," if plan.picture.interlaced else ""
    if plan.picture.thinning is not None:
        upright += thinning_filter(plan.picture.thinning, 0) + ","
    small = f"scale={_SMALL_WIDTH}:{_SMALL_WIDTH}:flags=area"
    count = len(shifts)
    parts = [
        f"[1:v:0]split[watched][m];[m]{numbered},split[mine][m1];[m1]{small},split={count}{_labels('mine', count)}",
        f"[0:{plan.picture.stream_index}]{upright}{numbered},scale={width}:{height}:flags=bicubic,setsar=1[scaled]",
        f"[scaled]format=yuv420p,split[theirs][t1];[t1]{small},split={count}{_labels('theirs', count)}",
        "[mine][theirs]psnr=stats_file=0.log:eof_action=endall[psnr0]",
    ]
    for number, (mine, theirs) in enumerate(shifts):
        parts += [
            f"[mine{number}]trim=start_frame={mine},setpts=PTS-{mine}[a{number}]",
            f"[theirs{number}]trim=start_frame={theirs},setpts=PTS-{theirs}[b{number}]",
            f"[a{number}][b{number}]psnr=stats_file={number + 1}.log:eof_action=endall[psnr{number + 1}]",
        ]
    return ";".join(parts)


def _labels(name: str, count: int) -> str:
    return "".join(f"[{name}{number}]" for number in range(count))


def parse_psnr(output: bytes) -> list[float]:
    """Return the values, in decibels, of the lines that ffmpeg's ``psnr`` filter writes; identical frames have 100."""
    return [_PSNR_MAX_DB if match == b"inf" else float(match) for match in _PSNR.findall(output)]


def find_misplaced(own: Sequence[float], before: Sequence[float], after: Sequence[float]) -> list[int]:
    """Return the numbers of the frames that look more like a neighbour's source than like their own.

    Standing still is no fault. A frame in another's place is as good a picture of that other one as frames are of their
    own. Where a starved encoder repeats the picture before in part, the frame is a bad picture of both, and at its
    place.

    Args:
        own: Frame n against frame n of the source, in decibels.
        before: Frame n + 1 against frame n of the source.
        after: Frame n against frame n + 1 of the source.
    """
    misplaced = set()
    good_db = statistics.median(own) - _AS_GOOD_DB
    for number, value in enumerate(own):
        if number < len(after) and after[number] > max(value + _CLEARLY_DB, good_db):
            misplaced.add(number)
        if 0 < number <= len(before) and before[number - 1] > max(value + _CLEARLY_DB, good_db):
            misplaced.add(number)
    return sorted(misplaced)


def _playlist_input(playlist: Path) -> list[str]:
    allowed = ["-copyts", "-protocol_whitelist", "file", "-allowed_extensions", "m3u8,m4s,mp4"]
    return [*allowed, "-i", f"file:{playlist.absolute()}"]


def _source_input(source: Path, plan: Plan) -> list[str]:
    return ["-protocol_whitelist", "file", "-f", plan.picture.demuxer, "-i", f"file:{source.absolute()}"]


async def _ffmpeg(arguments: Sequence[str], cwd: Path, limits: Limits) -> bytes:
    result = await run_process(
        [find_ffmpeg(), "-nostdin", "-hide_banner", "-loglevel", "error", *arguments],
        timeout_s=limits.encode_timeout_s,
        stdout_max_bytes=_OUTPUT_MAX_BYTES,
        address_space_max_bytes=limits.encode_memory_max_bytes,
        cwd=cwd,
    )
    if result.exit_code != 0:
        raise MediaError(f"ffmpeg exited with {result.exit_code}: {result.stderr_text[-500:]}")
    return result.stdout
