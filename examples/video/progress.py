"""Progress for people: a bar that moves in place on a terminal, and a few plain lines elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from typing import NoReturn, TextIO

_LINES_OFF_TERMINAL = 4
_REDRAW_EVERY_S = 0.1
_FEW = 100


class Screen:
    """Where the demonstration speaks: headings, remarks, bars.

    Args:
        stream: Standard output, or a stand-in.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self.is_terminal = self._stream.isatty()
        self._bar_shown = False

    @property
    def width(self) -> int:
        """Columns to fill."""
        return shutil.get_terminal_size((120, 24)).columns if self.is_terminal else 120

    def heading(self, text: str) -> None:
        """Begin a part."""
        self.line(f"\n\x1b[1m{text}\x1b[0m" if self.is_terminal else f"\n{text}")

    def line(self, text: str = "") -> None:
        """Print a line; a bar that stands there stays above it."""
        if self._bar_shown:
            self._stream.write("\n")
            self._bar_shown = False
        self._stream.write(text + "\n")
        self._stream.flush()

    def aside(self, text: str) -> str:
        """Return a text that is worth its place in a bar that moves, and an empty one where bars are lines."""
        return text if self.is_terminal else ""

    def redraw(self, text: str) -> None:
        """Replace the bar's line (terminals only)."""
        self._stream.write(f"\r\x1b[2K{text}")
        self._stream.flush()
        self._bar_shown = True


class Bar:
    """How far one thing is.

    Args:
        screen: Where it is shown.
        label: What it is.
        total: When it is complete.
        unit: Behind the numbers, such as ``"chunks"``; ``"MB"`` shows bytes as such; empty shows no numbers.
    """

    def __init__(self, screen: Screen, label: str, total: int, unit: str = "") -> None:
        self._screen = screen
        self._label = label
        self.total = max(1, total)
        self._unit = unit
        self._done = -1
        self._note = ""
        self._line_shown = -1
        self._drawn_s = 0.0
        self._began_s = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of the total is done; cheap enough for each piece."""
        done = min(done, self.total)
        changed = done != self._done
        self._done = done
        self._note = note
        if self._screen.is_terminal:
            self._draw(now=changed and (done == self.total or self.total <= _FEW))
        elif changed:
            self._print(done, note)

    async def keep_moving(self) -> NoReturn:
        """Let the clock beside the bar go on while nothing else changes; ends when it is cancelled."""
        while True:
            await asyncio.sleep(_REDRAW_EVERY_S)
            if self._screen.is_terminal:
                self._draw(now=False)

    def _draw(self, *, now: bool) -> None:
        moment_s = time.monotonic()
        done = max(self._done, 0)
        if not now and moment_s - self._drawn_s < _REDRAW_EVERY_S:
            return
        self._drawn_s = moment_s
        cells = 32
        full, part = divmod(done * cells * 8 // self.total, 8)
        bar = "█" * full + (" ▏▎▍▌▋▊▉"[part] if full < cells else "")
        text = (
            f"  {self._label:<12} {bar:<{cells}} {self._numbers(done)}  {moment_s - self._began_s:4.1f} s  {self._note}"
        )
        self._screen.redraw(text[: self._screen.width - 1])

    def _print(self, done: int, note: str) -> None:
        step = done * _LINES_OFF_TERMINAL // self.total
        if step > self._line_shown or note:
            self._line_shown = max(step, self._line_shown)
            percent = done * 100 // self.total
            self._screen.line(f"  {self._label:<12} {percent:3d} %  {self._numbers(done)}  {note}".rstrip())

    def _numbers(self, done: int) -> str:
        if not self._unit or self._done < 0:
            return ""  # not a number of anything, or nothing known yet
        if self._unit == "MB":
            return f"{done / 1e6:.1f} of {self.total / 1e6:.1f} MB"
        return f"{done} of {self.total} {self._unit}".rstrip()
