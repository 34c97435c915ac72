"""From what a source is to what is to be made of it: renditions, chunks, their exact boundaries. Pure.

The unit of published media is the **segment** (6 s), the unit of random access the **group** of pictures (at most 2 s;
each begins with an IDR picture and is one fragment), the unit of durable work the **chunk** (one or more groups, all
renditions from one decoding). Chunks need not be segments: a short source is cut into smaller chunks, so that all
workers are busy and a crash costs little, and its segments are still 6 s long.

A source of constant rate is retimed by frame number: frame ``n`` is shown at ``n / rate`` seconds, exactly. Any other
source keeps its own times, to the tick. Of a source of more than 60 frames a second, as many are dropped, evenly, as
are too many.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from fractions import Fraction

import msgspec

from mainstem.services.media.source import AudioFacts, SourceFacts

SEGMENT_S = 6
"""Target duration of segments (Apple's authoring specification, 7.5)."""

GROUP_S = 2
"""Longest distance of IDR pictures (the same, 1.13)."""

CHUNKS_WANTED = 6
"""Into how many chunks a source is cut at least, where it is long enough."""

FRAMES_PER_S_MAX = 60
"""Most frames a second that are published (the same, 1.19)."""

AUDIO_RATE_HZ = 48_000
"""Sample rate of all published sound."""

AAC_FRAME_SAMPLES = 1024
"""Samples of one AAC frame, and how many samples the encoder puts before the first."""

_CHUNK_MIN_S = Fraction(1, 2)
_TIMESCALE_MIN = 12_800
_TIMESCALE_MAX = 1_000_000
_TIMESCALE_OTHERWISE = 90_000
_SHORT_SIDES = (1080, 720, 480, 360, 240, 144)
_STEP_DOWN_MAX = 0.76
_ASPECT_TOLERANCE = 0.01
_BITS_PER_PIXEL = 0.11
_MAX_RATE_MIN_BPS = 96_000
_CRF = 23
_CRF_STEP = 5
_COMMON_RATES = tuple(
    map(Fraction, "24000/1001 24 25 30000/1001 30 50 60000/1001 60 48 120 15 12 10 5 1".split())  # noqa: SIM905
)


class Rendition(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the video.

    Attributes:
        name: Unique within the video: ``"720p"``.
        width: Pixels, even.
        height: Pixels, even.
        crf: Constant rate factor of x264: the quality aimed at where bits suffice.
        max_bps: Most bits a second, over ``buffer_bits``.
        buffer_bits: Size of the decoder's buffer that the encoder keeps to.
    """

    name: str
    width: int
    height: int
    crf: int
    max_bps: int
    buffer_bits: int


class Timing(msgspec.Struct, frozen=True):
    """The published timeline.

    Attributes:
        timescale: Units a second.
        frame_duration: Units a frame where the rate is constant, else 0.
        rate: Frames a second, as a fraction; the average where it is not constant.
        group_frames: Frames of a group where the rate is constant (a last one may be shorter), else 0.
    """

    timescale: int
    frame_duration: int
    rate: tuple[int, int]
    group_frames: int

    @property
    def is_constant(self) -> bool:
        """Whether all frames last equally long."""
        return self.frame_duration > 0


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of durable work.

    Attributes:
        index: From 0.
        frames: Number of frames that are shown.
        first_frame: Number of its first frame within the source, from 0.
        start_pts: Presentation time of its first frame, in the source's time base.
        end_pts: Presentation time of the frame after its last one, in the source's time base.
        seeks_s: Where to begin reading, in seconds of the source's own clock: the cheapest that should do first, then
            safer ones; ``None`` is the source's beginning.
        start: Of its first frame on the published timeline, in units of the timescale.
        duration: In units of the timescale.
        group_starts: Where groups begin, from the chunk's start, in units of the timescale. The first is 0.
    """

    index: int
    frames: int
    first_frame: int = 0
    start_pts: int
    end_pts: int
    seeks_s: Sequence[float | None]
    start: int
    duration: int
    group_starts: Sequence[int]


class AudioPlan(msgspec.Struct, frozen=True):
    """How the sound is encoded.

    Attributes:
        stream_index: Its number within the source.
        channels: 1 or 2.
        bit_rate_bps: Bits a second.
        language: For ``EXT-X-MEDIA``; ``"und"`` where the source does not tell.
        origin_s: Time of the video's first frame, in seconds of the source's own clock.
        duration_s: Of the video, and so of the sound.
    """

    stream_index: int
    channels: int
    bit_rate_bps: int
    language: str
    origin_s: float
    duration_s: float


class Thinning(msgspec.Struct, frozen=True, kw_only=True):
    """Which frames are shown of a source that has more than 60 a second: the first of each slot.

    Attributes:
        source_rate: Frames a second of the source, as a fraction; the average where it is not constant.
        by_time: Whether slots are stretches of the source's time, else of its frames.
        origin: Where the first slot begins: 0, or a time in the source's time base.
        slots: How many slots there are to a frame, or to a unit of the time base, as a fraction.
    """

    source_rate: tuple[int, int]
    by_time: bool
    origin: int
    slots: tuple[int, int]

    def shown(self, places: Sequence[int]) -> list[int]:
        """Return the numbers of the frames that are shown, of those at ``places``: their numbers, or their times."""
        a, b = self.slots
        numbers = [(place - self.origin) * a // b for place in places]
        return [n for n, number in enumerate(numbers) if n == 0 or number > numbers[n - 1]]


class Picture(msgspec.Struct, frozen=True):
    """How the source's frames are read.

    Attributes:
        demuxer: ffmpeg's name of the container format.
        stream_index: Number of the video stream within the source.
        interlaced: Whether frames are to be deinterlaced.
        thinning: Which of its frames are shown; ``None`` for all.
    """

    demuxer: str
    stream_index: int
    interlaced: bool
    thinning: Thinning | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True, tag="plan"):
    """What is to be made of a source.

    Attributes:
        picture: How its frames are read.
        timing: The published timeline.
        renditions: Best first.
        chunks: The units of work, in order.
        audio: How its sound is encoded, if there is any.
        frames: Number of published frames.
        duration: Of the published video, in units of the timescale.
        preset: Preset of x264. It is a part of the plan, so that a video that is under way keeps it when the
            application comes back with another.
    """

    picture: Picture
    timing: Timing
    renditions: Sequence[Rendition]
    chunks: Sequence[Chunk]
    audio: AudioPlan | None
    frames: int
    duration: int
    preset: str = ""

    @property
    def duration_s(self) -> float:
        """Duration of the published video."""
        return self.duration / self.timing.timescale

    @property
    def source_frame_rate(self) -> float:
        """Frames a second of the source; more than are shown where it has more than 60."""
        thinning = self.picture.thinning
        rate = self.timing.rate if thinning is None else thinning.source_rate
        return rate[0] / rate[1]


def make_plan(facts: SourceFacts) -> Plan:
    """Return what is to be made of a source. The same facts always give the same plan."""
    times = facts.frame_times
    time_base = Fraction(*facts.time_base)
    rate = constant_rate(facts)
    thinning = _thinning(facts, rate)
    shown = list(range(len(times)))
    if thinning is not None:
        shown = thinning.shown(times if thinning.by_time else shown)
        rate = None if thinning.by_time or rate is None else rate * Fraction(*thinning.slots)
    if rate is not None:
        timing = _constant_timing(rate, len(shown))
        ticks = [number * timing.frame_duration for number in range(len(shown) + 1)]
    else:
        timing, ticks = _variable_timing(facts, shown)
    groups = _group_starts(ticks, timing)
    return Plan(
        picture=Picture(facts.demuxer, facts.stream_index, facts.interlaced, thinning),
        timing=timing,
        renditions=plan_renditions(*display_size(facts), Fraction(*timing.rate)),
        chunks=_chunks(facts, shown, timing, ticks, groups),
        audio=_plan_audio(facts.audio, float(times[0] * time_base), ticks[-1] / timing.timescale),
        frames=len(shown),
        duration=ticks[-1],
    )


def _thinning(facts: SourceFacts, rate: Fraction | None) -> Thinning | None:
    """Return which frames are shown of a source that has more than 60 a second; ``None`` for all of any other.

    119.88 frames a second become 59.94 and 240 become 60: every n-th is shown where that comes near enough to 60. Of
    others, say 90, as many are left out as bring them down to 60.
    """
    if rate is not None:
        if rate <= FRAMES_PER_S_MAX:
            return None
        divided = rate / -(-rate // FRAMES_PER_S_MAX)
        slots = (divided if divided > FRAMES_PER_S_MAX - 1 else Fraction(FRAMES_PER_S_MAX)) / rate
        return Thinning(source_rate=rate.as_integer_ratio(), by_time=False, origin=0, slots=slots.as_integer_ratio())
    average = len(facts.frame_times) / ((_end_time(facts) - facts.frame_times[0]) * Fraction(*facts.time_base))
    if average <= FRAMES_PER_S_MAX:
        return None
    return Thinning(
        source_rate=average.limit_denominator(1001).as_integer_ratio(),
        by_time=True,
        origin=facts.frame_times[0],
        slots=(FRAMES_PER_S_MAX * Fraction(*facts.time_base)).as_integer_ratio(),
    )


def _end_time(facts: SourceFacts) -> Fraction:
    """Return when the last frame ends, in the source's time base: the average duration where it has none."""
    times = facts.frame_times
    average = max(1, (times[-1] - times[0]) // max(1, len(times) - 1))
    return Fraction(times[-1] + (facts.last_duration or average))


def constant_rate(facts: SourceFacts) -> Fraction | None:
    """Return the rate at which every frame lies within one tick of its place, or ``None`` where there is none.

    A tick is the source's; where it is no small part of a frame, a quarter of a frame is allowed instead. Rates that
    are in common use come first, the claimed ones of them before the others: on a coarse clock several rates fit a
    short source.
    """
    times = facts.frame_times
    time_base = Fraction(*facts.time_base)
    claimed = [Fraction(*rate) for rate in facts.rates if rate[0] > 0 and rate[1] > 0]
    if len(times) < 2:
        return claimed[0] if claimed and claimed[0] <= max(_COMMON_RATES) else Fraction(25)
    for rate in (*(rate for rate in claimed if rate in _COMMON_RATES), *_COMMON_RATES, *claimed):
        ticks_per_frame = 1 / (rate * time_base)
        tolerance_ticks = min(Fraction(1), ticks_per_frame / 4)
        end_error = abs(times[0] + (len(times) - 1) * ticks_per_frame - times[-1])
        if end_error <= tolerance_ticks and _all_in_place(times, ticks_per_frame, tolerance_ticks):
            return rate
    return None


def _all_in_place(times: Sequence[int], ticks_per_frame: Fraction, tolerance_ticks: Fraction) -> bool:
    first, step, allowed = times[0], float(ticks_per_frame), float(tolerance_ticks) + 1e-6
    return all(abs(first + number * step - time) <= allowed for number, time in enumerate(times))


def _constant_timing(rate: Fraction, frames: int) -> Timing:
    factor = -(-_TIMESCALE_MIN // rate.numerator)
    group_s = _group_s(frames / rate)
    group_frames = round(group_s * rate) if group_s == GROUP_S else int(group_s * rate)
    return Timing(
        rate.numerator * factor, rate.denominator * factor, (rate.numerator, rate.denominator), max(1, group_frames)
    )


def _variable_timing(facts: SourceFacts, shown: Sequence[int]) -> tuple[Timing, list[int]]:
    times = facts.frame_times
    time_base = Fraction(*facts.time_base)
    timescale = _TIMESCALE_OTHERWISE
    if time_base.numerator == 1 and time_base.denominator <= _TIMESCALE_MAX:
        timescale = time_base.denominator * -(-_TIMESCALE_MIN // time_base.denominator)
    unit = time_base * timescale
    ticks = [round((times[number] - times[0]) * unit) for number in shown]
    end = round((_end_time(facts) - times[0]) * unit)
    if len(shown) < len(times):
        end = max(end, ticks[-1] - (-timescale // FRAMES_PER_S_MAX))  # what is shown last lasts as long as the others
    ticks.append(max(end, ticks[-1] + 1))
    rate = Fraction(len(shown) * timescale, ticks[-1]).limit_denominator(1001)
    return Timing(timescale, 0, (rate.numerator, rate.denominator), 0), ticks


def _chunk_s(duration_s: Fraction) -> Fraction:
    """Return how long a chunk should be: a segment, or less for a short source."""
    return min(Fraction(SEGMENT_S), max(_CHUNK_MIN_S, duration_s / CHUNKS_WANTED))


def _group_s(duration_s: Fraction) -> Fraction:
    """Return how long a group should be: two seconds, or a chunk where that is shorter."""
    return min(Fraction(GROUP_S), _chunk_s(duration_s))


def _group_starts(ticks: Sequence[int], timing: Timing) -> list[int]:
    """Return the numbers of the frames at which groups begin, and the number of frames as the last element."""
    frames = len(ticks) - 1
    if timing.is_constant:
        return [*range(0, frames, timing.group_frames), frames]
    group_s = _group_s(Fraction(ticks[-1], timing.timescale))
    starts: list[int] = []
    number = 0
    while number < frames:
        starts.append(number)
        beat = ticks[number] // (group_s * timing.timescale) + 1
        number = bisect.bisect_left(ticks, beat * group_s * timing.timescale, number + 1, frames)
    return [*starts, frames]


def _chunks(
    facts: SourceFacts, shown: Sequence[int], timing: Timing, ticks: Sequence[int], groups: Sequence[int]
) -> list[Chunk]:
    duration_s = Fraction(ticks[-1], timing.timescale)
    groups_a_chunk = max(1, int(_chunk_s(duration_s) / GROUP_S))
    chunks: list[Chunk] = []
    for first_group in range(0, len(groups) - 1, groups_a_chunk):
        starts = groups[first_group : first_group + groups_a_chunk]
        starts = starts[: len(groups) - 1 - first_group]
        first, end = starts[0], groups[min(first_group + groups_a_chunk, len(groups) - 1)]
        first_frame = shown[first]
        start_pts = facts.frame_times[first_frame]
        chunks.append(
            Chunk(
                index=len(chunks),
                frames=end - first,
                first_frame=first_frame,
                start_pts=start_pts,
                end_pts=facts.frame_times[shown[end]] if end < len(shown) else facts.frame_times[shown[-1]] + 1,
                seeks_s=_seeks(facts, start_pts),
                start=ticks[first],
                duration=ticks[end] - ticks[first],
                group_starts=[ticks[start] - ticks[first] for start in starts],
            )
        )
    return chunks


def _seeks(facts: SourceFacts, pts: int) -> list[float | None]:
    """Return from where a frame can be reached: the key frame before it, the one before that, the beginning.

    Pictures that follow a key frame in decoding but precede it in presentation may need what came before it (an open
    group): they are never wanted here, since no wanted frame precedes ``pts``.
    """
    time_base = Fraction(*facts.time_base)
    nearest = bisect.bisect_right(facts.key_times, pts) - 1
    seeks: list[float | None] = []
    for number in (nearest, nearest - 1):
        if number >= 1:
            key_pts = facts.key_times[number]
            following = facts.frame_times[bisect.bisect_right(facts.frame_times, key_pts) :][:1]
            half = (following[0] - key_pts) / 2 if following else 0
            seeks.append(round(float((key_pts + Fraction(half)) * time_base), 6))
    return [*seeks, None]


def display_size(facts: SourceFacts) -> tuple[Fraction, Fraction]:
    """Return width and height of the upright picture with square pixels, never larger than what is stored."""
    width, height = Fraction(facts.width), Fraction(facts.height)
    aspect = Fraction(*facts.sample_aspect)
    if aspect > 1:
        height /= aspect
    else:
        width *= aspect
    return (height, width) if facts.rotation_degrees % 180 == 90 else (width, height)


def plan_renditions(width: Fraction, height: Fraction, rate: Fraction) -> list[Rendition]:
    """Return three renditions, best first, none larger than the source; one too small for three sizes gets one size.

    Args:
        width: Of the upright picture.
        height: Of the upright picture.
        rate: Frames a second.
    """
    short_side = int(min(width, height))
    target = min(short_side, _SHORT_SIDES[0])
    renditions: list[Rendition] = []
    reduction = 0
    for number in range(3):
        if number:
            below = [side for side in _SHORT_SIDES if side <= target * _STEP_DOWN_MAX]
            reduction = 0 if below else reduction + 1
            target = below[0] if below else target
        size = even_size(width, height, target)
        share = 2**-reduction
        max_bps = max(_MAX_RATE_MIN_BPS, int(size[0] * size[1] * min(rate, Fraction(60)) * _BITS_PER_PIXEL)) * share
        renditions.append(
            Rendition(
                name=f"{min(size)}p" + (f"-{reduction + 1}" if reduction else ""),
                width=size[0],
                height=size[1],
                crf=_CRF + _CRF_STEP * reduction,
                max_bps=int(max_bps),
                buffer_bits=int(max_bps * 1.5),
            )
        )
    return renditions


def even_size(width: Fraction, height: Fraction, short_side: int) -> tuple[int, int]:
    """Return even width and height, the short side at most ``short_side``, the aspect within 1 % where that exists."""
    ratio = max(width, height) / min(width, height)
    longest = int(max(width, height))
    best: tuple[Fraction, int, int] | None = None
    for short in range(max(2, short_side // 2 * 2), 0, -2):
        long = min(2 * round(short * ratio / 2), longest // 2 * 2)
        error = abs(long / (short * ratio) - 1)
        if best is None or error < best[0]:
            best = (error, max(2, long), short)
        if error <= _ASPECT_TOLERANCE:
            break
    if best is None:
        raise AssertionError("the loop runs at least once")
    _error, long, short = best
    return (long, short) if width >= height else (short, long)


def _plan_audio(audio: AudioFacts | None, origin_s: float, duration_s: float) -> AudioPlan | None:
    if audio is None:
        return None
    channels = min(2, max(1, audio.channels))
    language = audio.language if len(audio.language) == 3 and audio.language.isalpha() else "und"
    return AudioPlan(audio.stream_index, channels, 64_000 * channels, language.lower(), origin_s, duration_s)
