"""Videos on the dashboard: the list with progress, and one video with its player."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from mainstem.flow.journal import JOURNAL_PREFIX
from mainstem.log.contract import StoredRecord
from mainstem.services.media.manifest import PublishedRendition
from mainstem.services.media.records import MEDIA_PREFIX, VIDEO_READY, VIDEO_REFUSED, VideoReady
from mainstem.services.media.rows import SCHEMA, Video, decode_video, find_video, take_in
from mainstem.ui.format import age_element, format_bytes, format_duration, shorten, time_element
from mainstem.ui.html import Child, Html, el
from mainstem.ui.panel import Fragment, Page, PageRequest, PageView
from mainstem.ui.parts import card, facts, link, notice, pager, pill, progress, table

PAGE_ROWS: Final = 50
"""Videos on one page of the list."""
_LENGTH_MAX_S: Final = 1e9
_CONSEQUENCES: Final = {
    "refused": "It did not become a video; what was uploaded is kept.",
    "failed": "It did not become a video; what was uploaded is kept.",
    "cancelled": "It did not become a video; what was uploaded is kept.",
}
"""For each state what it means for the upload."""


class VideosPanel:
    """Projects ``$media.>``, ``video.ready``, ``video.refused`` and the journals of the runs into one row a video."""

    name = "videos"
    version = 2
    patterns = (MEDIA_PREFIX + ">", VIDEO_READY, VIDEO_REFUSED, JOURNAL_PREFIX + ">")
    schema = SCHEMA

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Fold records into rows; the topics are ``videos`` and ``video:<id>``."""
        changed: set[str] = set()
        for record in records:
            changed |= take_in(db, record)
        return {"videos", *("video:" + video_id for video_id in changed)} if changed else set()

    def pages(self) -> Sequence[Page]:
        """Return the list and the page of one video."""
        return (Page("videos", render_list, nav="Videos", icon="videos"), Page("videos/{video_id}", render_video))


def _length(duration_s: float) -> str:
    """Return a length for reading; an event of somebody else may claim any number, beyond what integers are made of."""
    return format_duration(round(max(0.0, min(duration_s, _LENGTH_MAX_S)) * 1e9))


def render_list(db: sqlite3.Connection, request: PageRequest) -> PageView:
    """Render the list of videos, newest first."""
    asked = request.query.get("page", "1")
    page = int(asked) if asked.isascii() and asked.isdigit() and 0 < len(asked) < 5 and asked != "0" else 1
    rows = db.execute(
        "SELECT video FROM videos_video ORDER BY created_ns DESC LIMIT ? OFFSET ?",
        (PAGE_ROWS + 1, (page - 1) * PAGE_ROWS),
    ).fetchall()
    cells = [_row(request, decode_video(video)) for (video,) in rows[:PAGE_ROWS]]
    columns = (
        ("State", ""),
        ("Video", "wide"),
        ("Chunks", ""),
        ("Renditions", "tight"),
        ("Length", "number"),
        ("Began", ""),
        ("Took", "number"),
    )
    empty = el("p", "No video yet. An upload that is a video becomes one by itself.")
    body = [
        table("Videos", columns, cells, empty=empty),
        pager(request.base, "videos", {}, page, len(rows) > PAGE_ROWS),
    ]
    return PageView("Videos", (Fragment("videos", Html("".join(body)), label="Videos"),), frozenset({"videos"}))


def _row(request: PageRequest, video: Video) -> Sequence[Child]:
    names = (
        [one.name for one in video.ready.renditions]
        if video.ready
        else list(video.planned.renditions)
        if video.planned
        else []
    )
    took_ns = (video.ended_ns or request.facts.now_ns) - video.created_ns
    length_s = video.ready.duration_s if video.ready else video.planned.duration_s if video.planned else 0.0
    return (
        pill(video.state),
        el(
            "div",
            link(
                request.base, f"videos/{video.video_id}", shorten(video.filename or video.video_id, 120), class_="main"
            ),
            el("div", shorten(video.trouble, 200), class_="wrong") if video.trouble else None,
        ),
        progress(len(video.chunks), video.planned.chunks_total, f"Chunks of {video.filename}")
        if video.planned
        else el("span", "–", class_="dim"),
        ", ".join(names) or el("span", "–", class_="dim"),
        _length(length_s) if length_s else el("span", "–", class_="dim"),
        age_element(video.created_ns, request.facts.now_ns),
        format_duration(took_ns) if took_ns > 0 else el("span", "–", class_="dim"),
    )


def render_video(db: sqlite3.Connection, request: PageRequest) -> PageView | None:
    """Render one video: its player when it is ready, why not when it was refused, its progress until then."""
    video = find_video(db, request.path["video_id"])
    if video is None:
        return None
    fragments = [Fragment("state", _state(video), live=True)]
    if video.ready:
        fragments.append(Fragment("player", _player(request, video.ready), label="Player"))
    fragments.append(Fragment("facts", _facts(request, video)))
    if video.ready:
        fragments.append(Fragment("renditions", _renditions(video.ready.renditions), label="Renditions"))
    return PageView(
        video.filename or video.video_id,
        fragments,
        frozenset({"video:" + video.video_id}),
        el("span", video.video_id, class_="mono"),
        [("Videos", "videos")],
        scripts=("vendor/hls.min.js", "player.js"),
    )


def _state(video: Video) -> Html:
    words: Html | None = None
    if video.trouble:
        what = _CONSEQUENCES.get(video.state, "")
        kind = "bad" if video.state in ("refused", "failed", "quarantined") else "warn"
        words = notice(kind, el("p", el("strong", video.trouble), f" {what}" if what else None))
    total = video.planned.chunks_total if video.planned else 0
    done = progress(len(video.chunks), total, "Chunks that are encoded") if total and not video.ended_ns else None
    return el("div", el("div", pill(video.state), done, class_="state-line"), words, class_="opening")


def _player(request: PageRequest, ready: VideoReady) -> Html:
    name = ready.filename or ready.video_id
    # Nothing of it changes while it is shown: it is left alone when the page is kept up to date.
    return el(
        "div",
        el(
            "video",
            controls=True,
            playsinline=True,
            muted=True,
            preload="auto",
            aria_label=f"Video {name}",
            data_playlist=request.base + ready.playlist.lstrip("/"),
            data_worker=request.base + request.files.get("vendor/hls.worker.js", ""),
        ),
        el(
            "div",
            el("span", "Now playing ", el("output", "nothing yet", id="level", aria_live="polite")),
            el("span", "", id="level-changes"),
            class_="player-bar",
        ),
        class_="player",
        attributes={"hx-morph-skip": True},
    )


def _facts(request: PageRequest, video: Video) -> Html:
    ready, planned = video.ready, video.planned
    again = video.encoded_again
    took_ns = max(0, (video.ended_ns or request.facts.now_ns) - video.created_ns)
    chunks = f"{len(video.chunks)} of {planned.chunks_total}" if planned else None
    return facts(
        [
            ("Length", _length(ready.duration_s) if ready else None),
            ("Frames", _frames(ready) if ready else None),
            ("Sound", ("yes" if ready.has_audio else "none") if ready else None),
            ("Chunks", chunks),
            ("Encoded again", f"{again} chunks" if again > 1 else "1 chunk" if again else None),
            ("Encoded", format_bytes(video.encoded_bytes) if video.encoded_bytes else None),
            ("Began", time_element(video.created_ns)),
            ("Took" if video.ended_ns else "So far", format_duration(took_ns) if took_ns else None),
            ("Run", link(request.base, f"runs/{video.run_id}", video.run_id, class_="mono") if video.run_id else None),
            ("Upload", link(request.base, f"uploads/{video.video_id}", "where it came from")),
            (
                "Trace",
                link(request.base, f"traces/{video.trace_id}", video.trace_id[:16] + "…", class_="mono")
                if video.trace_id
                else None,
            ),
        ]
    )


def _frames(ready: VideoReady) -> str:
    words = f"{ready.frames:,} at {ready.frame_rate:.4g} a second"
    if ready.source_frame_rate <= ready.frame_rate:
        return words
    return f"{words} ({ready.source_frame_rate:.4g} fps source, shown at {ready.frame_rate:.4g})"


def _renditions(renditions: Sequence[PublishedRendition]) -> Html:
    columns = (
        ("Rendition", "wide"),
        ("Size", "tight"),
        ("Frames", "number"),
        ("Average", "number"),
        ("Peak", "number"),
        ("Codecs", ""),
    )
    cells: list[Sequence[Child]] = [
        (
            one.name,
            f"{one.width} × {one.height}",
            f"{one.frames:,}",
            f"{one.average_bandwidth_bps / 1000:,.0f} kbit/s",
            f"{one.bandwidth_bps / 1000:,.0f} kbit/s",
            el("span", one.codecs, class_="mono dim"),
        )
        for one in renditions
    ]
    return card("Renditions", table("Renditions", columns, cells))
