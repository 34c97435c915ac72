"""The application composed: declared, started, used, stopped."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route

import mainstem
from mainstem import AlreadyStartedError, Event, InvalidArgumentError, Mainstem, NotStartedError, Retry, Uploads
from mainstem.app import TOKEN_VARIABLE
from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.log import LogInUseError
from mainstem.services.contract import ServiceContext
from mainstem.trace.context import current_trace, new_trace, parse_traceparent, use_trace
from tests.support import run, until


class Echo:
    """A service that notes what is done to it."""

    name = "echo"

    def __init__(self, *, fails: bool = False) -> None:
        self.done: list[str] = []
        self.fails = fails

    def register(self, flow: Flow, bus: Bus) -> None:
        """Note it."""
        self.done.append("register")

    async def start(self, context: ServiceContext) -> None:
        """Note it, and fail if so told."""
        assert context.directory.is_dir() and context.log.end_position >= 0
        self.done.append("start")
        if self.fails:
            raise OSError("as told")

    async def stop(self) -> None:
        """Note it."""
        self.done.append("stop")

    def routes(self) -> Sequence[BaseRoute]:
        """Say a word."""

        async def say(request: Request) -> PlainTextResponse:
            return PlainTextResponse("echo " + request.path_params["word"])

        return [Route("/say/{word}", say)]

    def panels(self) -> Sequence[Any]:
        """Show nothing."""
        return []


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


def test_from_event_to_result(tmp_path: Path) -> None:
    """An event starts a workflow, whose own event reaches a subscriber."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        seen: asyncio.Queue[int] = asyncio.Queue()

        @ms.step
        async def double(number: int) -> int:
            return number * 2

        @ms.workflow(on="numbers.in")
        async def work(number: int) -> None:
            await ms.publish("numbers.out", sum(await ms.map(double, [number, 1])))

        @ms.subscribe("numbers.out", group="collect")
        async def collect(event: Event[int]) -> None:
            seen.put_nowait(event.value)

        async with ms:
            assert ms.is_running and ms.directory == tmp_path
            await ms.publish("numbers.in", 20)
            assert await asyncio.wait_for(seen.get(), 20) == 42
        assert not ms.is_running

    run(main())


def test_used_before_it_was_started(tmp_path: Path) -> None:
    """The error shows the line that starts it."""
    ms = Mainstem(tmp_path)
    for use in (lambda: ms.publish("a", 1), lambda: ms.log, lambda: ms.blobs):
        with pytest.raises(NotStartedError, match=r"FastAPI\(lifespan=ms.lifespan\)"):
            use()


def test_started_twice(tmp_path: Path) -> None:
    """A second start is an error, and so is a second owner; the first goes on."""

    async def main() -> None:
        async with Mainstem(tmp_path) as ms:
            with pytest.raises(AlreadyStartedError):
                await ms.start()
            other = Mainstem(tmp_path)
            with pytest.raises(LogInUseError):
                await other.start()
            assert not other.is_running
            await ms.publish("a", 1)
            assert "running" in repr(ms)

    run(main())


def test_it_can_be_started_again(tmp_path: Path) -> None:
    """After it was stopped it starts again and finds what it had written; stopping twice is one stop."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        async with ms:
            position = await ms.publish("a", 1)
        await ms.stop()
        async with ms:
            assert ms.log.end_position >= position

    run(main())


def test_services_live_between_log_and_workflows(tmp_path: Path) -> None:
    """A service is registered at once, started with its own directory, served under its name, and stopped."""

    async def main() -> None:
        echo = Echo()
        ms = Mainstem(tmp_path, services=[echo])
        async with ms, client(Starlette(routes=[Mount("/deep/mainstem", ms.asgi)])) as web:
            assert (await web.get("/deep/mainstem/echo/say/hello")).text == "echo hello"
            assert (await web.get("/deep/mainstem/")).status_code == 200
        assert echo.done == ["register", "start", "stop"]
        assert (tmp_path / "services" / "echo").is_dir()

    run(main())


def test_services_do_not_need_the_page_state(tmp_path: Path) -> None:
    """Where the page state cannot be opened, services answer as ever, and a page says that it cannot."""

    async def main() -> None:
        (tmp_path / "pages.sqlite").mkdir()
        ms = Mainstem(tmp_path, services=[Echo()])
        async with ms, client(Starlette(routes=[Mount("/deep/mainstem", ms.asgi)])) as web:
            assert (await web.get("/deep/mainstem/echo/say/hello")).text == "echo hello"
            assert (await web.get("/deep/mainstem/")).status_code == 503

    run(main())


def test_a_service_says_itself_which_sites_may_use_it(tmp_path: Path) -> None:
    """The question that a browser asks beforehand reaches the service without a token; the answers to others do not."""

    async def main() -> None:
        site = "https://shop.example"
        uploads = Uploads(allowed_origins=[site])
        token = {"authorization": "Bearer correct-horse"}
        ms = Mainstem(tmp_path, services=[uploads], token="correct-horse")
        async with ms, client(Starlette(routes=[Mount("/m", ms.asgi)])) as web:
            asked = await web.options(
                "/m/uploads/files", headers={"origin": site, "access-control-request-method": "POST"}
            )
            assert asked.status_code < 300 and asked.headers["access-control-allow-origin"] == site
            creation = {"origin": site, "tus-resumable": "1.0.0", "upload-length": "1"}
            assert (await web.post("/m/uploads/files", headers=creation)).status_code == 401
            assert (await web.post("/m/uploads/files", headers={**creation, **token})).status_code == 201
            assert (
                await web.post("/m/api/runs/a/cancel", json={}, headers={"origin": site, **token})
            ).status_code == 403
            assert (await web.options("/m/api/runs")).status_code == 401

    run(main())


def test_a_service_that_does_not_start_stops_everything(tmp_path: Path) -> None:
    """What was started is stopped again, and the directory is free."""

    async def main() -> None:
        echo = Echo(fails=True)
        with pytest.raises(OSError, match="as told"):
            await Mainstem(tmp_path, services=[echo]).start()
        assert echo.done == ["register", "start", "stop"]
        async with Mainstem(tmp_path):
            pass

    run(main())


def test_what_cannot_be_composed_is_refused(tmp_path: Path) -> None:
    """A remote engine that does not exist and two services of one name are errors at once."""
    with pytest.raises(InvalidArgumentError):
        Mainstem("kafka://localhost:9092")
    with pytest.raises(InvalidArgumentError):
        Mainstem(tmp_path, services=[Echo(), Echo()])


def test_the_token_comes_from_argument_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument goes before the environment; without either there is none."""
    assert Mainstem(tmp_path).token is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from outside")
    assert Mainstem(tmp_path).token == "from outside"
    assert Mainstem(tmp_path, token="from inside").token == "from inside"


def test_a_short_token_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A token that could be guessed is an error where the application is made, not at each request."""
    with pytest.raises(InvalidArgumentError, match="the token has 3 characters"):
        Mainstem(tmp_path, token="abc")


def test_mounted_with_the_hosts_lifespan(tmp_path: Path) -> None:
    """A host application starts and stops it by its lifespan, and shows the dashboard under its prefix."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        host = Starlette(routes=[Mount("/mainstem", ms.asgi)], lifespan=ms.lifespan)
        async with host.router.lifespan_context(host), client(host) as web:
            page = await web.get("/mainstem/", headers={"accept": "text/html"})
            assert page.status_code == 200 and 'href="/mainstem/runs"' in page.text
        assert not ms.is_running

    run(main())


def test_a_running_step_is_on_the_runs_page(tmp_path: Path) -> None:
    """What is under way is on no record; the process that does it tells it to the page and to the API."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        begun, go_on = asyncio.Event(), asyncio.Event()

        @ms.step
        async def slow() -> None:
            begun.set()
            await go_on.wait()

        @ms.workflow(name="fulfil")
        async def fulfil() -> None:
            await slow()

        async with ms, client(ms.asgi) as web:
            handle = await fulfil.start(id="one")
            await begun.wait()
            page = (await web.get("/runs/one", headers={"accept": "text/html"})).text
            assert "slow#1, attempt 1, since" in page and "<span>running</span>" in page
            (one,) = (await web.get("/api/runs/one")).json()["under_way"]
            assert (one["key"], one["attempt"]) == ("slow#1", 1)
            assert [one.key for one in ms.flow.under_way("one")] == ["slow#1"]
            go_on.set()
            await handle.result(timeout_s=30)
            assert ms.flow.under_way("one") == []
            page = (await web.get("/runs/one", headers={"accept": "text/html"})).text
            assert "Running now" not in page

    run(main())


def test_jobs_that_wait_for_their_turn_are_queued(tmp_path: Path) -> None:
    """Of two jobs in a queue of one the first is running and the second queued: in lists, filters and counts."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        begun, go_on = asyncio.Event(), asyncio.Event()

        @ms.job(name="mail", queue="mail", concurrency=1)
        async def mail() -> None:
            begun.set()
            await go_on.wait()

        async with ms, client(ms.asgi) as web:
            first, second = await mail.enqueue(id="one"), await mail.enqueue(id="two")
            await begun.wait()
            assert ms.flow.at_work() == {"one"}
            assert ((await first.status()).state, (await second.status()).state) == ("running", "queued")
            for state, run_id in (("running", "one"), ("queued", "two")):
                (listed,) = (await web.get("/api/runs", params={"state": state})).json()["runs"]
                assert (listed["run_id"], listed["state"]) == (run_id, state)
                page = (await web.get("/runs", params={"state": state}, headers={"accept": "text/html"})).text
                assert f"/runs/{run_id}" in page and f"<span>{state}</span>" in page
                assert 'Queued<span class="count number">1</span>' in page
                assert 'Running<span class="count number">1</span>' in page
            go_on.set()
            await second.result(timeout_s=30)
        assert ms.flow.at_work() == frozenset()

    run(main())


def test_a_request_keeps_its_trace(tmp_path: Path) -> None:
    """With the middleware, what a request publishes is in its caller's trace; without a header, all in a new one."""

    async def main() -> None:
        ms = Mainstem(tmp_path)

        async def publish(_request: Request) -> PlainTextResponse:
            await ms.publish("orders.created", 1)
            await ms.publish("orders.noted", 1)
            return PlainTextResponse("done")

        host = Starlette(
            routes=[Route("/", publish, methods=["POST"])], lifespan=ms.lifespan, middleware=[Middleware(ms.traced)]
        )
        caller = new_trace()
        async with host.router.lifespan_context(host), client(host) as web:
            for headers in ({"traceparent": caller.traceparent}, {"traceparent": "nonsense"}, {}):
                assert (await web.post("/", headers=headers)).status_code == 200
            records = await ms.log.read("orders.*")
        contexts = [parse_traceparent(record.headers["traceparent"]) for record in records]
        ids = [context.trace_id for context in contexts if context is not None]
        assert ids[0] == ids[1] == caller.trace_id
        assert ids[2] == ids[3] and ids[4] == ids[5] and len(set(ids)) == 3
        assert current_trace() is None

    run(main())


def test_what_a_subscriber_does_is_in_the_trace(tmp_path: Path) -> None:
    """A job that a handler enqueued stands below its group, and what a group gave up is a failure, in one trace."""

    async def main() -> None:
        ms = Mainstem(tmp_path)

        @ms.job(name="mail")
        async def mail() -> None:
            pass

        @ms.subscribe("orders.created", group="teller")
        async def tell(_event: Event[dict[str, int]]) -> None:
            await mail.enqueue(id="mail-1")

        @ms.subscribe("orders.created", group="broken", retry=Retry(max_attempts=1))
        async def fail(_event: Event[dict[str, int]]) -> None:
            raise ValueError("no address")

        async with ms, client(ms.asgi) as web:
            with use_trace(new_trace()):
                await ms.publish("orders.created", {"id": 1})
            await until(lambda: ms.log.last("$run.mail-1"), what="the job")
            await until(lambda: ms.log.last("$dead.broken"), what="the dead letter")
            spans = {one["name"]: one for one in (await web.get("/api/traces/mail-1")).json()["spans"]}
        assert spans["mail"]["parent_id"] == spans["group teller"]["span_id"]
        event = spans["orders.created"]["span_id"]
        assert spans["group teller"]["parent_id"] == spans["group broken"]["parent_id"] == event
        assert spans["group broken"]["detail"] == "gave up after 1 attempt: ValueError: no address"

    run(main())


def test_served_alone_it_lives_by_its_own_lifespan(tmp_path: Path) -> None:
    """A server that serves ``ms.asgi`` itself starts and stops it."""

    async def main() -> None:
        ms = Mainstem(tmp_path)
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(ms.asgi({"type": "lifespan"}, inbox.get, outbox.put))
        inbox.put_nowait({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        async with client(ms.asgi) as web:
            assert (await web.get("/api/runs")).status_code == 200
        inbox.put_nowait({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await task
        assert not ms.is_running

    run(main())


def test_a_failed_start_is_told_to_the_server(tmp_path: Path) -> None:
    """The server learns why, and ends."""

    async def main() -> None:
        async with Mainstem(tmp_path):
            inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            outbox: asyncio.Queue[Any] = asyncio.Queue()
            inbox.put_nowait({"type": "lifespan.startup"})
            with pytest.raises(LogInUseError):
                await Mainstem(tmp_path).asgi({"type": "lifespan"}, inbox.get, outbox.put)
            assert (await outbox.get())["type"] == "lifespan.startup.failed"

    run(main())


def test_the_dashboard_without_the_application(tmp_path: Path) -> None:
    """A request to an application that nobody started fails with the error that shows how."""

    async def main() -> None:
        async with client(Mainstem(tmp_path).asgi) as web:
            with pytest.raises(NotStartedError):
                await web.get("/")

    run(main())


def test_public_names() -> None:
    """Every public name can be had, also by ``dir``; no other can."""
    for name in mainstem.__all__:
        assert getattr(mainstem, name).__name__ == name and name in dir(mainstem)
    with pytest.raises(AttributeError):
        _ = mainstem.Nothing


def test_importing_is_quick() -> None:
    """Importing mainstem, and making an application, brings neither the web framework nor the database."""
    program = (
        "import sys, mainstem; a = set(sys.modules); mainstem.Mainstem; b = set(sys.modules); "
        "heavy = {'starlette', 'sqlite3', 'uvicorn', 'httpx', 'mainstem.web'}; "
        "assert not heavy & b, heavy & b; assert 'mainstem.log' not in a"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_help_says_what_can_be_declared() -> None:
    """``help(Mainstem)`` names each decorator and each call that an object of it has."""
    text = Mainstem.__doc__ or ""
    for name in ("step", "workflow", "job", "subscribe"):
        assert f"@ms.{name}(" in text
    for name in ("sleep", "gather", "map", "publish"):
        assert f"await ms.{name}(" in text
