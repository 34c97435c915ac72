"""Records that this version cannot read, in journals and in uploads: nothing stops, and everywhere it is said why."""

from __future__ import annotations

import asyncio
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from mainstem import Event, Mainstem
from mainstem.base.codec import NotDecodableError
from mainstem.cli import main as command
from mainstem.flow import RunCancelledError, RunFold, RunIdConflictError, RunPausedError
from mainstem.flow.history import decode_entry, read_entry, read_line
from mainstem.flow.journal import RunCompleted, Started, StepCompleted, TimerSet
from mainstem.log import Record, StoredRecord
from mainstem.testing import SimulatedClock
from tests.flow.support import App, running
from tests.support import run, until

DEEP = b"[" * 100_000 + b"]" * 100_000
UNREADABLE = {
    "no JSON": b"\x00nonsense",
    "no text": b'{"type":"completed","result":"\xff',
    "empty": b"",
    "nested too deeply": b'{"type":"completed","result":' + DEEP + b"}",
    "of another type": b'{"type":"from_the_future","key":"a#1"}',
    "of another shape": b'{"type":"step_completed","key":7}',
    "no number of ours": b'{"type":"timer_set","key":"sleep#1","wake_at_ns":%d}' % 10**40,
    "no key": b'{"type":"timer_set","key":"../sleep#1","wake_at_ns":1}',
}


def stored(position: int, value: bytes) -> StoredRecord:
    """Return a record of the journal of x."""
    return StoredRecord(position, "$run.x", position, value)


def application(directory: Path) -> tuple[Mainstem, Any]:
    """Return an application with a workflow that sleeps for an hour."""
    ms = Mainstem(directory)

    @ms.workflow
    async def sleeper(number: int) -> int:
        await ms.sleep(hours=1)
        return number

    return ms, sleeper


def client(ms: Mainstem) -> httpx.AsyncClient:
    """Return a client of the application's pages."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=ms.asgi), base_url="http://localhost")


async def mainstem(*words: str) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = await asyncio.to_thread(command, list(words))
    return code, out.getvalue() + err.getvalue()


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_journal_is_a_paused_run(value: bytes, tmp_path: Path) -> None:
    """Handle, command, pages and API show the run as paused, and say which record it is and what can be done."""

    async def scenario() -> None:
        ms, sleeper = application(tmp_path)
        async with ms:
            handle = await sleeper.start(1, id="x", about=["order:1"])
            await until(lambda: _slept(ms, "x"))
        ms, sleeper = application(tmp_path)
        async with ms:  # a resident run would be fenced: the record comes while nobody carries it out
            assert (await ms.flow.handle("x").status()).state == "sleeping"
            position = await ms.log.append("$run.x", [Record(value)])
        ms, sleeper = application(tmp_path)
        async with ms:
            sentence = f"This version cannot read $run.x position {position}:"
            handle = ms.flow.handle("x")
            status = await handle.status()
            assert (status.state, status.steps, status.message.startswith(sentence)) == ("paused", 0, True)
            assert "its journal is left as it is" in status.message and "or cancel the run" in status.message
            with pytest.raises(RunPausedError, match="This version cannot read") as caught:
                await handle.result(timeout_s=5)
            assert caught.value.try_command == "mainstem runs x"
            with pytest.raises(RunPausedError, match="This version cannot read"):
                await handle.resume()
            for words in (["runs"], ["runs", "x"], ["trace", "x"], ["trace", "order:1"], ["runs", "--json"]):
                code, printed = await mainstem(*words, "--data", str(tmp_path))
                assert (code, "paused" in printed) == (0, True), printed
                assert words == ["runs"] or sentence in printed
            async with client(ms) as pages:
                for path in ("/", "/runs", "/runs?state=paused", "/runs/x", f"/traces/{status.trace_id}"):
                    page = await pages.get(path, headers={"accept": "text/html"})
                    assert (page.status_code, sentence in page.text) == (200, True), path
                assert "Resume" not in (await pages.get("/runs/x", headers={"accept": "text/html"})).text
                (listed,) = (await pages.get("/api/runs?state=paused")).json()["runs"]
                shown = (await pages.get("/api/runs/x")).json()["run"]
                assert listed["message"] == shown["message"] == status.message
                spans = (await pages.get("/api/traces/x")).json()["spans"]
                assert [span["detail"] for span in spans if span["name"] == "paused"] == [status.message]
                refused = await pages.post("/api/runs/x/resume", headers={"hx-request": "true"})
                assert (refused.status_code, sentence in refused.json()["error"]["message"]) == (400, True)
                assert await ms.log.read("$inbox.x") == []

    run(scenario())


async def _slept(ms: Mainstem, run_id: str) -> bool:
    return any(b"timer_set" in record.value for record in await ms.log.read(f"$run.{run_id}"))


async def _is(ms: Mainstem, run_id: str, state: str) -> bool:
    return (await ms.flow.handle(run_id).status()).state == state


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_journal_that_begins_unreadably(value: bytes, tmp_path: Path) -> None:
    """A stream of a run that never was is shown all the same; its id is taken, and it can be cancelled."""

    async def scenario() -> None:
        ms, sleeper = application(tmp_path)
        async with ms:
            await ms.log.append("$run.x", [Record(value), Record(b"more")])
            await ms.log.append("$lines.x", [Record(value)])
        ms, sleeper = application(tmp_path)
        async with ms:
            handle = ms.flow.handle("x")
            assert (await handle.status()).state == "paused"
            with pytest.raises(RunPausedError, match="position 1:"):
                await handle.result(timeout_s=5)
            with pytest.raises(RunIdConflictError, match="cannot read what it is"):
                await sleeper.start(1, id="x")
            for words, expected in ((["runs"], 0), (["runs", "x"], 0), (["trace", "x"], 3)):
                code, printed = await mainstem(*words, "--data", str(tmp_path))
                assert (code, "paused" in printed) == (expected, True), printed
            async with client(ms) as pages:
                for path in ("/", "/runs", "/runs/x", "/streams/$run.x", "/streams/$lines.x"):
                    page = await pages.get(path, headers={"accept": "text/html"})
                    assert page.status_code == 200, path
                assert (await pages.get("/api/traces/x")).status_code == 404
                assert (await pages.post("/api/runs/x/cancel", headers={"hx-request": "true"})).status_code == 202
            await until(lambda: _is(ms, "x", "cancelled"))
            with pytest.raises(RunCancelledError):
                await handle.result(timeout_s=5)
        ms, sleeper = application(tmp_path)
        async with ms:
            assert (await ms.flow.handle("x").status()).state == "cancelled"

    run(scenario())


def test_what_was_written_to_a_sleeping_run(tmp_path: Path) -> None:
    """A run that only sleeps is not taken over when it wakes and cannot be read by then; who waits for it is told."""

    async def scenario() -> None:
        directory, clock = tmp_path, SimulatedClock()
        async with running(directory, _declare, clock=clock) as app:
            await app.sleeper.start(id="x")
            await until(lambda: _types(app, b"timer_set"))
            await app.crash()
        async with running(directory, _declare, clock=clock) as app:
            result = asyncio.create_task(app.flow.handle("x").result())
            await clock.run_for(5, step_s=5)
            position = await app.log.append("$run.x", [Record(b"nonsense")])
            await clock.run_for(100, step_s=10)
            with pytest.raises(RunPausedError, match=f"position {position}:"):
                await result
            assert len(await app.log.read("$run.x")) == position

    run(scenario())


def _declare(app: App) -> None:
    @app.flow.workflow
    async def sleeper() -> None:
        await app.flow.sleep(50)

    app.sleeper = sleeper


async def _types(app: App, kind: bytes) -> bool:
    return any(kind in record.value for record in await app.log.read("$run.x"))


def test_what_comes_behind_the_end_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that has ended stays as it was, whatever is written to its journal."""

    async def scenario() -> None:
        ms = Mainstem(tmp_path)

        @ms.workflow
        async def quick() -> int:
            return 5

        async with ms:
            assert await (await quick.start(id="x")).result() == 5
            await ms.log.append("$run.x", [Record(b"nonsense"), Record(b'{"type":"claimed","process":"1","claim":1}')])
        async with ms:
            assert "set aside" not in caplog.text
            assert (await ms.flow.handle("x").status()).state == "completed"
            assert await ms.flow.handle("x").result(timeout_s=5) == 5

    run(scenario())


def test_an_end_that_a_newer_version_wrote_counts() -> None:
    """Behind a record that cannot be read only the run's end is understood; the rest would be guesswork."""
    fold = RunFold("x")
    records: list[Any] = [
        Started("f", "workflow", msgspec.Raw(b"{}")),
        {"type": "from_the_future"},
        StepCompleted("a#1", "a", 1, "0", msgspec.Raw(b"1"), 1),
        TimerSet("sleep#1", 10),
    ]
    for position, value in enumerate(records, 1):
        fold.apply(stored(position, msgspec.json.encode(value)))
    assert (fold.state(0), fold.steps, fold.unreadable) == ("paused", 0, 2)
    fold.apply(stored(5, msgspec.json.encode(RunCompleted(msgspec.Raw(b"1")))))
    assert (fold.state(0), fold.summary(0).message) == ("completed", "")


def test_entries_and_lines_are_read_or_refused() -> None:
    """What is no entry or no line of ours is refused with a sentence, or passed over as nothing."""
    for value in UNREADABLE.values():
        with pytest.raises(NotDecodableError, match="expected a journal's entry"):
            decode_entry(value)
        assert read_entry(value) is None
        assert read_line(value) is None
    assert decode_entry(b'{"type":"timer_set","key":"map#1[0]/a#1","wake_at_ns":1}') == TimerSet("map#1[0]/a#1", 1)


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_wishes_are_passed_over(value: bytes, tmp_path: Path) -> None:
    """What is no wish of ours stops neither a start nor the listening: a wish behind it is heard."""

    async def scenario() -> None:
        ms, sleeper = application(tmp_path)
        async with ms:
            first, _second = await sleeper.start(1, id="x"), await sleeper.start(1, id="y")
            await ms.log.append("$inbox.x", [Record(value)])
            await ms.log.append("$inbox.y", [Record(value)])
            await first.cancel("enough")
            with pytest.raises(RunCancelledError, match="enough"):
                await first.result(timeout_s=5)
        ms, sleeper = application(tmp_path)
        async with ms:
            assert (await ms.flow.handle("y").status()).state in ("sleeping", "running")

    run(scenario())


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_group_whose_cursor_is_unreadable_is_set_aside(value: bytes, tmp_path: Path) -> None:
    """The group handles nothing and says why; the others go on, and nothing is written to its cursor."""

    def declare() -> tuple[Mainstem, list[str]]:
        ms, seen = Mainstem(tmp_path), list[str]()

        @ms.subscribe("orders", group="odd")
        async def odd(_event: Event[int]) -> None:
            seen.append("odd")

        @ms.subscribe("orders", group="good")
        async def good(_event: Event[int]) -> None:
            seen.append("good")

        return ms, seen

    async def scenario() -> None:
        ms, seen = declare()
        async with ms:
            pass
        ms, seen = declare()
        async with ms:
            position = await ms.log.append("$group.odd", [Record(value)])
        ms, seen = declare()
        async with ms:
            await ms.publish("orders", 1)
            await until(lambda: seen)
            (failure,) = [group.failure for group in ms.bus.groups() if group.name == "odd"]
            assert f"this version cannot read $group.odd position {position}:" in failure
            async with client(ms) as pages:
                assert (await pages.get("/", headers={"accept": "text/html"})).status_code == 200
        assert seen == ["good"]
        async with ms:
            last = await ms.log.last("$group.odd")
            assert last is not None
            assert last.position == position

    run(scenario())
