"""The command line of ``mainstem``, and what each way it can end is told as.

Each command is one module with ``configure(parser)`` and ``run(arguments, output)``; only the module of the command
that was asked for is imported, so that ``mainstem --help`` stays quick. Reading commands need no running application:
they read the log in the data directory, beside its owner or without one.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Final, Protocol, cast

from mainstem.base.errors import MainstemError
from mainstem.cli.arguments import CommandParser
from mainstem.cli.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OperatingSystemError,
    UsageError,
    exit_code_of,
)
from mainstem.cli.output import Output

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "new": "Write a small complete application: code, tests, README",
    "dev": "Run an application with its dashboard, and again after each change of its code",
    "runs": "List workflow runs and jobs, look at one, cancel or resume one",
    "trace": "Show what became of a run, an upload, a video or an entity, from its first record on",
    "tail": "Print the records of matching streams, and go on as new ones come",
    "log": "Verify a log's files, or tell how much is in them",
}
"""The commands, with what each does."""

_EPILOG: Final = """\
Begin with:
  mainstem new shop && cd shop && mainstem dev app.py

Then, in another terminal:
  mainstem runs                      what ran, and what failed
  mainstem trace <run id>            where its time went
  mainstem tail 'orders.>'           events as they happen

Reading needs no running application. Every command takes --help, and --json
for programs.

Exit codes:
  0    done; nothing bad was found
  1    damage was found, or the work failed
  2    the command line makes no sense
  3    what was named does not exist
  4    this changes something and needs a running application
  130  ended by Ctrl-C
"""


class Command(Protocol):
    """What the module of a command offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add description, arguments and examples."""
        ...

    def run(self, arguments: argparse.Namespace, output: Output) -> int:
        """Do it; return the exit code."""
        ...


def _command_module(name: str) -> Command:
    return cast("Command", importlib.import_module(f"mainstem.cli.{name}"))


def _build_parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="mainstem",
        description="One durable log, and everything that happens on it, visible end to end.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=summary,
            description=textwrap.fill(summary + ".", 78),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            _command_module(name).configure(subparser)
    return parser


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 (slow to import, and seldom wanted)

    return version("mainstem")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit code; see ``mainstem --help``.

    Errors of mainstem are printed as a message and a command to try, never as a traceback; Ctrl-C and a reader that
    goes away end it quietly.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = _build_parser(chosen)
    try:
        arguments = parser.parse_args(words)
    except UsageError as error:  # nothing was parsed, so whether JSON is wanted is read from the words themselves
        Output(as_json="--json" in words).error(error)
        return error.exit_code
    except SystemExit as ending:  # argparse ends the process itself after --help
        return ending.code if isinstance(ending.code, int) else EXIT_USAGE
    if arguments.version:
        print(f"mainstem {_version()}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return EXIT_USAGE
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    output = Output(as_json=getattr(arguments, "json", False))
    try:
        code = _command_module(arguments.command).run(arguments, output)
        output.flush()
    except MainstemError as error:
        output.error(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit, which would fail again, loudly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        refusal = OperatingSystemError(f"{error.filename or 'the operating system'}: {error.strerror or error}.")
        output.error(refusal)
        return refusal.exit_code
    return code
