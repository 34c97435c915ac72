"""Uploads on the dashboard."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import pytest

from mainstem.log import TRACEPARENT, StoredRecord
from mainstem.services.uploads.panel import UploadsPanel, find_upload, render_list, render_upload
from mainstem.services.uploads.protocol import (
    Created,
    Expired,
    Finished,
    Progressed,
    Terminated,
    UploadRecord,
    encode_record,
)
from mainstem.ui.panel import LiveFacts, PageRequest, PageView

SECOND_NS = 1_000_000_000
HEADERS = {TRACEPARENT: "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(UploadsPanel().schema)
    yield connection
    connection.close()


def stored(position: int, record: UploadRecord | bytes, upload_id: str = "u1") -> StoredRecord:
    value = record if isinstance(record, bytes) else encode_record(record)
    return StoredRecord(position, "$upload." + upload_id, position * SECOND_NS, value, b"", HEADERS)


def progressed(offset: int, request: int, received: int, outcome: str = "ok") -> Progressed:
    return Progressed(offset, request, received, request * SECOND_NS, (request + 1) * SECOND_NS, outcome, 1 << 60)  # type: ignore[arg-type]


def request(**path: str) -> PageRequest:
    return PageRequest(path, {}, "/x/", LiveFacts(now_ns=100 * SECOND_NS))


def html(view: PageView | None) -> str:
    assert view is not None
    return "".join(fragment.html for fragment in view.fragments)


CREATED = Created(1000, SECOND_NS, 1 << 60, filename="a <b>.mp4")


def test_an_upload_under_way(db: sqlite3.Connection) -> None:
    """Its progress, what was sent again, and each request with its outcome; names of strangers are text."""
    records: Sequence[StoredRecord] = [
        stored(1, CREATED),
        stored(2, progressed(300, 1, 300, "disconnected")),
        stored(3, progressed(300, 2, 200, "checksum_mismatch")),
        stored(4, progressed(500, 3, 200, "receiving")),
    ]
    assert UploadsPanel().apply(db, records) == {"uploads", "upload:u1"}
    listed = html(render_list(db, request()))
    assert "a &lt;b&gt;.mp4" in listed and "50 %" in listed and "200 B" in listed and "uploading" in listed
    page = html(render_upload(db, request(upload_id="u1")))
    for words in ("500 B are still to come", "disconnected", "checksum mismatch", "receiving", "/x/traces/" + "a" * 32):
        assert words in page


@pytest.mark.parametrize(
    ("outcome", "state"), [("receiving", "uploading"), ("ok", "waiting"), ("disconnected", "waiting")]
)
def test_an_upload_whose_client_is_away_waits(db: sqlite3.Connection, outcome: str, state: str) -> None:
    """An open upload is said to be under way only while a request brings bytes."""
    UploadsPanel().apply(db, [stored(1, CREATED), stored(2, progressed(300, 1, 300, outcome))])
    for view in (render_list(db, request()), render_upload(db, request(upload_id="u1"))):
        assert f"<span>{state}</span>" in html(view)


@pytest.mark.parametrize(
    ("last", "state"),
    [(Finished("f" * 64, 1000, 1), "completed"), (Terminated("client", 1), "terminated"), (Expired(1), "expired")],
)
def test_an_upload_that_has_ended(db: sqlite3.Connection, last: UploadRecord, state: str) -> None:
    """How it ended is a word, and nothing is still to come."""
    UploadsPanel().apply(db, [stored(1, CREATED), stored(2, progressed(1000, 1, 1000)), stored(3, last)])
    page = html(render_upload(db, request(upload_id="u1")))
    assert f"<span>{state}</span>" in page and "still to come" not in page and "nothing" in page


def test_records_of_others_are_passed_over(db: sqlite3.Connection) -> None:
    """What is no record of an upload, or has lost its beginning, makes no row."""
    UploadsPanel().apply(db, [stored(1, b"\xff"), stored(2, b"{}"), stored(3, progressed(1, 1, 1))])
    assert find_upload(db, "u1") is None
    assert render_upload(db, request(upload_id="u1")) is None
    assert "No upload yet" in html(render_list(db, request()))
    assert [page.path for page in UploadsPanel().pages()] == ["uploads", "uploads/{upload_id}"]


def test_pieces_cost_the_same_however_many(db: sqlite3.Connection) -> None:
    """What an upload brought grows by each record's difference; no record makes the database read all before it."""
    panel = UploadsPanel()
    panel.apply(db, [stored(1, CREATED)])
    work: list[int] = []
    db.set_progress_handler(lambda: work.append(1), 100)
    costs: list[int] = []
    for number in range(1, 2001):
        work.clear()
        panel.apply(db, [stored(2 * number, progressed(number, number, 1, "receiving"))])
        panel.apply(db, [stored(2 * number + 1, progressed(number, number, 2))])
        costs.append(len(work))
    db.set_progress_handler(None, 0)
    assert db.execute("SELECT brought_bytes FROM uploads_upload").fetchone() == (4000,)
    assert sum(costs[-100:]) <= 2 * sum(costs[:100]) + 100
