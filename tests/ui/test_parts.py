"""Parts of pages, icons and charts."""

from __future__ import annotations

import pytest

from mainstem.ui.charts import Segment, bars, track
from mainstem.ui.html import EMPTY
from mainstem.ui.icons import icon
from mainstem.ui.panel import Fragment, GroupFacts, LiveFacts, Page, PageRequest, PageView, Panel
from mainstem.ui.parts import (
    TONES,
    address,
    card,
    code_block,
    entities,
    facts,
    json_block,
    link,
    metric,
    notice,
    one_line,
    pager,
    pill,
    progress,
    scrolling,
    search_form,
    table,
)


@pytest.mark.parametrize("state", [*TONES, "unheard of"])
def test_a_state_is_icon_and_word(state: str) -> None:
    """No state is told by colour alone."""
    assert "<svg" in pill(state) and f">{state}</span>" in pill(state)


def test_an_unknown_icon_is_an_error() -> None:
    """Icons are named in one place."""
    with pytest.raises(KeyError):
        icon("unheard of")


def test_links_are_quoted_below_the_root() -> None:
    """A path's special characters are quoted, empty parameters left out, and the prefix is kept."""
    assert address("/x/", "streams/a?b #", {"before": "1", "state": ""}) == "/x/streams/a%3Fb%20%23?before=1"
    assert link("/x/", "runs", "<", class_="tab") == '<a href="/x/runs" class="tab">&lt;</a>'


def test_a_table_without_rows_says_so() -> None:
    """In place of an empty table stands a sentence."""
    assert "<table" not in table("T", (("A", ""),), [])
    assert "none" in table("T", (("A", ""),), [], empty="none")


def test_a_table_has_headings_and_labels() -> None:
    """Each column has a heading, and each cell its label for narrow screens."""
    html = table("Things", (("A", ""), ("B", "number")), [("<", 2)])
    assert '<th scope="col">A</th><th scope="col" class="number">B</th>' in html
    assert '<td data-label="A">&lt;</td><td class="number" data-label="B">2</td>' in html


def test_facts_without_value_are_left_out() -> None:
    """Only what is known is shown."""
    html = facts([("A", 1), ("B", None), ("C", ""), ("D", EMPTY)])
    assert "A" in html and "B" not in html and "C" not in html and "D" not in html


def test_json_is_indented_and_bytes_are_shown() -> None:
    """A JSON document is indented; what is no JSON, or too deep, is shown as text, escaped."""
    assert "&quot;a&quot;: 1" in json_block(b'{"a":1}', "x")
    assert "&lt;\ufffd" in json_block(b"<\xff", "x")
    assert "[[[[" in json_block(b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "x")
    assert one_line(b"a\n\x1b[0m" + b"x" * 500, 10) == "a  [0mxxx…"


def test_code_can_be_reached_by_keyboard() -> None:
    """A box that scrolls takes the focus and has a name."""
    assert 'tabindex="0"' in code_block("x", "Traceback") and 'aria-label="Traceback"' in code_block("x", "Traceback")


def test_what_is_long_scrolls_and_can_be_reached_by_keyboard() -> None:
    """It takes the focus and has a name."""
    html = scrolling(card("Steps", "x"), "Steps")
    assert 'tabindex="0"' in html and 'aria-label="Steps"' in html


def test_entities_lead_to_all_runs_about_them() -> None:
    """Each entity searches the runs for itself; its name stays text."""
    html = entities("/x/", ["order:7", "a<b"])
    assert 'href="/x/runs?search=order%3A7"' in html and "a&lt;b</a>" in html


def test_progress_is_bar_and_number() -> None:
    """Progress is bounded, told as text too, and nothing out of nothing is nothing."""
    assert ">50 %<" in progress(1, 2, "x") and ">100 %<" in progress(3, 2, "x") and ">0 %<" in progress(0, 0, "x")


def test_a_pager_has_only_the_links_that_lead_somewhere() -> None:
    """One page has no pager; the first has no newer one."""
    assert pager("/", "runs", {}, 1, has_more=False) == ""
    assert "Newer" not in pager("/", "runs", {}, 1, has_more=True)
    assert 'href="/runs?page=3"' in pager("/", "runs", {}, 2, has_more=True)


def test_cards_notices_and_metrics_escape() -> None:
    """What a part is given as text stays text."""
    for html in (card("<", "<"), notice("bad", "<"), metric("<", "<", "<")):
        assert "&lt;" in html and "<<" not in html


def test_bars_show_what_is_there_at_all() -> None:
    """A value above nothing is at least two units high; the failed part is drawn over it; a sentence tells the rest."""
    html = bars([0, 1, 1000], "Events", bad=[0, 0, 500])
    assert html.count('class="bar"') == 2 and html.count('class="bar bad"') == 1
    assert 'height="2.00"' in html and 'aria-label="Events"' in html


def test_a_track_draws_waiting_and_work_apart() -> None:
    """Each stretch has its own look; an instant is a mark; everything stays on the line."""
    html = track([Segment(0.0, 0.5, "wait"), Segment(0.5, 2.0, "work"), Segment(1.5, 0.0, "event")], "step")
    assert 'width="50.000%" height="10" rx="2" class="wait"' in html
    assert 'x="50.000%" y="3" width="50.000%"' in html
    assert '<circle cx="99.750%"' in html and "<title>step</title>" in html


def test_a_panel_is_any_object_of_the_shape() -> None:
    """What a service shows needs no base class."""

    class Mine:
        name = "mine"
        version = 1
        patterns = ("x",)
        schema = ""

        def apply(self, db: object, records: object) -> set[str]:
            return {"mine"}

        def pages(self) -> list[Page]:
            return [Page("mine", lambda _db, _request: None)]

    panel: Panel = Mine()
    request = PageRequest({}, {}, "/", LiveFacts(now_ns=1, groups=[GroupFacts("g", "p", 1, 0, 0, 0, 0)]))
    view = PageView("T", [Fragment("a", EMPTY)], frozenset({"mine"}))
    assert panel.pages()[0].path == "mine" and request.files == {} and view.scripts == ()


def test_a_search_keeps_the_filter_beside_it() -> None:
    """The field shows what was searched for, escaped; the filter goes along as a hidden field, if there is one."""
    plain = str(search_form("runs", "", "Id", "/m/runs"))
    assert 'id="search-runs"' in plain and 'action="/m/runs"' in plain and 'type="hidden"' not in plain
    filtered = str(search_form("runs", '"><b>', "Id", "/m/runs", ("state", "failed")))
    assert 'name="state" value="failed"' in filtered
    assert "<b>" not in filtered
