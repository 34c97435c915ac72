"""What ffmpeg and the probe are told of the trace that they work for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.host.process import run_process
from mainstem.services.media import chunks, probe
from tests.services.media.clips import Clips
from tests.services.media.test_workflow import process
from tests.support import run

pytestmark = pytest.mark.usefixtures("no_children_left")

_NOTE = """
import os, sys
name = " ".join([os.path.basename(sys.argv[2]), os.environ.get("TRACEPARENT", ""), str(os.getpid())])
os.close(os.open(os.path.join(sys.argv[1], name), os.O_CREAT))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Leaves an empty file, as the probe may write none with bytes in it, and becomes the child that was asked for."""


def test_children_carry_the_trace(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real environment of the probe and of every ffmpeg names the trace that the video's records are in."""
    notes = tmp_path / "notes"
    notes.mkdir()

    async def noting(argv: Sequence[str | Path], **options: Any) -> Any:
        return await run_process([sys.executable, "-c", _NOTE, notes, *argv], **options)

    monkeypatch.setattr(probe, "run_process", noting)
    monkeypatch.setattr(chunks, "run_process", noting)
    outcome = run(process(tmp_path / "data", clips.get("plain.mp4")))
    assert len(outcome.events["video.ready"]) == 1, outcome.events
    children = [note.name.split(" ") for note in notes.iterdir()]
    assert {name.startswith("python") for name, _, _ in children} == {True, False}, "the probe and ffmpeg"
    assert {traceparent[3:35] for _, traceparent, _ in children} == outcome.trace_ids
    assert len(outcome.trace_ids) == 1 and "" not in outcome.trace_ids
