"""What the demonstration reads from the log."""

from __future__ import annotations

import msgspec
import pytest

from examples.video.watch import CHUNK_STEP, VideoWatch
from mainstem.flow.journal import (
    ErrorInfo,
    JournalEntry,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunQuarantined,
    StepCompleted,
    StepStarted,
)
from mainstem.log import StoredRecord
from mainstem.services.media import VideoReady, VideoRefused
from mainstem.services.media.records import ChunkEncoded, Planned

NULL = msgspec.Raw(b"null")


def record(position: int, value: object, stream: str = "$run.video-1", about: str = "upload:u") -> StoredRecord:
    """Return a record."""
    return StoredRecord(position, stream, 0, msgspec.json.encode(value), headers={"about": about})


def watch() -> VideoWatch:
    """Return a watch for the upload ``u``."""
    watch = VideoWatch()
    watch.upload_id = "u"
    return watch


def ready() -> VideoReady:
    """Return the final event of a video."""
    return VideoReady(
        video_id="u",
        upload_id="u",
        source_blob="0" * 64,
        filename="clip.mp4",
        playlist="media/videos/u/main.m3u8",
        manifest="1" * 64,
        duration_s=1.0,
        frames=25,
        frame_rate=25.0,
        has_audio=False,
        chunks=3,
        renditions=[],
    )


def test_chunks_are_counted_from_the_journal() -> None:
    """Chunks done, under way and begun again are told apart; other steps do not count."""
    entries: list[JournalEntry] = [
        StepStarted("map#1[0]/encode_chunk#1", CHUNK_STEP, 1, "d"),
        StepStarted("map#1[1]/encode_chunk#1", CHUNK_STEP, 1, "d"),
        StepStarted("map#1[2]/encode_sound#1", "encode_sound", 1, "d"),
        StepCompleted("map#1[0]/encode_chunk#1", CHUNK_STEP, 1, "d", NULL, 0),
        StepStarted("map#1[1]/encode_chunk#1", CHUNK_STEP, 2, "d"),
        RunCompleted(NULL),
    ]
    seen = watch()
    seen.add([record(position, entry) for position, entry in enumerate(entries, start=1)])
    assert (seen.done, seen.under_way, seen.encoded_again) == (1, 1, 1)
    assert (seen.position, seen.failure) == (6, "")


def test_the_plan_says_how_many_there_are() -> None:
    """The number of chunks comes with the plan, of this video and no other."""
    planned = Planned(chunks_total=7, frames=1, duration_s=1.0, renditions=["720p"])
    encoded = ChunkEncoded(index=0, chunks_total=7, frames=1, size_bytes=1, seconds=1.0)
    seen = watch()
    seen.add([record(1, planned, "$media.other")])
    assert seen.total == 0
    seen.add([record(2, planned, "$media.u"), record(3, encoded, "$media.u")])
    assert seen.total == 7


def test_the_end_is_an_event_about_the_upload() -> None:
    """Ready or refused is told by the event about this upload."""
    refused = VideoRefused(
        video_id="u", upload_id="u", source_blob="0" * 64, filename="x", reason="not_media", message="It is text."
    )
    seen = watch()
    seen.add([record(1, ready(), "video.ready", about="upload:other video:other")])
    assert seen.ready is None
    seen.add([record(2, ready(), "video.ready")])
    assert seen.ready == ready()
    seen.add([record(3, refused, "video.refused")])
    assert seen.failure == "the clip was refused: It is text. (not_media)"


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (RunFailed(ErrorInfo("ValueError", "broken")), "failed: ValueError: broken"),
        (RunCancelled("enough"), "cancelled: enough"),
        (RunPaused("its code changed"), "waits for a decision: its code changed"),
        (RunQuarantined(3), "taken over 3 times"),
    ],
)
def test_a_run_that_will_not_end_well_is_a_failure(entry: JournalEntry, word: str) -> None:
    """A run that failed, was cancelled or waits for a decision is told with its reason."""
    seen = watch()
    seen.add([record(1, entry)])
    assert word in seen.failure
    assert "run video-1" in seen.failure
