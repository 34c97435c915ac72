"""What the command prints: text for people, JSON for programs, and never a stranger's control characters."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Final, Literal, TextIO

import msgspec

from mainstem.base.errors import MainstemError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_WIDTH_OFF_TERMINAL: Final = 120

Style = Literal["bold", "dim", "red", "green", "yellow", "blue"]
_CODES: Final[dict[Style, str]] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "36"}


def printable(text: str) -> str:
    r"""Return text that a terminal shows as it is: control and direction characters become ``\x1b`` and the like."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def format_time(time_ns: int) -> str:
    """Return a wall-clock time as local date and time with milliseconds: ``2026-11-24 15:04:05.123``."""
    moment = dt.datetime.fromtimestamp(time_ns // 1_000_000_000)  # noqa: DTZ006 (people read local time)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"


def iso_time(time_ns: int) -> str:
    """Return a wall-clock time for programs, in UTC: ``2026-11-24T15:04:05.123456Z``."""
    moment = dt.datetime.fromtimestamp(time_ns // 1_000_000_000, tz=dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1000 % 1_000_000:06d}Z"


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``1,200 steps``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def layout(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset(), width: int = 0) -> list[str]:
    """Return rows as lines with aligned columns; the last column is cut where a line would pass ``width`` (0: never).

    Args:
        rows: Cells of plain text, the same number in each row.
        right: Indexes of columns that are set flush right (numbers).
        width: Most characters of a line.
    """
    if not rows:
        return []
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(widths[index]) if index in right else cell.ljust(widths[index]) for index, cell in enumerate(row)
        ]
        line = "  ".join(cells).rstrip()
        lines.append(line if not width or len(line) <= width else line[: width - 1] + "…")
    return lines


class Output:
    """Where a command writes: standard output, as text or as JSON, and standard error for remarks.

    Args:
        as_json: Whether the command was asked for JSON.
        stdout: Defaults to ``sys.stdout``.
        stderr: Defaults to ``sys.stderr``.
    """

    def __init__(self, *, as_json: bool, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stdout = stdout if stdout is not None else sys.stdout
        self._stderr = stderr if stderr is not None else sys.stderr
        self.is_terminal = self._stdout.isatty()
        self._styled = self.is_terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    @property
    def width(self) -> int:
        """Columns to fill: those of the terminal, or 120 elsewhere."""
        if not self.is_terminal:
            return _WIDTH_OFF_TERMINAL
        return max(40, shutil.get_terminal_size((_WIDTH_OFF_TERMINAL, 24)).columns)

    @property
    def styled(self) -> bool:
        """Whether colours and weights are used (a terminal, and neither ``NO_COLOR`` nor ``TERM=dumb``)."""
        return self._styled

    def style(self, text: str, style: Style | None) -> str:
        """Return text with a terminal's colour or weight, or as it is where nobody would see it."""
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style and self._styled else text

    def text(self, line: str = "") -> None:
        """Print one line for people. What strangers wrote has gone through :func:`printable` before."""
        self._stdout.write(line + "\n")

    def flush(self) -> None:
        """Push out what was printed, so that a reader of a stream need not wait."""
        self._stdout.flush()

    def document(self, value: object) -> None:
        """Print the command's one JSON document, indented, with a final newline."""
        self._stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")

    def json_line(self, value: object) -> None:
        """Print one line of a JSON stream, and push it out."""
        self._stdout.write(msgspec.json.encode(value).decode() + "\n")
        self._stdout.flush()

    def remark(self, line: str) -> None:
        """Print one line to standard error: progress and warnings that no program shall take for the result."""
        self._stderr.write(line + "\n")
        self._stderr.flush()

    def error(self, error: MainstemError) -> None:
        """Report an error: message and what to try to standard error; with ``--json`` an object to standard output."""
        if self.as_json:
            self.json_line({"error": {"code": error.code, "message": error.message, "try": error.try_command}})
            return
        self.remark(f"error: {printable_lines(error.message)}")
        if error.try_command:
            self.remark(f"  try: {printable(error.try_command)}")


def printable_lines(text: str) -> str:
    """Return text of several lines, each made :func:`printable`."""
    return "\n".join(printable(line) for line in text.split("\n"))
