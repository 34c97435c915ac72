"""``mainstem runs``: what ran, what became of one run, and changing one."""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import Final, get_args

import msgspec

from mainstem.cli.arguments import add_data, add_json, positive
from mainstem.cli.attempts import Attempt, attempts_of
from mainstem.cli.errors import EXIT_OK, NotFoundError, UsageError
from mainstem.cli.output import Output, Style, format_count, format_time, iso_time, layout, printable
from mainstem.cli.reading import open_data, read_all
from mainstem.cli.running import named_server, owner_pid, running_server, wish_for
from mainstem.flow.history import RunFold, RunSummary, State, fold_run, read_entry, read_line, run_id_of
from mainstem.flow.ids import check_run_id
from mainstem.flow.journal import JOURNAL_PREFIX, LOG_LINES_PREFIX, LogLine, RunCompleted, Started
from mainstem.log import ReadableLog, StoredRecord
from mainstem.ui.format import format_duration, shorten

_EPILOG = """\
States: scheduled, queued (a job, or a run of a workflow with a limit, of which
nothing is on record yet: it waits for its turn, or is at its first attempt; the
dashboard knows which), running,
sleeping, retrying, completed, failed, cancelled; and two that wait for your
decision: paused (its history does not fit its code, or this version cannot
read its journal) and quarantined (its process died too often without progress).

Examples:
  mainstem runs                              the latest 20, newest first
  mainstem runs --state failed --limit 100   those that failed
  mainstem runs --function fulfil --state running --state sleeping
  mainstem runs order-1234                   one run: arguments, attempts,
                                             result, log lines
  mainstem runs resume order-1234            try a waiting run again
  mainstem runs cancel order-1234 --reason 'ordered twice'
  mainstem runs resume order-1234 --url http://127.0.0.1:8000/mainstem
                                             under a server of your own

Listing and showing read the log and need no running application; cancel and
resume need one (exit code 4 without). mainstem dev leaves its address in the
data directory; under any other server name it with --url, and its token, where
it has one, in $MAINSTEM_TOKEN.
"""

_STATE_STYLE: Final[dict[State, Style]] = {
    "completed": "green",
    "failed": "red",
    "quarantined": "red",
    "paused": "yellow",
    "retrying": "yellow",
    "running": "blue",
    "cancelled": "dim",
}
_OUTCOME_STYLE: Final[dict[str, Style]] = {
    "failed": "red",
    "died": "red",
    "running": "blue",
    "ok": "green",
    "broken off": "dim",
}
_CHANGES = ("cancel", "resume")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mainstem runs``."""
    parser.epilog = _EPILOG
    parser.usage = "mainstem runs [ID | cancel ID | resume ID] [options]"
    parser.add_argument(
        "words", metavar="ID", nargs="*", help="a run to show, or 'cancel' or 'resume' and a run to change"
    )
    parser.add_argument(
        "--state",
        action="append",
        choices=get_args(State),
        metavar="STATE",
        help="only runs in this state (repeatable)",
    )
    parser.add_argument("--function", metavar="NAME", help="only runs of this workflow or job")
    parser.add_argument("--limit", metavar="N", type=positive, default=20, help="list at most N runs (default: 20)")
    parser.add_argument("--reason", default="", help="why a run is cancelled or resumed; it is kept with the run")
    parser.add_argument("--url", metavar="URL", help="where the dashboard is, unless mainstem dev runs it")
    parser.add_argument(
        "--token", help="what that dashboard demands (better in $MAINSTEM_TOKEN: others can see arguments)"
    )
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """List, show or change; return 0."""
    match arguments.words:
        case []:
            asyncio.run(_list(arguments, output))
        case [("cancel" | "resume") as change, run_id]:
            _change(change, check_run_id(run_id), arguments, output)
        case ["show", run_id] | [run_id] if run_id not in _CHANGES:
            asyncio.run(_show(check_run_id(run_id), arguments, output))
        case _:
            raise UsageError(
                f"'mainstem runs {' '.join(arguments.words)}': expected nothing, an id, or cancel or resume and one.",
                try_command="mainstem runs --help",
            )
    return EXIT_OK


async def fold_runs(log: ReadableLog) -> tuple[dict[str, RunFold], int]:
    """Return all runs of a log by id, and how many journal records this version cannot read."""
    folds: dict[str, RunFold] = {}
    unknown = 0
    async with aclosing(read_all(log, JOURNAL_PREFIX + ">")) as records:
        async for record in records:
            run_id = run_id_of(record.stream)
            fold = folds.setdefault(run_id, RunFold(run_id))
            if fold.apply(record) is None:
                unknown += 1
    return folds, unknown


async def _list(arguments: argparse.Namespace, output: Output) -> None:
    async with open_data(arguments.data) as log:
        folds, unknown = await fold_runs(log)
    # Of a log on a server it cannot be told from here: nothing is said then.
    has_owner = not isinstance(arguments.data, Path) or owner_pid(arguments.data) != 0
    now_ns = time.time_ns()
    wanted = [
        summary
        for summary in (fold.summary(now_ns) for fold in folds.values() if fold.function or fold.unreadable)
        if (not arguments.state or summary.state in arguments.state)
        and (not arguments.function or summary.function == arguments.function)
    ]
    wanted.sort(key=lambda summary: (summary.started_ns, summary.position), reverse=True)
    shown = wanted[: arguments.limit]
    if unknown:
        output.remark(f"{format_count(unknown, 'journal record')} cannot be read by this version of mainstem")
    if output.as_json:
        output.document({"total": len(wanted), "runs": [_as_json(summary) for summary in shown]})
        return
    if not shown:
        output.text("No runs." if not folds else f"None of {format_count(len(folds), 'run')} is like that.")
        return
    rows: list[tuple[str, ...]] = [("state", "run", "function", "started", "took", "steps", "")]
    rows += [_list_row(summary, now_ns) for summary in shown]
    head, *body = layout(rows, right=frozenset({4, 5}), width=output.width)
    output.text(output.style(head, "dim"))
    for summary, line in zip(shown, body, strict=True):
        cells = len(summary.state)
        output.text(output.style(line[:cells], _STATE_STYLE.get(summary.state)) + line[cells:])
    if len(wanted) > len(shown):
        output.text(
            output.style(f"… and {format_count(len(wanted) - len(shown), 'more run')}: --limit {len(wanted)}", "dim")
        )
    if not has_owner and any(fold.is_open for fold in folds.values()):
        output.remark(f"No application runs on {arguments.data}: open runs go on when it is started again.")


def _list_row(summary: RunSummary, now_ns: int) -> tuple[str, ...]:
    took_ns = (summary.ended_ns or now_ns) - summary.started_ns
    note = summary.message
    if not note and summary.wake_at_ns:
        note = f"{'wakes' if summary.state == 'sleeping' else 'begins'} at {format_time(summary.wake_at_ns)[:-4]}"
    return (
        summary.state,
        printable(summary.run_id),
        printable(summary.function),
        format_time(summary.started_ns)[:-4],
        format_duration(max(0, took_ns)),
        str(summary.steps),
        printable(note),
    )


def _as_json(summary: RunSummary) -> dict[str, object]:
    """Return a summary with times as programs want them beside the nanoseconds."""
    return {
        **msgspec.structs.asdict(summary),
        "started": iso_time(summary.started_ns),
        "ended": iso_time(summary.ended_ns) if summary.ended_ns else None,
    }


class _RunFacts(msgspec.Struct, frozen=True):
    """All that is shown of one run."""

    summary: RunSummary
    arguments: msgspec.Raw
    result: msgspec.Raw | None
    traceback: str
    attempts: list[Attempt]
    lines: list[LogLine]


async def _show(run_id: str, arguments: argparse.Namespace, output: Output) -> None:
    async with open_data(arguments.data) as log:
        async with aclosing(read_all(log, JOURNAL_PREFIX + run_id)) as records:
            journal = [record async for record in records]
        async with aclosing(read_all(log, LOG_LINES_PREFIX + run_id)) as records:
            lines = [record async for record in records]
    if not journal:
        raise NotFoundError(
            f"there is no run {run_id!r} in {arguments.data}.", try_command=f"mainstem runs --data {arguments.data}"
        )
    facts = _facts(run_id, journal, lines)
    if output.as_json:
        output.document(
            {
                **_as_json(facts.summary),
                "arguments": facts.arguments,
                "result": facts.result,
                "traceback": facts.traceback,
                "attempts": facts.attempts,
                "lines": facts.lines,
            }
        )
        return
    _print_run(facts, output)


def _facts(run_id: str, journal: list[StoredRecord], lines: list[StoredRecord]) -> _RunFacts:
    fold = fold_run(run_id, journal)
    entries = [entry for record in journal if (entry := read_entry(record.value)) is not None]
    result = next((entry.result for entry in entries if isinstance(entry, RunCompleted)), None)
    arguments = next((entry.arguments for entry in entries if isinstance(entry, Started)), msgspec.Raw(b"null"))
    return _RunFacts(
        summary=fold.summary(time.time_ns()),
        arguments=arguments,
        result=result,
        traceback=fold.error.traceback if fold.error is not None else "",
        attempts=attempts_of([*journal, *lines], now_ns=time.time_ns()),
        lines=[line for record in lines if (line := read_line(record.value)) is not None],
    )


def _print_run(facts: _RunFacts, output: Output) -> None:
    summary = facts.summary
    state = output.style(summary.state, _STATE_STYLE.get(summary.state))
    output.text(f"{output.style(printable(summary.run_id), 'bold')}  {state}")
    if summary.message:
        output.text(f"\n{printable(summary.message)}")
    output.text()
    for line in layout(_head(facts), width=output.width):
        output.text(line)
    if facts.attempts:
        output.text()
        _print_attempts(facts.attempts, output)
    if facts.lines:
        output.text(f"\n{output.style('log lines', 'dim')}")
        for entry in facts.lines:
            where = f"  [{entry.step_key}]" if entry.step_key else ""
            line = f"{format_time(entry.time_ns)[11:]}  {entry.level:<7}  {entry.message}{where}"
            output.text(printable(line))
    if facts.traceback:
        output.text()
        for line in facts.traceback.rstrip().split("\n"):
            output.text(output.style(printable(line), "dim"))
    output.text(f"\n{output.style(f'Along time: mainstem trace {summary.run_id}', 'dim')}")


def _head(facts: _RunFacts) -> list[tuple[str, str]]:
    summary = facts.summary
    by = f", by {summary.trigger.stream} at position {summary.trigger.position}" if summary.trigger else ""
    kind = f"{summary.kind}, queue {summary.queue}" if summary.queue else summary.kind
    took_ns = (summary.ended_ns or time.time_ns()) - summary.started_ns
    verb = "took" if summary.ended_ns else "open for"
    lines = [
        ("function", printable(f"{summary.function} ({kind})")),
        ("started", printable(f"{format_time(summary.started_ns)}{by}")),
        (verb, format_duration(max(0, took_ns))),
    ]
    if summary.about:
        lines.append(("about", printable(" ".join(summary.about))))
    if summary.claims:
        lines.append(("taken over", format_count(summary.claims, "time") + ", each time after its process had ended"))
    if summary.wake_at_ns:
        lines.append(("next", format_time(summary.wake_at_ns)))
    if summary.trace_id:
        lines.append(("trace", summary.trace_id))
    lines.append(("arguments", printable(bytes(facts.arguments).decode(errors="replace"))))
    if facts.result is not None:
        lines.append(("result", printable(bytes(facts.result).decode(errors="replace"))))
    return lines


def _print_attempts(attempts: list[Attempt], output: Output) -> None:
    rows = [("step", "attempt", "", "queued", "took", "")]
    rows += [
        (
            printable(attempt.key),
            str(attempt.attempt),
            attempt.outcome,
            format_duration(attempt.waited_ns) if attempt.waited_ns else "",
            format_duration(attempt.ended_ns - attempt.started_ns) if attempt.ended_ns else "",
            printable(shorten(attempt.message, 500)),
        )
        for attempt in attempts
    ]
    head, *body = layout(rows, right=frozenset({1, 3, 4}), width=output.width)
    output.text(output.style(head, "dim"))
    for attempt, line in zip(attempts, body, strict=True):
        style = _OUTCOME_STYLE[attempt.outcome] if attempt.outcome != "ok" else None
        output.text(output.style(line, style))


def _change(change: str, run_id: str, arguments: argparse.Namespace, output: Output) -> None:
    if not arguments.url and not isinstance(arguments.data, Path):
        raise UsageError(
            "this changes something, which the application has to do, and an address does not say where that is. "
            "Nothing was changed.",
            try_command="--data with its state directory, or --url http://127.0.0.1:8000/mainstem",
        )
    server = named_server(arguments.url, arguments.token) if arguments.url else running_server(arguments.data)
    answer = wish_for(server, run_id, change, arguments.reason)
    if output.as_json:
        output.document(answer)
        return
    done = {"cancel": "is to be cancelled", "resume": "is to be tried again"}[change]
    output.text(f"run {run_id} {done}; see mainstem runs {run_id}")
