"""Probing: facts or a refusal, whatever the file does to the child process."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from mainstem.base.errors import MissingExtraError
from mainstem.services.media import probe
from mainstem.services.media.probe import probe_source
from mainstem.services.media.source import Limits, Refusal, SourceFacts
from mainstem.services.media.tools import FFMPEG_VARIABLE, find_ffmpeg
from tests.services.media.clips import Clips
from tests.support import run

pytestmark = pytest.mark.usefixtures("no_children_left")


def facts_of(path: Path) -> SourceFacts:
    found = run(probe_source(path, Limits()))
    assert isinstance(found, SourceFacts), found
    return found


def test_facts(clips: Clips) -> None:
    """The facts of a plain clip: container, size, time base, every frame, where decoding can begin, the sound."""
    facts = facts_of(clips.get("plain.mp4"))
    assert (facts.demuxer, facts.codec, facts.width, facts.height) == ("mov", "h264", 320, 180)
    assert len(facts.frame_times) == 50 and list(facts.frame_times) == [number * 512 for number in range(50)]
    assert list(facts.key_times) == [0] and facts.time_base == (1, 12800) and (25, 1) in facts.rates
    assert facts.audio is not None and (facts.audio.codec, facts.audio.channels) == ("aac", 1)
    assert not facts.interlaced and facts.rotation_degrees == 0 and facts.sample_aspect == (1, 1)


def test_rotation_and_aspect(clips: Clips) -> None:
    """Rotation and the shape of pixels are found."""
    assert facts_of(clips.get("portrait.mp4")).rotation_degrees in (90, 270)
    assert facts_of(clips.get("anamorphic.mp4")).sample_aspect == (16, 11)


def test_hidden_frames_are_not_counted(clips: Clips) -> None:
    """Frames that an edit list hides are no frames, but decoding begins at a hidden key frame."""
    facts = facts_of(clips.get("cut_with_edit_list.mp4"))
    assert len(facts.frame_times) == 27 and facts.frame_times[0] == 0
    assert facts.key_times[0] < 0


def test_transport_stream_is_decoded(clips: Clips) -> None:
    """Containers whose packets need not be frames are decoded to find the frames."""
    facts = facts_of(clips.get("transport_stream.ts"))
    assert facts.demuxer == "mpegts" and len(facts.frame_times) == 50 and len(facts.key_times) == 3


def test_crash_of_the_child(tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the child crashes, the file is refused, and this process goes on."""
    child = tmp_path / "child.py"
    child.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(probe, "_CHILD", [str(child)])
    refusal = run(probe_source(clips.get("plain.mp4"), Limits()))
    assert isinstance(refusal, Refusal) and refusal.reason == "probe_limits" and "signal 11" in refusal.message


def test_child_that_talks_too_much(tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the child's answer is too large, or none at all, the file is refused."""
    child = tmp_path / "child.py"
    child.write_text("while True: print('x' * 1_000_000)")
    monkeypatch.setattr(probe, "_CHILD", [str(child)])
    refusal = run(probe_source(clips.get("plain.mp4"), Limits()))
    assert isinstance(refusal, Refusal) and "too large" in refusal.message
    child.write_text("print('no JSON')")
    refusal = run(probe_source(clips.get("plain.mp4"), Limits()))
    assert isinstance(refusal, Refusal) and refusal.reason == "probe_limits"


def test_without_the_extra(tmp_path: Path, clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAV the error names the extra to install."""
    child = tmp_path / "child.py"
    child.write_text("raise ModuleNotFoundError(\"No module named 'av'\")")
    monkeypatch.setattr(probe, "_CHILD", [str(child)])
    with pytest.raises(MissingExtraError, match=r"mainstem\[media\]"):
        run(probe_source(clips.get("plain.mp4"), Limits()))


@pytest.mark.parametrize("seed", range(6))
def test_random_damage(seed: int, clips: Clips, tmp_path: Path) -> None:
    """Whatever bytes of a file are changed, the answer is facts or a refusal."""
    chance = random.Random(seed)
    data = bytearray(clips.get("plain.mp4").read_bytes())
    header_from = data.index(b"moov")
    for _ in range(12):
        data[chance.randrange(header_from, len(data))] = chance.randrange(256)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert isinstance(run(probe_source(path, Limits())), SourceFacts | Refusal)


def test_which_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MAINSTEM_FFMPEG`` wins; a name that is no program is an error; without any ffmpeg the extra is named."""
    own = tmp_path / "my-ffmpeg"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o700)
    monkeypatch.setenv(FFMPEG_VARIABLE, str(own))
    assert find_ffmpeg() == own
    monkeypatch.setenv(FFMPEG_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(MissingExtraError, match="nothing names no program"):
        find_ffmpeg()
    monkeypatch.delenv(FFMPEG_VARIABLE)
    assert "ffmpeg" in find_ffmpeg().name
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"mainstem\[media\]"):
        find_ffmpeg()


def test_the_last_frame_counts_too(clips: Clips) -> None:
    """Frames far apart last as long as the last one does, and so few in so long a time are no video."""
    path = clips.get("far_apart.mp4")
    too_long = run(probe_source(path, Limits(duration_max_s=15_000.0)))
    assert isinstance(too_long, Refusal) and too_long.reason == "too_long"
    too_few = run(probe_source(path, Limits(duration_max_s=30_000.0)))
    assert isinstance(too_few, Refusal) and too_few.reason == "damaged" and "3 frames" in too_few.message
