"""Whatever dies when: nothing acknowledged is lost, and each finished upload has exactly one event."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.uploads.crash_program import DATA, altered_blobs
from tests.services.uploads.helpers import id_of, serving
from tests.support import ROOT, run


def die_everywhere(directory: Path, *words: str) -> tuple[list[str], list[str]]:
    """Let uploads die at each of their operations; return the operations' names, and all that went wrong."""
    command = [sys.executable, "-m", "tests.services.uploads.crash_program", str(directory), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    steps, wrong = list(said["steps"]), list(said["findings"])
    for number in range(1, len(steps) + 1):
        wrong += [f"{number}, {steps[number - 1]}: {what}" for what in run(findings(directory / str(number)))]
    return steps, wrong


async def findings(data: Path) -> list[str]:
    """Return what is wrong with a directory whose upload was gone on with until it was complete."""
    url = (data / "url").read_text()
    async with serving(data) as desk:
        answer = await desk.client.head(url)
        if (answer.status_code, answer.headers.get("upload-offset")) != (200, str(len(DATA))):
            return [f"the upload is not complete: {answer.status_code} {answer.headers.get('upload-offset')}"]
        events = [event for event in await desk.completed() if event.upload_id == id_of(url)]
        wrong = [f"{len(events)} events"] if len(events) != 1 else []
        if any(desk.blobs.path(event.blob).read_bytes() != DATA for event in events):
            wrong.append("the blob's bytes are not those that were uploaded")
        if id_of(url) + ".part" in desk.parts():
            wrong.append("the file of a finished upload is still there")
    return wrong + [f"{path} has other bytes than its name says" for path in altered_blobs(data)]


@pytest.mark.parametrize("how", ["kill", "power"])
def test_death_at_every_operation(tmp_path: Path, how: str) -> None:
    """A process that dies at any write, sync, link, commit or removal, and again while it resumes, loses nothing."""
    steps, wrong = die_everywhere(tmp_path / "tries", how)
    assert {"write: half", "sync: before", "put blob: after", "commit: after", "remove: before"} <= set(steps)
    assert wrong == []


@pytest.mark.parametrize(
    ("how", "mutant", "seen"),
    [("power", "sync", "410"), ("kill", "detach", "other bytes"), ("kill", "one commit", "0 events")],
)
def test_what_is_left_out_is_seen(tmp_path: Path, how: str, mutant: str, seen: str) -> None:
    """Without the sync before the record, without bytes of its own, without one commit at the end, the check fails."""
    _steps, wrong = die_everywhere(tmp_path / "tries", how, mutant)
    assert any(seen in what for what in wrong), wrong
