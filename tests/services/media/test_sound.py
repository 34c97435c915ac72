"""The sound, whatever the source's sample rate: all of it, and in step with the pictures."""

from __future__ import annotations

import array
import subprocess
from pathlib import Path

import pytest

from mainstem.services.media.chunks import encode_audio
from mainstem.services.media.plan import AAC_FRAME_SAMPLES, AUDIO_RATE_HZ, make_plan
from mainstem.services.media.probe import probe_source
from mainstem.services.media.source import Limits, SourceFacts
from mainstem.services.media.tools import find_ffmpeg
from tests.services.media.clips import H264, ffmpeg, lavfi
from tests.services.media.pipeline import encoder_for
from tests.support import run

pytestmark = pytest.mark.usefixtures("no_children_left")

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)
CLICKS_S = (0.5, 1.5)
SOUND_FROM_S = 0.25
"""The sound begins so long after the pictures."""
GAP_S = (0.8, 1.2)
"""From when to when of the pictures the source has no sound at all."""


def clip(path: Path, rate_hz: int) -> None:
    """Make two seconds of pictures with two clicks, and sound of a rate that begins late and has a gap."""
    clicks = "+".join(f"between(t,{at - SOUND_FROM_S},{at - SOUND_FROM_S + 0.01})" for at in CLICKS_S)
    gap = f"between(t,{GAP_S[0] - SOUND_FROM_S},{GAP_S[1] - SOUND_FROM_S})"
    sound = f"aevalsrc='if({clicks},sin(2*PI*1000*t),0)':s={rate_hz}:d=1.75,asetnsamples=n=64,aselect='not({gap})'"
    pictures = lavfi("testsrc2=size=96x64:rate=25:duration=2")
    ffmpeg(*pictures, "-itsoffset", str(SOUND_FROM_S), *lavfi(sound), *H264, "-c:a", "pcm_s16le", path)


def heard_s(path: Path) -> tuple[list[float], float]:
    """Return when the clicks begin that a player hears, and how long the sound is, in seconds."""
    decoding = [
        str(find_ffmpeg()),
        "-v",
        "error",
        "-ignore_editlist",
        "1",
        "-i",
        str(path),
        "-f",
        "s16le",
        "-ac",
        "1",
        "-",
    ]
    samples = array.array("h", subprocess.run(decoding, capture_output=True, check=True, timeout=60).stdout)
    starts: list[float] = []
    for number, sample in enumerate(samples):
        if abs(sample) > 6000 and (not starts or number / AUDIO_RATE_HZ - starts[-1] > 0.1):
            starts.append(number / AUDIO_RATE_HZ)
    return starts, len(samples) / AUDIO_RATE_HZ


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_sound_of_any_rate_is_whole_and_in_step(rate_hz: int, tmp_path: Path) -> None:
    """Clicks before and after a gap are heard when they are seen, and the sound is as long as the pictures."""
    source = tmp_path / "source.mkv"
    clip(source, rate_hz)
    facts = run(probe_source(source, Limits()))
    assert isinstance(facts, SourceFacts)
    audio = make_plan(facts).audio
    assert audio is not None
    encoder = encoder_for(source, tmp_path / "work")
    kept = run(encode_audio(encoder, facts.demuxer, audio))
    starts, length_s = heard_s(encoder.work / kept.name)
    assert [pytest.approx(at, abs=0.002) for at in CLICKS_S] == starts
    assert abs(length_s - 2.0) <= AAC_FRAME_SAMPLES / AUDIO_RATE_HZ
