"""HTML that cannot be forgotten to be escaped: text is escaped unless it is :class:`Html`, and only elements make that.

    el("a", "<b>", href="runs")      ->  <a href="runs">&lt;b&gt;</a>

There is no template language. The strict content security policy of the pages is built in: inline styles, inline
scripts and event handlers are refused where they are written, not in the browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from typing import TypeAlias

from mainstem.base.errors import InvalidArgumentError

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]*")
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_RAW_TEXT = frozenset({"script", "style"})
_ADDRESSES = frozenset({"href", "src", "action", "formaction", "poster", "data-src"})
_SCHEME = re.compile(r"[\x00-\x20]*([a-zA-Z][a-zA-Z0-9+.\-\x00-\x20]*):")


class Html(str):
    """A piece of HTML that is safe as it is. Made by :func:`el` and :func:`join`, never from a stranger's text."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | float | Iterable[Child] | None"
"""What an element may hold: HTML, text (escaped), numbers, nothing, or several of these."""

Attribute: TypeAlias = "str | int | float | bool | None"
"""The value of an attribute: ``True`` writes its name alone, ``False`` and ``None`` leave it out."""

EMPTY = Html("")
"""No HTML at all."""


def text(child: Child) -> Html:
    """Return what a child looks like in HTML, escaped unless it is HTML already."""
    if isinstance(child, Html):
        return child
    if child is None:
        return EMPTY
    if isinstance(child, str):
        return Html(escape(child))
    if isinstance(child, int | float):
        return Html(child)
    return Html("".join(text(part) for part in child))


def join(children: Iterable[Child], separator: Child = "") -> Html:
    """Return children one after the other, with something in between."""
    return Html(text(separator).join(text(child) for child in children))


def el(tag: str, /, *children: Child, attributes: Mapping[str, Attribute] | None = None, **named: Attribute) -> Html:
    """Return an element.

    Args:
        tag: Its name.
        children: What it holds, see :data:`Child`.
        attributes: Attributes whose names are no Python names: ``{"hx-sse:connect": "…"}``.
        named: Attributes; a final ``_`` is dropped and others become ``-``: ``class_``, ``aria_label``.

    Raises:
        InvalidArgumentError: A name is malformed; an attribute is an event handler or an inline style; an address has a
            scheme other than http or https; or a script or style has content of its own.
    """
    _check_tag(tag)
    opening = "<" + tag
    for key, value in named.items():
        if value is not None and value is not False:
            opening += _attribute(tag, _html_name(key), value)
    for name, value in (attributes or {}).items():
        if value is not None and value is not False:
            opening += _attribute(tag, name, value)
    if tag in _VOID:
        return Html(opening + ">")
    content = text(children)
    if tag in _RAW_TEXT and content:
        raise InvalidArgumentError(f"<{tag}> with content is refused by the pages' security policy: serve a file.")
    return Html(f"{opening}>{content}</{tag}>")


@lru_cache(maxsize=512)
def _html_name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


@lru_cache(maxsize=512)
def _check_tag(tag: str) -> None:
    if not _NAME.fullmatch(tag):
        raise InvalidArgumentError(f"{tag!r} is not the name of an element.")


def _attribute(tag: str, name: str, value: str | float | bool) -> str:
    if _is_address(tag, name):
        scheme = _SCHEME.match(str(value))
        if scheme and scheme.group(1).lower() not in {"http", "https"}:
            raise InvalidArgumentError(
                f"<{tag} {name}>: the address {str(value)[:80]!r} has a scheme other than http or https."
            )
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


@lru_cache(maxsize=1024)
def _is_address(tag: str, name: str) -> bool:
    """Tell whether an attribute holds an address; raise where it is none that may be written."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of an attribute (of <{tag}>).")
    if name.lower().startswith(("on", "hx-on")) or name.lower() in {"style", "srcdoc"}:
        raise InvalidArgumentError(f"<{tag} {name}> is refused by the pages' security policy: use a class, or a file.")
    return name.lower() in _ADDRESSES
