"""Promises of the pages, each with code that breaks it: the check passes on the one and fails on the other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import Response

from mainstem import Mainstem
from mainstem.log import LogInUseError, Record, StoredRecord
from mainstem.ui import html as html_module
from mainstem.ui.html import Child, Html
from mainstem.web import hub as hub_module
from mainstem.web import security as security_module
from mainstem.web.api import Api
from mainstem.web.hub import Address, event, page_state
from mainstem.web.projection import PageState
from mainstem.web.security import Gate
from tests.app.test_life import check_a_cancelled_stop
from tests.support import run
from tests.web import test_hub
from tests.web.support import dashboard, failed_run
from tests.web.test_behind import check_nothing_is_denied, hold_up
from tests.web.test_projection import Counter, disk_error
from tests.web.test_security import TOKEN, check_no_method_passes_as_a_question

PAGE = {"accept": "text/html"}


def a_page_that_reconnects_loses_nothing(directory: Path) -> None:
    """A reader that comes back with an earlier state is shown what happened since."""

    async def main() -> None:
        async with dashboard(directory) as (board, log, _client):
            page = Address("streams/orders.created", "", "/")
            await board.projection.caught_up(await log.append("orders.created", [Record(b'"before"')]), timeout_s=10)
            before = await board._render_address(page)
            assert before.view is not None
            after = await log.append("orders.created", [Record(b'"meanwhile"')])
            await board.projection.caught_up(after, timeout_s=10)
            sent = b""
            async with aclosing(board.hub.stream(page, page_state(before.view, before.position))) as stream:
                async with asyncio.timeout(2):
                    while b"meanwhile" not in sent:
                        sent += await anext(stream)

    run(main())


def position_and_state_change_together(directory: Path) -> None:
    """A panel that fails in the middle leaves neither its changes nor a later position."""
    panel = Counter()
    state = PageState(directory / "pages.sqlite", [panel])
    state.open(1000)
    panel.fails = disk_error()
    with pytest.raises(sqlite3.OperationalError, match="is full"):
        state.apply([StoredRecord(1, "orders.created", 1, b"{}")])
    panel.fails = None
    state.apply([StoredRecord(1, "orders.created", 1, b"{}")])
    (count,) = state.db.execute("SELECT n FROM counter_count").fetchone()
    state.close()
    assert count == 1, "a record was taken in twice"


def strangers_write_no_markup(directory: Path) -> None:
    """What an error's message says is text on the page."""

    async def main() -> None:
        async with dashboard(directory) as (_board, log, client):
            await log.append("$run.a", failed_run("<img src=x>"), expected_position=0)
            page = await client.get("/runs/a", headers=PAGE)
            assert page.status_code == 200 and "<img" not in page.text

    run(main())


def strangers_are_not_let_in(directory: Path) -> None:
    """A foreign host name reads nothing, and another site's page changes nothing."""

    async def main() -> None:
        async with dashboard(directory) as (_board, log, client):
            await log.append("$run.a", failed_run()[:1], expected_position=0)
            for header in ({"host": "evil.example"}, {"x-forwarded-proto": "https"}):
                assert (await client.get("/runs/a", headers={**PAGE, **header})).status_code == 403
            headers = {"origin": "http://evil.example", "hx-request": "true"}
            assert (await client.post("/api/runs/a/cancel", headers=headers)).status_code == 403
            assert await log.read("$inbox.>") == []

    run(main())


def only_questions_pass_without_the_token(_directory: Path) -> None:
    """What a service does on another method's behalf needs the token."""
    check_no_method_passes_as_a_question("POST")


def half_a_change_is_not_lost(_directory: Path) -> None:
    """A connection that breaks between two fragments of one change."""
    test_hub.test_who_lost_half_of_a_change_gets_all_of_it()


def what_is_not_taken_in_is_not_denied(directory: Path) -> None:
    """A run that the page state is behind of."""
    with pytest.MonkeyPatch.context() as patch:
        check_nothing_is_denied(directory, hold_up(patch))


def the_token_in_the_address_opens_pages_only(directory: Path) -> None:
    """A change needs the token where no log keeps it."""

    async def main() -> None:
        async with dashboard(directory, token=TOKEN) as (_board, _log, client):
            answer = await client.post("/api/runs/a/cancel", params={"token": TOKEN}, json={})
            assert answer.status_code == 401

    run(main())


def who_stops_may_be_cancelled(directory: Path) -> None:
    """A stop that is given up half-way is carried out."""
    check_a_cancelled_stop(directory, "the dashboard's stop")


def every_event_has_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first fragment of a change is taken for all of it."""
    monkeypatch.setattr(hub_module, "_events", lambda elements, state: [event(element, state) for element in elements])
    monkeypatch.setattr(test_hub, "WITHIN_S", 0.5)


def lag_taken_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited in vain for the page state goes by it all the same."""

    async def waited(self: Api) -> bool:
        await self._projection.caught_up(self._log.end_position, 0.05)
        return True

    monkeypatch.setattr(Api, "_is_fresh", waited)


def token_taken_by_any_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token in an address is good for every request."""
    check = Gate._check_token

    def as_if_opened(self: Gate, request: HTTPConnection, token: str) -> Response | None:
        return check(self, HTTPConnection({**request.scope, "method": "GET"}), token)

    monkeypatch.setattr(Gate, "_check_token", as_if_opened)


def stop_in_the_callers_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops the application does so himself, and the dashboard first."""

    async def stop(self: Mainstem) -> None:
        stack, self._running = self._running, None
        if self._dashboard is not None:
            await self._dashboard.stop()
        if stack is not None:
            await stack.aclose()
        self._log = self._blobs = self._dashboard = None

    monkeypatch.setattr(Mainstem, "stop", stop)


def proxies_unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing shows a proxy."""
    monkeypatch.setattr(security_module, "_sign_of_proxy", lambda _scope, _headers: "")


def state_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub takes every reader for one that has seen everything."""
    join = hub_module._Room.join

    async def forgetful(self: hub_module._Room, reader: hub_module._Reader, _shown: str) -> None:
        rendering = await self._render(self.address)
        assert rendering.view is not None
        await join(self, reader, page_state(rendering.view, rendering.position))

    monkeypatch.setattr(hub_module._Room, "join", forgetful)


def transaction_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of the page state is durable by itself."""

    def apply(self: PageState, records: Sequence[StoredRecord]) -> set[str]:
        topics: set[str] = set()
        for panel in self._panels:
            topics |= panel.apply(self.db, records)
        self.position = records[-1].position
        return topics

    monkeypatch.setattr(PageState, "apply", apply)


def escaping_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is taken for HTML."""

    def text(child: Child) -> Html:
        if isinstance(child, str | int | float):
            return Html(child)
        return Html("" if child is None else "".join(text(part) for part in child))

    monkeypatch.setattr(html_module, "text", text)


def host_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever name the request came by is good."""
    monkeypatch.setattr(security_module, "check_local", lambda _scope, _headers: None)


def origin_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever page sent the request is good."""
    monkeypatch.setattr(security_module, "check_same_origin", lambda _headers: None)


def override_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is an OPTIONS is a question."""
    monkeypatch.setattr(security_module, "is_preflight", lambda method, _headers: method == "OPTIONS")


CASES: Sequence[tuple[Callable[[Path], None], Callable[[pytest.MonkeyPatch], None]]] = (
    (a_page_that_reconnects_loses_nothing, state_forgotten),
    (position_and_state_change_together, transaction_left_out),
    (strangers_write_no_markup, escaping_left_out),
    (half_a_change_is_not_lost, every_event_has_an_id),
    (what_is_not_taken_in_is_not_denied, lag_taken_for_the_end),
    (the_token_in_the_address_opens_pages_only, token_taken_by_any_method),
    (who_stops_may_be_cancelled, stop_in_the_callers_hands),
    (strangers_are_not_let_in, proxies_unnoticed),
    (strangers_are_not_let_in, host_unchecked),
    (strangers_are_not_let_in, origin_unchecked),
    (only_questions_pass_without_the_token, override_unchecked),
)


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _mutant in CASES), ids=lambda check: check.__name__)
def test_promise(check: Callable[[Path], None], tmp_path: Path) -> None:
    """The code as it is keeps the promise."""
    check(tmp_path)


@pytest.mark.parametrize(("check", "mutant"), CASES, ids=[mutant.__name__ for _check, mutant in CASES])
def test_mutant(
    check: Callable[[Path], None],
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken code does not keep it, and the check notices."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError, sqlite3.Error, LogInUseError)):
        check(tmp_path)
