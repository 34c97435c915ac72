"""From facts to a plan: renditions, rates, chunks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mainstem.services.media.plan import (
    CHUNKS_WANTED,
    GROUP_S,
    SEGMENT_S,
    constant_rate,
    display_size,
    even_size,
    make_plan,
    plan_renditions,
)
from mainstem.services.media.source import AudioFacts, SourceFacts


def facts(**changes: Any) -> SourceFacts:
    """Return the facts of 60 s of 1280 × 720 at 25 frames a second, changed."""
    known: dict[str, Any] = {
        "demuxer": "mov",
        "stream_index": 0,
        "codec": "h264",
        "width": 1280,
        "height": 720,
        "sample_aspect": (1, 1),
        "rotation_degrees": 0,
        "interlaced": False,
        "time_base": (1, 12800),
        "rates": [(25, 1)],
        "frame_times": [number * 512 for number in range(1500)],
        "key_times": [number * 512 for number in range(0, 1500, 250)],
        "last_duration": 512,
        "audio": AudioFacts(1, "aac", 2, "eng"),
    }
    return SourceFacts(**{**known, **changes})


def sizes(width: int, height: int) -> list[tuple[int, int]]:
    return [(one.width, one.height) for one in plan_renditions(Fraction(width), Fraction(height), Fraction(25))]


def test_usual_sizes() -> None:
    """Well-known sizes get well-known ladders; the best is at most 1080 pixels high."""
    assert sizes(1920, 1080) == [(1920, 1080), (1280, 720), (854, 480)]
    assert sizes(1280, 720) == [(1280, 720), (854, 480), (640, 360)]
    assert sizes(3840, 2160) == sizes(1920, 1080)
    assert sizes(1080, 1920) == [(1080, 1920), (720, 1280), (480, 854)]


def test_small_sources_differ_by_bit_rate() -> None:
    """A source too small for three sizes gets renditions of one size with falling quality and bit rate, and names of
    their own.
    """
    renditions = plan_renditions(Fraction(160), Fraction(120), Fraction(25))
    assert {(one.width, one.height) for one in renditions} == {(160, 120)}
    assert [one.crf for one in renditions] == sorted({one.crf for one in renditions})
    assert [one.max_bps for one in renditions] == sorted({one.max_bps for one in renditions}, reverse=True)
    assert len({one.name for one in renditions}) == 3


@given(st.integers(16, 8000), st.integers(16, 8000), st.integers(1, 120))
def test_renditions_never_enlarge(width: int, height: int, rate: int) -> None:
    """Whatever the size: three renditions, even, none larger than the source, falling, with names and limits of their
    own.
    """
    renditions = plan_renditions(Fraction(width), Fraction(height), Fraction(rate))
    assert len(renditions) == 3 == len({one.name for one in renditions})
    for one in renditions:
        assert one.width % 2 == one.height % 2 == 0
        assert 2 <= one.width <= width and 2 <= one.height <= height
        assert one.buffer_bits > one.max_bps > 0
    areas = [one.width * one.height for one in renditions]
    assert areas == sorted(areas, reverse=True)


@given(st.integers(64, 4000), st.fractions(Fraction(1, 3), Fraction(3)))
def test_aspect_is_kept(height: int, aspect: Fraction) -> None:
    """The aspect stays within 1 % for every usual shape, odd sizes included."""
    width = height * Fraction(aspect)
    assume(width >= 128 and height >= 128)
    for one in plan_renditions(width, Fraction(height), Fraction(25)):
        assert abs(Fraction(one.width, one.height) / (width / height) - 1) <= Fraction(1, 100)


def test_even_size_of_a_sliver() -> None:
    """A shape that no even size can keep gets the nearest one."""
    assert even_size(Fraction(1000), Fraction(3), 3) == (666, 2)
    assert even_size(Fraction(3), Fraction(1000), 3) == (2, 666)


def test_display_size() -> None:
    """Rotation is applied, and pixels become square without any side growing."""
    assert display_size(facts()) == (Fraction(1280), Fraction(720))
    assert display_size(facts(rotation_degrees=90)) == (Fraction(720), Fraction(1280))
    assert display_size(facts(rotation_degrees=180)) == (Fraction(1280), Fraction(720))
    assert display_size(facts(width=720, height=576, sample_aspect=(16, 11))) == (Fraction(720), Fraction(396))
    assert display_size(facts(width=1440, height=1080, sample_aspect=(8, 9))) == (Fraction(1280), Fraction(1080))


def test_constant_rate() -> None:
    """A rate is constant when every frame lies within a tick of its place, whatever the container claims."""
    assert constant_rate(facts()) == 25
    assert constant_rate(facts(rates=[(30, 1)])) == 25
    milliseconds = [round(number * 1001 / 30) for number in range(1500)]
    ntsc = facts(time_base=(1, 1000), frame_times=milliseconds, rates=[(2997, 100), (30000, 1001)])
    assert constant_rate(ntsc) == Fraction(30000, 1001)
    assert constant_rate(facts(frame_times=[0], rates=[])) == 25
    assert constant_rate(facts(frame_times=[0], rates=[(90000, 1)])) == 25


def test_variable_rate() -> None:
    """One frame out of place makes a rate variable, and every time is kept to the tick."""
    times = [number * 512 for number in range(1500)]
    times[700] += 100
    source = facts(frame_times=times)
    assert constant_rate(source) is None
    plan = make_plan(source)
    assert not plan.timing.is_constant and plan.timing.timescale == 12800
    assert plan.duration == times[-1] + 512


def test_timescale_of_odd_time_bases() -> None:
    """Where frames are not a whole number of ticks apart from each other, the timescale is a multiple of the source's,
    or 90,000.
    """
    times = [0, 33, 66, 101, 133, 170]
    assert make_plan(facts(time_base=(1, 1000), frame_times=times, key_times=[0])).timing.timescale == 13_000
    assert make_plan(facts(time_base=(1001, 30000), frame_times=[0, 1, 3, 4], key_times=[0])).timing.timescale == 90_000


def test_frame_numbers_become_times() -> None:
    """At a constant rate a frame's time is its number over the rate, also where the source's clock is coarse."""
    milliseconds = [round(number * 1001 / 30) for number in range(300)]
    plan = make_plan(facts(time_base=(1, 1000), frame_times=milliseconds, key_times=[0], rates=[(30000, 1001)]))
    assert (plan.timing.timescale, plan.timing.frame_duration) == (30000, 1001)
    assert plan.duration == 300 * 1001


def durations_s(source: SourceFacts) -> list[float]:
    plan = make_plan(source)
    return [chunk.duration / plan.timing.timescale for chunk in plan.chunks]


def test_chunks_of_a_minute() -> None:
    """A long source is cut into chunks of a segment's length, each of three groups of two seconds."""
    plan = make_plan(facts())
    assert [chunk.frames for chunk in plan.chunks] == [150] * 10
    assert plan.chunks[1].group_starts == [0, 25600, 51200] and plan.timing.group_frames == 50
    assert plan.chunks[3].start == 3 * 150 * 512


def test_short_sources_have_six_chunks_too() -> None:
    """From three seconds on there are at least six chunks, with groups that are shorter where they must be."""
    for frames in (75, 100, 132, 250, 300, 500, 800, 899):
        source = facts(frame_times=[number * 512 for number in range(frames)])
        plan = make_plan(source)
        assert len(plan.chunks) >= CHUNKS_WANTED, frames
        assert max(durations_s(source)) <= SEGMENT_S
    assert len(make_plan(facts(frame_times=[0], key_times=[0])).chunks) == 1


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=300),
    st.booleans(),
    st.integers(-5000, 5_000_000),
)
def test_every_frame_is_in_exactly_one_chunk(gaps: list[int], constant: bool, first: int) -> None:
    """Whatever the times, where all frames are shown: chunks follow each other without gap or overlap, in frames, in
    the source's time and on the timeline.
    """
    times = [first]
    for gap in gaps:
        times.append(times[-1] + (512 if constant else gap))
    source = facts(frame_times=times, key_times=times[::7])
    plan = make_plan(source)
    assume(plan.picture.thinning is None)
    assert sum(chunk.frames for chunk in plan.chunks) == plan.frames == len(times)
    at, number = 0, 0
    for chunk in plan.chunks:
        assert chunk.start == at and chunk.start_pts == times[number]
        inside = [time for time in times if chunk.start_pts <= time < chunk.end_pts]
        assert len(inside) == chunk.frames
        assert chunk.group_starts[0] == 0 and list(chunk.group_starts) == sorted(set(chunk.group_starts))
        assert chunk.group_starts[-1] < chunk.duration
        at += chunk.duration
        number += chunk.frames
    assert at == plan.duration


@given(st.lists(st.integers(1, 4000), min_size=2, max_size=400))
def test_groups_last_two_seconds_at_most(gaps: list[int]) -> None:
    """Where frames are dense enough, no group lasts longer than two seconds and a frame."""
    times = [0]
    for gap in gaps:
        times.append(times[-1] + gap)
    plan = make_plan(facts(frame_times=times, key_times=[0]))
    for chunk in plan.chunks:
        ends = [*chunk.group_starts[1:], chunk.duration]
        for start, end in zip(chunk.group_starts, ends, strict=True):
            assert (end - start) / plan.timing.timescale <= GROUP_S + 4000 / 12800


def test_seeks() -> None:
    """Reading begins at the key frame before a chunk, then at the one before that, then at the beginning."""
    plan = make_plan(facts())
    assert plan.chunks[0].seeks_s == [None]
    assert plan.chunks[-1].seeks_s == [50.02, 40.02, None]


def test_the_same_facts_give_the_same_plan() -> None:
    """A plan depends on nothing but the facts, and survives its journal."""
    plan = make_plan(facts())
    assert make_plan(facts()) == plan
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == msgspec.convert(
        msgspec.to_builtins(plan), type(plan)
    )


def test_audio() -> None:
    """More than two channels become two; a language that is no ISO 639-2 code becomes ``und``; no sound is no plan."""
    audio = make_plan(facts(audio=AudioFacts(1, "ac3", 6, "ENG"), frame_times=[100 + n * 512 for n in range(50)])).audio
    assert audio is not None
    assert (audio.channels, audio.bit_rate_bps, audio.language, audio.duration_s) == (2, 128_000, "eng", 2.0)
    assert audio.origin_s == pytest.approx(100 / 12800)
    other = make_plan(facts(audio=AudioFacts(1, "aac", 1, "<script>"))).audio
    assert other is not None and (other.channels, other.language) == (1, "und")
    assert make_plan(facts(audio=None)).audio is None


def fast(rate: int | Fraction, frames: int, unit_s: Fraction = Fraction(1, 90_000)) -> SourceFacts:
    """Return the facts of a source of a rate, on a clock of a unit."""
    times = [round(number / (rate * unit_s)) for number in range(frames)]
    fraction = Fraction(rate)
    return facts(
        time_base=unit_s.as_integer_ratio(),
        rates=[fraction.as_integer_ratio()],
        frame_times=times,
        key_times=times[::50],
        last_duration=round(1 / (rate * unit_s)),
    )


@pytest.mark.parametrize(
    ("rate", "shown_at", "first"),
    [
        (60, 60, [0, 1, 2, 3, 4, 5]),
        (90, 60, [0, 2, 3, 5, 6, 8]),
        (100, 60, [0, 2, 4, 5, 7, 9]),
        (120, 60, [0, 2, 4, 6, 8, 10]),
        (Fraction(120_000, 1001), Fraction(60_000, 1001), [0, 2, 4, 6, 8, 10]),
        (240, 60, [0, 4, 8, 12, 16, 20]),
        (1000, 60, [0, 17, 34, 50, 67, 84]),
    ],
)
def test_more_than_sixty_a_second_are_thinned_out(rate: Fraction, shown_at: Fraction, first: list[int]) -> None:
    """Of a fast source of constant rate so many frames are shown, evenly, as come to at most 60 a second."""
    source = fast(rate, 4000)
    plan = make_plan(source)
    assert Fraction(*plan.timing.rate) == shown_at and plan.timing.is_constant
    assert plan.source_frame_rate == float(rate) and (plan.picture.thinning is None) == (rate == shown_at)
    thinning = plan.picture.thinning
    shown = thinning.shown(range(4000)) if thinning else list(range(4000))
    assert shown[:6] == first and plan.frames == len(shown) == sum(chunk.frames for chunk in plan.chunks)
    assert abs(plan.duration_s - 4000 / rate) < 1 / 60
    for number, frame in enumerate(shown):
        assert 0 <= frame / rate - number / shown_at < 1 / rate
    firsts = [shown[sum(chunk.frames for chunk in plan.chunks[:n])] for n in range(len(plan.chunks))]
    assert [chunk.first_frame for chunk in plan.chunks] == firsts
    assert [chunk.start_pts for chunk in plan.chunks] == [source.frame_times[frame] for frame in firsts]


@given(st.lists(st.integers(1, 40), min_size=30, max_size=200), st.integers(0, 40))
def test_fast_sources_of_variable_rate(gaps: list[int], last: int) -> None:
    """A source of variable rate with more than 60 frames a second on average shows at most so many; each that is shown
    keeps its time, and the duration stays within a frame.
    """
    times = [5]
    for gap in gaps:
        times.append(times[-1] + gap)
    source = facts(time_base=(1, 1000), rates=[], frame_times=times, key_times=times[:1], last_duration=last)
    assume(constant_rate(source) is None)
    plan = make_plan(source)
    assert Fraction(*plan.timing.rate) <= 60
    thinning = plan.picture.thinning
    shown = thinning.shown(times) if thinning else list(range(len(times)))
    assert plan.frames == len(shown) and shown[0] == 0
    starts = [chunk.start for chunk in plan.chunks]
    assert starts == [(times[chunk.first_frame] - 5) * plan.timing.timescale // 1000 for chunk in plan.chunks]
    end_s = (times[-1] - 5 + (last or (times[-1] - 5) // len(gaps))) / 1000
    assert -0.001 <= plan.duration_s - end_s <= 1 / 60
