"""Dead letters: bounded whatever the events are, and never so many at once that they cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.codec import decode
from mainstem.bus import Bus, DeadLetter, Event, Retry
from mainstem.bus.cursors import NO_VALUE
from mainstem.bus.letters import LETTER_MAX_BYTES, VALUE_MAX_BYTES, letter_record
from mainstem.log import EmbeddedLog, Record, StoredRecord
from mainstem.log.contract import ABOUT, TRACEPARENT, Append
from tests.bus.test_bus import running
from tests.support import run, until


def _size_bytes(record: Record) -> int:
    return len(record.value) + len(record.key) + sum(len(f"{k}{v}".encode()) for k, v in record.headers.items())


@pytest.mark.parametrize("text", ["\x01", "\udcff", "é", '"'])
def test_no_letter_is_larger_than_the_bound(text: str) -> None:
    """Whatever is long in an event or its error, and however JSON escapes it, the letter holds a part of it."""
    long = text * (1 << 20)
    key = long.encode("utf-8", "surrogateescape")
    headers = {TRACEPARENT: "t" * 55, ABOUT: "order:1", "long": "x" * (1 << 20)}
    headers |= {f"header {number}": "x" * 100 for number in range(1000)}
    value = b'"' + b"x" * (VALUE_MAX_BYTES - 2) + b'"'
    kind = type("E" * 600, (ValueError,), {})
    record = letter_record(StoredRecord(7, "s" * 255, 0, value, key, headers), 5, kind(long))
    assert _size_bytes(record) <= LETTER_MAX_BYTES
    letter = decode(record.value, DeadLetter)
    assert (letter.position, letter.attempts, bytes(letter.value)) == (7, 5, value)
    assert record.key and key.startswith(record.key)
    assert record.headers[TRACEPARENT] == "t" * 55 and record.headers[ABOUT] == "order:1"
    assert "header 0" in record.headers and "long" not in record.headers


def test_a_letter_repeats_what_is_small() -> None:
    """A usual event's letter has its value, key and headers; a large value, or one that is no JSON, it has not."""
    error = ValueError("no")
    headers = {"tenant": "a"}
    record = letter_record(StoredRecord(1, "s", 0, b'{"a":1}', b"k", headers), 1, error)
    letter = decode(record.value, DeadLetter)
    assert (bytes(letter.value), letter.key, record.key, dict(record.headers)) == (b'{"a":1}', "k", b"k", headers)
    assert (letter.error_type, letter.error) == ("ValueError", "no")
    for value in (b"[" * 1000, b"\xff", b'"' + b"x" * VALUE_MAX_BYTES + b'"'):
        assert decode(letter_record(StoredRecord(1, "s", 0, value), 1, error).value, DeadLetter).value == NO_VALUE


def test_a_huge_key_does_not_stop_its_group(tmp_path: Path) -> None:
    """An event whose key fills half a commit is given up like any other, with its headers, and the next is handled."""
    seen: list[int] = []

    def declare(bus: Bus) -> None:
        @bus.subscribe("in.*", group="g", retry=Retry(max_attempts=1))
        async def handler(event: Event[int]) -> None:
            if event.value == 0:
                raise ValueError("no")
            seen.append(event.value)

    async def scenario() -> None:
        async with running(tmp_path, declare) as (bus, log):
            await log.append("in.a", [Record(b"0", b"k" * (9 << 20), {"tenant": "a"})])
            await bus.publish("in.a", 1)
            await until(lambda: seen == [1])
            letter = await until(lambda: log.last("$dead.g"))
            assert letter.headers["tenant"] == "a"
            await until(lambda: bus.groups()[0].lag == 0)
            assert bus.groups()[0].failure == ""

    run(scenario())


def test_letters_beyond_one_commit_go_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events given up while the log was busy, more than one append holds, are all written, each once."""
    records = [Record(b'"' + b"x" * 16_000 + b'"')] * 400
    gate = asyncio.Event()
    together = EmbeddedLog.append_many

    async def waits(self: EmbeddedLog, appends: Sequence[Append], **options: Any) -> tuple[int, ...]:
        await gate.wait()
        return await together(self, appends, **options)

    def declare(bus: Bus) -> None:
        @bus.subscribe("in.a", group="g")
        async def handler(event: Event[int]) -> None:
            raise AssertionError(event)

    async def scenario() -> None:
        monkeypatch.setattr(EmbeddedLog, "append_many", waits)
        async with running(tmp_path, declare) as (bus, log):
            ends = [await log.append("in.a", records) for _batch in range(3)]
            await until(lambda: bus.groups()[0].dead == 1200, 30.0)
            gate.set()
            await until(lambda: _is_saved(log, ends[-1]))
            assert bus.groups()[0].failure == ""
            positions = [one.position async for one in _letters(log)]
            assert positions == [position for end in ends for position in range(end - 399, end + 1)]

    async def _letters(log: EmbeddedLog) -> AsyncIterator[DeadLetter]:
        after = 0
        while batch := await log.read("$dead.g", after):
            for record in batch:
                yield decode(record.value, DeadLetter)
            after = batch[-1].position

    async def _is_saved(log: EmbeddedLog, position: int) -> bool:
        cursor = await log.last("$group.g")
        return cursor is not None and b'"position":%d' % position in cursor.value

    run(scenario())
