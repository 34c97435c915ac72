"""The latest records of all streams, by stream and by trace: what runs, traces and live tails are drawn from."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mainstem.bus.cursors import GROUP_PREFIX
from mainstem.log.contract import TRACEPARENT, StoredRecord
from mainstem.trace.context import parse_traceparent
from mainstem.ui.panel import Page

KEPT_MAX_RECORDS: Final = 200_000
"""How many of the latest records the page state holds; older ones are in the log alone."""

VALUE_MAX_BYTES: Final = 64 * 1024
"""Longest payload that the page state holds; of a longer one its beginning, or a journal entry without its payload."""

BUCKET_S: Final = 10
"""Length of the intervals in which events and runs are counted."""

BUCKETS_KEPT: Final = 360
"""How many of these intervals are kept: an hour."""

SCHEMA: Final = """
CREATE TABLE records_record (
    position INTEGER PRIMARY KEY, stream TEXT NOT NULL, trace_id TEXT NOT NULL, time_ns INTEGER NOT NULL,
    key BLOB NOT NULL, headers BLOB NOT NULL, size_bytes INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX records_by_stream ON records_record (stream, position);
CREATE INDEX records_by_trace ON records_record (trace_id, position) WHERE trace_id != '';
CREATE TABLE records_stream (
    stream TEXT PRIMARY KEY, count INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    last_position INTEGER NOT NULL, last_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE records_count (
    bucket INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (bucket, name)) WITHOUT ROWID;
"""
"""The tables of the page state's records."""

_COLUMNS = "position, stream, time_ns, value, key, headers"
_HEAVY_FIELDS = ("result", "arguments")


class RecordsPanel:
    """Keeps the latest records. It has no pages of its own: the others read through the functions of this module."""

    name = "records"
    version = 1
    patterns = (">",)
    schema = SCHEMA

    def apply(self, db: sqlite3.Connection, records: Sequence[StoredRecord]) -> set[str]:
        """Take records in; the topics are ``streams``, ``stream:<name>`` and ``trace:<id>``."""
        topics = {"streams"}
        rows = []
        totals: dict[str, list[int]] = {}
        counts: Counter[tuple[int, str]] = Counter()
        for record in records:
            trace_id = trace_of(record)
            rows.append(_row(record, trace_id))
            size_bytes = len(record.value)
            total = totals.setdefault(record.stream, [0, 0, 0, 0])
            total[0] += 1
            total[1] += size_bytes
            total[2], total[3] = record.position, record.time_ns
            if not record.stream.startswith("$"):
                counts[record.time_ns // (BUCKET_S * 1_000_000_000), "events"] += 1
            topics.add("stream:" + record.stream)
            if trace_id:
                topics.add("trace:" + trace_id)
        db.executemany("INSERT OR REPLACE INTO records_record VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.executemany(
            "INSERT INTO records_stream VALUES (?, ?, ?, ?, ?) ON CONFLICT (stream) DO UPDATE SET count = count + "
            "excluded.count, size_bytes = size_bytes + excluded.size_bytes, last_position = excluded.last_position, "
            "last_ns = excluded.last_ns",
            [(stream, *total) for stream, total in totals.items()],
        )
        count_in_buckets(db, counts)
        db.execute("DELETE FROM records_record WHERE position <= ?", (records[-1].position - KEPT_MAX_RECORDS,))
        return topics

    def pages(self) -> Sequence[Page]:
        """Return no pages."""
        return ()


def trace_of(record: StoredRecord) -> str:
    """Return the id of the trace that a record belongs to, or an empty string."""
    context = parse_traceparent(record.headers.get(TRACEPARENT))
    return context.trace_id if context else ""


def _row(record: StoredRecord, trace_id: str) -> tuple[object, ...]:
    headers = msgspec.json.encode(dict(record.headers)) if record.headers else b"{}"
    value = record.value if len(record.value) <= VALUE_MAX_BYTES else _lightened(record)
    return (
        record.position,
        record.stream,
        trace_id,
        record.time_ns,
        record.key,
        headers,
        len(record.value),
        value,
    )


def _lightened(record: StoredRecord) -> bytes:
    """Return a long payload's beginning; of a system record all but its heavy fields, so that it still decodes."""
    if record.stream.startswith("$"):
        try:
            fields = msgspec.json.decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fields = None  # not ours: shown as bytes
        if isinstance(fields, dict):
            for name in _HEAVY_FIELDS:
                if name in fields:
                    fields[name] = f"({len(record.value)} bytes; too long for this page: mainstem tail has it in full)"
            lighter = msgspec.json.encode(fields)
            if len(lighter) <= VALUE_MAX_BYTES:
                return lighter
    return record.value[:VALUE_MAX_BYTES]


def count_in_buckets(db: sqlite3.Connection, counts: Counter[tuple[int, str]]) -> None:
    """Add to the counters of intervals, by (interval, name), and drop what is older than is kept."""
    if not counts:
        return
    db.executemany(
        "INSERT INTO records_count VALUES (?, ?, ?) ON CONFLICT (bucket, name) "
        "DO UPDATE SET count = count + excluded.count",
        [(bucket, name, count) for (bucket, name), count in counts.items()],
    )
    latest = max(bucket for bucket, _name in counts)
    db.execute("DELETE FROM records_count WHERE bucket <= ?", (latest - BUCKETS_KEPT,))


def counts_of(db: sqlite3.Connection, name: str, now_ns: int, buckets: int) -> list[int]:
    """Return the counts of the latest intervals, oldest first, the present one included."""
    latest = now_ns // (BUCKET_S * 1_000_000_000)
    found = dict(
        db.execute(
            "SELECT bucket, count FROM records_count WHERE name = ? AND bucket > ? AND bucket <= ?",
            (name, latest - buckets, latest),
        )
    )
    return [found.get(bucket, 0) for bucket in range(latest - buckets + 1, latest + 1)]


def of_stream(db: sqlite3.Connection, stream: str, *, before: int = 0, limit: int = 10_000) -> list[StoredRecord]:
    """Return the latest records of a stream in order; with ``before``, those in front of that position."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM records_record WHERE stream = ? AND position < ? ORDER BY position DESC LIMIT ?",  # noqa: S608 (constants)
        (stream, before or 1 << 62, limit),
    )
    return list(_records(rows))[::-1]


def first_of_stream(db: sqlite3.Connection, stream: str) -> StoredRecord | None:
    """Return the earliest record of a stream that is kept."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM records_record WHERE stream = ? ORDER BY position LIMIT 1",  # noqa: S608 (constants)
        (stream,),
    )
    return next(iter(_records(rows)), None)


def of_trace(db: sqlite3.Connection, trace_id: str, limit: int = 20_000) -> list[StoredRecord]:
    """Return the records of a trace in order."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM records_record WHERE trace_id = ? ORDER BY position LIMIT ?",  # noqa: S608 (constants)
        (trace_id, limit),
    )
    return list(_records(rows))


def group_names(db: sqlite3.Connection, limit: int = 200) -> list[str]:
    """Return the names of the log's consumer groups."""
    rows = db.execute(
        "SELECT stream FROM records_stream WHERE stream > ? AND stream < ? ORDER BY stream LIMIT ?",
        (GROUP_PREFIX, GROUP_PREFIX + "\x7f", limit),
    )
    return [stream.removeprefix(GROUP_PREFIX) for (stream,) in rows]


def _records(rows: Iterable[tuple[int, str, int, bytes, bytes, bytes]]) -> Iterable[StoredRecord]:
    for position, stream, time_ns, value, key, headers in rows:
        yield StoredRecord(position, stream, time_ns, value, key, msgspec.json.decode(headers, type=dict[str, str]))
