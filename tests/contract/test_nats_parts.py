"""The pure parts of the NATS engine: addresses, messages, answers, calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.errors import InvalidArgumentError
from mainstem.log import PositionConflictError, Record
from mainstem.log.engines.nats import NatsAddress, NatsSettings, is_nats, parse_address, wire
from mainstem.log.engines.nats.calls import Limits, make_call

LIMITS = Limits(10, 10_000, 4096)


def test_an_address_is_taken_apart() -> None:
    """Servers, user, name and what the operator vouches for."""
    address = parse_address("tls://me:p%40ss@a.example:4222,[::1]:4223/orders?sync=always")
    assert address == NatsAddress("tls", "me:p%40ss", ("a.example:4222", "[::1]:4223"), "orders", synced=True)
    assert address.servers == ["tls://me:p%40ss@a.example:4222", "tls://me:p%40ss@[::1]:4223"]
    assert parse_address("nats://localhost") == NatsAddress("nats", "", ("localhost",), "mainstem", synced=False)
    assert is_nats("nats://localhost")
    assert not is_nats("data")


def test_an_address_shows_no_password() -> None:
    """Neither as text nor in the error about a malformed one."""
    assert "secret" not in str(parse_address("nats://me:secret@localhost/x"))
    with pytest.raises(InvalidArgumentError) as caught:
        parse_address("nats://me:secret@local host/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "kafka://a",
        "nats://",
        "nats://a:0",
        "nats://a:70000",
        "nats://a,,b",
        "nats://a/b/c",
        "nats://a/b.c",
        "nats://a/*",
        "nats://a/b?sync=never",
        "nats://a/b?sync=always&x=1",
        "nats://a/b?replicas=3",
        "nats://a/b#c",
        "nats://a b/c",
    ],
)
def test_a_malformed_address_is_refused(address: str) -> None:
    """What is no address of a log, or has an option that there is not, is refused."""
    with pytest.raises(InvalidArgumentError):
        parse_address(address)


@pytest.mark.parametrize(
    "settings",
    [
        {"patience_s": 120.0},
        {"patience_s": 0.0},
        {"replicas": 2},
        {"answer_s": 0},
        {"batches_max": 0},
        {"singles_max": 0},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, float]) -> None:
    """Patience beyond the dedup window, and numbers that make no sense, are refused."""
    with pytest.raises(InvalidArgumentError):
        NatsSettings(**settings)  # type: ignore[arg-type]


@given(
    key=st.binary(max_size=50),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=30), max_size=5).filter(
        lambda headers: "\udc00" not in "".join([*headers, *headers.values()])
    ),
)
def test_what_is_written_is_read(key: bytes, headers: dict[str, str]) -> None:
    """Any key and headers pass through a message's headers, which are printable ASCII on single lines."""
    fields = wire.fields_of(Record(b"", key, headers))
    for name, value in fields.items():
        assert name.isascii() and name.isprintable() and ":" not in name and " " not in name
        assert value.isascii() and value.isprintable() and value == value.strip()
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    assert wire.fields_bytes(fields) == len(f"NATS/1.0\r\n{lines}\r\n")
    read = wire.fields_of_lines(f"NATS/1.0\r\n{lines}\r\n".encode())
    record = wire.record_of(7, "a", 8, b"v", read)
    assert (record.key, dict(record.headers)) == (key, headers)
    assert (record.position, record.stream, record.time_ns, record.value) == (7, "a", 8, b"v")


def test_plain_headers_are_headers_of_the_message() -> None:
    """Other NATS clients see a trace context under its own name."""
    assert wire.fields_of(Record(b"", headers={"traceparent": "00-1-2-01"})) == {"traceparent": "00-1-2-01"}


def test_a_header_that_no_text_is() -> None:
    """A lone surrogate is an error before anything is sent."""
    with pytest.raises(InvalidArgumentError, match="UTF-8"):
        wire.fields_of(Record(b"", headers={"a": "\ud800"}))


def test_times_and_replies() -> None:
    """Nanoseconds are kept; a consumer's reply subject is read in its short and its long form."""
    assert wire.time_ns_of("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert wire.time_ns_of("1970-01-01T00:01:00Z") == 60_000_000_000
    short = wire.delivered_of("$JS.ACK.log.tail.1.42.7.1500.0")
    long = wire.delivered_of("$JS.ACK.domain.hash.log.tail.1.42.7.1500.0.random")
    assert short == long == wire.Delivered(42, 7, 1500)
    assert wire.delivered_of("_INBOX.x.1") is None


def test_what_refusals_mean() -> None:
    """Known numbers have a meaning; what is unknown is final, unless the server says that it is unavailable."""
    meanings = {
        10071: "conflict",
        10201: "duplicate",
        10176: "passing",
        10047: "full",
        10199: "invalid",
        10077: "unknown",
    }
    for number, meaning in meanings.items():
        assert wire.judge(wire.ApiError(400, number, "")) == meaning
    assert wire.judge(wire.ApiError(503, 10077, "maximum bytes exceeded")) == "full"
    assert wire.judge(wire.ApiError(503, 99999, "")) == "passing"
    assert wire.judge(wire.ApiError(400, 99999, "")) == "refused"


def test_positions_of_an_answer() -> None:
    """The last position of each append follows from the first one and the counts."""
    assert wire.positions_of(10, "") == (10,)
    assert wire.positions_of(10, "2,1,3") == (11, 12, 15)


def test_a_call_as_messages() -> None:
    """The id is on the first message, each stream's condition on its own first, the commit on the last."""
    records = [Record(b"1"), Record(b"2")]
    call = make_call([("a", records, None), ("b", records, 7), ("a", records[:1], 3)], "my call", "", LIMITS)
    fields = [call.fields(index, "batch") for index in range(5)]
    assert [one.get(wire.MESSAGE_ID) for one in fields] == ["call:my%20call", None, None, None, None]
    assert [one.get(wire.EXPECTED) for one in fields] == ["3", None, "7", None, None]
    assert [one.get(wire.BATCH_COMMIT) for one in fields] == [None, None, None, None, "1"]
    assert [one[wire.BATCH_SEQUENCE] for one in fields] == ["1", "2", "3", "4", "5"]
    assert fields[0][wire.COUNTS] == "2,2,1"
    assert not call.contradicts
    single = make_call([("a", records[:1], None)], None, "fresh", LIMITS)
    assert single.fields(0) == {wire.MESSAGE_ID: "fresh"}


def test_what_is_too_large_names_the_limit() -> None:
    """A record over max_payload, headers over 64 KiB, and a batch over its limits are refused with the number."""
    with pytest.raises(InvalidArgumentError, match="max_payload of 4096 bytes"):
        make_call([("a", [Record(bytes(4096))], None)], None, "", LIMITS)
    with pytest.raises(InvalidArgumentError, match="65535"):
        make_call([("a", [Record(b"", headers={"a": "x" * 65_535})], None)], None, "", Limits(10, 1 << 20, 1 << 20))
    with pytest.raises(InvalidArgumentError, match="10 records and 10000 bytes"):
        make_call([("a", [Record(b"")] * 11, None)], None, "", LIMITS)
    with pytest.raises(InvalidArgumentError, match="10 records and 10000 bytes"):
        make_call([("a", [Record(bytes(3000))] * 4, None)], None, "", LIMITS)
    with pytest.raises(InvalidArgumentError, match="got str"):
        make_call([("a", [Record("text")], None)], None, "", LIMITS)  # type: ignore[arg-type]


def test_the_conflict_is_the_contracts() -> None:
    """A caller catches the same error on every engine."""
    assert PositionConflictError("a", 1, 2).code == "log-position-conflict"
