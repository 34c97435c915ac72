"""``mainstem tail``: the records of matching streams, the latest ones first of all, then as they come."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from mainstem.base.names import check_pattern
from mainstem.cli.arguments import add_data, add_json, position, positive
from mainstem.cli.output import Output, format_time, iso_time, printable
from mainstem.cli.reading import last_records_begin, open_data, read_all, readable_value
from mainstem.log import ABOUT, ReadableLog, StoredRecord
from mainstem.ui.format import shorten

_EPILOG = """\
A pattern is a stream's name; '*' stands for one token, a final '>' for the
rest. Quote it, the shell has other ideas. Streams that begin with '$' are the
system's: '$run.<id>' is a run's journal.

Examples:
  mainstem tail 'orders.>'                the last 10 events of all order
                                          streams, then new ones
  mainstem tail 'orders.*' --after 0 --no-follow
                                          all from the beginning, then end
  mainstem tail '$run.order-1234' --full  a run's journal, values uncut
  mainstem tail '>' --json | jq .stream   every record, one object a line
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mainstem tail``."""
    parser.epilog = _EPILOG
    parser.add_argument("pattern", metavar="PATTERN", help="stream name or pattern, such as 'orders.>'")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--after", metavar="POSITION", type=position, help="begin behind this position; 0: from the first"
    )
    where.add_argument(
        "--last", metavar="N", type=position, default=10, help="begin N records before the end (default: 10)"
    )
    parser.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on as new records come, until Ctrl-C (the default), or end where the log ends now",
    )
    parser.add_argument("--limit", metavar="N", type=positive, help="end after N records")
    parser.add_argument("--full", action="store_true", help="print whole values, however long")
    add_data(parser)
    add_json(parser, "one JSON object a line")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Print matching records; return 0."""
    asyncio.run(_tail(arguments, output))
    return 0


async def _tail(arguments: argparse.Namespace, output: Output) -> None:
    check_pattern(arguments.pattern)
    async with open_data(arguments.data) as log:
        after = arguments.after
        if after is None:
            after = await last_records_begin(log, arguments.pattern, arguments.last)
        printed = 0
        async with aclosing(_batches(log, arguments.pattern, after, follow=arguments.follow)) as batches:
            async for batch in batches:
                for record in batch:
                    _print_record(record, output, full=arguments.full)
                    printed += 1
                    if printed == arguments.limit:
                        return
                output.flush()


async def _batches(log: ReadableLog, pattern: str, after: int, *, follow: bool) -> AsyncGenerator[list[StoredRecord]]:
    if follow:
        async for batch in log.tail(pattern, after):
            yield list(batch)
        return
    async with aclosing(read_all(log, pattern, after)) as records:
        async for record in records:
            yield [record]


def _print_record(record: StoredRecord, output: Output, *, full: bool) -> None:
    if output.as_json:
        output.json_line(
            {
                "position": record.position,
                "stream": record.stream,
                "time": iso_time(record.time_ns),
                "key": record.key.decode(errors="backslashreplace"),
                "headers": dict(record.headers),
                **readable_value(record.value),
            }
        )
        return
    about = record.headers.get(ABOUT, "")
    head = f"{record.position:>8}  {format_time(record.time_ns)[11:]}  {printable(record.stream)}"
    notes = printable("  ".join(part for part in (record.key.decode(errors="backslashreplace"), about) if part))
    value = printable(record.value.decode(errors="backslashreplace"))
    if not full:
        room = max(24, output.width - len(head) - 2)
        notes = shorten(notes, room // 3)
        value = shorten(value, room - len(notes) - 2 if notes else room)
    line = f"{output.style(head, 'bold')}  {value}"
    output.text(line + (f"  {output.style(notes, 'dim')}" if notes else ""))
