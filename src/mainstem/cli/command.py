"""The command line of ``mainstem``, and what each way it can end is told as.

Each command is one module with ``configure(parser)`` and ``run(arguments, output)``; only the module of the command
that was asked for is imported, so that ``mainstem --help`` stays quick. Reading commands need no running application:
they read the log in the data directory, beside its owner or without one.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol, cast

from mainstem.base.errors import MainstemError
from mainstem.cli.arguments import CommandParser
from mainstem.cli.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    OperatingSystemError,
    exit_code_of,
)
from mainstem.cli.output import Output

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["COMMANDS", "main"]

COMMANDS: Final = {
    "new": "Write a small complete application: code, tests, README",
    "dev": "Run an application with its dashboard, and again after each change of its code",
    "runs": "List workflow runs and jobs, look at one, cancel or resume one",
    "trace": "Show what became of a run, an upload, a video or an entity, from its first record on",
    "tail": "Print the records of matching streams, and go on as new ones come",
    "log": "Verify a log's files, repair them, or tell how much is in them",
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


class _Parser(CommandParser):
    """The command line's parser. Argparse would pass over a help that cannot be written."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help, to standard output unless told otherwise."""
        if file is not None:
            super().print_help(file)
        else:
            Output(as_json=False).text(self.format_help().rstrip("\n"))


def _command_module(name: str) -> Command:
    return cast("Command", importlib.import_module(f"mainstem.cli.{name}"))


def _build_parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
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
    output = Output(as_json="--json" in words)  # as the words have it, until they are parsed
    try:
        code = _carry_out(words, output)
        output.flush()
    except MainstemError as error:
        output.error(error)
        code = exit_code_of(error)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        refusal = OperatingSystemError(f"{error.filename or 'the operating system'}: {error.strerror or error}.")
        output.error(refusal)
        code = refusal.exit_code
    output.settle()
    return code


def _carry_out(words: list[str], output: Output) -> int:
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = _build_parser(chosen)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as ending:  # argparse ends the process itself after --help
        return ending.code if isinstance(ending.code, int) else EXIT_USAGE
    output.as_json = getattr(arguments, "json", False)
    if arguments.version:
        output.text(f"mainstem {_version()}")
        return EXIT_OK
    if arguments.command is None:
        parser.print_help()
        return EXIT_USAGE
    return _command_module(arguments.command).run(arguments, output)
