"""The dashboard in a browser: Debian's Chromium, without a window, against a server in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from tests.support import ROOT

pytestmark = pytest.mark.serial

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PREFIX = "/some/prefix/"
PATHS = (
    "",
    "runs",
    "runs?state=failed",
    "runs/deliver-7",
    "runs/rest-5",
    "runs/guarded-9",
    "streams",
    "streams?system=1",
    "streams/orders.created",
    "uploads",
    "nothing/here",
)
SIZES = {"wide": (1440, 900), "narrow": (390, 844)}


class Server:
    """The application in a process, at one port for its whole life, also when it is killed and started again."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", environment: dict[str, str] | None = None) -> None:
        self._directory = directory
        self._host = host
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return f"http://127.0.0.1:{self.port}{PREFIX}"

    def start(self) -> None:
        """Start it; return when it answers."""
        program = Path(__file__).with_name("dashboard_app.py")
        command = [sys.executable, str(program), str(self._directory), self._host, str(self.port)]
        log = (self._directory.parent / "server.log").open("a")
        with log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.strip(), (self._directory.parent / "server.log").read_text()
        self.port = int(line)

    def end(self, number: signal.Signals) -> None:
        """End it with a signal, and wait until it is gone. Idempotent."""
        assert self._process is not None and self._process.stdout is not None
        self._process.send_signal(number)
        self._process.wait(30)
        self._process.stdout.close()

    def do(self, what: str, number: int) -> None:
        """Make something happen in the application."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/do/{what}?n={number}", timeout=30) as answer:
            assert answer.status == 200


class Watch:
    """What must not happen in a browser: errors, violations of the policy, requests elsewhere."""

    def __init__(self, context: BrowserContext, origin: str, *, ignore: tuple[str, ...] = ()) -> None:
        self.found: list[str] = []
        self._origin = origin
        self._ignore = ignore
        context.on("console", self._console)
        context.on("weberror", lambda error: self.found.append(f"error: {error.error}"))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(part in message.text for part in self._ignore):
            self.found.append(f"{message.type}: {message.text} ({message.location})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._origin, "data:", "blob:" + self._origin)):
            self.found.append(f"elsewhere: {request.url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@contextmanager
def running(directory: Path, host: str = "127.0.0.1", environment: dict[str, str] | None = None) -> Iterator[Server]:
    directory.mkdir()
    server = Server(directory, host, environment)
    server.start()
    try:
        yield server
    finally:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with runs in every state."""
    with running(tmp_path_factory.mktemp("shop") / "data") as server:
        server.do("many", 8)
        server.do("deliver", 7)
        server.do("rest", 5)
        server.do("guarded", 9)
        yield server


def opened(context: BrowserContext, url: str) -> Page:
    """Open a page and wait until it is live."""
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def check_soundness(browser: Browser, url: str, prefix: str, paths: Sequence[str], size: str, scheme: str) -> None:
    """Open pages one after the other; fail where anything is amiss with one.

    Args:
        browser: Opens them in a context of its own.
        url: The dashboard's address, which ends with ``prefix``.
        prefix: Where it is mounted.
        paths: The pages, below ``url``.
        size: One of :data:`SIZES`.
        scheme: ``"light"`` or ``"dark"``.
    """
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    watch = Watch(context, url.removesuffix(prefix), ignore=("status of 404",))
    page = context.new_page()
    for path in paths:
        page.goto(url + path)
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        page.evaluate(AXE.read_text("utf-8"))
        findings = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"]])
            for one in findings
            if one["impact"] in {"serious", "critical"}
        ]
        assert serious == [], path
    context.close()
    assert watch.found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_are_sound(browser: Browser, shop: Server, size: str, scheme: str) -> None:
    """Every page, wide and narrow, light and dark: no error, no violation of the policy, no request elsewhere, nothing
    to scroll sideways, and axe-core finds nothing serious.
    """
    check_soundness(browser, shop.url, PREFIX, PATHS, size, scheme)


def test_a_page_is_live_however_late_its_scripts_come(browser: Browser, shop: Server) -> None:
    """A page whose scripts arrive late, and one by one, becomes live all the same."""
    context = browser.new_context()

    def late(route: Route) -> None:
        # Answered only when the document has been parsed up to it, and what it would run without it has run.
        context.pages[0].evaluate("new Promise(resolve => setTimeout(resolve, 300))")
        route.continue_()

    context.route("**/hx-sse.min.js", late)
    opened(context, shop.url + "runs")
    context.close()


def test_a_run_is_seen_while_it_happens(browser: Browser, shop: Server) -> None:
    """The page of a run, the list and the overview show a change without being loaded again."""
    context = browser.new_context()
    shop.do("guarded", 1)
    run = opened(context, shop.url + "runs/guarded-1")
    listed = opened(context, shop.url + "runs?search=guarded-1")
    run.evaluate("window.mark = 'the same document'")
    expect(run.locator(".state-line .pill")).to_have_text("running")
    shop.do("open", 1)
    expect(run.locator(".state-line .pill")).to_have_text("completed")
    expect(run.locator("#f-steps")).to_contain_text("wait_at#1")
    expect(listed.locator("tbody .pill")).to_have_text("completed")
    assert run.evaluate("window.mark") == "the same document"
    context.close()


def test_a_stream_is_tailed(browser: Browser, shop: Server) -> None:
    """A new record is on the stream's page at once; a record that was opened stays open."""
    context = browser.new_context()
    page = opened(context, shop.url + "streams/orders.created")
    before = page.locator(".records li").count()
    first = page.locator(".records details").first
    first.locator("summary").click()
    name = first.get_attribute("id")
    shop.do("order", 77)
    expect(page.locator(".records li")).to_have_count(before + 1)
    expect(page.locator(f"#{name}")).to_have_attribute("open", "")
    context.close()


def test_a_run_is_cancelled_by_button(browser: Browser, shop: Server) -> None:
    """The button asks, and the run's page then says that it was cancelled."""
    context = browser.new_context()
    shop.do("guarded", 2)
    page = opened(context, shop.url + "runs/guarded-2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel run").click()
    expect(page.locator(".state-line .pill")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Cancel run")).to_have_count(0)
    context.close()


def test_everything_is_reached_by_keyboard(browser: Browser, shop: Server) -> None:
    """The first stop leads past the navigation; links and fields show where the focus is."""
    context = browser.new_context()
    page = opened(context, shop.url + "runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "search-runs":
            break
    page.keyboard.type("deliver-7")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "search=deliver-7" in page.url
    context.close()


def test_a_lost_connection_loses_nothing(browser: Browser, tmp_path: Path) -> None:
    """The server is killed with -9 while a page is open, and things go on after its return: the page says that it lost
    the connection, comes back by itself with the position it had, and shows all that happened meanwhile.
    """
    with running(tmp_path / "data") as server:
        server.do("guarded", 1)
        context = browser.new_context()
        requests: list[Request] = []
        context.on("request", lambda request: requests.append(request) if "/events" in request.url else None)
        page = opened(context, server.url + "runs")
        expect(page.locator("tbody tr")).to_have_count(1)
        server.end(signal.SIGKILL)
        expect(page.locator("#connection")).to_contain_text("Reconnecting")
        server.start()
        for number in range(3):
            server.do("deliver", number)
        expect(page.locator("#connection")).to_have_text("Live", timeout=30_000)
        expect(page.locator("tbody tr")).to_have_count(4, timeout=30_000)
        expect(page.locator("tbody .pill", has_text="failed")).to_have_count(3, timeout=30_000)
        page.locator("a", has_text="deliver-2").click()
        expect(page.locator(".notice")).to_contain_text("Step ship#1 failed at attempt 2, its last: ValueError")
        assert any(int(request.headers.get("last-event-id", "0").partition("-")[0]) > 0 for request in requests)
        context.close()


def test_a_token_is_demanded_from_other_machines(browser: Browser, tmp_path: Path) -> None:
    """An address that others can reach demands the token; opened once with it, a browser is let in."""
    token = "correct-horse-battery"
    with running(tmp_path / "data", "0.0.0.0", {"MAINSTEM_TOKEN": token}) as server:
        context = browser.new_context()
        page = context.new_page()
        answer = page.goto(server.url)
        assert answer is not None and answer.status == 401
        page.goto(server.url + "runs?token=" + token)
        expect(page.locator("h1")).to_have_text("Runs")
        expect(page.locator("#connection")).to_have_text("Live")
        assert token not in page.url and urlsplit(page.url).path == PREFIX + "runs"
        assert token not in page.content()
        context.close()


def test_reachable_without_a_token_is_refused(tmp_path: Path, browser: Browser) -> None:
    """An application on an address that others can reach, without a token, lets nobody in by a foreign name."""
    with running(tmp_path / "data", "0.0.0.0", {"MAINSTEM_TOKEN": ""}) as server:
        page = browser.new_page()
        answer = page.goto(f"http://127.0.0.1:{server.port}{PREFIX}")
        assert answer is not None and answer.status == 200
        request = urllib.request.Request(server.url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        assert caught.value.code == 403
        caught.value.close()
        page.close()


def test_open_pages_do_not_hold_the_server_up(browser: Browser, tmp_path: Path) -> None:
    """A server that is asked to end does so at once, also while a page is live; it says nothing of cancelled tasks."""
    with running(tmp_path / "data", environment={"PATIENCE_S": "60"}) as server:
        context = browser.new_context()
        opened(context, server.url)
        began_s = time.monotonic()
        server.end(signal.SIGTERM)
        assert time.monotonic() - began_s < 10
        assert "Cancel" not in (tmp_path / "server.log").read_text()
        context.close()
