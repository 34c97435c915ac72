"""Icons, drawn inline on a 16 × 16 grid in the text's own colour; always beside a word, never instead of one."""

from __future__ import annotations

from mainstem.ui.html import Html, el

_PATHS = {
    "overview": "M2 9.5h3l2-6 3 9 2-5h2",
    "runs": "M3 4h6M3 8h10M3 12h7",
    "streams": "M2 4.5c2-1.8 4 1.8 6 0s4 1.8 6 0M2 8.5c2-1.8 4 1.8 6 0s4 1.8 6 0M2 12.5c2-1.8 4 1.8 6 0s4 1.8 6 0",
    "uploads": "M8 11V3M4.5 6 8 2.5 11.5 6M3 13.5h10",
    "videos": "M2.5 3.5h11v9h-11zM6.7 6v4l3.3-2z",
    "traces": "M2 4h5M5 8h6M9 12h5",
    "check": "M3.5 8.5l3 3 6-7",
    "cross": "M4 4l8 8M12 4l-8 8",
    "play": "M5 3.5v9l7-4.5z",
    "clock": "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM8 5v3l2 1.5",
    "moon": "M12.5 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 12.5 9.5z",
    "retry": "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
    "pause": "M5.5 4v8M10.5 4v8",
    "stop": "M4.5 4.5h7v7h-7z",
    "shield": "M8 2l5 2v4c0 3-2 5-5 6-3-1-5-3-5-6V4z",
    "skull": "M4 11V8a4 4 0 1 1 8 0v3h-2v2H6v-2zM6.5 8v.5M9.5 8v.5",
    "dash": "M4 8h8",
    "search": "M7 3a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM10 10l3.5 3.5",
    "arrow": "M6 3.5 10.5 8 6 12.5",
}


def icon(name: str) -> Html:
    """Return an icon by name, hidden from screen readers.

    Raises:
        KeyError: There is no such icon.
    """
    return el(
        "svg",
        el("path", d=_PATHS[name]),
        class_="icon",
        attributes={"viewBox": "0 0 16 16"},
        width=16,
        height=16,
        aria_hidden="true",
        focusable="false",
    )
