"""The pure parts of workflows: history, spans, timers, and the limits of a journal's entries."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.functions import check_name
from mainstem.flow.history import History, RunFold, describe_failure, fold_run, split_key
from mainstem.flow.journal import (
    Claimed,
    ErrorInfo,
    GatherFailed,
    JournalEntry,
    LogLine,
    Published,
    Released,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunQuarantined,
    RunResumed,
    Started,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerSet,
)
from mainstem.flow.sleeping import duration_s
from mainstem.flow.spans import run_spans
from mainstem.flow.timers import TimeLimit, Timers
from mainstem.log import StoredRecord
from mainstem.testing import SimulatedClock
from mainstem.trace.context import derived_span_id, new_trace
from mainstem.trace.spans import Span, UnderWay
from tests.support import run, until

S = 1_000_000_000
_NULL = msgspec.Raw(b"null")
_ERROR = ErrorInfo("ValueError", "no")
_ORIGIN = new_trace()


def journal(*entries: tuple[int, JournalEntry], stream: str = "$run.r") -> list[StoredRecord]:
    """Return records of entries, each with its time in seconds; positions from 1."""
    headers = {"traceparent": _ORIGIN.traceparent, "about": "order:1"}
    return [
        StoredRecord(position, stream, time_s * S, msgspec.json.encode(entry), b"", headers)
        for position, (time_s, entry) in enumerate(entries, start=1)
    ]


_BEGIN: tuple[int, JournalEntry] = (0, Started("work", "workflow", msgspec.Raw(b"{}")))


@pytest.mark.parametrize(
    ("entries", "state", "words"),
    [
        ([], "running", ""),
        ([(1, TimerSet("sleep#1", 100 * S))], "sleeping", ""),
        ([(1, TimerSet("sleep#1", 5 * S))], "running", ""),
        (
            [(1, StepFailed("a#1", "a", 2, "", _ERROR, S, 0, 99 * S))],
            "retrying",
            "Step a#1 failed at attempt 2: ValueError: no. Attempt 3 follows by itself.",
        ),
        ([(1, RunCompleted(_NULL))], "completed", ""),
        ([(1, RunFailed(_ERROR, "a#1"))], "failed", "Step a#1 failed for good: ValueError: no."),
        (
            [(1, RunFailed(_ERROR, "a#1", 2))],
            "failed",
            "Step a#1 failed at attempt 2, its last: ValueError: no. The run",
        ),
        ([(1, RunFailed(_ERROR))], "failed", "work raised an error: ValueError: no."),
        ([(1, RunCancelled("enough"))], "cancelled", "It was cancelled: enough."),
        (
            [(1, RunPaused("It changed.", "a#1", "b#1"))],
            "paused",
            "It changed. Recorded: a#1. Called: b#1. It waits",
        ),
        ([(1, RunQuarantined(3))], "quarantined", "taken over 3 times"),
        ([(1, RunQuarantined(3)), (2, RunResumed("go"))], "running", ""),
    ],
)
def test_the_state_of_a_run(entries: list[tuple[int, JournalEntry]], state: str, words: str) -> None:
    """State and sentence follow from the journal; the fold survives a way through JSON."""
    fold = fold_run("r", journal(_BEGIN, *entries))
    assert fold.state(10 * S) == state
    assert words in describe_failure(fold)
    assert bool(describe_failure(fold)) == bool(words)
    summary = fold.summary(10 * S)
    assert (summary.function, summary.about, summary.trace_id) == ("work", ("order:1",), _ORIGIN.trace_id)
    assert msgspec.json.decode(msgspec.json.encode(fold), type=RunFold) == fold


def test_a_job_is_queued_until_an_attempt_is_known() -> None:
    """From records alone a job without an attempt is queued; a takeover, an attempt or its process say otherwise."""
    begin = (0, Started("mail", "job", msgspec.Raw(b"{}"), "mail", 4 * S))
    failed = (6, StepFailed("mail#1", "mail", 1, "", _ERROR, 5 * S, retry_at_ns=8 * S))
    assert fold_run("r", journal(begin)).state(3 * S) == "scheduled"
    waiting = fold_run("r", journal(begin))
    assert waiting.state(5 * S) == waiting.summary(5 * S).state == "queued"
    assert waiting.state(5 * S, at_work=True) == waiting.summary(5 * S, at_work=True).state == "running"
    for more in ((5, Claimed("2@2", 1)), failed):
        assert fold_run("r", journal(begin, more)).state(9 * S) == "running"


def test_progress_ends_the_count_of_claims() -> None:
    """Claims in vain count until a result is on record."""
    claimed = [(1, Claimed("1@1", 1)), (2, Claimed("2@2", 2))]
    assert fold_run("r", journal(_BEGIN, *claimed)).claims_in_vain == 2
    done = (3, StepCompleted("a#1", "a", 3, "", _NULL, 0))
    fold = fold_run("r", journal(_BEGIN, *claimed, done))
    assert (fold.claims, fold.claims_in_vain, fold.steps) == (2, 0, 1)


def test_a_history_expects_the_calls_above_its_keys() -> None:
    """A key in a branch says that its ``gather`` or ``map`` was called, in every branch above."""
    done = StepCompleted("map#1[2]/gather#1[0]/a#1", "a", 1, "", _NULL, 0)
    history = History("r", journal(_BEGIN, (1, done)))
    assert history.uncalled == {"": {"map#1"}, "map#1[2]/": {"gather#1"}, "map#1[2]/gather#1[0]/": {"a#1"}}
    assert split_key("map#1[2]/gather#1[0]/a#1") == ("map#1[2]/gather#1[0]/", "a#1")


def _by_name(spans: list[Span]) -> dict[str, Span]:
    return {f"{span.kind} {span.name} {span.status}": span for span in spans}


def test_spans_of_a_run() -> None:
    """The run, its attempts with their waiting, a sleep, an event and a log line are spans; the ids are derived."""
    records = journal(
        _BEGIN,
        (5, StepFailed("a#1", "a", 1, "", _ERROR, 3 * S, 2 * S, 8 * S)),
        (9, StepCompleted("a#1", "a", 2, "", _NULL, 8 * S)),
        (9, TimerSet("sleep#1", 12 * S)),
        (12, Published("publish#1", "orders.done", "", 2)),
        (13, RunCompleted(_NULL)),
    )
    line = StoredRecord(50, "$lines.r", 0, msgspec.json.encode(LogLine(4 * S, "ERROR", "shop", "oh", "a#1", 1)))
    spans = run_spans([*records, line], now_ns=20 * S)
    found = _by_name(spans)
    attempt_1 = derived_span_id(_ORIGIN.trace_id, "step", "r", "a#1", "1")
    attempt_2 = derived_span_id(_ORIGIN.trace_id, "step", "r", "a#1", "2")
    root = spans[0]
    assert (root.kind, root.span_id, root.parent_id) == ("run", _ORIGIN.child("run", "r").span_id, _ORIGIN.span_id)
    assert (root.start_ns, root.end_ns, root.status) == (0, 13 * S, "ok")
    failed, done = found["step a#1 error"], found["step a#1 ok"]
    assert (failed.span_id, failed.start_ns, failed.end_ns) == (attempt_1, 3 * S, 5 * S)
    assert (done.span_id, done.start_ns, done.end_ns, done.detail) == (attempt_2, 8 * S, 9 * S, "attempt 2")
    turn, retry, sleep = found["wait turn ok"], found["wait retry ok"], found["wait sleep#1 ok"]
    assert (turn.parent_id, turn.start_ns, turn.end_ns) == (attempt_1, 1 * S, 3 * S)
    assert (retry.parent_id, retry.start_ns, retry.end_ns) == (attempt_2, 5 * S, 8 * S)
    assert (sleep.start_ns, sleep.end_ns) == (9 * S, 12 * S)
    assert found["event publish orders.done ok"].position == 5 - 2
    assert found["log oh error"].parent_id == attempt_1
    assert all(span.trace_id == _ORIGIN.trace_id for span in spans)


def test_an_attempt_that_died_is_a_span() -> None:
    """What had begun on record and was not ended when another process took over died; the next attempt is its own
    span.
    """
    records = journal(
        _BEGIN,
        (1, StepStarted("a#1", "a", 1, "")),
        (7, Claimed("2@2", 1)),
        (8, StepStarted("a#1", "a", 2, "")),
    )
    found = _by_name(run_spans(records, now_ns=20 * S))
    assert (found["step a#1 died"].start_ns, found["step a#1 died"].end_ns) == (1 * S, 7 * S)
    assert (found["step a#1 running"].start_ns, found["step a#1 running"].end_ns) == (8 * S, 0)
    assert found["run work running"].end_ns == 0
    assert found["event taken over ok"].start_ns == 7 * S
    assert found["event taken over ok"].detail == "by process 2"


def _line(second: int, position: int, attempt: int) -> StoredRecord:
    line = LogLine(second * S, "INFO", "shop", f"line {position}", "a#1", attempt)
    return StoredRecord(position, "$lines.r", second * S, msgspec.json.encode(line))


def test_a_line_tells_that_its_attempt_had_begun() -> None:
    """An attempt without a record of its start is known by its first log line: it died, or is under way."""
    records = journal(_BEGIN, (9, Claimed("2@2", 1)), (9, TimerSet("sleep#1", 99 * S)))
    # Positions: 1 the start, 2 the takeover, 3 the sleep.
    found = _by_name(run_spans([*records, _line(4, 1, 1), _line(5, 1, 1), _line(12, 9, 2)], now_ns=20 * S))
    died, running = found["step a#1 died"], found["step a#1 running"]
    assert (died.start_ns, died.end_ns, died.detail) == (4 * S, 9 * S, "attempt 1 died with its process")
    assert (running.start_ns, running.end_ns, running.detail) == (12 * S, 0, "attempt 2")


def test_a_line_that_was_written_late_opens_nothing() -> None:
    """Lines come after their step's result: that attempt has ended all the same."""
    records = journal(_BEGIN, (9, StepCompleted("a#1", "a", 1, "", _NULL, 3 * S)))
    spans = run_spans([*records, _line(4, 50, 1)], now_ns=20 * S)
    assert [span.status for span in spans if span.kind == "step"] == ["ok"]


def test_an_attempt_that_left_no_record_may_have_died() -> None:
    """The number of the next attempt tells of it: it may have run between the last record and the takeover."""
    records = journal(_BEGIN, (7, Claimed("2@2", 1)), (9, StepCompleted("a#1", "a", 2, "", _NULL, 8 * S)))
    found = _by_name(run_spans(records, now_ns=20 * S))
    died = found["step a#1 died"]
    assert (died.start_ns, died.end_ns) == (0, 7 * S)
    assert died.detail == "attempt 1 may have died with its process"


def test_a_run_that_slept_until_its_takeover_lost_no_attempt() -> None:
    """A takeover at the end of a sleep (or of a retry's wait) leaves no time in which an attempt can have died."""
    done = (9, StepCompleted("a#1", "a", 2, "", _NULL, 8 * S))
    slept = journal(_BEGIN, (1, TimerSet("sleep#1", 7 * S, alone=True)), (7, Claimed("2@2", 1)), done)
    failed = StepFailed("a#1", "a", 1, "", _ERROR, S, retry_at_ns=7 * S)
    later = (9, StepCompleted("a#1", "a", 3, "", _NULL, 8 * S))
    waited = journal(_BEGIN, (1, failed), (7, Claimed("2@2", 1)), later)
    for records in (slept, waited):
        assert all(span.status != "died" for span in run_spans(records, now_ns=20 * S))


def test_what_is_under_way_is_running() -> None:
    """What the run's process does now is drawn as such, from its own beginning; not once the run has ended."""
    under_way = [UnderWay("a#1", 1, 3 * S)]
    found = _by_name(run_spans(journal(_BEGIN), now_ns=20 * S, under_way=under_way))
    assert (found["step a#1 running"].start_ns, found["step a#1 running"].end_ns) == (3 * S, 0)
    ended = run_spans(journal(_BEGIN, (9, RunCompleted(_NULL))), now_ns=20 * S, under_way=under_way)
    assert all(span.kind != "step" for span in ended)


def test_what_was_broken_off_did_not_die() -> None:
    """An attempt without an end in a run that was cancelled, or in a branch that was, was broken off."""
    begun = (1, StepStarted("gather#1[1]/a#1", "a", 1, ""))
    for entry in (GatherFailed("gather#1", 0), RunCancelled("enough"), Released("2@2")):
        (step,) = (span for span in run_spans(journal(_BEGIN, begun, (5, entry)), now_ns=20 * S) if span.kind == "step")
        assert (step.status, step.end_ns, step.detail) == ("error", 5 * S, "attempt 1 was broken off")


def test_a_jobs_queue_is_waiting() -> None:
    """A job's delay and its time in the queue are spans of waiting."""
    records = journal(
        (0, Started("mail", "job", msgspec.Raw(b"{}"), "mail", 4 * S)),
        (9, StepCompleted("mail#1", "mail", 1, "", _NULL, 6 * S, waited_ns=2 * S)),
        (9, RunCompleted(_NULL)),
    )
    spans = run_spans(records, now_ns=20 * S)
    found = _by_name(spans)
    assert "wait turn ok" not in found  # it is the same waiting, told by the attempt
    assert (found["wait delay ok"].start_ns, found["wait delay ok"].end_ns) == (0, 4 * S)
    assert (found["wait queue ok"].start_ns, found["wait queue ok"].end_ns) == (4 * S, 6 * S)


def test_nothing_has_no_spans() -> None:
    """Records of other streams give no spans."""
    assert run_spans(journal(_BEGIN, stream="orders"), now_ns=0) == []


def test_timers_call_in_order_of_their_moments() -> None:
    """Whatever the order of setting, actions come in order of time; a cancelled one does not come."""

    async def scenario() -> None:
        clock = SimulatedClock()
        timers = Timers(clock, clock.monotonic_s, 1.0)
        called: list[float] = []
        moments = random.Random(1).sample(range(1, 500), 60)
        set_ = [(moment, timers.at(moment, lambda moment=moment: called.append(moment))) for moment in moments]  # type: ignore[misc]
        for moment, timer in set_:
            if moment % 3 == 0:
                timers.cancel(timer)
                timers.cancel(timer)
        await clock.run_for(501, step_s=1)
        assert called == sorted(moment for moment in moments if moment % 3)
        waiting = asyncio.create_task(timers.wait_until(600))
        await asyncio.sleep(0)
        await clock.run_for(100, step_s=5)
        assert waiting.done()
        await timers.wait_until(1)
        timers.close()

    run(scenario())


def test_a_wall_clock_that_jumps_is_noticed() -> None:
    """A timer of wall-clock time comes soon after the clock was set forward behind it."""

    async def scenario() -> None:
        clock = SimulatedClock()
        timers = Timers(clock, clock.time_ns, 1e-9)
        waiting = asyncio.create_task(timers.wait_until(clock.time_ns() + 3600 * S))
        await until(lambda: clock.sleepers)  # a jump before that would be seen without any waking
        clock.jump_wall(3600)
        await clock.run_for(31, step_s=1)
        assert waiting.done(), "the jump was not noticed"
        timers.close()

    run(scenario())


def test_a_time_limit_is_not_a_cancel() -> None:
    """The limit becomes ``TimeoutError``; a cancel from outside stays a cancel."""

    async def scenario() -> None:
        clock = SimulatedClock()
        timers = Timers(clock, clock.monotonic_s, 1.0)

        async def limited() -> None:
            with TimeLimit(timers, "too slow") as limit:
                limit.begin(5)
                limit.begin(10)
                await asyncio.Event().wait()

        first, second = asyncio.create_task(limited()), asyncio.create_task(limited())
        await asyncio.sleep(0)
        second.cancel()
        await clock.run_for(9)
        assert not first.done()
        await clock.run_for(2)
        await asyncio.wait([first, second])
        assert isinstance(first.exception(), TimeoutError)
        assert second.cancelled()
        timers.close()

    run(scenario())


@given(st.text(max_size=120))
def test_names_cannot_be_mistaken_for_paths(name: str) -> None:
    """A step's name holds none of the signs that keys are built with."""
    try:
        check_name(name)
    except InvalidArgumentError:
        return  # refused: nothing can come of it
    assert not set(name) & set("#/[] ")


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf"), 4e9])
def test_durations_are_bounded(duration: float) -> None:
    """A sleep is between nothing and a hundred years."""
    with pytest.raises(InvalidArgumentError):
        duration_s(duration, 0, 0, 0)
    assert duration_s(1, 1, 1, 1) == 90_061
