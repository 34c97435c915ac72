"""What goes into a commit, decided without a disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mainstem.log.contract import Record
from mainstem.log.embedded.calls import Block, Call, _one_row, _rows, encode_call
from mainstem.log.embedded.commit import CommitPlan, LonePlan
from mainstem.log.embedded.index import LogIndex
from mainstem.log.embedded.layout import LogSettings
from mainstem.log.errors import PositionConflictError
from mainstem.log.frame import COMMIT, Column, Commit, build_frame, encode_headers, encode_one


def call(stream: str, value: bytes = b"v", expected: int | None = None, dedup_id: str = "", count: int = 1) -> Call:
    return Call([Block(stream, expected, count, Column.of([value] * count), None, None)], dedup_id, 10, False)


def commit_all(index: LogIndex, *calls: Call) -> CommitPlan:
    """Plan a commit and take it in, as the engine does after the sync."""
    plan = CommitPlan(index)
    for one in calls:
        plan.add(one)
    if plan.record_count:
        body = plan.encode(plan.stream_of_record())
        header, _buffers = build_frame(
            COMMIT, body, log_id=1, segment=1, offset=64, first_position=plan.first_position,
            record_count=plan.record_count, time_ns=0, chain=0,
        )  # fmt: skip
        commit = Commit(header, body)
        index.add(header, commit.names, commit.stream_of_record, commit.calls)
    return plan


def test_positions_are_given_in_order() -> None:
    """Calls get consecutive positions; the answer of each is its last."""
    plan = commit_all(LogIndex(10), call("a", count=3), call("b"), call("a"))
    assert [one.answer for one in plan.calls] == [(3,), (4,), (5,)]


def test_condition_sees_calls_before_it_in_the_same_commit() -> None:
    """Of two calls in one commit that expect an empty stream the second is refused, with the first one's position."""
    plan = commit_all(LogIndex(10), call("a", expected=0), call("a", expected=0), call("a", expected=1))
    assert [one.answer for one in plan.calls if one.error is None] == [(1,), (2,)] and plan.accepted_count == 2
    refused = plan.calls[1].error
    assert isinstance(refused, PositionConflictError) and refused.actual == 1


def test_repeat_is_looked_at_before_the_condition() -> None:
    """A retry whose condition no longer holds, because of its own first try, gets the first answer."""
    index = LogIndex(10)
    commit_all(index, call("a", expected=0, dedup_id="x"))
    plan = commit_all(index, call("a", expected=0, dedup_id="x"))
    assert [(one.answer, one.error) for one in plan.calls] == [((1,), None)]
    assert plan.record_count == 0


def test_repeat_within_one_commit() -> None:
    """Two calls of one name in the same commit are one."""
    plan = commit_all(LogIndex(10), call("a", dedup_id="x"), call("a", dedup_id="x"))
    assert plan.record_count == 1
    assert [one.answer for one in plan.calls] == [(1,), (1,)] and plan.accepted_count == 1


def test_window_of_remembered_calls_is_bounded() -> None:
    """The oldest name is forgotten when there are more than the window holds."""
    index = LogIndex(2)
    for name in "xyz":
        commit_all(index, call("a", dedup_id=name))
    assert [index.answer(name) for name in "xyz"] == [None, (2,), (3,)]


def test_columns_of_several_calls_are_laid_end_to_end() -> None:
    """Calls with and without keys and headers share one frame, and each record keeps its own."""
    records = [
        [Record(b"1", b"", {"h": "1"}), Record(b"22")],
        [Record(b"")],
        [Record(b"333", b"key"), Record(b"4"), Record(b"5", b"k2", {"a": "b"})],
    ]
    plan = CommitPlan(LogIndex(10))
    for stream, rows in zip("aba", records, strict=True):
        plan.add(encode_call([(stream, rows, None)], None, False, LogSettings()))
    body = plan.encode(plan.stream_of_record())
    header, _buffers = build_frame(
        COMMIT, body, log_id=1, segment=1, offset=64, first_position=1, record_count=6, time_ns=0, chain=0
    )
    commit = Commit(header, body)
    found = [(one.stream, Record(one.value, one.key, dict(one.headers))) for one in map(commit.record, range(6))]
    expected = [(stream, row) for stream, rows in zip("aba", records, strict=True) for row in rows]
    assert found == [(stream, Record(row.value, row.key, dict(row.headers))) for stream, row in expected]


def test_one_record_is_encoded_as_many_are() -> None:
    """The short way for calls of one record makes the same columns as the way for many."""
    for record in (Record(b"v"), Record(b""), Record(b"v", b"k"), Record(b"v", b"", {"a": "b"}), Record(b"v", b"", {})):
        assert _one_row("a", [record], 3) == _rows("a", [record], 3)


def test_what_waits_is_not_copied() -> None:
    """A call that waits for its commit holds the caller's own bytes: what is pending is what the budget counts."""
    records = [Record(b"v" * 1000, b"k" * 100) for _row in range(3)]
    call = encode_call([("a", records, None)], None, False, LogSettings())
    block = call.blocks[0]
    assert block.keys is not None
    assert all(part is record.value for part, record in zip(block.values.parts, records, strict=True))
    assert all(part is record.key for part, record in zip(block.keys.parts, records, strict=True))


def test_a_refusal_by_a_plan_that_came_to_nothing_is_forgotten() -> None:
    """A call that one plan refused, and that the next one finds to be a repeat, gets the first one's answer."""
    index = LogIndex(10)
    repeat = call("a", expected=7, dedup_id="x")
    CommitPlan(index).add(repeat)
    refusals = [repeat.error]
    commit_all(index, call("a", dedup_id="x"))
    CommitPlan(index).add(repeat)
    assert isinstance(refusals[0], PositionConflictError)
    assert (repeat.answer, repeat.error) == ((1,), None)


@given(st.binary(max_size=30), st.binary(max_size=300), st.dictionaries(st.text(max_size=4), st.text(max_size=9)))
def test_a_lone_record_is_framed_as_a_plan_frames_it(key: bytes, value: bytes, headers: dict[str, str]) -> None:
    """The short way for one record gives the very bytes that the plan of its call gives, and says the same of it."""
    index = LogIndex(10)
    plan = CommitPlan(index)
    plan.add(encode_call([("orders.created", [Record(value, key, headers)], None)], None, False, LogSettings()))
    assert encode_one("orders.created", key, encode_headers(headers), value) == plan.encode(plan.stream_of_record())
    lone = LonePlan("orders.created", 1)
    told = ("first_position", "record_count", "accepted_count", "names", "named")
    assert [getattr(lone, name) for name in told] == [getattr(plan, name) for name in told]
