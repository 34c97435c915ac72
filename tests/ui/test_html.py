"""Escaping by construction."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.errors import InvalidArgumentError
from mainstem.ui.html import EMPTY, Html, el, join, text


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.data += data


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(st.text(), st.text())
def test_no_text_becomes_markup(child: str, value: str) -> None:
    """Whatever text is put into an element or an attribute comes out as that text, and adds no element."""
    reader = _read(el("p", child, title=value))
    assert reader.tags == ["p"]
    assert reader.data == child.replace("\r\n", "\n").replace("\r", "\n") or reader.data == child
    assert reader.attributes == [("title", value)]


def test_html_is_not_escaped_twice() -> None:
    """An element within an element stays an element."""
    assert el("p", el("b", "<")) == "<p><b>&lt;</b></p>"


def test_nothing_and_numbers_and_lists() -> None:
    """Nothing adds nothing, numbers are numbers, lists are their parts."""
    assert text([None, 1, 2.5, ["<", Html("<br>")], EMPTY]) == "12.5&lt;<br>"
    assert join(["a", "b"], ", ") == "a, b"


def test_names_of_attributes() -> None:
    """A final underscore is dropped, others are hyphens; True writes the name alone, False and None nothing."""
    assert el("input", class_="x", aria_label="y", disabled=True, checked=False, value=None) == (
        '<input class="x" aria-label="y" disabled>'
    )


@pytest.mark.parametrize(
    "attributes", [{"onclick": "x"}, {"style": "x"}, {"hx-on:click": "x"}, {"srcdoc": "x"}, {"a b": "x"}, {'"': "x"}]
)
def test_what_the_policy_refuses_is_refused_here(attributes: dict[str, str]) -> None:
    """Handlers, inline styles and malformed names of attributes are errors."""
    with pytest.raises(InvalidArgumentError):
        el("p", attributes=dict(attributes))


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "JaVa\tScript:x", " javascript:x", "data:text/html,x", "vbscript:x"]
)
def test_addresses_with_a_foreign_scheme_are_refused(address: str) -> None:
    """An address that a browser would run, or load from nowhere, is an error."""
    with pytest.raises(InvalidArgumentError):
        el("a", "x", href=address)


@pytest.mark.parametrize("address", ["/runs/a:b", "runs?x=1:2", "https://example.org/", "#main", ""])
def test_ordinary_addresses_pass(address: str) -> None:
    """Paths, queries, fragments and http addresses are written as they are."""
    assert el("a", href=address) == f'<a href="{address}"></a>'


def test_scripts_have_no_content() -> None:
    """A script or style with content of its own is an error: the policy would not run it."""
    with pytest.raises(InvalidArgumentError):
        el("script", "alert(1)")
    assert el("script", src="x.js") == '<script src="x.js"></script>'


def test_names_of_elements_are_checked() -> None:
    """What is no name of an element is an error."""
    with pytest.raises(InvalidArgumentError):
        el("p><script")
