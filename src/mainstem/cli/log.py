"""``mainstem log``: whether a log's files are sound, what a repair makes of damaged ones, and how much is in them."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainstem.base.names import is_system_stream
from mainstem.cli.arguments import DEFAULT_DATA, add_json, place, positive
from mainstem.cli.errors import EXIT_FAILED, EXIT_OK
from mainstem.cli.output import Output, format_count, format_time, iso_time, layout, printable
from mainstem.cli.reading import log_directory, open_data, read_all
from mainstem.host.clock import SystemClock
from mainstem.host.disk import SystemDisk
from mainstem.log import owner_pid
from mainstem.log.embedded.repair import repair_directory
from mainstem.log.embedded.verify import verify_directory
from mainstem.ui.format import format_bytes

if TYPE_CHECKING:
    from mainstem.log.engines.nats import NatsAddress

_EPILOG = """\
verify and stats only read, and work beside a running application. repair
needs that none runs, and changes nothing unless --yes is given.

Examples:
  mainstem log stats                 records, streams and bytes of ./data
  mainstem log stats --streams 20    with the 20 largest streams
  mainstem log verify backup/data    read and check every frame; exit code 1
                                     where one is damaged
  mainstem log repair data           what a repair would keep, and what is gone
"""

_VERIFY_EPILOG = """\
Every frame is read and checked: its checksum, its place, and that it follows
the one before it. A damage is named by file, byte and position; nothing is
changed. A write that a crash cut short is no damage: it was never
acknowledged.

Exit codes: 0 sound, 1 damaged, 3 no log there.
"""

_REPAIR_EPILOG = """\
For a log that does not open. Restore it from a copy, if there is one: that
keeps more. Every record that can still be proven is kept at its position, also
behind the damage. Positions that are gone are named, and are never given
again. Files of which something is not kept are copied whole to set-aside/
first. Without --yes it says what it would do, and changes nothing. It may be
interrupted at any moment, and done again.

Exit codes: 0 sound, or repaired; 1 damaged and not repaired; 3 no log there.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add ``verify``, ``repair`` and ``stats``."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser(
        "verify",
        help="check every frame of a log",
        description="Check every frame of a log.",
        epilog=_VERIFY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    repair = actions.add_parser(
        "repair",
        help="make a damaged log open again, and tell what is gone",
        description="Make a damaged log open again, and tell what is gone.",
        epilog=_REPAIR_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    repair.add_argument("--yes", action="store_true", help="do it; without this, only say what would be done")
    stats = actions.add_parser(
        "stats",
        help="tell how much a log holds",
        description="Tell how much a log holds, from when, and who runs on it. PLACE may be nats://HOST/NAME.",
        epilog="Examples:\n  mainstem log stats\n  mainstem log stats /srv/shop/data --streams 5 --json\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stats.add_argument("--streams", metavar="N", type=positive, help="list the N largest streams (reads the whole log)")
    for action in (verify, repair, stats):
        action.add_argument(
            "directory",
            metavar="PLACE",
            type=place,
            nargs="?",
            default=Path(DEFAULT_DATA),
            help=f"data directory, or the log directory within (default: {DEFAULT_DATA})",
        )
        add_json(action)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Verify, repair or measure; return 1 where there is damage, and was before and behind."""
    if arguments.action == "verify":
        return _verify(arguments.directory, output)
    if arguments.action == "repair":
        return _repair(arguments.directory, output, carry_out=arguments.yes)
    asyncio.run(_stats(arguments, output))
    return EXIT_OK


def _verify(data: Path | NatsAddress, output: Output) -> int:
    directory = log_directory(data)
    report = verify_directory(SystemDisk(), directory)
    if output.as_json:
        output.document({"directory": str(directory), "sound": report.sound, **msgspec.structs.asdict(report)})
        return EXIT_OK if report.sound else EXIT_FAILED
    for finding in report.findings:
        output.text(f"{output.style('damaged', 'red')}  {printable(finding)}")
    if report.torn:
        owner = owner_pid(directory)
        note = f"process {owner} may be writing it just now" if owner else "a crash cut it short"
        output.text(f"{output.style('unfinished', 'yellow')}  {printable(report.torn)} ({note})")
    amounts = ((report.segments, "segment"), (report.commits, "commit"), (report.records, "record"))
    read = (
        ", ".join(format_count(number, noun) for number, noun in amounts) + f", up to position {report.end_position:,}"
    )
    for gone in report.gone:
        output.text(f"{output.style('gone', 'yellow')}  {gone}")
    if report.sound:
        output.text(f"{output.style('sound', 'green')}  {directory}: {read}")
        return EXIT_OK
    output.text(f"Sound before that: {read}. Nothing was changed; keep a copy of {directory} before you try anything.")
    output.text(f"What a repair would keep:  mainstem log repair {directory}")
    return EXIT_FAILED


def _repair(data: Path | NatsAddress, output: Output, *, carry_out: bool) -> int:
    directory = log_directory(data)
    report = repair_directory(SystemDisk(), SystemClock(), directory, carry_out=carry_out)
    sound = not report.findings
    code = EXIT_OK if sound or report.done else EXIT_FAILED
    if output.as_json:
        output.document({"directory": str(directory), "sound": sound, **msgspec.to_builtins(report)})
        return code
    records = format_count(report.records, "record")
    if sound:
        output.text(f"{output.style('sound', 'green')}  {directory}: {records}; there is nothing to repair")
        return code
    for finding in report.findings:
        output.text(f"{output.style('damaged', 'red')}  {printable(finding)}")
    for gone in report.gone:
        output.text(f"{output.style('gone', 'red')}  {gone}")
    for name in report.set_aside:
        output.text(f"{output.style('aside', 'yellow')}  {printable(name)}")
    for name in report.restored:
        output.text(
            f"{output.style('found', 'yellow')}  {printable(name)} holds another segment, which is put in place"
        )
    loss = "with gaps" if report.gone else "all that was acknowledged"
    kept = f"{directory}: {records}, {loss}; the log goes on at position {report.next_position:,}"
    if report.done:
        output.text(f"{output.style('repaired', 'green')}  {kept}")
        return code
    output.text(f"A repair would leave {kept}.")
    output.text(f"Nothing was changed. To do it:  mainstem log repair {directory} --yes")
    return code


class _StreamSize(msgspec.Struct):
    """Size of one stream, or of all system streams of one kind together."""

    stream: str
    streams: int = 0
    records: int = 0
    value_bytes: int = 0
    last_position: int = 0
    last_time_ns: int = 0


async def _stats(arguments: argparse.Namespace, output: Output) -> None:
    data: Path | NatsAddress = arguments.directory
    where = log_directory(data) if isinstance(data, Path) else data
    async with open_data(data) as log:
        stats = await log.stats()
        first = await log.read(">", 0, 1)
        last = await log.read(">", stats.end_position - 1, 1) if stats.end_position else []
        sizes = await _stream_sizes(data) if arguments.streams else []
    owner = owner_pid(where) if isinstance(where, Path) else 0
    largest = sorted(sizes, key=lambda size: (-size.value_bytes, size.stream))[: arguments.streams or 0]
    if output.as_json:
        output.document(
            {
                "directory": str(where),
                **msgspec.structs.asdict(stats),
                "first_time": iso_time(first[0].time_ns) if first else None,
                "last_time": iso_time(last[0].time_ns) if last else None,
                "owner_pid": owner or None,
                "streams": [msgspec.structs.asdict(size) for size in largest],
            }
        )
        return
    lines = [
        ("log", str(where)),
        (
            "records",
            f"{stats.record_count:,} in {format_count(stats.stream_count, 'stream')}, end {stats.end_position:,}",
        ),
    ]
    if isinstance(where, Path):
        files = f"{format_count(stats.segment_count, 'segment')}, {format_bytes(stats.size_bytes)} allocated"
        lines.append(("files", files))
    else:
        lines.append(("size", f"{format_bytes(stats.size_bytes)} on the server"))
    if first and last:
        lines.append(("from", f"{format_time(first[0].time_ns)} to {format_time(last[0].time_ns)}"))
    if isinstance(where, Path):
        lines.append(("owner", f"process {owner}" if owner else "nobody runs on it"))
    for line in layout(lines):
        output.text(line)
    if largest:
        output.text()
        rows = [("stream", "records", "bytes", "last position", "last time")]
        rows += [
            (
                printable(size.stream)
                + (f" ({format_count(size.streams, 'stream')})" if size.stream.endswith(".>") else ""),
                f"{size.records:,}",
                format_bytes(size.value_bytes),
                str(size.last_position),
                format_time(size.last_time_ns),
            )
            for size in largest
        ]
        head, *body = layout(rows, right=frozenset({1, 2, 3}), width=output.width)
        output.text(output.style(head, "dim"))
        for line in body:
            output.text(line)


async def _stream_sizes(data: Path | NatsAddress) -> list[_StreamSize]:
    """Measure streams; the system's, of which there is one for each run and upload, are put together by their kind."""
    sizes: dict[str, _StreamSize] = {}
    names: set[str] = set()
    async with open_data(data) as log, aclosing(read_all(log, ">")) as records:
        async for record in records:
            group = record.stream.partition(".")[0] + ".>" if is_system_stream(record.stream) else record.stream
            size = sizes.setdefault(group, _StreamSize(group))
            if record.stream not in names:
                names.add(record.stream)
                size.streams += 1
            size.records += 1
            size.value_bytes += len(record.value)
            size.last_position, size.last_time_ns = record.position, record.time_ns
    return list(sizes.values())
