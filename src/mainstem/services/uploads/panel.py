"""Uploads on the dashboard: the list with progress, and one upload with its requests."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from mainstem.base.codec import NotDecodableError
from mainstem.log.contract import StoredRecord
from mainstem.services.uploads.protocol import (
    UPLOAD_PREFIX,
    Progressed,
    Upload,
    decode_record,
    fold,
    unreadable_sentence,
)
from mainstem.ui.format import age_element, format_bytes, format_duration, shorten, time_element
from mainstem.ui.html import Child, Html, el
from mainstem.ui.panel import Fragment, Page, PageRequest, PageView
from mainstem.ui.parts import card, facts, link, notice, pager, pill, progress, table

PAGE_ROWS: Final = 50
"""Uploads on one page of the list."""

REQUESTS_SHOWN: Final = 200
"""Latest requests that an upload's page shows."""

_STATES: Final = {"open": "uploading", "finished": "completed", "terminated": "terminated", "expired": "expired"}
_OUTCOMES: Final = {
    "ok": ("ok", "ok"),
    "receiving": ("running", "receiving"),
    # The client goes on from where it was: a nuisance, and no failure.
    "disconnected": ("interrupted", "disconnected"),
    "superseded": ("interrupted", "superseded"),
}
_UNREADABLE: Final = "unreadable"
_decode_upload = msgspec.json.Decoder(Upload).decode


class UploadsPanel:
    """Projects ``$upload.>`` into one row an upload and one a request."""

    name = "uploads"
    version = 2
    patterns = (UPLOAD_PREFIX + ">",)
    schema = """
CREATE TABLE uploads_upload (
    upload_id TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL,
    brought_bytes INTEGER NOT NULL, upload BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX uploads_by_time ON uploads_upload (created_ns);
CREATE TABLE uploads_request (
    upload_id TEXT NOT NULL, request INTEGER NOT NULL, started_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL, offset INTEGER NOT NULL, outcome TEXT NOT NULL,
    PRIMARY KEY (upload_id, request)) WITHOUT ROWID;
CREATE TABLE uploads_unreadable (upload_id TEXT PRIMARY KEY, sentence TEXT NOT NULL) WITHOUT ROWID;
"""

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Fold records into rows; the topics are ``uploads`` and ``upload:<id>``."""
        topics = {"uploads"}
        for record in records:
            upload_id = record.stream.removeprefix(UPLOAD_PREFIX)
            try:
                entry = decode_record(record.value)
                upload = fold(find_upload(db, upload_id), record)
            except NotDecodableError as error:
                # The first one is told on the upload's page; the stream's own page shows them all.
                sentence = unreadable_sentence(record, error)
                db.execute("INSERT OR IGNORE INTO uploads_unreadable VALUES (?, ?)", (upload_id, sentence))
                topics.add("upload:" + upload_id)
                continue
            if upload is None:
                continue  # its beginning is no longer in the log
            more_bytes = 0
            if isinstance(entry, Progressed):
                # The difference to the request's last record, since a sum over all requests would cost more with each.
                more_bytes = entry.received_bytes - _first(
                    db,
                    "SELECT received_bytes FROM uploads_request WHERE upload_id = ? AND request = ?",
                    (upload_id, entry.request),
                )
                db.execute(
                    "INSERT OR REPLACE INTO uploads_request VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        upload_id,
                        entry.request,
                        entry.started_ns,
                        entry.ended_ns,
                        entry.received_bytes,
                        entry.offset,
                        entry.outcome,
                    ),
                )
            ended_ns = record.time_ns if upload.phase != "open" else 0
            brought_bytes = _first(db, "SELECT brought_bytes FROM uploads_upload WHERE upload_id = ?", (upload_id,))
            db.execute(
                "INSERT OR REPLACE INTO uploads_upload VALUES (?, ?, ?, ?, ?, ?)",
                (
                    upload_id,
                    upload.created.started_ns,
                    record.time_ns,
                    ended_ns,
                    brought_bytes + more_bytes,
                    msgspec.json.encode(upload),
                ),
            )
            topics.add("upload:" + upload_id)
        return topics

    def pages(self) -> Sequence[Page]:
        """Return the list and the page of one upload."""
        return (Page("uploads", render_list, nav="Uploads", icon="uploads"), Page("uploads/{upload_id}", render_upload))


def _first(db: sqlite3.Connection, query: str, values: tuple[str | int, ...]) -> int:
    """Return the number that a query finds; 0 for none."""
    found = db.execute(query, values).fetchone()
    return int(found[0]) if found else 0


def find_upload(db: sqlite3.Connection, upload_id: str) -> Upload | None:
    """Return an upload from the page state."""
    found = db.execute("SELECT upload FROM uploads_upload WHERE upload_id = ?", (upload_id,)).fetchone()
    return _decode_upload(found[0]) if found else None


def render_list(db: sqlite3.Connection, request: PageRequest) -> PageView:
    """Render the list of uploads, newest first."""
    asked = request.query.get("page", "1")
    page = int(asked) if asked.isascii() and asked.isdigit() and 0 < len(asked) < 5 and asked != "0" else 1
    rows = db.execute(
        "SELECT upload, created_ns, ended_ns, brought_bytes, coalesce((SELECT outcome FROM uploads_request AS request "
        "WHERE request.upload_id = uploads_upload.upload_id ORDER BY request.request DESC LIMIT 1), ''), "
        "EXISTS (SELECT 1 FROM uploads_unreadable AS strange WHERE strange.upload_id = uploads_upload.upload_id) "
        "FROM uploads_upload ORDER BY created_ns DESC LIMIT ? OFFSET ?",
        (PAGE_ROWS + 1, (page - 1) * PAGE_ROWS),
    ).fetchall()
    now_ns = request.facts.now_ns
    cells = [
        _row(
            request,
            _decode_upload(upload),
            created_ns,
            ended_ns or now_ns,
            brought,
            _UNREADABLE if strange else outcome,
        )
        for upload, created_ns, ended_ns, brought, outcome, strange in rows[:PAGE_ROWS]
    ]
    columns = (
        ("State", ""),
        ("File", "wide"),
        ("Progress", ""),
        ("Size", "number"),
        ("Sent again", "number"),
        ("Began", ""),
        ("Took", "number"),
    )
    empty = el("p", "No upload yet. Any tus client can send one to ", el("code", request.base + "uploads/files"), ".")
    body = [
        table("Uploads", columns, cells, empty=empty),
        pager(request.base, "uploads", {}, page, len(rows) > PAGE_ROWS),
    ]
    return PageView("Uploads", (Fragment("uploads", Html("".join(body)), label="Uploads"),), frozenset({"uploads"}))


def _phase(upload: Upload, outcome: str) -> Html:
    """Return the state as a pill; of an open upload, whether a request brings bytes or the client is waited for."""
    if upload.phase == "open" and outcome == _UNREADABLE:
        return pill("paused")
    waits = upload.phase == "open" and outcome != "receiving"
    return pill("waiting" if waits else _STATES[upload.phase])


def _row(
    request: PageRequest, upload: Upload, created_ns: int, until_ns: int, brought: int, outcome: str
) -> Sequence[Child]:
    again = max(0, brought - upload.offset)
    return (
        _phase(upload, outcome),
        el(
            "div",
            link(
                request.base, f"uploads/{upload.id}", shorten(upload.created.filename or upload.id, 120), class_="main"
            ),
            el("div", upload.id, class_="dim mono"),
        ),
        progress(upload.offset, upload.size_bytes or 1, f"Progress of {upload.created.filename or upload.id}"),
        format_bytes(upload.size_bytes),
        format_bytes(again) if again else el("span", "–", class_="dim"),
        age_element(created_ns, request.facts.now_ns),
        format_duration(max(0, until_ns - created_ns)),
    )


def render_upload(db: sqlite3.Connection, request: PageRequest) -> PageView | None:
    """Render one upload with its requests."""
    upload = find_upload(db, request.path["upload_id"])
    if upload is None:
        return None
    created_ns, ended_ns, brought = db.execute(
        "SELECT created_ns, ended_ns, brought_bytes FROM uploads_upload WHERE upload_id = ?", (upload.id,)
    ).fetchone()
    requests = db.execute(
        "SELECT request, started_ns, ended_ns, received_bytes, offset, outcome FROM uploads_request "
        "WHERE upload_id = ? ORDER BY request DESC LIMIT ?",
        (upload.id, REQUESTS_SHOWN),
    ).fetchall()
    return PageView(
        upload.created.filename or upload.id,
        (
            Fragment("state", _state(upload, requests[0][5] if requests else "", _unreadable(db, upload)), live=True),
            Fragment("facts", _facts(request, upload, created_ns, ended_ns, brought)),
            Fragment("requests", _requests(requests), label="Requests"),
        ),
        frozenset({"upload:" + upload.id}),
        el("span", upload.id, class_="mono"),
        [("Uploads", "uploads")],
    )


def _unreadable(db: sqlite3.Connection, upload: Upload) -> str:
    """Return why an upload is set aside; empty for one that is not, or that has ended."""
    if upload.phase != "open":
        return ""
    found = db.execute("SELECT sentence FROM uploads_unreadable WHERE upload_id = ?", (upload.id,)).fetchone()
    return str(found[0]) if found else ""


def _state(upload: Upload, outcome: str, unreadable: str) -> Html:
    words = None
    if unreadable:
        words = notice("warn", el("p", unreadable))
    elif upload.phase == "open":
        left = upload.size_bytes - upload.offset
        words = notice(
            "busy" if outcome == "receiving" else "calm",
            el(
                "p",
                f"{format_bytes(left)} are still to come. What has arrived is kept until ",
                time_element(upload.expires_ns),
                ".",
            ),
        )
    return el(
        "div",
        el(
            "div",
            _phase(upload, _UNREADABLE if unreadable else outcome),
            progress(upload.offset, upload.size_bytes or 1, "Progress"),
            class_="state-line",
        ),
        words,
        class_="opening",
    )


def _facts(request: PageRequest, upload: Upload, created_ns: int, ended_ns: int, brought: int) -> Html:
    until_ns = ended_ns or request.facts.now_ns
    again = max(0, brought - upload.offset)
    return facts(
        [
            ("Size", format_bytes(upload.size_bytes)),
            ("Arrived", f"{upload.offset:,} bytes"),
            ("Sent again", format_bytes(again) if again else "nothing"),
            ("Type", upload.created.content_type),
            ("Requests", str(upload.requests)),
            ("Began", time_element(created_ns)),
            ("Ended", time_element(ended_ns) if ended_ns else None),
            ("Took" if ended_ns else "So far", format_duration(max(0, until_ns - created_ns))),
            ("SHA-256", el("span", upload.blob[:16] + "…", class_="mono", title=upload.blob) if upload.blob else None),
            (
                "Trace",
                link(request.base, f"traces/{upload.trace.trace_id}", upload.trace.trace_id[:16] + "…", class_="mono"),
            ),
            ("Records", link(request.base, f"streams/{UPLOAD_PREFIX}{upload.id}", f"{upload.records:,} in its stream")),
        ]
    )


def _requests(rows: Sequence[tuple[int, int, int, int, int, str]]) -> Html:
    columns = (
        ("Outcome", ""),
        ("Request", "number"),
        ("Brought", "number"),
        ("Offset after", "number"),
        ("Rate", "number"),
        ("Took", "number"),
        ("At", ""),
    )
    cells: list[Sequence[Child]] = []
    for number, started_ns, ended_ns, received, offset, outcome in rows:
        state, words = _OUTCOMES.get(outcome, ("failed", outcome.replace("_", " ")))
        took_ns = max(ended_ns - started_ns, 1)
        cells.append(
            (
                pill(state, words),
                "creation" if number == 0 else str(number),
                format_bytes(received),
                f"{offset:,}",
                f"{format_bytes(round(received * 1e9 / took_ns))}/s" if received else el("span", "–", class_="dim"),
                format_duration(took_ns),
                time_element(started_ns, with_date=False),
            )
        )
    return card(
        "Requests, newest first", table("Requests of this upload", columns, cells, empty=el("p", "No request yet."))
    )
