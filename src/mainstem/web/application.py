"""The dashboard as one ASGI application, under whatever prefix it is mounted."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Send

from mainstem.base.errors import MainstemError
from mainstem.bus import GroupStatus
from mainstem.host.clock import Clock
from mainstem.host.signals import before_ending
from mainstem.log.contract import Log
from mainstem.trace.spans import UnderWay
from mainstem.ui.html import el, join
from mainstem.ui.panel import Fragment, GroupFacts, LiveFacts, Page, PageRequest, PageView, Panel
from mainstem.ui.parts import notice
from mainstem.web.answers import error_response, html_response, wants_html
from mainstem.web.api import Api
from mainstem.web.errors import NotFoundError, UnavailableError, WebError
from mainstem.web.hub import TICK_EVERY_S, Address, Hub, Rendering, TooManyReadersError, page_state
from mainstem.web.panels.overview import OverviewPanel
from mainstem.web.panels.records import RecordsPanel
from mainstem.web.panels.runs import RunsPanel
from mainstem.web.panels.streams import StreamsPanel
from mainstem.web.panels.traces import TracesPanel
from mainstem.web.projection import Projection
from mainstem.web.security import Gate
from mainstem.web.shell import Shell
from mainstem.web.static import StaticFiles

_logger = logging.getLogger(__name__)

PAGES_FILE = "pages.sqlite"
"""Name of the page state within the data directory."""

FRESH_WITHIN_S = 1.0
"""How long a page waits for the page state to reach the log's end, before it is shown as it is."""

PAGE_STATE_TOPIC = "page-state"
"""Topic of pages that say that they may lack something: they are rendered again when the page state gets further."""

_STATS_FOR_S = 2.0
_QUERY_MAX_CHARS = 2_000


class Dashboard:
    """Pages, live streams and API over one log.

    Args:
        log: The log.
        directory: The data directory, for the page state.
        clock: The time.
        panels: What services show.
        routes: What services serve, by the name that is the first part of their addresses.
        groups: Tells how the consumer groups do.
        token: What every request needs; ``None`` lets in this machine alone.
    """

    def __init__(
        self,
        log: Log,
        directory: Path,
        *,
        clock: Clock,
        panels: Sequence[Panel] = (),
        routes: Mapping[str, Sequence[BaseRoute]] | None = None,
        groups: Callable[[], Sequence[GroupStatus]] = tuple,
        under_way: Callable[[str], Sequence[UnderWay]] = lambda _run_id: (),
        at_work: Callable[[], frozenset[str]] = frozenset,
        token: str | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._groups = groups
        self._under_way = under_way
        self._at_work = at_work
        everything: Sequence[Panel] = (
            OverviewPanel(),
            RunsPanel(),
            TracesPanel(),
            StreamsPanel(),
            *panels,
            RecordsPanel(),
        )
        self._pages = [page for panel in everything for page in panel.pages()]
        self._files = StaticFiles()
        self._shell = Shell(self._pages, self._files)
        self._projection = Projection(log, directory / PAGES_FILE, everything, self._on_change)
        self._hub = Hub(self._render_address)
        self._projection.watched = lambda: self._hub.reader_count > 0
        self._facts = LiveFacts(now_ns=0)
        self._facts_until_s = 0.0
        self._ticking: asyncio.Task[None] | None = None
        self._forget_ending: Callable[[], None] = _nothing
        self.asgi: ASGIApp = build_asgi(self, routes or {}, token)

    @property
    def projection(self) -> Projection:
        """The page state."""
        return self._projection

    @property
    def hub(self) -> Hub:
        """The live pages."""
        return self._hub

    @property
    def files(self) -> StaticFiles:
        """The files that pages need."""
        return self._files

    def api(self) -> Api:
        """Return the HTTP API over this dashboard's page state."""
        return Api(self._log, self._projection, self._clock, self._under_way, self._at_work)

    async def start(self) -> None:
        """Open the page state and follow the log."""
        await self._projection.start()
        loop = asyncio.get_running_loop()
        # A server that is asked to end waits for open answers: live streams must end before it does.
        self._forget_ending = before_ending(lambda: _soon(loop, self._hub.close))

    async def stop(self) -> None:
        """End all streams and close the page state. Idempotent."""
        self._forget_ending()
        self._hub.close()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait([self._ticking])  # its cancellation is not taken for ours, nor ours for its
            self._ticking = None
        await self._projection.stop()

    # ---- pages

    async def page(self, request: Request) -> Response:
        """Answer a request for a page."""
        base = base_of(request)
        address = Address(request.path_params["path"], request.url.query[:_QUERY_MAX_CHARS], base)
        is_fresh = await self._projection.caught_up(self._log.end_position, FRESH_WITHIN_S)
        rendering = await self._render_address(address)
        if rendering.view is None:
            what = f"page {address.path[:200]!r}"
            if not is_fresh and self._find(address.path) is not None:
                raise UnavailableError.behind(what, rendering.position, self._log.end_position)
            raise NotFoundError(f"There is no {what}.")
        return html_response(
            self._shell.document(
                rendering.view,
                base=base,
                path=address.path,
                query=address.query,
                state=page_state(rendering.view, rendering.position),
            )
        )

    def _with_notice(self, view: PageView) -> PageView:
        """Return a page with a sentence about what it may lack, where there is something to say, and room for one."""
        said: list[str] = []
        topics = view.topics
        if (error := self._projection.error) is not None:
            said.append(f"This page may be old: the page state does not follow the log at present ({error}).")
            topics |= {PAGE_STATE_TOPIC}
        elif self._projection.is_behind:
            said.append("This page is old: more is being recorded than the page state has taken in so far.")
            topics |= {PAGE_STATE_TOPIC}
        if skipped := sum(self._projection.skipped.values()):
            said.append(
                f"{skipped} records could not be shown on every page; the application's log tells of the first."
            )
        fragments = [Fragment("page-state", notice("bad", " ".join(said)) if said else join(())), *view.fragments]
        return msgspec.structs.replace(view, fragments=fragments, topics=topics)

    async def events(self, request: Request) -> Response:
        """Answer a request for a page's live stream."""
        query = request.query_params
        shown = request.headers.get("last-event-id") or query.get("shown", "")
        address = Address(query.get("path", "")[:1000], query.get("query", "")[:_QUERY_MAX_CHARS], base_of(request))
        if self._find(address.path) is None:
            raise NotFoundError(f"There is no page {address.path[:200]!r}.")
        sending = _Sending()
        stream = self._hub.stream(address, shown, sending.cut)
        try:
            first = await anext(stream)
        except TooManyReadersError:
            raise UnavailableError("Too many live pages are open; this one is shown as of now.") from None
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick(), name="mainstem tick")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return _LiveResponse(sending, _chain(first, stream), headers=headers)

    def error_page(self, request: Request, error: WebError) -> Response:
        """Return an error as a page of the dashboard."""
        view = PageView(
            {404: "Not found"}.get(error.status, "That did not work"),
            [
                Fragment(
                    "error",
                    el(
                        "div",
                        el("p", error.message),
                        el("p", el("a", "To the overview", href=base_of(request))),
                        class_="empty",
                    ),
                )
            ],
            frozenset(),
        )
        base = base_of(request)
        document = self._shell.document(view, base=base, path=request.url.path.removeprefix(base), query="", state="")
        return html_response(document, status=error.status)

    async def _render_address(self, address: Address) -> Rendering:
        found = self._find(address.path)
        if found is None:
            return Rendering(None, self._projection.position)
        page, parameters = found
        facts = await self._live_facts(parameters.get("run_id", ""))
        request = PageRequest(parameters, parse_query(address.query), address.base, facts, self._files.paths())

        def render(db: sqlite3.Connection) -> Rendering:
            view = page.render(db, request)
            return Rendering(view and self._with_notice(view), self._projection.position)

        return await self._projection.run(render)

    def _find(self, path: str) -> tuple[Page, Mapping[str, str]] | None:
        for page in self._pages:
            match = _path_pattern(page.path).fullmatch(path)
            if match:
                return page, match.groupdict()
        return None

    async def _live_facts(self, run_id: str) -> LiveFacts:
        now_s = self._clock.monotonic_s()
        if now_s >= self._facts_until_s:
            self._facts_until_s = now_s + _STATS_FOR_S
            stats = await self._log.stats()
            self._facts = LiveFacts(
                now_ns=self._clock.time_ns(),
                end_position=stats.end_position,
                record_count=stats.record_count,
                stream_count=stats.stream_count,
                size_bytes=stats.size_bytes,
            )
        facts = self._facts
        return LiveFacts(
            now_ns=self._clock.time_ns(),
            end_position=facts.end_position,
            record_count=facts.record_count,
            stream_count=facts.stream_count,
            size_bytes=facts.size_bytes,
            groups=[
                GroupFacts(
                    one.name, one.pattern, one.position, one.lag, one.in_flight, one.retrying, one.dead, one.failure
                )
                for one in self._groups()
            ],
            under_way=self._under_way(run_id) if run_id else (),
            at_work=self._at_work(),
        )

    # ---- changes

    def _on_change(self, _position: int, topics: set[str]) -> None:
        self._hub.notify({*topics, PAGE_STATE_TOPIC})

    async def _tick(self) -> None:
        while self._hub.reader_count:
            await asyncio.sleep(TICK_EVERY_S)
            self._hub.notify({"tick"})
        self._ticking = None


def build_asgi(dashboard: Dashboard, routes: Mapping[str, Sequence[BaseRoute]], token: str | None) -> ASGIApp:
    """Return the ASGI application: static files, API, streams, what services serve, and pages."""
    services: list[BaseRoute] = [
        Mount(f"/{name}", routes=[*of_service, _page_route(dashboard, name)]) for name, of_service in routes.items()
    ]

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = _as_web_error(error)
        if isinstance(error, WebError) and wants_html(request.headers):
            return dashboard.error_page(request, error)
        assert isinstance(error, MainstemError)
        return error_response(error, request.headers)

    app = Starlette(
        routes=[
            Route("/static/{name:path}", dashboard.files.serve, methods=["GET"]),
            Route("/events", dashboard.events, methods=["GET"]),
            Mount("/api", routes=list(dashboard.api().routes())),
            *services,
            Route("/{path:path}", dashboard.page, methods=["GET"]),
        ],
        exception_handlers={WebError: on_error, HTTPException: on_error},
    )
    app.router.redirect_slashes = False
    return Gate(app, token, routes.keys())


def _as_web_error(error: HTTPException) -> WebError:
    found = (
        NotFoundError("There is nothing at this address.") if error.status_code == 404 else WebError(str(error.detail))
    )
    found.status = error.status_code
    return found


def _page_route(dashboard: Dashboard, name: str) -> Route:
    """Return the pages below a service's name: what the service itself does not serve."""

    async def page(request: Request) -> Response:
        rest = request.path_params["path"]
        request.path_params["path"] = f"{name}/{rest}" if rest else name
        # The mount has moved the root to itself; pages link from the dashboard's.
        request.scope["root_path"] = request.scope["root_path"].removesuffix("/" + name)
        return await dashboard.page(request)

    return Route("/{path:path}", page, methods=["GET"])


@lru_cache(maxsize=256)  # made when a request first gets as far: a start waits for none of them
def _path_pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(re.escape(part) if index % 2 == 0 else f"(?P<{part}>[^/]+)" for index, part in enumerate(parts))
    )


def parse_query(query: str) -> dict[str, str]:
    """Return a query's parameters; of repeated ones the last."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=50))
    except ValueError:
        return {}  # more parameters than any page has: as if there were none


def base_of(request: Request) -> str:
    """Return the address of the dashboard's root, ending in a slash: its mount's prefix."""
    return str(request.scope.get("root_path", "")).rstrip("/") + "/"


def _nothing() -> None:
    return


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


class _Sending:
    """The task that sends a stream, so that it can be given up while it waits for a browser that does not read."""

    def __init__(self) -> None:
        self.is_cut = False
        self.task: asyncio.Task[Any] | None = None

    def cut(self) -> None:
        """Give it up."""
        self.is_cut = True
        if self.task is not None:
            self.task.cancel()


class _LiveResponse(StreamingResponse):
    """A live stream, which ends in the middle when its reader is cut off; the server then closes the connection."""

    media_type = "text/event-stream"

    def __init__(self, sending: _Sending, content: AsyncGenerator[bytes, None], *, headers: Mapping[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._sending = sending
        self._content = content

    async def stream_response(self, send: Send) -> None:
        task = self._sending.task = asyncio.current_task()
        try:
            async with aclosing(self._content):
                await super().stream_response(send)
        except asyncio.CancelledError:
            if not self._sending.is_cut or task is None or task.uncancel() > 0:
                raise  # someone else's wish: the server ends, or the browser went away
            _logger.info("a reader of a live page was too far behind, and was cut off")
        finally:
            self._sending.task = None


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest) as parts:
        yield first
        async for part in parts:
            yield part
