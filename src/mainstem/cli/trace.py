"""``mainstem trace``: what became of something, from its first record to the last step, along one line of time."""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from mainstem.bus.cursors import DEAD_PREFIX, GROUP_PREFIX
from mainstem.cli.arguments import add_data, add_json, positive
from mainstem.cli.errors import EXIT_OK, NotFoundError
from mainstem.cli.output import Output, Style, format_count, format_time, iso_time, printable
from mainstem.cli.reading import log_directory, open_data, read_all
from mainstem.flow.history import RunFold, describe_failure, run_id_of
from mainstem.flow.ids import check_run_id
from mainstem.flow.journal import JOURNAL_PREFIX
from mainstem.log import ABOUT, TRACEPARENT, ReadableLog, StoredRecord, owner_pid
from mainstem.trace.context import parse_traceparent
from mainstem.trace.spans import Span
from mainstem.trace.waterfall import LEGEND, Waterfall, build_waterfall, render_text
from mainstem.ui.format import format_duration
from mainstem.web.trace_view import trace_spans

_EPILOG = """\
ID is the id of a run, an upload or a video, a trace id (32 hexadecimal
digits), or an entity that records are about, such as order:1234. An entity
can have several traces; the latest come last.

Times are wall-clock. Waiting for a turn and work look different, and an
attempt that died with its process is marked. Of requests only those of
uploads are rows; others' traces are kept by the middleware ms.traced, and
begin here with what the request published or started. A subscriber is a row
where it started something or gave up; its log lines are not kept.

Examples:
  mainstem trace order-1234             a run, what led to it, what followed
  mainstem trace order:1234             everything that is about the order
  mainstem trace 01kb0qz3…              an upload: requests, waits, encoding
  mainstem trace order:1234 --no-lines  without log lines
  mainstem trace order-1234 --json      spans as JSON
"""

_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_NAMED_STREAMS = ("$run.", "$upload.", "$media.")
_LINES_PREFIX = "$lines."
_STYLES: Final[dict[str, Style]] = {
    "work": "green",
    "wait": "yellow",
    "died": "red",
    "error": "red",
    "running": "blue",
    "dim": "dim",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mainstem trace``."""
    parser.epilog = _EPILOG
    parser.add_argument("id", metavar="ID", help="id of a run, upload, video or trace, or an entity such as order:1234")
    parser.add_argument("--limit", metavar="N", type=positive, default=5, help="of an entity, show the latest N traces")
    parser.add_argument(
        "--lines", action=argparse.BooleanOptionalAction, default=True, help="log lines, too (the default)"
    )
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Show one or more traces; return 0."""
    asyncio.run(_trace(arguments, output))
    return EXIT_OK


class Trace(msgspec.Struct, frozen=True):
    """One trace, ready to be shown.

    Attributes:
        trace_id: 32 hexadecimal digits.
        about: The entities that its records are about.
        waterfall: Its rows.
        waiting: A sentence for each of its runs that waits for a decision: why.
    """

    trace_id: str
    about: tuple[str, ...]
    waterfall: Waterfall
    waiting: tuple[str, ...] = ()


async def _trace(arguments: argparse.Namespace, output: Output) -> None:
    async with open_data(arguments.data) as log:
        trace_ids = await find_traces(log, arguments.id)
        if not trace_ids:
            journal = [] if ":" in arguments.id else await log.read(JOURNAL_PREFIX + arguments.id)
            if waiting := _waiting(journal):
                raise NotFoundError(f"no trace is on record. {waiting[0]}", try_command=f"mainstem runs {arguments.id}")
            raise NotFoundError(
                f"nothing in {arguments.data} is called {arguments.id!r}: no run, upload, video, trace or entity.",
                try_command=f"mainstem runs --data {arguments.data}",
            )
        shown = trace_ids[-arguments.limit :]
        traces = await load_traces(log, shown, with_lines=arguments.lines)
    if output.as_json:
        output.document({"traces": [_as_json(trace) for trace in traces]})
        return
    if len(shown) < len(trace_ids):
        output.text(f"The latest {len(shown)} of {format_count(len(trace_ids), 'trace')}:\n")
    for index, trace in enumerate(traces):
        if index:
            output.text()
        for line in trace_lines(trace, output.width, lambda text, what: output.style(text, _STYLES.get(what))):
            output.text(line)
    is_running = any(row.span.status == "running" for trace in traces for row in trace.waterfall.rows)
    is_here = isinstance(arguments.data, Path)  # who runs on a log on a server cannot be told from here
    if is_running and is_here and not owner_pid(log_directory(arguments.data)):
        output.remark(
            f"No application runs on {arguments.data}: what is marked as running has not ended yet, and goes on when "
            "it is started again."
        )


async def find_traces(log: ReadableLog, name: str) -> list[str]:
    """Return the ids of the traces of a run, upload, video or entity (or the trace's own), the earliest first."""
    if ":" in name:
        return await _scan(log, lambda record: name in record.headers.get(ABOUT, "").split())
    if _TRACE_ID.fullmatch(name):
        return await _scan(log, lambda record: _trace_id(record) == name)
    check_run_id(name)
    found: dict[str, None] = {}
    for prefix in _NAMED_STREAMS:
        for record in await log.read(prefix + name, 0, 1):
            found[_trace_id(record)] = None
    return [trace_id for trace_id in found if trace_id]


async def _scan(log: ReadableLog, wanted: Callable[[StoredRecord], bool]) -> list[str]:
    found: dict[str, None] = {}
    async with aclosing(read_all(log, ">")) as records:
        async for record in records:
            if wanted(record):
                found[_trace_id(record)] = None
    return [trace_id for trace_id in found if trace_id]


def _trace_id(record: StoredRecord) -> str:
    context = parse_traceparent(record.headers.get(TRACEPARENT))
    return context.trace_id if context else ""


async def load_traces(log: ReadableLog, trace_ids: Sequence[str], *, with_lines: bool = True) -> list[Trace]:
    """Return traces with all their records, in the order given; one pass over the log."""
    by_trace: dict[str, list[StoredRecord]] = {trace_id: [] for trace_id in trace_ids}
    trace_of_stream: dict[str, str] = {}
    groups: dict[str, None] = {}
    async with aclosing(read_all(log, ">")) as records:
        async for record in records:
            trace_id = _trace_id(record)
            if record.stream.startswith(GROUP_PREFIX):
                groups[record.stream.removeprefix(GROUP_PREFIX)] = None
            elif record.stream.startswith("$") and not record.stream.startswith(DEAD_PREFIX):
                # A system stream belongs whole to the trace of its first record, and a run's log lines to the run's.
                subject = record.stream.replace(_LINES_PREFIX, "$run.", 1)
                trace_id = trace_of_stream.setdefault(subject, trace_id)
            if trace_id in by_trace:
                by_trace[trace_id].append(record)
    now_ns = time.time_ns()
    traces = []
    for trace_id, found in by_trace.items():
        # Lines tell of attempts, too, that have no record of an end: they are read, whether they are shown or not.
        spans = [
            _printable_span(span)
            for span in trace_spans(found, now_ns=now_ns, groups=groups)
            if with_lines or span.kind != "log"
        ]
        traces.append(Trace(trace_id, _entities(found), build_waterfall(spans, now_ns), _waiting(found)))
    return traces


def _waiting(records: Iterable[StoredRecord]) -> tuple[str, ...]:
    """Return a sentence for each run among some records that waits for a decision."""
    runs: dict[str, RunFold] = {}
    for record in records:
        if record.stream.startswith(JOURNAL_PREFIX):
            run_id = run_id_of(record.stream)
            runs.setdefault(run_id, RunFold(run_id)).apply(record)
    return tuple(f"Run {run.run_id} is {run.waiting}: {describe_failure(run)}" for run in runs.values() if run.waiting)


def _entities(records: Iterable[StoredRecord]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entity for record in records for entity in record.headers.get(ABOUT, "").split()))


def _printable_span(span: Span) -> Span:
    return msgspec.structs.replace(span, name=printable(span.name), detail=printable(span.detail))


def trace_lines(trace: Trace, width: int, paint: Callable[[str, str], str] | None = None) -> list[str]:
    """Return a trace as lines of text: a heading, the waterfall, the legend; ``paint`` as in :func:`render_text`."""
    colour = paint if paint is not None else lambda text, _what: text
    waterfall = trace.waterfall
    took, began = format_duration(waterfall.duration_ns), format_time(waterfall.start_ns)
    heading = [f"trace {trace.trace_id}  {took} from {began}"]
    if trace.about:
        heading.append("about " + printable(" ".join(trace.about)))
    heading += [printable(sentence) for sentence in trace.waiting]
    return [*heading, "", *render_text(waterfall, width, paint), "", colour(LEGEND, "dim")]


def _as_json(trace: Trace) -> dict[str, object]:
    waterfall = trace.waterfall
    return {
        "trace_id": trace.trace_id,
        "about": trace.about,
        "waiting": trace.waiting,
        "start": iso_time(waterfall.start_ns),
        "duration_ns": waterfall.duration_ns,
        "spans": [
            {
                **msgspec.structs.asdict(row.span),
                "depth": row.depth,
                "waited_ns": row.waited_ns,
                "worked_ns": row.worked_ns,
            }
            for row in waterfall.rows
        ],
    }
