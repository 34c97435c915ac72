"""Charts as inline SVG: no script, no inline style, and a sentence for who cannot see them."""

from __future__ import annotations

from collections.abc import Sequence

from mainstem.ui.html import Html, el

_BARS_WIDTH = 240
_BARS_HEIGHT = 36


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


def track(start: float, length: float, class_: str, sentence: str, *, after: float = 0.0) -> Html:
    """Return one bar of a waterfall on a line as wide as its cell.

    Args:
        start: Where it begins, 0 to 1.
        length: How long it is, 0 to 1; 0 is an instant, drawn as a mark.
        class_: Classes: ``work``, ``wait``, ``died``, ``error``, ``request``, ``event``, ``log``, ``running``.
        sentence: What it shows, for screen readers and as the browser's tooltip.
        after: Extent behind it that is open (it runs), 0 to 1.
    """
    start = min(max(start, 0.0), 0.998)
    if length <= 0:
        shape = el("circle", cx=f"{start * 100 + 0.2:.3f}%", cy=8, r=3.5, class_=class_)
    else:
        width = max(min(length, 1 - start), 0.002)
        shape = el("rect", x=f"{start * 100:.3f}%", y=3, width=f"{width * 100:.3f}%", height=10, rx=2, class_=class_)
    tail = (
        el("rect", x=f"{(start + length) * 100:.3f}%", y=7, width=f"{min(after, 1 - start) * 100:.3f}%", height=2)
        if after > 0
        else None
    )
    return el("svg", el("title", sentence), shape, tail, class_="track", width="100%", height=16, role="img", aria_label=sentence)
