"""What surrounds every page: head, navigation, heading; and how a fragment travels when it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from mainstem.ui.html import Html, el, join
from mainstem.ui.icons import icon
from mainstem.ui.panel import Fragment, Page, PageView
from mainstem.ui.parts import address
from mainstem.web.static import StaticFiles

_HTMX_CONFIG: Final = (
    '{"includeIndicatorCSS": false, "history": false, "mode": "same-origin", "extensions": "sse", '
    '"morphIgnore": ["data-htmx-powered", "open"]}'
)
_SCRIPTS: Final = ("vendor/htmx.min.js", "vendor/hx-sse.min.js", "dashboard.js")


class Shell:
    """Puts pages together.

    Args:
        pages: All pages; those with a ``nav`` make the navigation.
        files: Where scripts and styles are.
    """

    def __init__(self, pages: Sequence[Page], files: StaticFiles) -> None:
        self._nav = [page for page in pages if page.nav]
        self._files = files

    def document(self, view: PageView, *, base: str, path: str, query: str, state: str) -> bytes:
        """Return a page as a document.

        Args:
            view: The page.
            base: Address of the dashboard's root, ending in a slash.
            path: The page's path below it.
            query: Its query string.
            state: What it shows, as its live stream is told (:func:`mainstem.web.hub.page_state`).
        """
        body = el(
            "body",
            el("a", "Skip to content", href="#main", class_="skip"),
            self._navigation(base, path),
            el(
                "main",
                _heading(view, base),
                [fragment_element(part) for part in view.fragments],
                id="main",
                tabindex=-1,
            ),
            _live(base, path, query, state) if view.topics else None,
            self._scripts(view, base),
        )
        return b"<!doctype html>" + el("html", self._head(view, base), body, lang="en").encode()

    def _scripts(self, view: PageView, base: str) -> Html:
        # Not deferred, and last: htmx begins once the document is parsed, and its extension must be there by then. Of
        # deferred scripts it would begin after the first, whether or not the second has arrived.
        return join(el("script", src=base + self._files.path(name)) for name in (*_SCRIPTS, *view.scripts))

    def _head(self, view: PageView, base: str) -> Html:
        return el(
            "head",
            el("meta", charset="utf-8"),
            el("title", f"{view.title} · mainstem"),
            el("meta", name="viewport", content="width=device-width, initial-scale=1"),
            el("meta", name="color-scheme", content="light dark"),
            el("meta", name="referrer", content="same-origin"),
            el("meta", name="htmx-config", content=_HTMX_CONFIG),
            el("link", rel="icon", href=base + self._files.path("icon.svg"), type="image/svg+xml"),
            [
                el("link", rel="stylesheet", href=base + self._files.path(name))
                for name in ("tokens.css", "dashboard.css")
            ],
        )

    def _navigation(self, base: str, path: str) -> Html:
        first = path.split("/", 1)[0]
        links = [
            el(
                "li",
                el(
                    "a",
                    icon(page.icon),
                    el("span", page.nav),
                    href=base + page.path,
                    aria_current="page" if page.path == path else "true" if page.path == first else None,
                ),
            )
            for page in self._nav
        ]
        connection = el("p", "", id="connection", role="status", data_state="off")
        return el(
            "header",
            el("a", _mark(), el("span", "mainstem"), href=base, class_="brand"),
            el("nav", el("ul", links), aria_label="Pages of the dashboard"),
            connection,
            class_="side",
        )


def _mark() -> Html:
    return el(
        "svg",
        el("path", d="M3 3c0 6 6 4 6 10M15 3c0 6-6 4-6 10M9 1v16"),
        class_="mark",
        attributes={"viewBox": "0 0 18 18"},
        width=18,
        height=18,
        aria_hidden="true",
        focusable="false",
    )


def _heading(view: PageView, base: str) -> Html:
    trail = [el("a", name, href=address(base, path)) for name, path in view.parents]
    crumbs = (
        el("nav", join(trail, el("span", "/", aria_hidden="true")), class_="crumbs", aria_label="Above this page")
        if trail
        else None
    )
    return el(
        "div",
        crumbs,
        el("h1", view.title),
        el("div", view.subtitle, class_="subtitle") if view.subtitle else None,
        class_="heading",
    )


def _live(base: str, path: str, query: str, state: str) -> Html:
    stream = base + "events?" + urlencode({"path": path, "query": query, "shown": state})
    return el("div", id="live", hidden=True, attributes={"hx-sse:connect": stream})


def fragment_element(fragment: Fragment, *, travelling: bool = False) -> Html:
    """Return a fragment's element; a travelling one replaces its predecessor, keeping what did not change."""
    return el(
        "div",
        fragment.html,
        id="f-" + fragment.id,
        class_=f"fragment {fragment.class_}".strip(),
        role="region" if fragment.label else None,
        aria_label=fragment.label or None,
        aria_live="polite" if fragment.live else None,
        hx_swap_oob="outerMorph" if travelling else None,
    )
