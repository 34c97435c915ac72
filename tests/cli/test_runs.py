"""``mainstem runs``: lists, one run, and changing one."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from mainstem.cli.attempts import attempts_of
from mainstem.cli.errors import EXIT_NEEDS_APPLICATION, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE
from mainstem.cli.running import read_server
from mainstem.flow.journal import (
    Claimed,
    ErrorInfo,
    JournalEntry,
    LogLine,
    RunCompleted,
    RunFailed,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerSet,
    Trigger,
)
from mainstem.log import Append, Record, StoredRecord
from tests.cli.conftest import Invoke, write_log
from tests.cli.test_running import answering_server

ARGUMENTS = msgspec.Raw(b'{"args":[{"id":"1"}],"kwargs":{}}')
NOW_NS = time.time_ns()
ERROR = ErrorInfo("ValueError", "no\x1b card", "Traceback\n  line\x07\n")


def journal(run_id: str, *entries: JournalEntry) -> Append:
    """Return a run's journal as one append."""
    headers = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", "about": "order:1"}
    return Append(f"$run.{run_id}", [Record(msgspec.json.encode(entry), headers=headers) for entry in entries])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A data directory with a run that is done, one that failed, one that sleeps, and one that died and goes on."""
    key, step = "map#1[0]/charge#1", "charge"
    done = journal(
        "done",
        Started("fulfil", "workflow", ARGUMENTS, trigger=Trigger("orders.created", 7)),
        StepCompleted(key, step, 1, "d", msgspec.Raw(b"1"), NOW_NS, waited_ns=5_000_000),
        RunCompleted(msgspec.Raw(b'{"receipt":42}')),
    )
    failed = journal(
        "failed",
        Started("send_mail", "job", ARGUMENTS, queue="mail"),
        StepFailed(key, step, 1, "d", ERROR, NOW_NS, retry_at_ns=NOW_NS + 1),
        StepFailed(key, step, 2, "d", ERROR, NOW_NS + 2),
        RunFailed(ERROR, key),
    )
    asleep = journal("asleep", Started("fulfil", "workflow", ARGUMENTS), TimerSet("sleep#1", NOW_NS + 3600 * 10**9))
    died = journal(
        "died",
        Started("fulfil", "workflow", ARGUMENTS),
        StepStarted(key, step, 1, "d"),
        Claimed("1@2", 1),
        StepStarted(key, step, 2, "d"),
    )
    line = LogLine(NOW_NS, "WARNING", "shop", "slow\x1b[2J provider", step_key=key, attempt=1)
    lines = Append("$lines.done", [Record(msgspec.json.encode(line))])
    write_log(tmp_path / "data", [done, failed, asleep, died, lines])
    return tmp_path / "data"


def test_the_list_is_newest_first(invoke: Invoke, runs: Path) -> None:
    """All runs are listed, the newest first, each with its state."""
    result = invoke("runs", "--data", runs)
    assert result.code == EXIT_OK
    assert [line.split()[:2] for line in result.out.splitlines()[1:]] == [
        ["running", "died"],
        ["sleeping", "asleep"],
        ["failed", "failed"],
        ["completed", "done"],
    ]
    assert "\x1b" not in result.out
    assert "open runs go on when it is started again" in result.err


def test_the_list_can_be_narrowed(invoke: Invoke, runs: Path) -> None:
    """By state, by function, by number; what was left out is told."""
    by_state = invoke("runs", "--state", "failed", "--state", "sleeping", "--data", runs)
    assert [line.split()[1] for line in by_state.out.splitlines()[1:]] == ["asleep", "failed"]
    by_function = invoke("runs", "--function", "send_mail", "--data", runs)
    assert [line.split()[1] for line in by_function.out.splitlines()[1:]] == ["failed"]
    assert "… and 3 more runs" in invoke("runs", "--limit", 1, "--data", runs).out
    assert "None of 4 runs" in invoke("runs", "--state", "cancelled", "--data", runs).out


def test_the_list_as_json(invoke: Invoke, runs: Path) -> None:
    """One document with the total and each run's summary."""
    document = invoke("runs", "--limit", 1, "--json", "--data", runs).json
    assert document["total"] == 4
    (first,) = document["runs"]  # type: ignore[misc]
    assert first["run_id"] == "died"  # type: ignore[has-type]
    assert first["claims"] == 1  # type: ignore[has-type]


def test_a_log_without_runs(invoke: Invoke, orders: Path) -> None:
    """A log without runs says so."""
    assert invoke("runs", "--data", orders).out == "No runs.\n"


def test_a_finished_run(invoke: Invoke, runs: Path) -> None:
    """One run shows what started it, its arguments, result, attempts and log lines."""
    result = invoke("runs", "done", "--data", runs)
    assert result.code == EXIT_OK
    for part in (
        "done  completed",
        "fulfil (workflow)",
        "by orders.created at position 7",
        '{"receipt":42}',
        "map#1[0]/charge#1",
        "5.00 ms",
        "slow\\x1b[2J provider",
    ):
        assert part in result.out, part


def test_a_failed_run_opens_with_a_sentence(invoke: Invoke, runs: Path) -> None:
    """A failed run says first what failed and why; its attempts and the traceback follow, harmless."""
    result = invoke("runs", "failed", "--data", runs)
    assert "Step map#1[0]/charge#1 failed for good: ValueError: no\\x1b card" in result.out.splitlines()[2]
    assert result.out.count("failed  ") >= 2
    assert "  line\\x07" in result.out
    assert "queue mail" in result.out


def test_an_attempt_that_died_is_visible(invoke: Invoke, runs: Path) -> None:
    """The first attempt of a run that was taken over is shown as died, the second as running."""
    attempts = invoke("runs", "died", "--json", "--data", runs).json["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["died", "running"]  # type: ignore[attr-defined]
    assert "taken over  1 time" in invoke("runs", "show", "died", "--data", runs).out


def test_attempts_without_a_record_of_their_own() -> None:
    """A log line, or the next attempt's number, tells of an attempt that died."""
    trace = {"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}
    second = 10**9
    started = Started("fulfil", "workflow", ARGUMENTS)
    charged = StepCompleted("a#1", "a", 3, "d", msgspec.Raw(b"1"), 8 * second)
    entries: list[tuple[int, JournalEntry]] = [
        (1, started), (3, Claimed("1@2", 1)), (7, Claimed("1@3", 2)), (9, charged),
    ]  # fmt: skip
    records = [
        StoredRecord(10 * n, "$run.x", n * second, msgspec.json.encode(entry), headers=trace) for n, entry in entries
    ]
    line = msgspec.json.encode(LogLine(4 * second, "INFO", "shop", "charging", "a#1", 2))
    records.append(StoredRecord(40, "$lines.x", 4 * second, line))
    told = [(one.attempt, one.outcome, one.message) for one in attempts_of(records)]
    assert told == [(1, "died", "may have died"), (2, "died", ""), (3, "ok", "")]


def test_attempts_are_pure() -> None:
    """The fold takes records and gives attempts in the order of their beginning."""
    entries: list[JournalEntry] = [
        StepStarted("b#1", "b", 1, "d"),
        StepCompleted("a#1", "a", 1, "d", msgspec.Raw(b"1"), 5),
        StepCompleted("b#1", "b", 1, "d", msgspec.Raw(b"1"), 9),
    ]
    records = [StoredRecord(n, "$run.x", 10 + n, msgspec.json.encode(entry)) for n, entry in enumerate(entries)]
    assert [(attempt.key, attempt.outcome) for attempt in attempts_of(records)] == [("a#1", "ok"), ("b#1", "ok")]


def test_a_run_that_is_not_there(invoke: Invoke, runs: Path) -> None:
    """An unknown id ends with exit code 3, an impossible one with 2."""
    assert invoke("runs", "nobody", "--data", runs).code == EXIT_NOT_FOUND
    assert invoke("runs", "../x", "--data", runs).code == EXIT_USAGE
    assert invoke("runs", "a", "b", "--data", runs).code == EXIT_USAGE
    assert invoke("runs", "cancel", "--data", runs).code == EXIT_USAGE


def test_changing_a_run_needs_an_application(invoke: Invoke, runs: Path) -> None:
    """Without a running application, cancel and resume end with exit code 4 and say what to do."""
    for change in ("cancel", "resume"):
        result = invoke("runs", change, "died", "--data", runs)
        assert result.code == EXIT_NEEDS_APPLICATION
        assert "mainstem dev app.py" in result.err


def test_records_of_a_newer_version_are_counted(invoke: Invoke, tmp_path: Path) -> None:
    """A journal record of an unknown kind does not hide the other runs; how many there were is told."""
    odd = Append("$run.odd", [Record(b'{"type":"from_the_future"}')])
    good = journal("good", Started("fulfil", "workflow", ARGUMENTS))
    write_log(tmp_path / "data", [odd, good])
    result = invoke("runs", "--data", tmp_path / "data")
    assert "good" in result.out
    assert "1 journal record cannot be read" in result.err


def test_the_application_is_named(invoke: Invoke, tmp_path: Path) -> None:
    """``--url`` and ``--token`` reach an application that left no address in the data directory."""
    with answering_server(tmp_path / "elsewhere"):
        server = read_server(tmp_path / "elsewhere")
        assert server is not None
        result = invoke("runs", "resume", "b", "--url", server.url, "--token", "x", "--data", tmp_path / "data")
    assert result.code == EXIT_NOT_FOUND
    assert "no run b" in result.err
    assert invoke("runs", "resume", "b", "--url", "b").code == EXIT_USAGE


def test_an_unknown_address_of_the_application(invoke: Invoke, tmp_path: Path) -> None:
    """What the application does not know is exit code 3, with its own sentence."""
    with answering_server(tmp_path / "data"):
        result = invoke("runs", "cancel", "b", "--data", tmp_path / "data")
    assert result.code == EXIT_NOT_FOUND
    assert "no run b" in result.err
