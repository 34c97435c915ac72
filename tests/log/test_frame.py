"""The format on disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.log.frame import (
    ALIGNMENT,
    COMMIT,
    HEADER_BYTES,
    Column,
    Commit,
    build_frame,
    encode_commit,
    encode_headers,
    frame_bytes,
    parse_header,
)

IDENTITY = {"log_id": 7, "segment": 3, "offset": 128, "first_position": 10, "time_ns": 5, "chain": 9}

records = st.lists(
    st.tuples(
        st.sampled_from(["a", "b.c", "ключ"]),
        st.binary(max_size=40),
        st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
        st.binary(max_size=200),
    ),
    min_size=1,
    max_size=30,
)


@given(
    records, st.lists(st.tuples(st.text(min_size=1), st.lists(st.integers(1, 99), min_size=1).map(tuple)), max_size=3)
)
def test_commit_round_trip(
    rows: list[tuple[str, bytes, dict[str, str], bytes]], calls: list[tuple[str, tuple[int, ...]]]
) -> None:
    """What goes into a commit's body comes out of it, record by record."""
    names = list(dict.fromkeys(row[0] for row in rows))
    body = encode_commit(
        names,
        [names.index(row[0]) for row in rows],
        Column.of([row[1] for row in rows]),
        Column.of([encode_headers(row[2]) for row in rows]),
        Column.of([row[3] for row in rows]),
        calls,
    )
    header, buffers = build_frame(COMMIT, body, record_count=len(rows), **IDENTITY)
    data = b"".join(buffers)
    assert len(data) == frame_bytes(len(body)) and len(data) % ALIGNMENT == 0
    assert parse_header(data[:HEADER_BYTES]) == header
    commit = Commit(header, data[HEADER_BYTES : HEADER_BYTES + header.body_bytes])
    assert [
        (commit.record(i).stream, commit.record(i).key, dict(commit.record(i).headers), commit.record(i).value)
        for i in range(len(rows))
    ] == rows
    assert [commit.record(i).position for i in range(len(rows))] == list(range(10, 10 + len(rows)))
    assert commit.calls == dict(calls)
    wanted = [name == names[0] for name in names]
    assert list(commit.rows_of(wanted)) == [i for i, row in enumerate(rows) if row[0] == names[0]]


def test_any_flipped_bit_of_a_header_is_noticed() -> None:
    """No single bit of the 64 can change without the header being refused."""
    _header, buffers = build_frame(COMMIT, b"body", record_count=1, **IDENTITY)
    head = buffers[0]
    for bit in range(HEADER_BYTES * 8):
        damaged = bytearray(head)
        damaged[bit // 8] ^= 1 << bit % 8
        assert parse_header(bytes(damaged)) is None
    assert parse_header(head[:-1]) is None


def test_headers_are_strings() -> None:
    """Headers that are no strings are refused before anything is written; no headers take no bytes."""
    assert encode_headers({}) == b""
    with pytest.raises(TypeError):
        encode_headers({"a": 1})  # type: ignore[dict-item]
