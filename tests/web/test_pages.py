"""Pages and API over records as the other rooms write them."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path

import msgspec
import pytest
from starlette.types import Message, Scope

from mainstem.bus import GroupStatus
from mainstem.flow.journal import (
    Claimed,
    InboxMessage,
    LogLine,
    RunPaused,
    RunQuarantined,
    StepStarted,
    TimerSet,
)
from mainstem.log import Record
from mainstem.web import hub, projection
from mainstem.web.answers import wants_html
from mainstem.web.application import parse_query
from mainstem.web.errors import UnavailableError
from mainstem.web.panels.runs import page_number
from tests.support import run
from tests.web.support import HEADERS, TRACE_ID, completed, dashboard, entry, failed_run, started

HTML = {"accept": "text/html"}


def test_an_empty_dashboard_says_how_to_begin(tmp_path: Path) -> None:
    """With nothing in the log each page is there, and says what would be on it."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, _log, client):
            for path, words in (("/", "No run yet"), ("/runs", "No run yet"), ("/streams", "No event yet")):
                answer = await client.get(path, headers=HTML)
                assert answer.status_code == 200 and words in answer.text

    run(main())


def test_a_failed_run_opens_with_a_sentence(tmp_path: Path) -> None:
    """What failed, at which attempt, why, and what happens next; and the text of strangers stays text."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.deliver-1", failed_run(), expected_position=0)
            page = (await client.get("/runs/deliver-1", headers=HTML)).text
            assert (
                "Step ship#1 failed at attempt 2, its last: ValueError: no &lt;postcode&gt;. "
                "The run has ended; nothing is tried again. Once the cause is mended, start it again" in page
            )
            assert "<postcode>" not in page and "&quot;&lt;receipt&gt;&quot;" in page
            overview = (await client.get("/", headers=HTML)).text
            assert "1 run failed" in overview and "deliver-1" in overview
            for listed in (overview, (await client.get("/runs", headers=HTML)).text):
                assert "ValueError: no &lt;postcode&gt; (step ship#1)" in listed

    run(main())


@pytest.mark.parametrize(
    ("records", "state", "words"),
    [
        ([entry(TimerSet("sleep#1", 1 << 62, alone=True))], "sleeping", "Wakes"),
        ([entry(RunPaused("No workflow named fulfil is registered.", "a", "b"))], "paused", "Recorded: a. Called: b."),
        ([entry(RunQuarantined(3))], "quarantined", "taken over 3 times"),
        ([entry(StepStarted("charge#1", "charge", 1, "0" * 16))], "running", "charge#1"),
        ([completed()], "running", "receipt"),
    ],
)
def test_open_runs_show_what_they_do(tmp_path: Path, records: list[Record], state: str, words: str) -> None:
    """Each open state is a word and an icon, with what it waits for; it can be cancelled, and a waiting one resumed."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.a", [started(), *records], expected_position=0)
            page = (await client.get("/runs/a", headers=HTML)).text
            assert f"<span>{state}</span>" in page and words in page and 'hx-post="/api/runs/a/cancel"' in page
            assert ('hx-post="/api/runs/a/resume"' in page) == (state in {"paused", "quarantined"})

    run(main())


def test_an_attempt_that_died_is_told_as_such(tmp_path: Path) -> None:
    """A start without an end, followed by another attempt, is an attempt whose process died."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            begun = [entry(StepStarted("a#1", "a", attempt, "0" * 16)) for attempt in (1, 2)]
            await log.append("$run.a", [started(), begun[0], entry(Claimed("1@1", 1)), begun[1]], expected_position=0)
            page = (await client.get("/runs/a", headers=HTML)).text
            assert "<span>died</span>" in page and "its process ended before it did" in page
            assert 'title="a#1 its process died attempt 1 died with its process"' in page

    run(main())


def test_log_lines_of_a_run(tmp_path: Path) -> None:
    """Lines are shown with level and step; what is no line of ours is passed over."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.a", [started()], expected_position=0)
            line = LogLine(1, "WARNING", "shop", "<slow>", "ship#1", 1)
            await log.append("$lines.a", [Record(msgspec.json.encode(line)), Record(b"\xff")])
            page = (await client.get("/runs/a", headers=HTML)).text
            assert "&lt;slow&gt;" in page and "WARNING" in page and "ship#1" in page

    run(main())


def test_runs_are_filtered_searched_and_paged(tmp_path: Path) -> None:
    """The list has a filter by state, a search that takes % as a character, and pages."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            for number in range(55):
                await log.append(f"$run.a-{number:02}", [started()], expected_position=0)
            await log.append("$run.deliver-1", failed_run(), expected_position=0)
            first, second = [(await client.get("/runs", params={"page": page}, headers=HTML)).text for page in (1, 2)]
            assert "deliver-1" in first and "a-54" in first and "a-00" not in first and "a-00" in second
            failed = (await client.get("/runs?state=failed", headers=HTML)).text
            assert "deliver-1" in failed and "a-54" not in failed
            assert "a-07" in (await client.get("/runs?search=A-07", headers=HTML)).text
            assert "No run fits" in (await client.get("/runs?search=%25", headers=HTML)).text

    run(main())


def test_streams_and_their_records(tmp_path: Path) -> None:
    """The list leaves mainstem's own streams out unless asked; a stream shows its latest records, then older ones."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.a", [started()], expected_position=0)
            await log.append(
                "orders.created", [Record(b'{"n":%d}' % number, b"<key>", HEADERS) for number in range(120)]
            )
            plain = (await client.get("/streams", headers=HTML)).text
            assert "orders.created" in plain and "$run.a" not in plain
            assert "$run.a" in (await client.get("/streams?system=1", headers=HTML)).text
            newest = (await client.get("/streams/orders.created", headers=HTML)).text
            assert "{&quot;n&quot;:119}" in newest and "{&quot;n&quot;:3}" not in newest and "&lt;key&gt;" in newest
            older = (await client.get("/streams/orders.created?before=22", headers=HTML)).text
            assert "{&quot;n&quot;:3}" in older and "hx-sse:connect" not in older

    run(main())


def test_one_trace_from_event_to_step(tmp_path: Path) -> None:
    """The page of a trace has its events, runs and steps in one waterfall."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("orders.created", [Record(b"{}", headers={**HEADERS, "about": "order:1"})])
            await log.append("$run.a", [started(), completed()], expected_position=0)
            page = (await client.get(f"/traces/{TRACE_ID}", headers=HTML)).text
            assert "orders.created" in page and "charge#1" in page and "order:1" in page
            spans = (await client.get("/api/traces/a")).json()
            assert spans["trace_id"] == TRACE_ID
            assert {"event", "run", "step"} <= {span["kind"] for span in spans["spans"]}

    run(main())


def test_records_of_others_break_no_page(tmp_path: Path) -> None:
    """Whatever somebody writes to the system's streams, the pages are there and show it as bytes."""

    async def main() -> None:
        async with dashboard(tmp_path) as (board, log, client):
            for stream in ("$run.x", "$lines.x", "$upload.x", "$media.x", "video.ready", "$group.x", "$dead.x"):
                await log.append(
                    stream,
                    [Record(value) for value in (b"", b"\xff\xfe", b"{}", b'{"type":"nope"}', b"[1]", b'"<script>"')],
                )
            for path in ("/", "/runs", "/streams?system=1", "/streams/$run.x", "/streams/video.ready"):
                answer = await client.get(path, headers=HTML)
                assert answer.status_code == 200 and "<script>" not in answer.text
            assert board.projection.error is None

    run(main())


@pytest.mark.parametrize(
    "path", ["/nothing", "/runs/nothing", "/streams/nothing", "/traces/nothing", "/static/x/y.js", "/api/nothing"]
)
def test_what_is_not_there_is_404(tmp_path: Path, path: str) -> None:
    """A browser gets a page of the dashboard, a program the error's shape."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, _log, client):
            page = await client.get(path, headers=HTML)
            assert page.status_code == 404 and "To the overview" in page.text
            answer = await client.get(path)
            assert answer.status_code == 404 and answer.json()["error"]["code"] == "web-not-found"

    run(main())


def test_the_api_tells_runs(tmp_path: Path) -> None:
    """Runs and one run as JSON, with the journal's entries; limits and states are checked."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.deliver-1", failed_run(), expected_position=0)
            (listed,) = (await client.get("/api/runs?state=failed&limit=1")).json()["runs"]
            assert (listed["run_id"], listed["state"], listed["failures"]) == ("deliver-1", "failed", 2)
            one = (await client.get("/api/runs/deliver-1")).json()
            assert [part["value"]["type"] for part in one["entries"]][-1] == "failed"
            for query in (
                "state=nope",
                "limit=0",
                "limit=x",
                "limit=9999999",
                "limit=000001000000",
                "limit=0" + "9" * 5_000,
            ):
                answer = await client.get("/api/runs?" + query)
                assert answer.status_code == 400 and answer.json()["error"]["code"] == "web-bad-request"

    run(main())


def test_a_wish_goes_to_the_runs_inbox(tmp_path: Path) -> None:
    """Cancel and resume are records in the run's inbox; a run that ended, or is not there, is left alone."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.a", [started()], expected_position=0)
            await log.append("$run.b", failed_run(), expected_position=0)
            answer = await client.post("/api/runs/a/cancel", json={"reason": "wrong order"})
            assert answer.status_code == 202
            answer = await client.post("/api/runs/a/resume", headers={"hx-request": "true"})
            assert answer.status_code == 202
            wishes = [msgspec.json.decode(one.value, type=InboxMessage) for one in await log.read("$inbox.a")]
            assert [(one.wish, one.reason) for one in wishes] == [
                ("cancel", "wrong order"),
                ("resume", ""),
            ]
            assert (await client.post("/api/runs/b/cancel", json={})).status_code == 400
            assert (await client.post("/api/runs/c/cancel", json={})).status_code == 404
            assert (await client.post("/api/runs/a/cancel", data={"reason": "x"})).status_code == 403
            assert (
                await client.post("/api/runs/a/cancel", content=b"[", headers={"content-type": "application/json"})
            ).status_code == 400
            too_long = b'{"reason":"' + b"x" * 20_000 + b'"}'
            assert (
                await client.post("/api/runs/a/cancel", content=too_long, headers={"content-type": "application/json"})
            ).status_code == 400
            assert len(await log.read("$inbox.>")) == 2

    run(main())


def test_a_wish_keeps_the_trace_of_whoever_wished(tmp_path: Path) -> None:
    """The record in the inbox is in the caller's trace."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, log, client):
            await log.append("$run.a", [started()], expected_position=0)
            assert (await client.post("/api/runs/a/cancel", json={}, headers=HEADERS)).status_code == 202
            (wish,) = await log.read("$inbox.a")
            assert dict(wish.headers) == HEADERS

    run(main())


def test_a_group_that_stopped_is_a_failure(tmp_path: Path) -> None:
    """The overview says first that a consumer group stopped, and why."""

    async def main() -> None:
        stopped = GroupStatus("mail", "orders.>", 1, 0, 0, 0, 0, "GroupFencedError: another process owns the group.")
        async with dashboard(tmp_path, groups=lambda: [stopped]) as (_board, _log, client):
            page = (await client.get("/", headers=HTML)).text
            assert "1 consumer group stopped" in page
            assert "Group mail handles no events until the application is started again" in page
            assert "another process owns the group." in page and "No failure is on record" not in page

    run(main())


def test_files_are_kept_for_ever_and_compressed(tmp_path: Path) -> None:
    """A file's name carries its digest; it comes compressed where that is understood, once."""

    async def main() -> None:
        async with dashboard(tmp_path) as (board, _log, client):
            path = "/" + board.files.path("dashboard.css")
            answer = await client.get(path)
            assert "immutable" in answer.headers["cache-control"] and answer.headers["content-encoding"] == "gzip"
            assert (await client.get(path, headers={"accept-encoding": "identity"})).content == answer.content
            assert (await client.get(path, headers={"if-none-match": answer.headers["etag"]})).status_code == 304
            assert set(board.files.paths()) >= {"tokens.css", "vendor/hls.worker.js", "player.js"}

    run(main())


def test_a_file_is_compressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compressed before a browser asks for it, and those who ask at the same time share the work."""
    compress, compressed = zlib.compress, []

    def counting(content: bytes, level: int, window: int) -> bytes:
        compressed.append(len(content))
        return compress(content, level, window)

    async def main() -> None:
        monkeypatch.setattr(zlib, "compress", counting)
        async with dashboard(tmp_path) as (board, _log, client):
            await client.get("/", headers=HTML)
            assert not compressed
            path = "/" + board.files.path("dashboard.css")
            answers = await asyncio.gather(*(client.get(path) for _reader in range(5)))
            assert len({answer.content for answer in answers}) == 1
            assert compressed == [len(answers[0].content)]

    run(main())


def test_what_cannot_be_answered_now_is_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many live pages and a page state that is behind are told; pages are shown, and a run can be cancelled."""

    async def main() -> None:
        async with dashboard(tmp_path) as (board, log, client):
            board.projection._state.skipped["runs"] = 2
            assert "2 records could not be shown" in (await client.get("/streams", headers=HTML)).text
            monkeypatch.setattr(hub, "READERS_MAX", 0)
            assert (await client.get("/events?path=runs")).status_code == UnavailableError.status
            await board.projection.run(lambda db: db.execute("DROP TABLE runs_run"))
            monkeypatch.setattr(projection, "REBUILDS_MAX", 0)
            await log.append("$run.a", [started()], expected_position=0)
            answer = await client.get("/api/runs")
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "web-unavailable"
            page = await client.get("/streams", headers=HTML)
            assert page.status_code == 200 and "This page may be old" in page.text
            reason = {"reason": "as told"}
            assert (await client.post("/api/runs/a/cancel", json=reason)).status_code == 202
            for unknown in ("b", "%3E", "*"):
                assert (await client.post(f"/api/runs/{unknown}/cancel", json=reason)).status_code == 404
            await log.append("$run.done", failed_run(), expected_position=0)
            assert (await client.post("/api/runs/done/cancel", json=reason)).status_code == 400
            assert [record.stream for record in await log.read("$inbox.>")] == ["$inbox.a"]

    run(main())


def test_a_stream_whose_browser_does_not_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that waits for the browser ends by itself, without an error, once its reader is cut off."""
    monkeypatch.setattr(hub, "QUEUE_MAX_EVENTS", 0)

    async def main() -> None:
        async with dashboard(tmp_path) as (board, log, _client):
            stalled = asyncio.Event()
            shown = await board._render_address(hub.Address("streams", "", "/"))
            assert shown.view is not None
            state = hub.page_state(shown.view, shown.position)

            async def receive() -> Message:
                await asyncio.Event().wait()
                raise AssertionError("the browser says nothing")

            async def send(message: Message) -> None:
                if message["type"] == "http.response.body":
                    stalled.set()
                    await asyncio.Event().wait()

            scope: Scope = {
                "type": "http",
                "method": "GET",
                "path": "/events",
                "raw_path": b"/events",
                "query_string": f"path=streams&shown={state}".encode(),
                "headers": [(b"host", b"127.0.0.1")],
                "server": ("127.0.0.1", 80),
                "scheme": "http",
            }

            async def answer() -> None:
                await board.asgi(scope, receive, send)

            answering = asyncio.create_task(answer())
            await asyncio.wait_for(stalled.wait(), 10)
            await log.append("orders.created", [Record(b"{}")])
            await asyncio.wait_for(answering, 10)
            assert board.hub.reader_count == 0

    run(main())


def test_queries_of_strangers() -> None:
    """Pages are numbers from 1; a query with more parameters than any page has is none; htmx gets no error pages."""
    assert [page_number({"page": asked}) for asked in ("2", "0", "-1", "x", "²", "99999", "9" * 40)] == [
        2,
        1,
        1,
        1,
        1,
        10_000,
        1,
    ]
    assert parse_query("a=1&a=2&b") == {"a": "2", "b": ""}
    assert parse_query("&".join(f"a{number}=1" for number in range(60))) == {}
    from starlette.datastructures import Headers

    assert not wants_html(Headers({"accept": "text/html", "hx-request": "true"}))
