"""The parts that pages are put together from: pills, cards, tables, facts, notices, code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

import msgspec

from mainstem.ui.format import shorten
from mainstem.ui.html import EMPTY, Attribute, Child, Html, el
from mainstem.ui.icons import icon

TONES: Mapping[str, tuple[str, str]] = {
    "completed": ("good", "check"),
    "ready": ("good", "check"),
    "ok": ("good", "check"),
    "running": ("busy", "play"),
    "uploading": ("busy", "uploads"),
    "processing": ("busy", "play"),
    "retrying": ("warn", "retry"),
    "sleeping": ("calm", "moon"),
    "waiting": ("calm", "clock"),
    "scheduled": ("calm", "clock"),
    "queued": ("calm", "clock"),
    "paused": ("warn", "pause"),
    "interrupted": ("warn", "pause"),
    "quarantined": ("bad", "shield"),
    "failed": ("bad", "cross"),
    "refused": ("bad", "cross"),
    "died": ("bad", "skull"),
    "cancelled": ("calm", "stop"),
    "terminated": ("calm", "stop"),
    "expired": ("calm", "clock"),
}
"""For each state its tone and icon. A state is never told by colour alone."""


def pill(state: str, label: str = "") -> Html:
    """Return a state as icon and word."""
    tone, picture = TONES.get(state, ("calm", "dash"))
    return el("span", icon(picture), el("span", label or state), class_=f"pill {tone}")


def link(base: str, path: str, *children: Child, query: Mapping[str, str] | None = None, **named: Attribute) -> Html:
    """Return a link to a page below ``base``. ``path`` is quoted; ``query`` encoded."""
    return el("a", *children, attributes={"href": address(base, path, query), **_html_names(named)})


def _html_names(named: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {name.rstrip("_").replace("_", "-"): value for name, value in named.items()}


def address(base: str, path: str, query: Mapping[str, str] | None = None) -> str:
    """Return the address of a page below ``base``."""
    tail = {key: value for key, value in (query or {}).items() if value}
    return base + quote(path, safe="/") + ("?" + urlencode(tail) if tail else "")


def card(title: str, *children: Child, aside: Child = None, class_: str = "") -> Html:
    """Return a titled box."""
    head = el("div", el("h2", title), el("div", aside, class_="aside") if aside else None, class_="card-head")
    return el("section", head, *children, class_=f"card {class_}".strip())


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return names and values, as a description list; pairs without a value are left out."""
    return el(
        "dl",
        [el("div", el("dt", name), el("dd", value)) for name, value in pairs if value not in (None, "", EMPTY)],
        class_="facts",
    )


def table(
    caption: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Child]], *, empty: Child = None
) -> Html:
    """Return a table that becomes a list of cards on a narrow screen.

    Args:
        caption: What it shows, for screen readers.
        columns: For each its heading and classes (``"number"``, ``"wide"``, or none).
        rows: The cells.
        empty: Shown in place of a table without rows.
    """
    if not rows:
        return el("div", empty or "Nothing here yet.", class_="empty")
    head = el("tr", [el("th", name, scope="col", class_=class_ or None) for name, class_ in columns])
    body = [
        el(
            "tr",
            [
                el("td", cell, class_=class_ or None, data_label=name)
                for cell, (name, class_) in zip(row, columns, strict=True)
            ],
        )
        for row in rows
    ]
    return el(
        "div",
        el("table", el("caption", caption, class_="hidden"), el("thead", head), el("tbody", body)),
        class_="table",
    )


def scrolling(content: Html, label: str) -> Html:
    """Return something long in a box that scrolls by itself and can be reached by keyboard."""
    return el("div", content, class_="scrolling", tabindex=0, role="region", aria_label=label)


def entities(base: str, about: Iterable[str]) -> Html:
    """Return what a run or a trace is about, each with a link to all runs about it."""
    return el("div", [link(base, "runs", one, query={"search": one}, class_="mono entity", title=one) for one in about])


def code_block(value: str, label: str, *, max_chars: int = 20_000) -> Html:
    """Return text as it is, in a box that scrolls by itself and can be reached by keyboard."""
    return el("pre", el("code", shorten(value, max_chars)), tabindex=0, role="region", aria_label=label)


def json_block(value: bytes, label: str) -> Html:
    """Return a JSON document, indented; bytes that are no JSON, or nested too deeply for it, are shown as text."""
    try:
        shown = msgspec.json.format(value, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        shown = value.decode("utf-8", "replace")  # whatever it is, it is what the record holds
    return code_block(shown, label)


def one_line(value: bytes, max_chars: int = 160) -> str:
    """Return the beginning of a payload on one line, for lists."""
    start = value[: max_chars * 4].decode("utf-8", "replace")
    return shorten("".join(char if char.isprintable() else " " for char in start), max_chars)


def notice(tone: str, *children: Child) -> Html:
    """Return a sentence that is to be seen first; ``tone`` is ``bad``, ``warn``, ``busy`` or ``calm``."""
    picture = {"bad": "cross", "warn": "pause", "busy": "play"}.get(tone, "dash")
    return el("div", icon(picture), el("div", *children), class_=f"notice {tone}")


def progress(done: float, total: float, label: str) -> Html:
    """Return a progress bar with its percentage as text beside it."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    percent = f"{share * 100:.0f} %"
    bar = el("progress", percent, value=f"{share:.4f}", max=1, aria_label=label)
    return el("div", bar, el("span", percent, class_="number"), class_="progress")


def metric(name: str, value: Child, detail: Child = None, *, tone: str = "", chart: Child = None) -> Html:
    """Return one figure of the overview: its name, value, a detail, and a chart below."""
    return el(
        "div",
        el("div", name, class_="metric-name"),
        el("div", value, class_="metric-value"),
        el("div", detail, class_="metric-detail") if detail else None,
        chart,
        class_=f"metric {tone}".strip(),
    )


def pager(base: str, path: str, query: Mapping[str, str], page: int, has_more: bool) -> Html:
    """Return links to the previous and the next page of a list, where there are such."""
    if page <= 1 and not has_more:
        return EMPTY

    def to(number: int, words: str, rel: str) -> Html:
        return link(
            base, path, words, query={**query, "page": str(number) if number > 1 else ""}, rel=rel, class_="button"
        )

    return el(
        "nav",
        to(page - 1, "Newer", "prev") if page > 1 else None,
        el("span", f"Page {page}", class_="dim number"),
        to(page + 1, "Older", "next") if has_more else None,
        class_="pager",
        aria_label="Pages",
    )


def search_form(what: str, value: str, placeholder: str, action: str, hidden: tuple[str, str] | None = None) -> Html:
    """Return the search field above a list of ``what`` (``"runs"``); ``hidden`` is a filter that a search keeps."""
    return el(
        "form",
        icon("search"),
        el("input", type="hidden", name=hidden[0], value=hidden[1]) if hidden else None,
        el(
            "input",
            type="search",
            name="search",
            id=f"search-{what}",
            value=value or None,
            placeholder=placeholder,
            aria_label=f"Search {what}",
            maxlength=200,
            autocomplete="off",
        ),
        action=action,
        method="get",
        role="search",
        class_="search",
    )
