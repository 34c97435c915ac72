"""``make run``: the whole demonstration, as a process, off a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import msgspec
import pytest

from examples.video.clip import default_clip, find_ffmpeg
from examples.video.demo import choose_clip, demonstrate, main, new_directory, serve
from examples.video.progress import Screen
from examples.video.report import CHUNKS_MIN, CUTS, Report
from examples.video.run import Demonstration, DemonstrationError
from mainstem.log import open_log, open_reader
from mainstem.trace.context import parse_traceparent
from tests.support import ROOT, run

FRAMES = 125
RATE = 25


def demonstrate_as_process(clip: str, tmp_path: Path) -> tuple[int, str, Report]:
    """Run it; return exit code, what it printed, and its last line."""
    environment = {**os.environ, "ONCE": "1", "VIDEO": clip, "OUT": str(tmp_path)}
    command = [sys.executable, "-m", "examples.video.demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    lines = done.stdout.rstrip().split("\n")
    return done.returncode, done.stdout + done.stderr, msgspec.json.decode(lines[-1], type=Report)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds of a moving test picture with sound."""
    path = tmp_path_factory.mktemp("clip") / "test picture.mp4"
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size=320x180:rate={RATE}", "-f", "lavfi", "-i", "sine=frequency=440"]
    # With more threads x264 decides, under load, now and then otherwise: the clip is to be the same each time.
    length = ["-t", str(FRAMES / RATE), "-pix_fmt", "yuv420p", "-crf", "18", "-threads", "1", str(path)]
    subprocess.run([find_ffmpeg(), "-v", "error", *inputs, *length], check=True, timeout=60)
    return path


@pytest.mark.serial
def test_the_demonstration_is_good(clip: Path, tmp_path: Path, no_children_left: None) -> None:
    """A broken upload becomes verified video through a kill -9, all in one trace, and its last line says so."""
    code, text, report = demonstrate_as_process(str(clip), tmp_path)
    assert code == 0, text
    assert report.ok
    assert (report.cuts, report.kills, report.playlist_findings) == (CUTS, 1, 0)
    assert report.chunks >= CHUNKS_MIN
    assert report.chunks_done_before_kill >= 1
    assert report.source.frames == FRAMES
    assert [rendition.frames for rendition in report.renditions] == [FRAMES] * 3
    assert Path(report.playlist).read_text().startswith("#EXTM3U")
    assert 0 < report.bytes_sent_again < clip.stat().st_size * 2
    for part in ("kill -9", "died with its process", "PATCH 3", "encode_chunk", "player", "dashboard"):
        assert part in text, part
    assert "\x1b" not in text
    assert traces_of(Path(report.playlist).parents[1] / "data" / "log") == {
        True: {"$upload", "upload.completed", "$run", "$lines", "$media", "video.ready"},
        False: {"$group"},
    }


def traces_of(log_directory: Path) -> dict[bool, set[str]]:
    """Return the kinds of streams whose records are in the trace of the first request, and those of all others."""

    async def read() -> dict[bool, set[str]]:
        reader = await open_reader(log_directory)
        first = parse_traceparent((await reader.read("$upload.>", 0, 1))[0].headers["traceparent"])
        assert first is not None
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for record in await reader.read(">", 0, 10_000):
            context = parse_traceparent(record.headers.get("traceparent"))
            kind = record.stream.partition(".")[0] if record.stream.startswith("$") else record.stream
            found[context is not None and context.trace_id == first.trace_id].add(kind)
        await reader.close()
        return found

    return run(read())


@pytest.mark.serial
def test_on_a_terminal_it_goes_on_serving(clip: Path, tmp_path: Path, no_children_left: None) -> None:
    """On a terminal bars move in place, the player is served until Ctrl-C, and that is a good end."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "VIDEO": str(clip), "OUT": str(tmp_path), "ONCE": ""}
    with subprocess.Popen(
        [sys.executable, "-m", "examples.video.demo"], cwd=ROOT, env=environment, stdin=theirs, stdout=theirs
    ) as process:
        os.close(theirs)
        text = ""
        while "Serving until Ctrl-C" not in text:
            text += os.read(ours, 65_536).decode(errors="replace")
        (player,) = re.findall(r"player +(http://\S+)", text)
        with urllib.request.urlopen(player, timeout=20) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    os.close(ours)
    assert "\r\x1b[2K" in text


@pytest.mark.serial
def test_what_is_no_video_is_told(tmp_path: Path, no_children_left: None) -> None:
    """A file that is no video ends with exit code 1, a sentence that says why, and a last line that is not ok."""
    text_file = tmp_path / "notes.mp4"
    text_file.write_text("This is no video.\n" * 1000)
    code, text, report = demonstrate_as_process(str(text_file), tmp_path / "out")
    assert code == 1
    assert not report.ok
    assert "Not good: the clip was refused" in text


def test_a_clip_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that leads nowhere is told before anything is started."""
    monkeypatch.setenv("VIDEO", "/nowhere/clip.mp4")
    assert main() == 1
    output = capsys.readouterr().out.rstrip().split("\n")
    assert "there is no such file" in output[-2] + output[-3]
    assert not msgspec.json.decode(output[-1], type=Report).ok


def test_a_place_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ``OUT`` that cannot be written, or a full disk, is a sentence and a last line that is not ok."""
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO", str(tmp_path / "clip.mp4"))
    monkeypatch.setenv("OUT", str(tmp_path / "file"))
    assert main() == 1
    output = capsys.readouterr().out.rstrip().split("\n")
    assert "Not a directory" in output[-3] + output[-2]
    assert not msgspec.json.decode(output[-1], type=Report).ok


def test_the_directory_of_a_run_that_still_serves_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of earlier runs the latest few are kept, and those whose log is in use."""
    monkeypatch.setenv("OUT", str(tmp_path))
    for day in range(1, 7):
        (tmp_path / f"202611{day:02d}-000000-1" / "data").mkdir(parents=True)

    async def main() -> None:
        log = await open_log(tmp_path / "20261102-000000-1" / "data" / "log")
        new_directory()
        await log.close()

    run(main())
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert [name[6:8] for name in kept[:-1]] == ["02", "04", "05", "06"]


def test_a_server_that_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Serving on until Ctrl-C, a server that ends by itself is told, and makes the result not good."""

    class Ending(Demonstration):
        def __init__(self) -> None:
            pass

        async def serve_until_interrupted(self) -> None:
            raise DemonstrationError("the server ended by itself")

    report = Report(ok=True)
    run(serve(Ending(), report, Screen()))
    assert not report.ok and "the server ended by itself" in capsys.readouterr().out


def test_the_built_in_clip_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``VIDEO`` the film is repeated to more than 32 s, into a cache, without leaving anything else there."""
    made = default_clip(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert default_clip(tmp_path) == made
    monkeypatch.setenv("VIDEO", str(made))
    assert choose_clip() == made
    assert callable(demonstrate)
    assert Demonstration.__doc__
