"""What the command prints: text for people, JSON for programs, and never a stranger's control characters.

Names of files, records and answers come from outside. What of them cannot be written is written out, here and nowhere
else: bytes that are no UTF-8, characters that a terminal's encoding lacks. Where standard output itself cannot be
written, closed or on a full disk, that is an error like any other, told where it can be.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal, TextIO

import msgspec

from mainstem.base.errors import MainstemError
from mainstem.base.text import recordable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_STDOUT: Final = "standard output"
_WIDTH_OFF_TERMINAL: Final = 120

Style = Literal["bold", "dim", "red", "green", "yellow", "blue"]
_CODES: Final[dict[Style, str]] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "36"}


def printable(text: str) -> str:
    r"""Return text that a terminal shows as it is: control and direction characters become ``\x1b`` and the like.

    So do lone surrogates, which stand for bytes of a file's name that are no UTF-8.
    """
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


def json_text(value: object) -> str:
    """Return a value as JSON, also where parts of it are no text: they are written out, or replaced."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_written_out(value))
    return encoded.decode(errors="replace")  # a record's JSON goes in as it is: its strings may be no UTF-8


def _written_out(value: object) -> object:
    if isinstance(value, str):
        return recordable(value, len(value))
    if isinstance(value, msgspec.Struct):
        return _written_out(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {_written_out(key): _written_out(part) for key, part in value.items()}
    return [_written_out(part) for part in value] if isinstance(value, list | tuple) else value


class Output:
    """Where a command writes: standard output, as text or as JSON, and standard error for remarks.

    Args:
        as_json: Whether the command was asked for JSON.
        stdout: Defaults to ``sys.stdout``; there is none where the process was started with it closed.
        stderr: Defaults to ``sys.stderr``, likewise.

    Every method that prints raises ``OSError`` where standard output cannot be written.
    """

    def __init__(self, *, as_json: bool, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stdout: TextIO | None = stdout if stdout is not None else sys.stdout
        self._stderr: TextIO | None = stderr if stderr is not None else sys.stderr
        self.is_terminal = self._stdout is not None and self._stdout.isatty()
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
        self._print(line, _in_encoding)

    def flush(self) -> None:
        """Push out what was printed, so that a reader of a stream need not wait."""
        try:
            if self._stdout is not None:
                self._stdout.flush()
        except OSError as error:
            raise _about_stdout(error) from error

    def settle(self) -> None:
        """Push out what can be, at the end of it all, and let go of a standard output that takes no more.

        Python flushes it once more at exit, which would fail again, loudly.
        """
        try:
            self.flush()
        except OSError:
            _let_go(self._stdout)

    def document(self, value: object) -> None:
        """Print the command's one JSON document, indented, with a final newline."""
        self._print(msgspec.json.format(json_text(value), indent=2), _in_ascii)

    def json_line(self, value: object) -> None:
        """Print one line of a JSON stream, and push it out."""
        self._print(json_text(value), _in_ascii)
        self.flush()

    def _print(self, line: str, fit: Callable[[str, str], str]) -> None:
        """Print one line, by ``fit`` in the stream's encoding where that does not have all of its characters."""
        if self._stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), _STDOUT)
        try:
            try:
                self._stdout.write(line + "\n")
            except UnicodeEncodeError as error:
                self._stdout.write(fit(line, error.encoding) + "\n")
        except OSError as error:
            raise _about_stdout(error) from error

    def remark(self, line: str) -> None:
        """Print one line to standard error: progress and warnings that no program shall take for the result."""
        if self._stderr is None:
            return
        try:
            self._stderr.write(line + "\n")
            self._stderr.flush()
        except OSError:
            _let_go(self._stderr)  # nobody is left who could be told; the exit code tells

    def error(self, error: MainstemError) -> None:
        """Report an error: message and what to try to standard error; with ``--json`` an object to standard output.

        Where standard output cannot be written, which may be what it is about, standard error has it in any case.
        """
        if self.as_json:
            try:
                self.json_line({"error": {"code": error.code, "message": error.message, "try": error.try_command}})
            except OSError:
                _let_go(self._stdout)
            else:
                return
        self.remark(f"error: {printable_lines(error.message)}")
        if error.try_command:
            self.remark(f"  try: {printable(error.try_command)}")


def _in_encoding(line: str, encoding: str) -> str:
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _in_ascii(line: str, _encoding: str) -> str:
    """Return JSON without a character beyond ASCII: they are in its strings only, which can escape them."""
    return _BEYOND_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], line)


def _about_stdout(error: OSError) -> OSError:
    return error if isinstance(error, BrokenPipeError) else OSError(error.errno, error.strerror, _STDOUT)


def _let_go(stream: TextIO | None) -> None:
    """Point a stream that cannot be written to nowhere: what is left in it is written there at exit."""
    with suppress(OSError):  # it is closed, or no file: nothing is written at exit
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def printable_lines(text: str) -> str:
    """Return text of several lines, each made :func:`printable`."""
    return "\n".join(printable(line) for line in text.split("\n"))
