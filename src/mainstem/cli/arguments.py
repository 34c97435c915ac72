"""Arguments that several commands share, so that they read the same everywhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from mainstem.base.errors import InvalidArgumentError
from mainstem.cli.errors import UsageError

if TYPE_CHECKING:
    from mainstem.log.engines.nats import NatsAddress

DEFAULT_DATA = "data"
"""The data directory that is meant when none is named."""


TOKEN_VARIABLE: Final = "MAINSTEM_TOKEN"  # noqa: S105 (a variable's name)
"""Environment variable with the token that the dashboard and its API demand."""


class CommandParser(argparse.ArgumentParser):
    """A parser, also for the subcommands added to it, that raises usage errors; whoever called it says them."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line.

        Raises:
            UsageError: Always, with the message; what to try is the help of this command.
        """
        raise UsageError(f"{self.prog}: {message}", try_command=f"{self.prog} --help")


def add_json(parser: argparse.ArgumentParser, what: str = "one JSON document") -> None:
    """Add ``--json``, saying what is printed then."""
    parser.add_argument("--json", action="store_true", help=f"print {what} instead of text")


def place(text: str) -> Path | NatsAddress:
    """Parse where a log is: a directory, or the address of a log on NATS."""
    if "://" not in text:
        return Path(text)
    from mainstem.log.engines.nats import parse_address  # noqa: PLC0415 (an extra: only where it is named)

    try:
        return parse_address(text)
    except InvalidArgumentError as error:
        raise argparse.ArgumentTypeError(error.message) from None


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data PLACE``."""
    parser.add_argument(
        "--data",
        metavar="PLACE",
        type=place,
        default=Path(DEFAULT_DATA),
        help=f"the application's data directory, or nats://HOST/NAME (default: {DEFAULT_DATA})",
    )


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text}")
    return number


def position(text: str) -> int:
    """Parse a position in the log: a whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a position from 0, got {text}")
    return number
