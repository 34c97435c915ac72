"""Who is let in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mainstem.base.errors import InvalidArgumentError
from mainstem.web.errors import ForbiddenError, TokenNeededError
from mainstem.web.identity import host_name, is_loopback, is_sendable
from mainstem.web.security import (
    CONTENT_SECURITY_POLICY,
    HEADERS,
    Gate,
    check_intended,
    check_local,
    check_same_origin,
    cookie_name,
    cookie_value,
    is_preflight,
)
from tests.support import run
from tests.web.support import dashboard, started

TOKEN = "correct horse"


@pytest.mark.parametrize("name", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST", "app.localhost"])
def test_names_of_this_machine(name: str) -> None:
    """Loopback addresses and localhost are this machine's own."""
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name", ["", "10.0.0.1", "evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0", "::"]
)
def test_names_of_others(name: str) -> None:
    """A name that merely begins like a loopback one is another's."""
    assert not is_loopback(name)


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost:80", "localhost"), ("[::1]:80", "::1"), ("x", "x"), ("::1", "::1"), ("", ""), ("[::1]", "::1")]
    + [(host, "") for host in ("[::1].evil.example", "[::1]x", "[::1]:", "[::1]:80.evil.example")],
)
def test_host_headers(host: str, name: str) -> None:
    """The port and brackets are no part of the name."""
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("server", "headers"),
    [
        (("192.168.1.5", 80), {"host": "localhost"}),
        (("127.0.0.1", 80), {"host": "evil.example"}),
        (("127.0.0.1", 80), {}),
        (("127.0.0.1", 80), {"host": "localhost", "x-forwarded-for": "1.2.3.4"}),
        (("127.0.0.1", 80), {"host": "localhost", "forwarded": "for=1.2.3.4"}),
        *(
            (("127.0.0.1", 80), {"host": "localhost", name: "1.2.3.4"})
            for name in (
                *("via", "cf-connecting-ip", "true-client-ip", "x-real-ip", "x-client-ip", "x-original-host"),
                *("x-forwarded-proto", "x-forwarded-server", "x-forwarded-port", "X-Forwarded-Anything"),
            )
        ),
        (("127.0.0.1", 80), {"host": "[::1].evil.example"}),
    ],
)
def test_without_a_token_only_this_machine(server: tuple[str, int], headers: dict[str, str]) -> None:
    """A reachable address, a foreign host name (DNS rebinding) and a proxy are refused."""
    with pytest.raises(ForbiddenError):
        check_local({"server": server}, Headers(headers))


def test_two_host_names_are_none() -> None:
    """A request with a second host name is refused, whichever comes first (RFC 9112, 3.2)."""
    for names in ((b"127.0.0.1", b"evil.example"), (b"evil.example", b"127.0.0.1"), (b"127.0.0.1", b"127.0.0.1")):
        headers = Headers(raw=[(b"host", name) for name in names])
        with pytest.raises(ForbiddenError):
            check_local({"server": ("127.0.0.1", 80)}, headers)


def test_what_nginx_sends_on_is_refused() -> None:
    """``proxy_pass`` alone names this machine as the host and shows itself by HTTP/1.0 only."""
    sent_on = Headers({"host": "127.0.0.1:8000", "connection": "close"})
    with pytest.raises(ForbiddenError, match=r"a proxy stands in between \(HTTP/1.0\)"):
        check_local({"server": ("127.0.0.1", 8000), "http_version": "1.0"}, sent_on)
    check_local({"server": ("127.0.0.1", 8000), "http_version": "1.1"}, sent_on)


def test_this_machine_is_let_in() -> None:
    """Loopback address and loopback name; a Unix socket has no address."""
    check_local({"server": ("127.0.0.1", 80)}, Headers({"host": "localhost:80"}))
    check_local({"server": ("127.0.0.1", 80), "http_version": "2"}, Headers({"host": "localhost:80"}))
    check_local({"server": ("/run/app.sock", None)}, Headers({"host": "localhost"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:80", "origin": "http://evil.example"},
        {"host": "localhost:80", "origin": "http://localhost:81"},
        {"host": "localhost:80", "origin": "null"},
        {"host": "localhost:80", "origin": "http://["},
        {"host": "[", "origin": "http://["},
        {"host": "localhost:80", "sec-fetch-site": "cross-site"},
        {"host": "localhost:80", "sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_change_nothing(headers: dict[str, str]) -> None:
    """What a browser says comes from elsewhere is refused."""
    with pytest.raises(ForbiddenError):
        check_same_origin(Headers(headers))


def test_own_pages_and_commands_may() -> None:
    """The own origin passes, and so does a client that is no browser."""
    check_same_origin(
        Headers({"host": "localhost:80", "origin": "http://localhost:80", "sec-fetch-site": "same-origin"})
    )
    check_same_origin(Headers({"host": "localhost:80"}))


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}]
)
def test_a_form_changes_nothing(headers: dict[str, str]) -> None:
    """A plain form of any site can be sent without a question; it carries neither JSON nor htmx's header."""
    with pytest.raises(ForbiddenError):
        check_intended(Headers(headers))
    check_intended(Headers({"content-type": "application/json; charset=utf-8"}))
    check_intended(Headers({"hx-request": "true"}))


def test_only_a_question_is_a_preflight() -> None:
    """OPTIONS passes without a token when a browser asks by it, and not when another method is to be performed."""
    asks = {"access-control-request-method": "PATCH"}
    assert is_preflight("OPTIONS", Headers(asks))
    assert not is_preflight("OPTIONS", Headers({}))
    assert not is_preflight("POST", Headers(asks))
    assert not is_preflight("OPTIONS", Headers({**asks, "X-HTTP-Method-Override": "POST"}))


@pytest.mark.parametrize("override", ["POST", "PATCH", "HEAD"])
def test_no_method_passes_as_a_question(override: str) -> None:
    """A service behind the gate hears of a preflight without a token, and of nothing that names another method."""
    check_no_method_passes_as_a_question(override)


def check_no_method_passes_as_a_question(override: str) -> None:
    """Send a preflight, and one with an override, to a service behind a gate."""
    heard: list[str] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(scope["method"])
        await Response(status_code=204)(scope, receive, send)

    async def main() -> None:
        transport = httpx.ASGITransport(Gate(service, TOKEN, ["uploads"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            asks = {"access-control-request-method": override}
            assert (await client.options("/uploads/files", headers=asks)).status_code == 204
            for headers in ({}, asks):
                answer = await client.options("/uploads/files", headers={**headers, "x-http-method-override": override})
                assert answer.status_code == TokenNeededError.status
            assert heard == ["OPTIONS"]

    run(main())


def test_a_short_token_is_none() -> None:
    """A token that could be guessed, or that no header can carry, is refused at once."""
    for token in ("short", "tok€n-tok€n", "one\nand another", " with spaces "):
        with pytest.raises(InvalidArgumentError):
            Gate(lambda *_: None, token)  # type: ignore[arg-type]
    assert is_sendable(TOKEN)


def test_every_answer_carries_the_policy(tmp_path: Path) -> None:
    """Pages, files, API and errors come with the content security policy and the other headers."""

    async def main() -> None:
        async with dashboard(tmp_path) as (board, _log, client):
            for path in ("/", "/nothing", "/api/runs", "/" + board.files.path("dashboard.css")):
                answer = await client.get(path, headers={"accept": "text/html"})
                assert all(answer.headers[name] == value for name, value in HEADERS.items())
            refused = await client.get("/", headers={"host": "evil.example", "accept": "text/html"})
            assert refused.status_code == 403 and refused.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
            assert "unsafe" not in CONTENT_SECURITY_POLICY

    run(main())


def test_the_token_is_demanded_everywhere(tmp_path: Path) -> None:
    """With a token nothing is answered without it, and a wrong one is none."""

    async def main() -> None:
        async with dashboard(tmp_path, token=TOKEN) as (board, log, client):
            await log.append("$run.a", [started()], expected_position=0)
            paths = ("/", "/runs/a", "/events?path=", "/api/runs", "/" + board.files.path("dashboard.css"))
            for path in paths:
                for headers in ({}, {"authorization": "Bearer wrong"}, {"cookie": f"{cookie_name(TOKEN)}={TOKEN}"}):
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == TokenNeededError.status and TOKEN not in answer.text
            assert (await client.post("/api/runs/a/cancel", json={})).status_code == 401
            answer = await client.get("/api/runs", headers={"authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 200

    run(main())


def test_the_token_in_the_address_becomes_a_cookie(tmp_path: Path) -> None:
    """?token= is answered with a cookie that is not the token, and an address without it."""

    async def main() -> None:
        async with dashboard(tmp_path, token=TOKEN) as (_board, _log, client):
            answer = await client.get("/runs", params={"token": TOKEN, "state": "failed"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/runs?state=failed")
            cookie = answer.headers["set-cookie"]
            assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "horse" not in cookie
            assert client.cookies[cookie_name(TOKEN)] == cookie_value(TOKEN)
            assert (await client.get("/runs")).status_code == 200

    run(main())


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_token_in_the_address_is_for_opening_pages(method: str) -> None:
    """Only a GET is answered with the cookie; the address of any other request, which logs keep, is no key."""

    async def behind(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("it was let in")

    async def main() -> None:
        transport = httpx.ASGITransport(Gate(behind, TOKEN, ["uploads"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for path in ("/api/runs/a/cancel", "/uploads/files"):
                answer = await client.request(method, path, params={"token": TOKEN})
                assert answer.status_code == TokenNeededError.status and "set-cookie" not in answer.headers

    run(main())


def test_two_dashboards_of_one_host_let_in_one_browser(tmp_path: Path) -> None:
    """A browser sends a host's cookies to all of its ports: who is let in by one dashboard stays so at another."""

    async def main() -> None:
        async with (
            dashboard(tmp_path / "one", token=TOKEN) as (_one, _log, client),
            dashboard(tmp_path / "two", token="another horse") as (_two, _other_log, other),
        ):
            jar: dict[str, str] = {}
            for web, token in ((client, TOKEN), (other, "another horse")):
                assert (await web.get("/", params={"token": token})).status_code == 303
                jar |= web.cookies
                web.cookies.clear()
            headers = {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items())}
            assert [(await web.get("/", headers=headers)).status_code for web in (client, other)] == [200, 200]

    run(main())


def test_a_token_lets_in_by_any_name(tmp_path: Path) -> None:
    """Who has the token may come through a proxy, and by another host name."""

    async def main() -> None:
        async with dashboard(tmp_path, token=TOKEN) as (_board, _log, client):
            headers = {"authorization": f"Bearer {TOKEN}", "host": "ops.example", "x-forwarded-for": "1.2.3.4"}
            assert (await client.get("/", headers=headers)).status_code == 200

    run(main())


def test_the_answer_to_a_stranger_is_a_page_or_json(tmp_path: Path) -> None:
    """A browser is told on a page, a program in the API's error shape."""

    async def main() -> None:
        async with dashboard(tmp_path) as (_board, _log, client):
            foreign = {"host": "evil.example"}
            page: httpx.Response = await client.get("/", headers={**foreign, "accept": "text/html"})
            assert page.headers["content-type"].startswith("text/html") and "evil.example" in page.text
            answer = await client.get("/", headers=foreign)
            assert answer.json()["error"]["code"] == "web-forbidden"

    run(main())
