"""From the event of an upload to the event of a video, durably."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mainstem.app import Mainstem
from mainstem.base.errors import InvalidArgumentError
from mainstem.flow import RunFailedError
from mainstem.flow.journal import JournalEntry, StepCompleted, StepStarted
from mainstem.host.blobs import BlobStore
from mainstem.host.disk import SystemDisk
from mainstem.log import Record, open_reader
from mainstem.services.media import (
    Limits,
    Manifest,
    Media,
    VideoReady,
    VideoRefused,
    check_delivery,
    materialise,
    verify_video,
    work,
)
from mainstem.services.media.errors import MediaError, PackageError, VideoNotFoundError
from mainstem.services.media.records import ChunkEncoded, Planned, Progress, SoundEncoded
from tests.services.media.application import WORKERS
from tests.services.media.clips import Clips
from tests.support import ROOT, children_of, run, until

pytestmark = pytest.mark.usefixtures("no_children_left")

decode_entry = msgspec.json.Decoder(JournalEntry).decode

APPLICATION = "tests.services.media.application"
"""The program that is killed."""


class Outcome(msgspec.Struct):
    """What became of one upload."""

    events: dict[str, list[dict[str, Any]]]
    progress: list[Progress]
    trace_ids: set[str]
    about: str


async def upload(ms: Mainstem, source: Path, *, upload_id: str = "upload-1", filename: str = "clip.mp4") -> str:
    """Publish a file as a completed upload; return the run's id."""
    blob = await ms.blobs.put_bytes(await asyncio.to_thread(source.read_bytes))
    value = {
        "upload_id": upload_id,
        "blob": blob,
        "size_bytes": 1,
        "filename": filename,
        "content_type": "x/y",
        "metadata": {},
    }
    position = await ms.publish("upload.completed", value, about=[f"upload:{upload_id}"])
    return f"video@{position}"


async def result_of(ms: Mainstem, run_id: str) -> None:
    """Wait until the run of an upload has begun (its event is handled by a consumer), then until it has ended."""
    await until(lambda: ms.log.last(f"$run.{run_id}"), what="the run to begin")
    await ms.flow.handle(run_id).result(timeout_s=60)


async def outcome_of(ms: Mainstem, upload_id: str = "upload-1") -> Outcome:
    records = await ms.log.read(">", 0, 10_000)
    ours = [record for record in records if record.stream.startswith(("video.", "$media.", "upload.", "$run."))]
    return Outcome(
        events={
            kind: [msgspec.json.decode(one.value) for one in records if one.stream == kind]
            for kind in ("video.ready", "video.refused")
        },
        progress=[
            msgspec.json.decode(one.value, type=Progress) for one in records if one.stream == f"$media.{upload_id}"
        ],
        trace_ids={
            record.headers.get("traceparent", "")[3:35] for record in ours if record.stream != "upload.completed"
        },
        about=next((one.headers["about"] for one in records if one.stream.startswith("video.")), ""),
    )


async def process(directory: Path, source: Path, **options: Any) -> Outcome:
    """Run an application until one upload was dealt with."""
    ms = Mainstem(directory, services=[Media(workers=2, preset="ultrafast", **options)])
    async with ms:
        run_id = await upload(ms, source)
        await result_of(ms, run_id)
        return await outcome_of(ms)


def left_over(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in (directory / "services/media").rglob("*"))


def test_ready(clips: Clips, tmp_path: Path) -> None:
    """A good upload gives one ``video.ready``, about upload and video, in one trace; progress tells each chunk; no work
    file remains.
    """
    outcome = run(process(tmp_path / "data", clips.get("plain.mp4")))
    [ready] = outcome.events["video.ready"]
    video = msgspec.convert(ready, VideoReady)
    assert outcome.events["video.refused"] == []
    assert (video.video_id, video.filename, video.frames, video.duration_s) == ("upload-1", "clip.mp4", 50, 2.0)
    assert video.playlist == "media/videos/upload-1/main.m3u8" and video.has_audio and video.chunks == 5
    assert outcome.about.split() == ["upload:upload-1", "video:upload-1"]
    assert len(outcome.trace_ids) == 1
    assert isinstance(outcome.progress[0], Planned) and outcome.progress[0].chunks_total == 5
    chunks = [one for one in outcome.progress if isinstance(one, ChunkEncoded)]
    assert sorted(one.index for one in chunks) == list(range(5)) and sum(one.frames for one in chunks) == 50
    assert len([one for one in outcome.progress if isinstance(one, SoundEncoded)]) == 1
    assert left_over(tmp_path / "data") == []


REFUSED = {
    "empty.mp4": ("empty", "no bytes"),
    "text.mp4": ("not_media", "not in a video format"),
    "playlist.mp4": ("not_media", "not in a video format"),
    "concatenation.mp4": ("not_media", "not in a video format"),
    "sound_only.m4a": ("no_video", "only sound"),
    "truncated.mp4": ("truncated", "of the 50 frames that its index names"),
    "no_index.mp4": ("truncated", "no index"),
    "truncated_matroska.mkv": ("truncated", "by what its beginning says it has at least"),
    "truncated_web.webm": ("truncated", "by what its beginning says it has at least"),
    "truncated_avi.avi": ("truncated", "by what its beginning says it has at least"),
    "truncated_flash.flv": ("truncated", "by what its beginning says it lasts 2.0 s"),
    "damaged.mp4": ("damaged", "frames where"),
}
"""Clips that are refused: reason, and words of the sentence."""


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, clips: Clips, tmp_path: Path) -> None:
    """A bad upload gives one ``video.refused`` with reason and sentence, and nothing is published or left."""
    outcome = run(process(tmp_path / "data", clips.get(name)))
    assert outcome.events["video.ready"] == []
    [event] = outcome.events["video.refused"]
    refused = msgspec.convert(event, VideoRefused)
    reason, words = REFUSED[name]
    assert refused.reason == reason and words in refused.message, refused
    assert (refused.video_id, refused.upload_id) == ("upload-1", "upload-1")
    assert left_over(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(duration_max_s=1.0), "too_long"),
        (Limits(frames_max=10), "too_long"),
        (Limits(pixels_max=1000), "too_large"),
        (Limits(streams_max=1), "too_many_streams"),
        (Limits(probe_timeout_s=0.01), "probe_limits"),
        (Limits(probe_memory_max_bytes=50 << 20), "probe_limits"),
    ],
    ids=["duration", "frames", "pixels", "streams", "time", "memory"],
)
def test_limits(limits: Limits, reason: str, clips: Clips, tmp_path: Path) -> None:
    """What exceeds a limit is refused, the probe's own time and memory included."""
    outcome = run(process(tmp_path / "data", clips.get("plain.mp4"), limits=limits))
    [event] = outcome.events["video.refused"]
    assert event["reason"] == reason


def test_hostile_names(clips: Clips, tmp_path: Path) -> None:
    """A stranger's file name never becomes a path; an upload id that is none fails the run and touches nothing."""

    async def scenario() -> None:
        ms = Mainstem(tmp_path / "data", services=[Media(workers=2, preset="ultrafast")])
        async with ms:
            run_id = await upload(ms, clips.get("silent.mp4"), filename="../../../../etc/cron.d/evil\x00<script>")
            await result_of(ms, run_id)
            outcome = await outcome_of(ms)
            assert outcome.events["video.ready"][0]["filename"].startswith("../../")
            run_id = await upload(ms, clips.get("silent.mp4"), upload_id="../../evil")
            with pytest.raises(RunFailedError, match="upload id"):
                await result_of(ms, run_id)

    run(scenario())
    assert left_over(tmp_path / "data") == []
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.parent.glob("*evil*"))


def test_a_failure_of_ours_publishes_nothing(clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When packaging fails half-way, the run fails with the reason, no video is visible, and no work file remains."""

    async def half(blobs: BlobStore, *_rest: object) -> Manifest:
        await blobs.put_bytes(b"a segment")
        raise PackageError("the second half is missing")

    monkeypatch.setattr(work, "package", half)

    async def scenario() -> None:
        media = Media(workers=2, preset="ultrafast")
        async with Mainstem(tmp_path / "data", services=[media]) as ms:
            with pytest.raises(RunFailedError, match="the second half is missing"):
                await result_of(ms, await upload(ms, clips.get("tiny.mp4")))
            assert (await outcome_of(ms)).events == {"video.ready": [], "video.refused": []}
            assert "upload-1" not in media.library

    run(scenario())
    assert left_over(tmp_path / "data") == []


def test_two_videos_of_one_source(clips: Clips, tmp_path: Path) -> None:
    """The same file uploaded twice is two videos that share all their blobs."""

    async def scenario() -> tuple[Manifest, Manifest]:
        media = Media(workers=2, videos_at_once=2, preset="ultrafast")
        ms = Mainstem(tmp_path / "data", services=[media])
        async with ms:
            runs = [await upload(ms, clips.get("silent.mp4"), upload_id=name) for name in ("one", "two")]
            for run_id in runs:
                await result_of(ms, run_id)
            await until(lambda: len(media.library) == 2)
            assert "one" in media.library and sorted(media.library) == ["one", "two"]
            return await media.library.manifest("one"), await media.library.manifest("two")

    one, two = run(scenario())
    assert one.files == two.files and one.video_id != two.video_id


def test_serving(clips: Clips, tmp_path: Path) -> None:
    """A video is served only once it is ready: playlists compressed, segments with ranges, for ever; anything else is
    404.
    """

    async def scenario() -> None:
        media = Media(workers=2, preset="ultrafast")
        ms = Mainstem(tmp_path / "data", services=[media])
        app = Starlette(routes=[Mount("/app/media", routes=media.routes())])
        transport = httpx.ASGITransport(app)
        base = "http://localhost/app/media/videos/upload-1/"
        async with ms, httpx.AsyncClient(transport=transport, base_url=base) as client:
            early = await client.get("main.m3u8")
            assert early.status_code == 404 and early.json()["error"]["code"] == "media-video-not-found"
            await result_of(ms, await upload(ms, clips.get("plain.mp4")))
            await until(lambda: "upload-1" in media.library)
            main = await client.get("main.m3u8")
            assert main.status_code == 200 and main.text.startswith("#EXTM3U") and check_delivery(main.headers) == []
            manifest = await media.library.manifest("upload-1")
            segment = next(name for name in manifest.files if name.endswith(".m4s"))
            blob = ms.blobs.path(manifest.files[segment].sha256).read_bytes()
            whole = await client.get(segment)
            assert whole.content == blob and whole.headers["content-type"] in ("video/mp4", "audio/mp4")
            assert "immutable" in whole.headers["cache-control"]
            part = await client.get(segment, headers={"range": "bytes=10-19"})
            assert (part.status_code, part.content) == (206, blob[10:20])
            assert (await client.get(segment, headers={"range": "bytes=99999999-"})).status_code == 416
            again = await client.get(segment, headers={"if-none-match": whole.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await client.head(segment)
            assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(blob)))
            for name in ("other.m4s", "..%2f..%2flog", manifest.source_blob, f"{manifest.source_blob}.mp4", "%00"):
                assert (await client.get(name)).status_code == 404, name
            assert (await client.post(segment)).status_code == 405
            with pytest.raises(VideoNotFoundError):
                await media.library.manifest("upload-2")

    run(scenario())


def test_library_after_a_restart(clips: Clips, tmp_path: Path) -> None:
    """After a restart the videos are still there; what is no video of ours in ``video.ready`` is passed over."""

    async def scenario() -> None:
        media = Media(workers=2, preset="ultrafast")
        async with Mainstem(tmp_path / "data", services=[media]) as ms:
            await ms.publish("video.ready", {"something": "else"})
            await result_of(ms, await upload(ms, clips.get("tiny.mp4")))
            await until(lambda: "upload-1" in media.library)
        again = Media(workers=2, preset="ultrafast")
        async with Mainstem(tmp_path / "data", services=[again]):
            manifest = await again.library.manifest("upload-1")
            assert manifest.frames == 20 and len(again.library) == 1
            assert await again.library.manifest("upload-1") is manifest

    run(scenario())


def test_misuse(tmp_path: Path) -> None:
    """Numbers and presets out of range are refused; a service that does not run says so."""
    for wrong in ({"workers": 0}, {"videos_at_once": 0}, {"preset": "placebo; rm"}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            Media(**wrong)
    media = Media()
    assert media.name == "media" and media.workers >= 1 and "Media" in repr(media) and len(media.panels()) == 1
    with pytest.raises(MediaError, match="not running"):
        _ = media.library
    run(media.stop())


# ---- kill -9


class Killed(msgspec.Struct):
    """What the log said at the moment of the kill."""

    done: set[str]
    begun: set[str]


async def entries_of(directory: Path) -> list[JournalEntry]:
    reader = await open_reader(directory / "log", disk=SystemDisk())
    return [decode_entry(record.value) for record in await reader.read("$run.>", 0, 10_000)]


async def is_ready(directory: Path) -> bool:
    reader = await open_reader(directory / "log", disk=SystemDisk())
    return bool(await reader.read("video.ready"))


def chunk_steps(entries: list[JournalEntry]) -> Killed:
    return Killed(
        done={one.key for one in entries if isinstance(one, StepCompleted) and one.name == "encode_chunk"},
        begun={one.key for one in entries if isinstance(one, StepStarted) and one.name == "encode_chunk"},
    )


def test_kill_in_mid_encode(clips: Clips, tmp_path: Path) -> None:
    """Killed with SIGKILL in mid encode: no ffmpeg survives, no finished chunk is encoded again, the video is right."""
    directory, source = tmp_path / "data", clips.get("large.mp4")
    program = [sys.executable, "-m", APPLICATION, str(directory)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}

    async def killed_state() -> Killed | None:
        state = chunk_steps(await entries_of(directory))
        return state if state.done and state.begun - state.done else None

    with subprocess.Popen(
        [*program, str(source)], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == b"running\n"
        run(until(killed_state, 60.0, what="a finished and a begun chunk"))
        children = children_of(first.pid)
        assert any("libx264" in line for line in children.values())
        first.kill()
        first.wait()
    assert not run(is_ready(directory))
    run(until(lambda: not [pid for pid in children if Path(f"/proc/{pid}/exe").exists()], 2.0, what="ffmpeg to end"))
    at_kill = chunk_steps(run(entries_of(directory)))

    with subprocess.Popen(program, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
        assert second.stdin is not None
        run(until(lambda: is_ready(directory), 60.0, what="video.ready"), timeout_s=70)
        second.stdin.close()
        assert second.wait(30) == 0
    entries = run(entries_of(directory))
    starts = Counter(one.key for one in entries if isinstance(one, StepStarted) and one.name == "encode_chunk")
    again = {key for key, count in starts.items() if count > 1}
    assert again <= at_kill.begun - at_kill.done and len(again) <= WORKERS
    assert all(count == 1 for count in Counter(one.key for one in entries if isinstance(one, StepCompleted)).values())
    check_result(directory, source, tmp_path / "published")


def check_result(directory: Path, source: Path, target: Path) -> None:
    async def scenario() -> None:
        media = Media(workers=1)
        async with Mainstem(directory, services=[media]) as ms:
            manifest = await media.library.manifest("upload-1")
            playlist = materialise(ms.blobs, manifest.files, target)
            report = await verify_video(playlist, source)
            assert report.ok, report

    run(scenario())


def test_stop_in_mid_encode(clips: Clips, tmp_path: Path) -> None:
    """An application that stops in mid encode ends its ffmpeg and leaves the run open; the next one finishes it."""

    async def scenario() -> None:
        ms = Mainstem(tmp_path / "data", services=[Media(workers=2, preset="slower")])
        async with ms:
            run_id = await upload(ms, clips.get("large.mp4"))
            await until(lambda: any("libx264" in line for line in children_of(os.getpid()).values()), 30.0)
        assert not children_of(os.getpid())
        async with Mainstem(tmp_path / "data", services=[Media(workers=2, preset="slower")]) as again:
            await result_of(again, run_id)
            assert len((await outcome_of(again)).events["video.ready"]) == 1

    run(scenario(), timeout_s=90)


@pytest.mark.parametrize("stream", ["video.ready", "video.refused"])
def test_odd_events_of_others_stop_nothing(stream: str, tmp_path: Path) -> None:
    """What an application writes to the streams of videos and is none keeps neither a start nor the next video."""
    odd = [b'["not ours"]', b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", b"\xff", b"{}"]

    async def main() -> None:
        async with Mainstem(tmp_path, services=[Media(workers=1)]) as ms:
            await ms.log.append(stream, [Record(value) for value in odd])
        media = Media(workers=1)
        async with Mainstem(tmp_path, services=[media]):
            assert list(media.library) == []

    run(main())


def test_a_start_that_fails_leaves_no_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the service cannot start it follows the log no longer."""

    def sweep(*_arguments: object) -> None:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr("mainstem.services.media.service._sweep", sweep)

    async def main() -> None:
        with pytest.raises(OSError, match="the disk failed"):
            await Mainstem(tmp_path, services=[Media(workers=1)]).start()
        assert [task for task in asyncio.all_tasks() if task.get_name() == "mainstem media library"] == []

    run(main())


def test_a_manifest_that_is_no_blob_is_no_video(tmp_path: Path) -> None:
    """An event that names as its manifest what is no SHA-256 publishes nothing: its address is not found."""
    ready = VideoReady(
        video_id="v1",
        upload_id="v1",
        source_blob="f" * 64,
        filename="x",
        playlist="media/videos/v1/main.m3u8",
        manifest="../../log",
        duration_s=4.0,
        frames=100,
        frame_rate=25.0,
        has_audio=True,
        chunks=4,
        renditions=[],
    )

    async def main() -> None:
        async with Mainstem(tmp_path, services=[Media(workers=1)]) as ms:
            await ms.log.append("video.ready", [Record(msgspec.json.encode(ready))])
        async with Mainstem(tmp_path, services=[Media(workers=1)]) as ms:
            transport = httpx.ASGITransport(ms.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                assert (await client.get("/media/videos/v1/main.m3u8")).status_code == 404

    run(main())
