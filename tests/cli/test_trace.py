"""``mainstem trace``."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from mainstem.cli.errors import EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE
from mainstem.cli.reading import open_data
from mainstem.cli.trace import find_traces, load_traces, trace_lines
from mainstem.flow.journal import (
    Claimed,
    JournalEntry,
    LogLine,
    RunCompleted,
    Started,
    StepCompleted,
    StepStarted,
    Trigger,
)
from mainstem.log import Append, Record
from mainstem.trace.waterfall import DIED, EVENT, WAIT, WORK
from tests.cli.conftest import Invoke, write_log
from tests.support import run as run_async

TRACE = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
KEY = "map#1[0]/charge#1"
NOW_NS = time.time_ns()


def journal_record(entry: JournalEntry, trace_id: str = TRACE) -> Record:
    """Return a journal record of a trace."""
    headers = {"traceparent": f"00-{trace_id}-{'a' * 16}-01", "about": "order:1"}
    return Record(msgspec.json.encode(entry), headers=headers)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A data directory with an event, a run that died once and went on, a log line, and another trace of the order."""
    event = Record(b'{"id":1}', headers={"traceparent": f"00-{TRACE}-{'b' * 16}-01", "about": "order:1"})
    arguments = msgspec.Raw(b'{"args":[],"kwargs":{}}')
    done = StepCompleted(KEY, "charge", 2, "d", msgspec.Raw(b"1"), time.time_ns() + 10**9, waited_ns=20_000_000)
    entries: list[JournalEntry] = [
        Started("fulfil", "workflow", arguments, trigger=Trigger("orders.created", 1)),
        StepStarted(KEY, "charge", 1, "d"),
        Claimed("1@2", 1),
        StepStarted(KEY, "charge", 2, "d"),
        done,
        RunCompleted(msgspec.Raw(b"1")),
    ]
    line = LogLine(NOW_NS, "INFO", "shop", "charging\x1b[2J", step_key=KEY, attempt=1)
    write_log(
        tmp_path / "data",
        [
            Append("orders.created", [event]),
            *(Append("$run.fulfil@1", [journal_record(entry)]) for entry in entries),
            Append("$lines.fulfil@1", [Record(msgspec.json.encode(line))]),
            Append("$run.other", [journal_record(Started("refund", "workflow", arguments), OTHER)]),
        ],
    )
    return tmp_path / "data"


def test_a_run_is_traced_from_its_event_on(invoke: Invoke, shop: Path) -> None:
    """The waterfall has the event, the run, both attempts (one died), and the log line made harmless."""
    result = invoke("trace", "fulfil@1", "--data", shop)
    assert result.code == EXIT_OK
    assert f"trace {TRACE}" in result.out
    for part in (EVENT, "orders.created", "fulfil", "charge", DIED, WORK, WAIT, "charging\\x1b[2J", "died"):
        assert part in result.out, part
    assert "\x1b" not in result.out


def test_what_had_not_ended_is_told_as_such(invoke: Invoke, shop: Path) -> None:
    """Without a running application, what is open has not ended yet; what has ended needs no such word."""
    assert "what is marked as running has not ended yet" in invoke("trace", "other", "--data", shop).err
    assert "running" not in invoke("trace", "fulfil@1", "--data", shop).err


def test_log_lines_can_be_left_out(invoke: Invoke, shop: Path) -> None:
    """``--no-lines`` shows no log lines."""
    assert "charging" not in invoke("trace", "fulfil@1", "--no-lines", "--data", shop).out


def test_the_same_by_trace_id_and_by_entity(invoke: Invoke, shop: Path) -> None:
    """A trace id shows that trace; an entity shows all traces about it, the latest last."""
    assert f"trace {TRACE}" in invoke("trace", TRACE, "--data", shop).out
    both = invoke("trace", "order:1", "--data", shop).out
    assert both.index(f"trace {TRACE}") < both.index(f"trace {OTHER}")
    latest = invoke("trace", "order:1", "--limit", 1, "--data", shop).out
    assert "The latest 1 of 2 traces" in latest
    assert f"trace {TRACE}" not in latest


def test_as_json(invoke: Invoke, shop: Path) -> None:
    """Spans come as JSON, in the order of the waterfall, with depth and times."""
    (trace,) = invoke("trace", "fulfil@1", "--json", "--data", shop).json["traces"]  # type: ignore[misc]
    spans = trace["spans"]  # type: ignore[has-type]
    assert trace["trace_id"] == TRACE  # type: ignore[has-type]
    assert {"event", "run", "step", "log"} <= {span["kind"] for span in spans}
    assert [span["status"] for span in spans if span["kind"] == "step"] == ["died", "ok"]
    assert next(span for span in spans if span["status"] == "ok" and span["kind"] == "step")["waited_ns"] == 20_000_000


def test_what_nobody_knows(invoke: Invoke, shop: Path) -> None:
    """Something unknown ends with exit code 3, a malformed id with 2."""
    for name in ("nobody", "order:2", "9" * 32):
        assert invoke("trace", name, "--data", shop).code == EXIT_NOT_FOUND
    assert invoke("trace", "a/b", "--data", shop).code == EXIT_USAGE


def test_from_code(shop: Path) -> None:
    """The parts behind the command can be used one by one, as the video example does."""

    async def ask() -> list[str]:
        async with open_data(shop) as log:
            (trace,) = await load_traces(log, await find_traces(log, "fulfil@1"))
            return trace_lines(trace, 100)

    lines = run_async(ask())
    assert lines[1] == "about order:1"
    assert max(map(len, lines)) <= 100
