"""The page state: made from the log, thrown away without loss."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainstem.log import Record, StoredRecord, open_log
from mainstem.ui.panel import Page
from mainstem.web import projection as module
from mainstem.web.errors import UnavailableError
from mainstem.web.panels import records as kept
from mainstem.web.panels.records import RecordsPanel
from mainstem.web.projection import BATCH_MAX_RECORDS, REBUILDS_MAX, PageState, Projection
from tests.support import run, until


class Counter:
    """A panel that counts records, and can be told to fail."""

    name = "counter"
    patterns = ("orders.>",)
    schema = "CREATE TABLE counter_count (n INTEGER); INSERT INTO counter_count VALUES (0);"

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.fails: Exception | None = None
        self.refuses = b""

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Count them."""
        db.execute("UPDATE counter_count SET n = n + ?", (len(records),))
        if self.fails is not None:
            raise self.fails
        if any(record.value == self.refuses for record in records):
            raise RecursionError("as told")
        return {"counted"}

    def pages(self) -> Sequence[Page]:
        """Show nothing."""
        return ()


def disk_error(code: int = sqlite3.SQLITE_FULL) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


def count(state: PageState) -> int:
    return int(state.db.execute("SELECT n FROM counter_count").fetchone()[0])


def record(position: int, stream: str = "orders.created") -> StoredRecord:
    return StoredRecord(position, stream, position * 1_000_000_000, b"{}")


def opened(path: Path, panel: Counter, end_position: int = 1000) -> PageState:
    state = PageState(path, [panel])
    state.open(end_position)
    return state


def test_only_matching_records_reach_a_panel(tmp_path: Path) -> None:
    """A panel sees the streams of its patterns; the position counts all."""
    state = opened(tmp_path / "p", Counter())
    assert state.apply([record(1), record(2, "other")]) == {"counted"}
    assert (count(state), state.position) == (1, 2)
    state.close()


def test_position_and_state_are_one_transaction(tmp_path: Path) -> None:
    """When a transaction fails, neither a panel's changes nor the position stay."""
    panel = Counter()
    state = opened(tmp_path / "p", panel)
    state.apply([record(1)])
    panel.fails = disk_error()
    with pytest.raises(sqlite3.OperationalError, match="is full"):
        state.apply([record(2)])
    state.close()
    again = opened(tmp_path / "p", Counter())
    assert (count(again), again.position) == (1, 1)
    again.close()


def test_a_record_that_a_panel_cannot_take_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only that record, only of that panel; it is counted, and the first is told."""
    panel = Counter()
    panel.refuses = b"deep"
    state = opened(tmp_path / "p", panel)
    bad = StoredRecord(2, "orders.created", 1, b"deep")
    assert state.apply([record(1), bad, record(3)]) == {"counted"}
    state.apply([StoredRecord(4, "orders.created", 1, b"deep")])
    assert (count(state), state.position, state.skipped) == (2, 4, {"counter": 2})
    assert caplog.text.count("cannot take record 2 of 'orders.created'") == 1 and "record 4" not in caplog.text
    state.close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN])
def test_a_disk_at_fault_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The file stays, waiters are told at once, and it goes on when the disk does, however often it failed."""
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.002)

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        panel = Counter()
        projection = Projection(log, tmp_path / "p", [panel], lambda _position, _topics: None)
        await projection.start()
        await projection.caught_up(await log.append("orders.created", [Record(b"{}")]), timeout_s=10)
        monkeypatch.setattr(projection._state, "make_anew", lambda: pytest.fail("the file was thrown away"))
        projection._retry_s = 0.001
        failures = 0
        mended = False
        take_in = panel.apply

        def fail(db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
            nonlocal failures
            failures += 1
            if mended:
                return take_in(db, records)
            raise disk_error(code)

        monkeypatch.setattr(panel, "apply", fail)
        position = await log.append("orders.created", [Record(b"{}")])
        assert not await projection.caught_up(position, timeout_s=10)
        assert isinstance(projection.error, sqlite3.OperationalError)
        await until(lambda: failures > REBUILDS_MAX + 3)
        mended = True
        await until(lambda: projection.position >= position)
        assert projection.error is None
        assert await projection.run(lambda db: db.execute("SELECT n FROM counter_count").fetchone()) == (2,)
        await projection.stop()
        await log.close()

    run(main())


def test_it_opens_when_the_disk_lets_it(tmp_path: Path) -> None:
    """Where the page state cannot be opened, it starts all the same; who reads is told, and later it is there."""

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        path = tmp_path / "away" / "p"
        projection = Projection(log, path, [Counter()], lambda _position, _topics: None)
        await projection.start()
        assert isinstance(projection.error, sqlite3.OperationalError)
        with pytest.raises(UnavailableError):
            await projection.run(lambda _db: None)
        path.parent.mkdir()
        position = await log.append("orders.created", [Record(b"{}")])
        await until(lambda: projection.position >= position)
        assert projection.error is None
        await projection.stop()
        await log.close()

    run(main())


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """A second opening finds state and position."""
    state = opened(tmp_path / "p", Counter())
    state.apply([record(7)])
    state.close()
    again = opened(tmp_path / "p", Counter())
    assert (count(again), again.position) == (1, 7)
    again.close()


@pytest.mark.parametrize("cause", ["version", "shorter log", "garbage", "missing table"])
def test_what_does_not_fit_is_made_anew(tmp_path: Path, cause: str) -> None:
    """Another version, a log that ends earlier, and a damaged file: the state is empty again, at position 0."""
    path = tmp_path / "p"
    state = opened(path, Counter())
    state.apply([record(7)])
    if cause == "missing table":
        state.db.execute("DROP TABLE meta")
    state.close()
    if cause == "garbage":
        path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    again = opened(path, Counter(2 if cause == "version" else 1), 3 if cause == "shorter log" else 1000)
    assert (count(again), again.position) == (0, 0)
    again.close()


def test_it_follows_the_log(tmp_path: Path) -> None:
    """What is appended is in the page state when it has caught up, and topics are told."""

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        told: list[tuple[int, set[str]]] = []
        projection = Projection(
            log, tmp_path / "p", [Counter()], lambda position, topics: told.append((position, topics))
        )
        await projection.start()
        position = await log.append("orders.created", [Record(b"{}")] * 3)
        assert await projection.caught_up(position, timeout_s=10)
        assert await projection.run(lambda db: db.execute("SELECT n FROM counter_count").fetchone()) == (3,)
        assert told[-1] == (position, {"counted"})
        assert not await projection.caught_up(position + 1, timeout_s=0.01)
        await projection.stop()
        await log.close()

    run(main())


def test_more_than_a_batch(tmp_path: Path) -> None:
    """A log longer than a transaction is taken in whole."""

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        position = await log.append("orders.created", [Record(b"{}")] * (BATCH_MAX_RECORDS * 2 + 5))
        projection = Projection(log, tmp_path / "p", [Counter()], lambda _position, _topics: None)
        await projection.start()
        assert await projection.caught_up(position, timeout_s=30)
        assert await projection.run(lambda db: db.execute("SELECT n FROM counter_count").fetchone()) == (position,)
        await projection.stop()
        await log.close()

    run(main())


def test_damage_while_running_is_mended(tmp_path: Path) -> None:
    """A page state that breaks under way is made again from the log's beginning."""

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        projection = Projection(log, tmp_path / "p", [Counter()], lambda _position, _topics: None)
        await projection.start()
        await projection.caught_up(await log.append("orders.created", [Record(b"{}")]), timeout_s=10)
        await projection.run(lambda db: db.execute("DROP TABLE counter_count"))
        position = await log.append("orders.created", [Record(b"{}")])
        assert await projection.caught_up(position, timeout_s=10)
        assert await projection.run(lambda db: db.execute("SELECT n FROM counter_count").fetchone()) == (2,)
        await projection.stop()
        await log.close()

    run(main())


def test_records_are_found_by_stream_and_trace() -> None:
    """The latest records are kept by stream, in order, and by trace; the system's are not counted as events."""
    db = sqlite3.connect(":memory:")
    db.executescript(kept.SCHEMA)
    trace = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    records = [
        StoredRecord(1, "orders.created", 10_000_000_000, b"1", b"k", trace),
        StoredRecord(2, "$run.x", 10_000_000_000, b"2", b"", trace),
        StoredRecord(3, "orders.created", 20_000_000_000, b"3"),
    ]
    topics = RecordsPanel().apply(db, records)
    assert topics == {"streams", "stream:orders.created", "stream:$run.x", "trace:" + "a" * 32}
    assert kept.of_stream(db, "orders.created") == [records[0], records[2]]
    assert kept.of_stream(db, "orders.created", before=3) == [records[0]]
    assert kept.first_of_stream(db, "orders.created") == records[0]
    assert [one.position for one in kept.of_trace(db, "a" * 32)] == [1, 2]
    assert kept.counts_of(db, "events", 20_000_000_000, 3) == [0, 1, 1]


def test_long_payloads_are_cut_and_journal_entries_stay_readable() -> None:
    """Of a long payload the beginning is kept; a journal entry keeps everything but its payload."""
    db = sqlite3.connect(":memory:")
    db.executescript(kept.SCHEMA)
    long = b"x" * (kept.VALUE_MAX_BYTES + 1)
    entry = b'{"type":"step_completed","key":"a#1","result":"' + long + b'"}'
    RecordsPanel().apply(
        db,
        [StoredRecord(1, "events", 1, long), StoredRecord(2, "$run.x", 1, entry), StoredRecord(3, "$run.x", 1, long)],
    )
    (event,) = kept.of_stream(db, "events")
    assert len(event.value) == kept.VALUE_MAX_BYTES
    light, cut = kept.of_stream(db, "$run.x")
    assert b'"key":"a#1"' in light.value and b"mainstem tail" in light.value
    assert len(cut.value) == kept.VALUE_MAX_BYTES


def test_damage_that_comes_again_ends_it(tmp_path: Path) -> None:
    """A page state that breaks at every attempt is not made anew for ever."""

    class Broken(Counter):
        calls = 0

        def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
            """Break."""
            self.calls += 1
            db.execute("SELECT nothing FROM nowhere")
            return set()

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        panel = Broken()
        projection = Projection(log, tmp_path / "p", [panel], lambda _position, _topics: None)
        await projection.start()
        assert not await projection.caught_up(await log.append("orders.created", [Record(b"{}")]), timeout_s=10)
        assert isinstance(projection.error, sqlite3.OperationalError)
        assert panel.calls == REBUILDS_MAX + 1
        await projection.stop()
        await log.close()

    run(main())


def test_a_stop_hears_its_own_cancellation(tmp_path: Path) -> None:
    """Who stops the pages and is cancelled is told so, though their task is being cancelled as well; a second stop ends
    what is left, and a page is then unavailable.
    """

    async def main() -> None:
        log = await open_log(tmp_path / "log")
        pages = Projection(log, tmp_path / "pages.sqlite", [Counter()], lambda _position, _topics: None)
        await pages.start()
        following = pages._task
        assert following is not None
        let = asyncio.Event()

        async def reluctant() -> None:
            try:
                await following
            finally:
                await let.wait()

        pages._task = asyncio.create_task(reluctant())
        stopping = asyncio.create_task(pages.stop())
        await until(following.done)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        let.set()
        await pages.stop()
        await pages.stop()
        with pytest.raises(UnavailableError, match="is being stopped"):
            await pages.run(lambda _db: None)
        await log.close()

    run(main())
