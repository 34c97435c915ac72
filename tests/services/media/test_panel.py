"""Videos on the dashboard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from mainstem.flow.journal import ErrorInfo, RunCancelled, RunFailed, RunPaused, RunQuarantined, RunResumed, Started
from mainstem.log import StoredRecord
from mainstem.services.media.manifest import PublishedRendition
from mainstem.services.media.panel import VideosPanel, render_list, render_video
from mainstem.services.media.records import ChunkEncoded, Planned, SoundEncoded, VideoReady, VideoRefused
from mainstem.ui.panel import LiveFacts, PageRequest, PageView

SECOND_NS = 1_000_000_000
PLANNED = Planned(chunks_total=4, frames=100, duration_s=4.0, renditions=["360p"], filename="a <b>.mp4")
RENDITION = PublishedRendition(
    name="360p",
    width=640,
    height=360,
    frames=100,
    bandwidth_bps=900_000,
    average_bandwidth_bps=800_000,
    codecs="avc1.64001e",
    playlist="x.m3u8",
)

READY = VideoReady(
    video_id="v1",
    upload_id="v1",
    source_blob="f" * 64,
    filename="a <b>.mp4",
    playlist="media/videos/v1/main.m3u8",
    manifest="f" * 64,
    duration_s=4.0,
    frames=100,
    frame_rate=25.0,
    has_audio=True,
    chunks=4,
    renditions=[RENDITION],
)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(VideosPanel().schema)
    yield connection
    connection.close()


def stored(position: int, record: msgspec.Struct | bytes, stream: str = "$media.v1") -> StoredRecord:
    value = record if isinstance(record, bytes) else msgspec.json.encode(record)
    return StoredRecord(position, stream, position * SECOND_NS, value)


def chunk(index: int) -> ChunkEncoded:
    return ChunkEncoded(index=index, chunks_total=4, frames=25, size_bytes=1024, seconds=1.0)


def request(**path: str) -> PageRequest:
    return PageRequest(path, {}, "/x/", LiveFacts(now_ns=100 * SECOND_NS), {"vendor/hls.worker.js": "static/1/w.js"})


def html(view: PageView | None) -> str:
    assert view is not None
    return "".join(fragment.html for fragment in view.fragments)


def test_progress_counts_each_chunk_once(db: sqlite3.Connection) -> None:
    """A chunk that was encoded again after a crash is progress once, and told apart."""
    records = [PLANNED, chunk(0), chunk(1), chunk(1), SoundEncoded(size_bytes=10, seconds=1.0)]
    topics = VideosPanel().apply(db, [stored(number + 1, record) for number, record in enumerate(records)])
    assert topics == {"videos", "video:v1"}
    assert "50 %" in html(render_list(db, request()))
    page = html(render_video(db, request(video_id="v1")))
    assert "2 of 4" in page and "1 chunk" in page and "<video" not in page and "processing" in page


def test_a_video_that_is_ready_has_a_player(db: sqlite3.Connection) -> None:
    """The player has the playlist below the mount's prefix, and its worker from this origin; names are text."""
    VideosPanel().apply(db, [stored(1, PLANNED), stored(2, READY, "video.ready")])
    view = render_video(db, request(video_id="v1"))
    page = html(view)
    assert 'data-playlist="/x/media/videos/v1/main.m3u8"' in page and 'data-worker="/x/static/1/w.js"' in page
    assert "640 × 360" in page and "<b>" not in page and "hx-morph-skip" in page
    assert view is not None and "player.js" in view.scripts


def test_a_fast_source_is_told(db: sqlite3.Connection) -> None:
    """Where frames were dropped the page says how many the source has and at how many it is shown."""
    VideosPanel().apply(db, [stored(1, READY, "video.ready")])
    page = html(render_video(db, request(video_id="v1")))
    assert "100 at 25 a second" in page and "shown at" not in page
    fast = msgspec.structs.replace(READY, frame_rate=60.0, source_frame_rate=90.0)
    VideosPanel().apply(db, [stored(2, fast, "video.ready")])
    assert "90 fps source, shown at 60" in html(render_video(db, request(video_id="v1")))


@pytest.mark.parametrize("duration_s", [1e308, -1e308])
def test_any_length_can_be_shown(duration_s: float, db: sqlite3.Connection) -> None:
    """A length that no video has, in an event of somebody else, spoils neither the list nor the page."""
    ready = VideoReady(
        video_id="v1",
        upload_id="v1",
        source_blob="f" * 64,
        filename="x",
        playlist="media/videos/v1/main.m3u8",
        manifest="f" * 64,
        duration_s=duration_s,
        frames=100,
        frame_rate=25.0,
        has_audio=True,
        chunks=4,
        renditions=[RENDITION],
    )
    VideosPanel().apply(db, [stored(1, ready, "video.ready")])
    assert "ready" in html(render_list(db, request()))
    assert "Length" in html(render_video(db, request(video_id="v1")))


def test_a_refused_video_says_why(db: sqlite3.Connection) -> None:
    """The sentence of the refusal is what the page opens with."""
    refused = VideoRefused(
        video_id="v1", upload_id="v1", source_blob="f" * 64, filename="x", reason="not_media", message="It is no video."
    )
    VideosPanel().apply(db, [stored(1, refused, "video.refused")])
    page = html(render_video(db, request(video_id="v1")))
    assert "It is no video." in page and "refused" in page
    assert "It is no video." in html(render_list(db, request()))


def started(upload_id: str = "v1", **changes: object) -> Started:
    arguments = msgspec.json.encode({"args": [{"upload_id": upload_id, "filename": "a.mp4"}], "kwargs": {}})
    return Started(function="video", kind="workflow", arguments=msgspec.Raw(arguments), **changes)  # type: ignore[arg-type]


FAILED = RunFailed(ErrorInfo("PackageError", "they do not fit."), "package_video#1", 1)
ENDS: Sequence[tuple[msgspec.Struct, str, str]] = (
    (FAILED, "failed", "Step package_video#1 failed: PackageError: they do not fit."),
    (RunFailed(ErrorInfo("TimeoutError", "too slow")), "failed", "It failed: TimeoutError: too slow."),
    (RunCancelled("not wanted"), "cancelled", "It was cancelled: not wanted."),
    (RunPaused("The code is another."), "paused", "The code is another. It waits for a decision"),
    (RunQuarantined(3), "quarantined", "It was taken over 3 times"),
)


@pytest.mark.parametrize(
    ("end", "state", "sentence"), ENDS, ids=[f"{state}-{type(end).__name__}" for end, state, _ in ENDS]
)
@pytest.mark.parametrize("planned", [True, False])
def test_a_run_that_stopped_says_why(
    end: msgspec.Struct, state: str, sentence: str, planned: bool, db: sqlite3.Connection
) -> None:
    """A video whose run failed, was cancelled or waits is no longer processed: list and page say so, and why."""
    panel = VideosPanel()
    assert panel.apply(db, [stored(1, started(), "$run.video@1")]) == {"videos", "video:v1"}
    if planned:
        panel.apply(db, [stored(2, PLANNED), stored(3, chunk(0))])
    panel.apply(db, [stored(4, end, "$run.video@1")])
    for page in (html(render_list(db, request())), html(render_video(db, request(video_id="v1")))):
        assert f"<span>{state}</span>" in page and sentence in page and "processing" not in page
    assert "/x/runs/video%401" in html(render_video(db, request(video_id="v1")))


def test_a_video_that_is_tried_again_begins_anew(db: sqlite3.Connection) -> None:
    """A later run for the same upload is what the page shows; the end of an earlier one no longer counts."""
    panel = VideosPanel()
    panel.apply(db, [stored(1, started(), "$run.video@1"), stored(2, PLANNED), stored(3, chunk(0))])
    panel.apply(db, [stored(4, started(in_turn=True), "$run.video@4"), stored(5, FAILED, "$run.video@1")])
    page = html(render_video(db, request(video_id="v1")))
    assert "queued" in page and "failed" not in page
    panel.apply(db, [stored(6, RunResumed(""), "$run.video@4"), stored(7, PLANNED), stored(8, chunk(0))])
    assert "1 of 4" in html(render_video(db, request(video_id="v1")))


def test_runs_of_others_change_no_video(db: sqlite3.Connection) -> None:
    """Runs of other workflows, of events that no video can come from, and unreadable journals make no row."""
    panel = VideosPanel()
    records = [
        stored(1, started(), "$run.video2@1"),
        stored(2, started("../evil"), "$run.video@2"),
        stored(3, RunCancelled(""), "$run.video@2"),
        stored(4, b"\xff", "$run.video@4"),
        stored(5, msgspec.structs.replace(started(), arguments=msgspec.Raw(b'{"args":[1]}')), "$run.video@5"),
    ]
    assert panel.apply(db, records) == set()
    assert "No video yet" in html(render_list(db, request()))


def test_records_of_others_are_passed_over(db: sqlite3.Connection) -> None:
    """What is no record of a video makes no row."""
    VideosPanel().apply(
        db, [stored(1, b"\xff"), stored(2, b"{}"), stored(3, b"[]", "video.ready"), stored(4, b"", "video.refused")]
    )
    deep = b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    VideosPanel().apply(
        db, [stored(5, deep), stored(6, deep, "video.ready"), stored(7, b'["not ours"]', "video.refused")]
    )
    assert render_video(db, request(video_id="v1")) is None
    assert "No video yet" in html(render_list(db, request()))
    assert [page.path for page in VideosPanel().pages()] == ["videos", "videos/{video_id}"]
