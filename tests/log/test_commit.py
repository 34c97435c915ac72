"""What goes into a commit, decided without a disk."""

from __future__ import annotations

import asyncio

from mainstem.log.embedded.calls import Call
from mainstem.log.embedded.commit import CommitPlan
from mainstem.log.embedded.index import LogIndex
from mainstem.log.errors import PositionConflictError
from mainstem.log.frame import COMMIT, Commit, build_frame


def call(stream: str, value: bytes = b"v", expected: int | None = None, dedup_id: str = "", count: int = 1) -> Call:
    future: asyncio.Future[tuple[int, ...]] = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    return Call([(stream, [b""] * count, [b""] * count, [value] * count, expected)], dedup_id, 10, False, future)


def commit_all(index: LogIndex, *calls: Call) -> CommitPlan:
    """Plan a commit and take it in, as the engine does after the sync."""
    plan = CommitPlan(index)
    for one in calls:
        plan.add(one)
    if plan.record_count:
        body = plan.encode()
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
    assert [answer for _call, answer in plan.accepted] == [(3,), (4,), (5,)]


def test_condition_sees_calls_before_it_in_the_same_commit() -> None:
    """Of two calls in one commit that expect an empty stream the second is refused, with the first one's position."""
    plan = commit_all(LogIndex(10), call("a", expected=0), call("a", expected=0), call("a", expected=1))
    (refused,) = plan.refused
    assert isinstance(refused[1], PositionConflictError) and refused[1].actual == 1
    assert len(plan.accepted) == 2


def test_repeat_is_looked_at_before_the_condition() -> None:
    """A retry whose condition no longer holds, because of its own first try, gets the first answer."""
    index = LogIndex(10)
    commit_all(index, call("a", expected=0, dedup_id="x"))
    plan = commit_all(index, call("a", expected=0, dedup_id="x"))
    assert [answer for _call, answer in plan.repeated] == [(1,)]
    assert plan.record_count == 0 and not plan.refused


def test_repeat_within_one_commit() -> None:
    """Two calls of one name in the same commit are one."""
    plan = commit_all(LogIndex(10), call("a", dedup_id="x"), call("a", dedup_id="x"))
    assert plan.record_count == 1
    assert [answer for _call, answer in plan.repeated] == [(1,)]


def test_window_of_remembered_calls_is_bounded() -> None:
    """The oldest name is forgotten when there are more than the window holds."""
    index = LogIndex(2)
    for name in "xyz":
        commit_all(index, call("a", dedup_id=name))
    assert [index.answer(name) for name in "xyz"] == [None, (2,), (3,)]
