"""The bus's pure parts: back-off, cursor, lanes, events."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.codec import decode, encode
from mainstem.base.errors import InvalidArgumentError
from mainstem.bus import Retry
from mainstem.bus.cursors import Cursor, CursorRecord, FailedAttempts
from mainstem.bus.events import KEY_MAX_BYTES, check_about, check_key
from mainstem.bus.lanes import Delivery, Lanes
from mainstem.log import StoredRecord


def test_delays_double_up_to_the_limit() -> None:
    """Without jitter the delays are base, twice that, and so on, at most ``max_s``."""
    retry = Retry(base_s=1.0, max_s=5.0, jitter=0.0)
    assert [retry.delay_s(attempt, random.Random(1)) for attempt in range(1, 6)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert retry.delay_s(1000, random.Random(1)) == 5.0


@given(attempt=st.integers(1, 1000), jitter=st.floats(0, 1), seed=st.integers())
def test_jitter_only_shortens(attempt: int, jitter: float, seed: int) -> None:
    """Jitter takes off at most its share, and never adds."""
    full_s = Retry(jitter=0.0).delay_s(attempt, random.Random(seed))
    delay_s = Retry(jitter=jitter).delay_s(attempt, random.Random(seed))
    assert full_s * (1 - jitter) <= delay_s <= full_s


def test_only_named_errors_are_retried() -> None:
    """``retry_on`` chooses, ``never_on`` overrules, and there is an end."""
    retry = Retry(max_attempts=3, retry_on=(OSError,), never_on=(FileNotFoundError,))
    assert retry.retries(OSError(), 2)
    assert not retry.retries(OSError(), 3)
    assert not retry.retries(ValueError(), 1)
    assert not retry.retries(FileNotFoundError(), 1)
    with pytest.raises(InvalidArgumentError, match="max_attempts"):
        Retry(max_attempts=0)


@pytest.mark.parametrize("types", [[ValueError], ValueError, ("ValueError",), (ValueError(),), {OSError}, None])
@pytest.mark.parametrize("field", ["retry_on", "never_on"])
def test_what_is_no_tuple_of_error_types_is_refused(field: str, types: Any) -> None:
    """A list, a single type or a name is refused when it is declared, not when the first event has failed."""
    with pytest.raises(InvalidArgumentError, match=f"{field}.*tuple"):
        Retry(**{field: types})


@pytest.mark.parametrize(
    "delays", [{"max_s": float("inf")}, {"base_s": float("nan")}, {"base_s": 1e300, "max_s": 1e300}]
)
def test_delays_are_bounded(delays: dict[str, float]) -> None:
    """A delay is a number of seconds, a hundred years at most."""
    with pytest.raises(InvalidArgumentError, match="max_s"):
        Retry(**delays)  # type: ignore[arg-type]


@given(st.data())
def test_a_cursor_forgets_nothing_and_repeats_nothing(data: st.DataObject) -> None:
    """Finished in any order and restarted anywhere: exactly the unfinished ones are to be done again."""
    positions = sorted(data.draw(st.sets(st.integers(1, 1000), max_size=40)))
    done: set[int] = set()
    saved = CursorRecord("a", 0)
    for _life in range(data.draw(st.integers(1, 4))):
        cursor = Cursor(saved)
        read: list[int] = []
        # Read in batches; in between some of what is open is finished, sometimes all of it. Not everything is read.
        for position in positions[: data.draw(st.integers(0, len(positions)))]:
            if position > saved.position:
                assert cursor.take_in(position) == (position not in done)
                if position not in done:
                    read.append(position)
                for finished in data.draw(st.lists(st.sampled_from(read), unique=True)) if read else []:
                    cursor.finish(finished)
                    read.remove(finished)
                    done.add(finished)
        assert cursor.open_count == len(read)
        saved = decode(encode(cursor.record()), CursorRecord)
        assert len(saved.done) <= len(positions) - len(done) + 1  # ranges lie between what is not done
    last = Cursor(saved)
    todo = [position for position in positions if position > saved.position and last.take_in(position)]
    assert todo == [position for position in positions if position not in done]


def test_a_cursor_keeps_attempts() -> None:
    """Failed attempts are part of the record until the event is done."""
    cursor = Cursor(CursorRecord("a", 0))
    cursor.take_in(3)
    cursor.fail(3, FailedAttempts(2, 99))
    assert decode(encode(cursor.record()), CursorRecord).attempts == {3: FailedAttempts(2, 99)}
    cursor.finish(3, dead=True)
    assert cursor.record() == CursorRecord("a", 3, dead=1)


def _delivery(position: int, key: str = "") -> Delivery:
    return Delivery(StoredRecord(position, "s", 0, b"", key.encode()))


def test_one_key_one_at_a_time() -> None:
    """Events of a key wait for the one before; others pass them."""
    lanes = Lanes(10)
    first, second, other, free = _delivery(1, "k"), _delivery(2, "k"), _delivery(3, "m"), _delivery(4)
    for delivery in (first, second, other, free):
        lanes.add(delivery)
    assert [lanes.take(0), lanes.take(0), lanes.take(0), lanes.take(0)] == [first, other, free, None]
    lanes.retry(first, 100)
    assert lanes.take(99) is None
    assert lanes.take(100) is first
    lanes.finish(first)
    assert lanes.take(0) is second


def test_no_more_at_once_than_allowed() -> None:
    """Nothing is handed out beyond the concurrency."""
    lanes = Lanes(2)
    for position in range(5):
        lanes.add(_delivery(position))
    one, two = lanes.take(0), lanes.take(0)
    assert lanes.take(0) is None
    assert one is not None
    assert two is not None
    lanes.finish(one)
    assert lanes.take(0) is not None
    assert lanes.take(0) is None


def test_what_waits_is_counted_in_bytes() -> None:
    """Values, keys and headers of all that is not being handled: behind its key, ready, or waiting for a retry."""
    lanes = Lanes(10)
    first = Delivery(StoredRecord(1, "s", 0, b"12345", b"k", {"ab": "c"}))
    second = Delivery(StoredRecord(2, "s", 0, b"1234567", b"k"))
    for delivery in (first, second):
        lanes.add(delivery)
    assert lanes.waiting_bytes == 9 + 8
    assert lanes.take(0) is first
    assert lanes.waiting_bytes == 8
    lanes.retry(first, 100)
    assert lanes.waiting_bytes == 9 + 8
    assert lanes.take(100) is first
    lanes.finish(first)
    assert lanes.take(100) is second
    assert lanes.waiting_bytes == 0


@pytest.mark.parametrize("about", [["order"], ["order:"], [":1"], ["a:b c"], ["a:\n"], [f"a:{n}" for n in range(33)]])
def test_entities_are_checked(about: list[str]) -> None:
    """An entity is a kind, a colon and an id without white space; 32 at most."""
    with pytest.raises(InvalidArgumentError):
        check_about(about)


@pytest.mark.parametrize("key", ["k" * (KEY_MAX_BYTES + 1), "é" * KEY_MAX_BYTES, "\udcff", 5, b"k"])
def test_keys_are_checked(key: Any) -> None:
    """A key is text of at most 1,024 bytes."""
    with pytest.raises(InvalidArgumentError, match=r"key.*Nothing was published"):
        check_key(key)
    assert check_key("é" * (KEY_MAX_BYTES // 2)) == b"\xc3\xa9" * (KEY_MAX_BYTES // 2)
