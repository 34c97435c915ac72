"""What a video's unfinished files outlive, and what they do not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from mainstem.app import Mainstem
from mainstem.flow import RunCancelledError
from mainstem.services.media import Media, work
from mainstem.services.media.chunks import ChunkFiles, Encoder, encode_chunk
from tests.services.media.clips import Clips
from tests.services.media.test_workflow import left_over, outcome_of, result_of, upload
from tests.support import run, until

pytestmark = pytest.mark.usefixtures("no_children_left")


class Encoding:
    """Stands in front of the encoder of chunks: lets some through, holds the others, and notes where they work."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.directories: set[Path] = set()
        self.presets: set[str] = set()
        self.held: set[Path] = set()
        self.let_through = 1 << 30
        self.go_on = asyncio.Event()
        patch.setattr(work, "encode_chunk", self)

    async def __call__(self, encoder: Encoder, *arguments: object, **options: object) -> ChunkFiles:
        """Encode a chunk, or wait."""
        self.directories.add(encoder.work)
        self.presets.add(encoder.preset)
        self.let_through -= 1
        if self.let_through < 0:
            self.held.add(encoder.work)
            await self.go_on.wait()
        return await encode_chunk(encoder, *arguments, **options)  # type: ignore[arg-type]


@pytest.fixture
def encoding(monkeypatch: pytest.MonkeyPatch) -> Encoding:
    """Return what stands in front of the encoder; everything goes through until the test says otherwise."""
    return Encoding(monkeypatch)


def media(**options: object) -> Media:
    """Return a service with one worker."""
    return Media(**{"workers": 1, "preset": "ultrafast", **options})  # type: ignore[arg-type]


async def stop_in_mid_encode(data: Path, clip: Path, encoding: Encoding) -> str:
    """Begin a video, and stop the application when two chunks are durable and the third is begun; return the run."""
    encoding.let_through = 2
    async with Mainstem(data, services=[media()]) as ms:
        run_id = await upload(ms, clip)
        await until(lambda: encoding.held, what="the third chunk to begin")
        await ms.flow.stop(grace_s=0)
    encoding.let_through = 1 << 30
    return run_id


@pytest.mark.parametrize("before", ["nothing", "refused"])
def test_chunks_wait_as_long_as_their_run(before: str, clips: Clips, tmp_path: Path, encoding: Encoding) -> None:
    """An application that was down for a year goes on where it was, whatever became of the same upload earlier."""
    data, clip = tmp_path / "data", clips.get("tiny.mp4")

    async def scenario() -> None:
        if before == "refused":
            async with Mainstem(data, services=[media()]) as ms:
                await result_of(ms, await upload(ms, clips.get("text.mp4")))
                assert left_over(data) == []
        run_id = await stop_in_mid_encode(data, clip, encoding)
        kept = list((data / "services/media").rglob("chunk-*"))
        assert len(kept) == 2 * 3  # two chunks of three renditions
        for path in (data / "services/media").rglob("*"):
            os.utime(path, (0, 0))
        async with Mainstem(data, services=[media()]) as ms:
            assert all(path.exists() for path in kept)
            await result_of(ms, run_id)
            outcome = await outcome_of(ms)
            assert len(outcome.events["video.ready"]) == 1
        assert left_over(data) == []

    run(scenario())


def test_what_no_run_needs_goes_at_a_start(clips: Clips, tmp_path: Path, encoding: Encoding) -> None:
    """At a start the directories of runs that have ended, or that never were, go, and what encoders left unfinished in
    the others.
    """
    data = tmp_path / "data"

    async def scenario() -> None:
        async with Mainstem(data, services=[media()]) as ms:
            ended = await upload(ms, clips.get("text.mp4"))
            await result_of(ms, ended)
        open_run = await stop_in_mid_encode(data, clips.get("tiny.mp4"), encoding)
        work_directory = data / "services/media"
        for name in (ended, "video@999", "no run's name", f"{open_run}/unfinished-x"):
            (work_directory / name).mkdir(parents=True)
            (work_directory / name / "file").write_bytes(b"x")
        encoding.let_through = 0
        encoding.held.clear()
        async with Mainstem(data, services=[media()]) as ms:
            assert [path.name for path in work_directory.iterdir()] == [open_run]
            assert not (work_directory / open_run / "unfinished-x").exists()
            await ms.flow.stop(grace_s=0)

    run(scenario())


def test_a_cancelled_video_leaves_nothing(clips: Clips, tmp_path: Path, encoding: Encoding) -> None:
    """When the run of a video is cancelled in mid encode, its chunks go."""
    data = tmp_path / "data"

    async def scenario() -> None:
        encoding.let_through = 1
        async with Mainstem(data, services=[media()]) as ms:
            run_id = await upload(ms, clips.get("tiny.mp4"))
            await until(lambda: encoding.held, what="the second chunk to begin")
            assert list((data / "services/media").rglob("chunk-*"))
            await ms.flow.handle(run_id).cancel("not wanted")
            with pytest.raises(RunCancelledError, match="not wanted"):
                await result_of(ms, run_id)
            await until(lambda: left_over(data) == [], what="the chunks to go")
            transport = httpx.ASGITransport(ms.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                page = (await client.get("/videos/upload-1")).text
                assert "It was cancelled: not wanted." in page and "processing" not in page

    run(scenario())


def test_one_upload_twice_at_once(clips: Clips, tmp_path: Path, encoding: Encoding) -> None:
    """Two runs for one upload at the same time do not touch each other's files; both come to the same video."""
    data, clip = tmp_path / "data", clips.get("tiny.mp4")

    async def scenario() -> None:
        service = media(videos_at_once=2)
        encoding.let_through = 0
        async with Mainstem(data, services=[service]) as ms:
            runs = [await upload(ms, clip) for _run in range(2)]
            await until(lambda: len(encoding.held) == 2, what="both runs to encode")
            encoding.go_on.set()
            for run_id in runs:
                await result_of(ms, run_id)
            assert {path.name for path in encoding.directories} == set(runs)
            [first, second] = (await outcome_of(ms)).events["video.ready"]
            assert first == second
            await until(lambda: "upload-1" in service.library)
        assert left_over(data) == []

    run(scenario())


def test_another_preset_is_for_the_next_video(clips: Clips, tmp_path: Path, encoding: Encoding) -> None:
    """A video that is under way when the application comes back with another preset keeps the one that it began
    with, and is finished.
    """
    data = tmp_path / "data"

    async def scenario() -> None:
        run_id = await stop_in_mid_encode(data, clips.get("tiny.mp4"), encoding)
        async with Mainstem(data, services=[media(preset="superfast", workers=2)]) as ms:
            await result_of(ms, run_id)
            assert len((await outcome_of(ms)).events["video.ready"]) == 1
            assert encoding.presets == {"ultrafast"}
            await result_of(ms, await upload(ms, clips.get("tiny.mp4"), upload_id="upload-2"))
            assert encoding.presets == {"ultrafast", "superfast"}

    run(scenario())
