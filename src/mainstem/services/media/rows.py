"""What a video is on the dashboard: folded from its records, its events, and the journal of the run that makes it."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from mainstem.base.codec import NotDecodableError, decode
from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import check_id
from mainstem.flow.history import RunFold, describe_failure, run_id_of
from mainstem.flow.journal import JOURNAL_PREFIX, Started
from mainstem.log.contract import StoredRecord
from mainstem.services.media.records import (
    MEDIA_PREFIX,
    VIDEO_READY,
    VIDEO_REFUSED,
    WORKFLOW,
    ChunkEncoded,
    Planned,
    Progress,
    SoundEncoded,
    VideoReady,
    VideoRefused,
)
from mainstem.ui.format import shorten

SCHEMA: Final = """
CREATE TABLE videos_video (video_id TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, video BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX videos_by_time ON videos_video (created_ns);
CREATE TABLE videos_run (run_id TEXT PRIMARY KEY, video_id TEXT NOT NULL, fold BLOB NOT NULL) WITHOUT ROWID;
"""
"""Of the tables that the functions below use."""


class Video(msgspec.Struct, kw_only=True):
    """One video.

    Attributes:
        video_id: Its id.
        created_ns: Time of its first record.
        ended_ns: Time at which it was ready, refused, or given up; 0 while it is worked on.
        filename: What the uploader calls it.
        state: A word for its pill: ``queued``, ``processing``, ``ready``, ``refused``, or what became of its run.
        trouble: A sentence where something is wrong.
        trace_id: Of its first record.
        run_id: The run that makes it, the last where there were several.
        planned: What is to be done, once that is known.
        chunks: Numbers of the chunks that are durable.
        encoded_again: How many chunks were encoded more than once, after crashes.
        encoded_bytes: What the encoders wrote in all.
        ready: The event that made it visible.
    """

    video_id: str
    created_ns: int
    ended_ns: int = 0
    filename: str = ""
    state: str = "processing"
    trouble: str = ""
    trace_id: str = ""
    run_id: str = ""
    planned: Planned | None = None
    chunks: set[int] = set()
    encoded_again: int = 0
    encoded_bytes: int = 0
    ready: VideoReady | None = None


class _Upload(msgspec.Struct):
    upload_id: str
    filename: str = ""


class _Arguments(msgspec.Struct):
    args: tuple[_Upload]


decode_video = msgspec.json.Decoder(Video).decode
"""Return a row's video."""

_decode_fold = msgspec.json.Decoder(RunFold).decode


def find_video(db: sqlite3.Connection, video_id: str) -> Video | None:
    """Return a video by its id."""
    found = db.execute("SELECT video FROM videos_video WHERE video_id = ?", (video_id,)).fetchone()
    return decode_video(found[0]) if found else None


def _keep(db: sqlite3.Connection, video: Video) -> set[str]:
    db.execute(
        "INSERT OR REPLACE INTO videos_video VALUES (?, ?, ?)",
        (video.video_id, video.created_ns, msgspec.json.encode(video)),
    )
    return {video.video_id}


def take_in(db: sqlite3.Connection, record: StoredRecord) -> set[str]:
    """Fold one record into the rows; return the ids of the videos that it changed."""
    if record.stream.startswith(JOURNAL_PREFIX):
        # The workflow's runs are started by events alone, so their ids are made of its name.
        is_ours = run_id_of(record.stream).partition("@")[0] == WORKFLOW
        return _take_in_run(db, record) if is_ours else set()
    try:
        entry = _decode(record)
    except NotDecodableError:
        return set()  # no record of ours: the stream's own page shows it all the same
    of_stream = record.stream.removeprefix(MEDIA_PREFIX)
    video_id = entry.video_id if isinstance(entry, VideoReady | VideoRefused) else of_stream
    video = find_video(db, video_id) or Video(video_id=video_id, created_ns=record.time_ns)
    video.trace_id = video.trace_id or record.headers.get("traceparent", "")[3:35]
    _fold(video, record, entry)
    return _keep(db, video)


def _decode(record: StoredRecord) -> Progress | VideoReady | VideoRefused:
    if record.stream == VIDEO_READY:
        ready: VideoReady = decode(record.value, VideoReady)
        return ready
    if record.stream == VIDEO_REFUSED:
        refused: VideoRefused = decode(record.value, VideoRefused)
        return refused
    entry: Progress = decode(record.value, Progress)
    return entry


def _fold(video: Video, record: StoredRecord, entry: Progress | VideoReady | VideoRefused) -> None:
    match entry:
        case Planned():
            video.planned, video.filename = entry, entry.filename
        case ChunkEncoded():
            video.encoded_again += entry.index in video.chunks
            video.encoded_bytes += entry.size_bytes
            video.chunks.add(entry.index)
        case SoundEncoded():
            video.encoded_bytes += entry.size_bytes
        case VideoReady():
            video.state, video.trouble, video.ready = "ready", "", entry
            video.filename, video.ended_ns = entry.filename, record.time_ns
        case VideoRefused():
            video.state, video.trouble = "refused", entry.message
            video.filename, video.ended_ns = entry.filename, record.time_ns


def _take_in_run(db: sqlite3.Connection, record: StoredRecord) -> set[str]:
    """Fold one record of the journal of a run that makes a video: how it stands with the run is how with the video."""
    run_id = run_id_of(record.stream)
    found = db.execute("SELECT video_id, fold FROM videos_run WHERE run_id = ?", (run_id,)).fetchone()
    video_id, fold = (found[0], _decode_fold(found[1])) if found else ("", RunFold(run_id))
    entry = fold.apply(record)
    video = find_video(db, video_id) if video_id else None
    if isinstance(entry, Started) and not found:
        video = _begin(db, record, entry, run_id)
    if video is None:
        return set()  # of an event that no video can come from: the run's own page shows it
    db.execute(
        "INSERT OR REPLACE INTO videos_run VALUES (?, ?, ?)", (run_id, video.video_id, msgspec.json.encode(fold))
    )
    if video.run_id == run_id and video.state not in ("ready", "refused"):
        state = fold.state(record.time_ns)
        video.state = state if fold.ending or fold.waiting or state == "queued" else "processing"
        video.trouble = _trouble(fold)
        video.ended_ns = fold.ended_ns
    return _keep(db, video)


def _trouble(fold: RunFold) -> str:
    """Return why a run did not come to its end, as a sentence; empty while it may."""
    if fold.ending == "failed" and fold.error is not None:
        what = f"Step {fold.failed_step} failed" if fold.failed_step else "It failed"
        return f"{what}: {fold.error.type}: {shorten(fold.error.message, 300).rstrip('.')}."
    return describe_failure(fold) if fold.ending or fold.waiting else ""


def _begin(db: sqlite3.Connection, record: StoredRecord, entry: Started, run_id: str) -> Video | None:
    """Return the video that a run is about to make; one that was refused or given up before begins anew."""
    try:
        [upload] = decode(bytes(entry.arguments), _Arguments).args
        video_id = check_id(upload.upload_id, "video id")
    except (NotDecodableError, InvalidArgumentError):
        return None
    before = find_video(db, video_id)
    if before is not None and before.ready is not None:
        return before  # it can be seen already, and goes on to be
    video = Video(video_id=video_id, created_ns=record.time_ns, filename=upload.filename[:255], run_id=run_id)
    video.trace_id = record.headers.get("traceparent", "")[3:35]
    return video
