"""The log's contract as checks: run each against an engine of your own.

Each check is a coroutine function that takes an empty, open log and returns when the promise holds, or raises
``AssertionError``::

    @pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda check: check.__name__)
    def test_engine(check, tmp_path):
        async def run():
            log = await open_log(tmp_path)
            await check(log)
            await log.close()
        asyncio.run(run())
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from mainstem.base.errors import InvalidArgumentError
from mainstem.log.contract import Append, Log, Record, StoredRecord
from mainstem.log.errors import PositionConflictError

_PATIENCE_S = 10.0


def _record(text: str) -> Record:
    return Record(text.encode())


async def _values(log: Log, pattern: str, after: int = 0) -> list[str]:
    values: list[str] = []
    while records := await log.read(pattern, after):
        values += [record.value.decode() for record in records]
        after = records[-1].position
    return values


async def _collect(tail: AsyncIterator[Sequence[StoredRecord]], count: int) -> list[StoredRecord]:
    records: list[StoredRecord] = []
    async with asyncio.timeout(_PATIENCE_S):
        async for batch in tail:
            records += batch
            if len(records) >= count:
                break
    return records


async def check_positions_increase_strictly(log: Log) -> None:
    """Positions begin at 1 or above and increase over all streams."""
    positions = [await log.append(f"s{i % 3}", [_record(str(i))]) for i in range(10)]
    assert positions[0] >= 1
    assert positions == sorted(set(positions))
    assert log.end_position == positions[-1]


async def check_records_come_back_as_written(log: Log) -> None:
    """Value, key and headers are read back as they were appended, in the stream that they were appended to."""
    record = Record(bytes(range(256)), key="ключ".encode(), headers={"traceparent": "00-…", "empty": ""})
    position = await log.append("a.b", [Record(b""), record])
    first, second = await log.read("a.b")
    assert (first.value, first.key, dict(first.headers)) == (b"", b"", {})
    assert (second.value, second.key, dict(second.headers)) == (record.value, record.key, dict(record.headers))
    assert (second.position, second.stream) == (position, "a.b")
    assert second.time_ns > 0


async def check_any_header_comes_back(log: Log) -> None:
    """Headers are text of any kind: line breaks, empty names, names that differ in case, and those of a protocol."""
    headers = {
        "": "no name", "a": " spaces around ", "A": "another case", "x: y": "a\r\nb: c", "%41": "=&%", "tab": "\t",
        "Status": "503", "Nats-Msg-Id": "mine", "Mainstem-Key": "mine too", "encoded": "=?utf-8?q?x?=", "π": "☃" * 100,
    }  # fmt: skip
    await log.append("a", [Record(b"\r\n\r\n", key=bytes(range(256)), headers=headers), Record(b"", headers={"n": ""})])
    first, second = await log.read("a")
    assert (first.value, first.key, dict(first.headers)) == (b"\r\n\r\n", bytes(range(256)), headers)
    assert dict(second.headers) == {"n": ""}


async def check_any_name_is_a_stream(log: Log) -> None:
    """A stream's name may hold what file names, subjects and URLs give a meaning to; it comes back as it was."""
    names = ["$a.$b", "a/b.c\\d", "ключ.☃", "%41.A", "_-~!@#", "a" * 255, "x:y", '"q"', "(z)"]
    positions = {name: await log.append(name, [_record(name)]) for name in names}
    for name, position in positions.items():
        last = await log.last(name)
        assert last is not None and (last.stream, last.position, last.value.decode()) == (name, position, name)
        assert [record.stream for record in await log.read(name)] == [name]
    assert [record.stream for record in await log.read(">")] == names


async def check_read_follows_patterns(log: Log) -> None:
    """``*`` stands for one token, a final ``>`` for the rest, and ``>`` alone for every stream."""
    for stream in ("orders.created", "orders.eu.created", "orders", "$run.1", "ordersX.created"):
        await log.append(stream, [_record(stream)])
    assert await _values(log, "orders.*") == ["orders.created"]
    assert await _values(log, "orders.>") == ["orders.created", "orders.eu.created"]
    assert await _values(log, "*.created") == ["orders.created", "ordersX.created"]
    assert await _values(log, "orders") == ["orders"]
    assert len(await _values(log, ">")) == 5
    assert await _values(log, "$run.>") == ["$run.1"]


async def check_read_pages(log: Log) -> None:
    """Reading on from the last position of an answer gives every record once; nothing comes back only at the end."""
    await log.append("a", [_record(str(i)) for i in range(25)])
    after, seen = 0, []
    while records := await log.read("a", after, limit=10):
        assert len(records) <= 10
        seen += [int(record.value) for record in records]
        after = records[-1].position
    assert seen == list(range(25))


async def check_last(log: Log) -> None:
    """``last`` is the stream's last record, and ``None`` for a stream without any."""
    assert await log.last("a") is None
    await log.append("a", [_record("1"), _record("2")])
    await log.append("b", [_record("3")])
    last = await log.last("a")
    assert last is not None and last.value == b"2"


async def check_expected_position(log: Log) -> None:
    """An append whose expected position does not fit writes nothing, and says what the position is."""
    first = await log.append("a", [_record("1")], expected_position=0)
    second = await log.append("a", [_record("2")], expected_position=first)
    for wrong in (0, first, second + 1):
        try:
            await log.append("a", [_record("no")], expected_position=wrong)
        except PositionConflictError as conflict:
            assert (conflict.stream, conflict.expected, conflict.actual) == ("a", wrong, second)
        else:
            raise AssertionError(f"expected_position={wrong} was accepted; the last position is {second}")
    assert await _values(log, "a") == ["1", "2"]


async def check_impossible_conditions_write_nothing(log: Log) -> None:
    """A negative position, and two different positions of one stream, are conditions that do not hold."""
    last = await log.append("a", [_record("1")])
    for appends in (
        [Append("a", [_record("no")], -1)],
        [Append("b", [_record("no")], -1)],
        [Append("a", [_record("no")], last), Append("a", [_record("no")], 0)],
        [Append("a", [_record("no")], 0), Append("a", [_record("no")], last)],
    ):
        try:
            await log.append_many(appends)
        except PositionConflictError:
            continue  # as promised
        raise AssertionError(f"{appends} was accepted")
    assert await _values(log, ">") == ["1"]


async def check_append_many_is_atomic(log: Log) -> None:
    """One condition that does not hold keeps every record of the call out."""
    await log.append("b", [_record("b1")])
    try:
        await log.append_many([Append("a", [_record("a1")], 0), Append("b", [_record("b2")], 0)])
    except PositionConflictError as conflict:
        assert conflict.stream == "b"
    else:
        raise AssertionError("a call with a condition that does not hold was accepted")
    assert await _values(log, ">") == ["b1"]
    last = await log.append_many([Append("a", [_record("a1"), _record("a2")], 0), Append("c", [_record("c1")])])
    assert await _values(log, ">") == ["b1", "a1", "a2", "c1"]
    stored = [record.position for record in await log.read(">", 1)]
    assert list(last) == [stored[1], stored[2]]


async def check_racing_conditions_have_one_winner(log: Log) -> None:
    """Of many appends at once that expect the same position, exactly one is accepted."""
    answers = await asyncio.gather(
        *(log.append("a", [_record(str(i))], expected_position=0) for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(answer, int) for answer in answers) == 1
    assert sum(isinstance(answer, PositionConflictError) for answer in answers) == 19
    assert len(await _values(log, "a")) == 1


async def check_append_now(log: Log) -> None:
    """What is appended without waiting is durable at once; where the engine declines, nothing was written."""
    found: list[str] = []
    for number in range(50):
        end_position = log.end_position
        position = log.append_now("a", [_record(str(number))])
        if position is None:
            assert log.end_position == end_position
            position = await log.append("a", [_record(str(number))])
        assert position == log.end_position > end_position
        found.append(str(number))
        last = await log.last("a")
        assert last is not None and last.value.decode() == str(number)
    assert await _values(log, "a") == found
    for _attempt in range(2):
        try:
            if log.append_now("a", [_record("x")], expected_position=0) is None:
                await log.append("a", [_record("x")], expected_position=0)
        except PositionConflictError as error:
            assert error.actual == log.end_position
        else:
            raise AssertionError("a condition that does not hold was let through")
    assert await _values(log, "a") == found


async def check_dedup_gives_the_first_answer(log: Log) -> None:
    """A repeated ``dedup_id`` gets the first call's answer, also when the expected position no longer fits."""
    first = await log.append("a", [_record("1")], expected_position=0, dedup_id="call-1")
    assert await log.append("a", [_record("1")], expected_position=0, dedup_id="call-1") == first
    both = await log.append_many([Append("a", [_record("2")]), Append("b", [_record("3")])], dedup_id="call-2")
    assert await log.append_many([Append("a", [_record("2")]), Append("b", [_record("3")])], dedup_id="call-2") == both
    assert await _values(log, ">") == ["1", "2", "3"]


async def check_dedup_goes_before_conditions(log: Log) -> None:
    """A repeated ``dedup_id`` gets all positions of the first call's answer, whatever it comes with this time."""
    await log.append("b", [_record("0")])
    call = [Append("a", [_record("1"), _record("2")], 0), Append("b", [_record("3")])]
    answer = await log.append_many(call, dedup_id="many")
    single = await log.append("c", [_record("4")], expected_position=0, dedup_id="one")
    assert await log.append_many(call, dedup_id="many") == answer
    assert await log.append_many([Append("a", [_record("x")], 7)], dedup_id="many") == answer
    assert await log.append_many([Append("z", [_record("x")] * 3)], dedup_id="many") == answer
    assert await log.append("c", [_record("x")], expected_position=7, dedup_id="one") == single
    assert await log.append("c", [_record("x")], expected_position=single, dedup_id="one") == single
    assert await log.append("z", [_record("x"), _record("x")], dedup_id="one") == single
    assert await _values(log, ">") == ["0", "1", "2", "3", "4"]


async def check_racing_duplicates_are_one(log: Log) -> None:
    """Of many calls at once with one ``dedup_id``, one is written and all get its answer."""
    answers = await asyncio.gather(*(log.append("a", [_record("1")], dedup_id="same") for _ in range(20)))
    assert len(set(answers)) == 1
    conditional = [log.append("b", [_record("2")], expected_position=0, dedup_id="if") for _ in range(20)]
    assert len(set(await asyncio.gather(*conditional))) == 1
    assert await _values(log, ">") == ["1", "2"]


async def check_tail_has_no_gap_and_no_duplicate(log: Log) -> None:
    """A tail that begins in mid history sees the rest and what is appended meanwhile, each record once and in order."""
    for i in range(50):
        await log.append("a" if i % 2 else "b", [_record(str(i))])
    expected = [str(i) for i in range(100) if i % 2]
    tail = asyncio.create_task(_collect(log.tail("a"), len(expected)))
    for i in range(50, 100):
        await log.append("a" if i % 2 else "b", [_record(str(i))])
    assert [record.value.decode() for record in await tail] == expected


async def check_tail_waits(log: Log) -> None:
    """A tail at the end of the log yields what comes next, and only that."""
    end = await log.append("a", [_record("old")])
    tail = asyncio.create_task(_collect(log.tail("a", end), 1))
    await log.append("b", [_record("other")])
    await log.append("a", [_record("new")])
    assert [record.value for record in await tail] == [b"new"]


async def check_cancelled_append_is_whole_or_absent(log: Log) -> None:
    """After a cancelled append all of its records are there, or none; a retry with the same ``dedup_id`` settles it."""
    task = asyncio.create_task(log.append("a", [_record("1"), _record("2")], dedup_id="cancelled"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await log.append("b", [_record("after")])
    assert await _values(log, "a") in ([], ["1", "2"])
    await log.append("a", [_record("1"), _record("2")], dedup_id="cancelled")
    assert await _values(log, "a") == ["1", "2"]


async def check_bad_arguments_write_nothing(log: Log) -> None:
    """Malformed names, patterns, limits and empty calls are refused, and leave the log as it was."""
    over = log.traits.max_batch_records + 1
    calls: list[Awaitable[object]] = [
        log.append("", [_record("x")]),
        log.append("a b", [_record("x")]),
        log.append("a.*", [_record("x")]),
        log.append("a" * 256, [_record("x")]),
        log.append("a", []),
        log.append("a", [Record(b"")] * over),
        log.append("a", [Record(bytes(log.traits.max_batch_bytes + 1))]),
        log.append("a", [_record("x")], dedup_id=""),
        log.append("a", [_record("x")], dedup_id="\ud800"),
        log.append_many([]),
        log.read("a.>.b"),
        log.read("a", limit=0),
        log.read("a", after=-1),
    ]
    for number, call in enumerate(calls):
        try:
            await call
        except InvalidArgumentError as error:
            assert error.code == "invalid-argument"
        else:
            raise AssertionError(f"bad call number {number} was accepted")
    assert log.end_position == 0


async def check_many_appenders(log: Log) -> None:
    """A hundred tasks that append at once each find their records in their own order."""

    async def appender(number: int) -> None:
        for i in range(20):
            await log.append(f"s.{number}", [_record(str(i))])

    await asyncio.gather(*map(appender, range(100)))
    for number in range(100):
        assert await _values(log, f"s.{number}") == [str(i) for i in range(20)]


LOG_CHECKS: tuple[Callable[[Log], Awaitable[None]], ...] = (
    check_positions_increase_strictly,
    check_records_come_back_as_written,
    check_any_header_comes_back,
    check_any_name_is_a_stream,
    check_read_follows_patterns,
    check_read_pages,
    check_last,
    check_expected_position,
    check_impossible_conditions_write_nothing,
    check_append_many_is_atomic,
    check_racing_conditions_have_one_winner,
    check_append_now,
    check_dedup_gives_the_first_answer,
    check_dedup_goes_before_conditions,
    check_racing_duplicates_are_one,
    check_tail_has_no_gap_and_no_duplicate,
    check_tail_waits,
    check_cancelled_append_is_whole_or_absent,
    check_bad_arguments_write_nothing,
    check_many_appenders,
)
"""Every check, in the order of the contract."""
