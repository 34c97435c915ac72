"""Spans: intervals of work or waiting, derived from records, drawn as one waterfall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

SpanKind = Literal["request", "event", "run", "step", "wait", "log"]
"""What a span is: a request at an edge, an event (no length), a run, an attempt of a step, waiting, a log line."""

SpanStatus = Literal["ok", "error", "died", "running"]
"""How it ended: well, with an error, because its process died, or not yet."""


class UnderWay(msgspec.Struct, frozen=True):
    """An attempt that is being carried out at this moment: what only the process that does it knows.

    Attributes:
        key: The step's place in its run, such as ``map#1[17]/charge#1``.
        attempt: Its number, from 1.
        started_ns: Wall-clock time at which its work began.
    """

    key: str
    attempt: int
    started_ns: int


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a waterfall.

    Attributes:
        trace_id: The trace, 32 hexadecimal digits.
        span_id: This span, 16 hexadecimal digits; empty for waits and log lines.
        parent_id: The span above; empty for the first.
        name: What a person reads, such as ``"encode#3"``.
        kind: See :data:`SpanKind`.
        start_ns: Wall-clock time of its start.
        end_ns: Wall-clock time of its end; equals ``start_ns`` for an instant; 0 while it runs.
        status: See :data:`SpanStatus`.
        detail: One short line: an error, an attempt, a size.
        position: Position of the record that shows it, for a link.
        attributes: Further facts, by name.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    status: SpanStatus = "ok"
    detail: str = ""
    position: int = 0
    attributes: Mapping[str, str] = {}
