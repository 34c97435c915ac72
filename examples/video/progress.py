"""Progress for people: a bar that moves in place on a terminal, and a few plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_LINES_OFF_TERMINAL = 4
_REDRAW_EVERY_S = 0.05


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
        unit: Behind the numbers, such as ``"chunks"``; ``"MB"`` shows bytes as such.
    """

    def __init__(self, screen: Screen, label: str, total: int, unit: str = "") -> None:
        self._screen = screen
        self._label = label
        self._total = max(1, total)
        self._unit = unit
        self._done = -1
        self._line_shown = -1
        self._drawn_s = 0.0
        self._began_s = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of the total is done; cheap enough for each piece."""
        done = min(done, self._total)
        if self._screen.is_terminal:
            self._draw(done, note)
        else:
            self._print(done, note)
        self._done = done

    def _draw(self, done: int, note: str) -> None:
        now = time.monotonic()
        if done == self._done or (done < self._total and now - self._drawn_s < _REDRAW_EVERY_S and not note):
            return
        self._drawn_s = now
        cells = 32
        full, part = divmod(done * cells * 8 // self._total, 8)
        bar = "█" * full + (" ▏▎▍▌▋▊▉"[part] if full < cells else "")
        text = f"  {self._label:<12} {bar:<{cells}} {self._numbers(done)}  {now - self._began_s:4.1f} s  {note}"
        self._screen.redraw(text[: self._screen.width - 1])

    def _print(self, done: int, note: str) -> None:
        step = done * _LINES_OFF_TERMINAL // self._total
        if step > self._line_shown or (note and done != self._done):
            self._line_shown = max(step, self._line_shown)
            percent = done * 100 // self._total
            self._screen.line(f"  {self._label:<12} {percent:3d} %  {self._numbers(done)}  {note}".rstrip())

    def _numbers(self, done: int) -> str:
        if self._unit == "MB":
            return f"{done / 1e6:.1f} of {self._total / 1e6:.1f} MB"
        return f"{done} of {self._total} {self._unit}".rstrip()
