"""Charts as inline SVG: no script, no inline style, and a sentence for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainstem.ui.html import Html, el

_BARS_WIDTH = 240
_BARS_HEIGHT = 36
_SMALL = 0.012  # too narrow for a dashed outline


def bars(values: Sequence[float], sentence: str, *, bad: Sequence[float] = ()) -> Html:
    """Return a small bar chart, oldest value first.

    Args:
        values: One bar each; negative ones count as 0.
        sentence: What it shows, for screen readers.
        bad: The part of each value that is drawn in the tone of failures.
    """
    highest = max([*values, 1e-9])
    step = _BARS_WIDTH / max(len(values), 1)
    width = max(step - 1.0, 0.75)
    shapes = [el("line", x1=0, x2=_BARS_WIDTH, y1=_BARS_HEIGHT - 0.5, y2=_BARS_HEIGHT - 0.5, class_="axis")]
    for index, value in enumerate(values):
        height = _bar_height(value, highest)
        if height:
            shapes.append(_bar(index * step, width, height, "bar"))
        height = _bar_height(bad[index], highest) if index < len(bad) else 0.0
        if height:
            shapes.append(_bar(index * step, width, height, "bar bad"))
    return el(
        "svg",
        shapes,
        class_="bars",
        attributes={"viewBox": f"0 0 {_BARS_WIDTH} {_BARS_HEIGHT}", "preserveAspectRatio": "none"},
        role="img",
        aria_label=sentence,
    )


def _bar_height(value: float, highest: float) -> float:
    # What is there at all is seen: a bar has at least two units.
    return max(value / highest * (_BARS_HEIGHT - 2), 2.0) if value > 0 else 0.0


def _bar(x: float, width: float, height: float, class_: str) -> Html:
    return el(
        "rect",
        x=f"{x:.2f}",
        y=f"{_BARS_HEIGHT - height:.2f}",
        width=f"{width:.2f}",
        height=f"{height:.2f}",
        class_=class_,
    )


class Segment(msgspec.Struct, frozen=True):
    """One stretch of a waterfall's line.

    Attributes:
        start: Where it begins, 0 to 1.
        length: How long it is, 0 to 1; 0 is an instant, drawn as a mark.
        class_: How it looks: ``work``, ``wait``, ``run``, ``request``, ``died``, ``error``, ``running``, ``event``,
            ``log``.
    """

    start: float
    length: float
    class_: str


def track(segments: Sequence[Segment], sentence: str) -> Html:
    """Return one line of a waterfall, as wide as its cell.

    Args:
        segments: What is drawn on it, in order.
        sentence: What it shows, for screen readers and as the browser's tooltip.
    """
    return el(
        "svg",
        el("title", sentence),
        [_stretch(segment) for segment in segments],
        class_="track",
        width="100%",
        height=16,
        role="img",
        aria_label=sentence,
    )


def _stretch(segment: Segment) -> Html:
    start = min(max(segment.start, 0.0), 0.995)
    if segment.length <= 0:
        return el("circle", cx=f"{start * 100 + 0.25:.3f}%", cy=8, r=3, class_=segment.class_)
    # What took time at all is seen: a bar is at least 0.4 % wide.
    width = max(min(segment.length, 1 - start), 0.004)
    class_ = f"{segment.class_} small" if width < _SMALL else segment.class_
    return el("rect", x=f"{start * 100:.3f}%", y=3, width=f"{width * 100:.3f}%", height=10, rx=2, class_=class_)
