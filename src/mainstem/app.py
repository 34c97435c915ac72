"""``Mainstem``: log, bus, workflows, services and dashboard of one log. The only place that chooses an engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mainstem.base.errors import InvalidArgumentError, MainstemError
from mainstem.bus import Bus
from mainstem.flow import Flow
from mainstem.flow.branch import refuse_in_worker
from mainstem.host.clock import Clock, SystemClock
from mainstem.log.contract import NO_HEADERS, Log
from mainstem.log.embedded import LogSettings, open_log
from mainstem.trace.asgi import Traced

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from mainstem.host.blobs import BlobStore
    from mainstem.log.engines.nats import NatsAddress, NatsSettings
    from mainstem.services.contract import Service
    from mainstem.web.application import Dashboard

TOKEN_VARIABLE = "MAINSTEM_TOKEN"  # noqa: S105 (a variable's name)
"""Environment variable with the dashboard's token, where none is given to :class:`Mainstem`."""


class NotStartedError(MainstemError):
    """The application was used before it was started; nothing was done."""

    code = "not-started"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs the application to be running, and it was not started. Nothing was done. Start it with the "
            "web application that carries it, or by itself:\n"
            "  api = FastAPI(lifespan=ms.lifespan)\n"
            "  async with ms: ..."
        )


class AlreadyStartedError(MainstemError):
    """The application was started twice at a time; the first start stands."""

    code = "already-started"


class Mainstem:
    """One application: declare steps, workflows, jobs and subscriptions on it, then start it with a lifespan.

        ms = Mainstem("data")
        api = FastAPI(lifespan=ms.lifespan)
        api.mount("/mainstem", ms.asgi)

    To declare, before it is started, with the signatures of :class:`mainstem.flow.Flow` and :class:`mainstem.bus.Bus`:

    - ``@ms.step(retry=…, timeout_s=…, executor=…)``: a function whose result is written down, and which then is done.
    - ``@ms.workflow(on="orders.created")``: a function that calls steps; goes on where it was when its process died.
    - ``@ms.job(queue="mail", concurrency=8, rate_limit="100/m")``: a function that a queue calls, for ``enqueue``.
    - ``@ms.subscribe("orders.>", group="audit")``: a function that gets each event, at least once, in order per key.

    To call, within a workflow (``publish`` anywhere):

    - ``await ms.sleep(days=3)``: a durable timer.
    - ``await ms.gather(a(), b())``: calls beside one another, each result in its place.
    - ``await ms.map(function, items, max_concurrency=8)``: one call for each item, so many at a time.
    - ``await ms.publish("orders.created", order, key=order.id)``: an event, durable when the call returns.

    Args:
        directory: The data directory; made where there is none. One process at a time owns it. Or the address of a log
            on NATS, ``nats://host:4222/name``, with the extra ``nats``: see ``docs/nats.md``.
        state_directory: With an address: where blobs, page state and services' files are, of this process alone;
            ``mainstem-state/<name>`` by default.
        services: Optional capabilities, such as ``Uploads()`` and ``Media()``.
        token: What every request to ``asgi`` needs; by default what :data:`TOKEN_VARIABLE` says. Without one only this
            machine is let in.
        clock: Where times come from.
        log_settings: Sizes of the log's files and buffers (``LogSettings``), or how the server is used
            (``NatsSettings``).

    Raises:
        InvalidArgumentError: The address is malformed, the settings are not those of the engine, two services have one
            name, or the token is too short to be one.
        MissingExtraError: The log is on NATS, and the extra ``nats`` is not installed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        state_directory: str | os.PathLike[str] | None = None,
        services: Sequence[Service] = (),
        token: str | None = None,
        clock: Clock | None = None,
        log_settings: LogSettings | NatsSettings | None = None,
    ) -> None:
        self._address: NatsAddress | None = None
        if "://" in str(directory):
            from mainstem.log.engines.nats import parse_address  # noqa: PLC0415 (an extra: only where it is chosen)

            self._address = parse_address(str(directory))
            directory = state_directory or Path("mainstem-state") / self._address.name
        elif state_directory is not None:
            raise InvalidArgumentError(
                f"state_directory={str(state_directory)!r}: the data directory {str(directory)!r} holds the state as "
                "well as the log; a state directory is for a log on a server."
            )
        names = [service.name for service in services]
        if len(set(names)) != len(names):
            raise InvalidArgumentError(f"services {names}: expected each once.")
        self._directory = Path(directory)
        self._clock = clock or SystemClock()
        self._embedded_settings, self._nats_settings = _settings_of(self._address, log_settings)
        self._token = token or os.environ.get(TOKEN_VARIABLE) or None
        if self._token is not None:
            from mainstem.web.identity import check_token  # noqa: PLC0415 (few applications have one here)

            check_token(self._token)
        self._services = tuple(services)
        self._bus = Bus(self._clock)
        self._flow = Flow(self._bus, self._clock)
        self._running: AsyncExitStack | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._log: Log | None = None
        self._blobs: BlobStore | None = None
        self._dashboard: Dashboard | None = None
        self._making: asyncio.Task[Dashboard] | None = None
        self._asgi: ASGIApp = _Face(self)
        # The decorators' own signatures are what type checkers and editors are to see.
        self.step = self._flow.step
        self.workflow = self._flow.workflow
        self.job = self._flow.job
        self.subscribe = self._bus.subscribe
        self.gather = self._flow.gather
        self.map = self._flow.map
        self.sleep = self._flow.sleep
        for service in self._services:
            service.register(self._flow, self._bus)

    def __repr__(self) -> str:
        what = self._address or self._directory
        return f"<Mainstem {str(what)!r}, {'running' if self.is_running else 'not started'}>"

    # ---- what it is

    @property
    def directory(self) -> Path:
        """The data directory, or the state directory where the log is on a server."""
        return self._directory

    @property
    def token(self) -> str | None:
        """What every request to :attr:`asgi` needs; ``None`` lets in this machine alone."""
        return self._token

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._log is not None

    @property
    def flow(self) -> Flow:
        """Workflows, steps and jobs."""
        return self._flow

    @property
    def bus(self) -> Bus:
        """Publish and subscribe."""
        return self._bus

    @property
    def log(self) -> Log:
        """The log.

        Raises:
            NotStartedError: It is not open.
        """
        if self._log is None:
            raise NotStartedError("The log")
        return self._log

    @property
    def blobs(self) -> BlobStore:
        """The store of large payloads.

        Raises:
            NotStartedError: It is not open.
        """
        if self._blobs is None:
            raise NotStartedError("The blob store")
        return self._blobs

    # ---- what it does

    def publish(
        self,
        stream: str,
        value: object,
        *,
        key: str = "",
        about: Iterable[str] = (),
        headers: Mapping[str, str] = NO_HEADERS,
        durable: bool = False,
    ) -> Coroutine[Any, Any, int]:
        """Publish an event; see :meth:`mainstem.bus.Bus.publish`.

        Raises:
            NotStartedError: The application is not running.
        """
        if not self.is_running:
            raise NotStartedError(f"publish({stream!r}, …)")
        return self._bus.publish(stream, value, key=key, about=about, headers=headers, durable=durable)

    # ---- life

    async def start(self) -> None:
        """Open the log, start services, take over runs that were left open, and begin.

        Raises:
            AlreadyStartedError: It runs already.
            StartedInWorkerError: This is a worker process, in which the script was loaded to find a step.
            LogInUseError: Another process owns the directory.
            LogUnreachableError: The log's server does not answer.
            LogError: The log cannot be opened.
        """
        refuse_in_worker()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
        if self._running is not None:
            raise AlreadyStartedError(f"{self!r} was started already. It goes on as it was.")
        stack = self._running = AsyncExitStack()
        try:
            await self._start(stack)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, stack: AsyncExitStack) -> None:
        from mainstem.host.blobs import BlobStore  # noqa: PLC0415 (what is needed later is imported later: starting is quick)

        log = await self._open_log(stack)
        self._log, self._blobs = log, BlobStore(self._directory / "blobs")
        self._bus.attach(log)
        if self._services:
            await self._start_services(stack, log, self._blobs)
        stack.push_async_callback(self._flow.stop)
        await self._flow.start(log)
        stack.push_async_callback(self._bus.stop)
        await self._bus.start(log)

    async def _open_log(self, stack: AsyncExitStack) -> Log:
        if self._address is None:
            await asyncio.to_thread(self._directory.mkdir, parents=True, exist_ok=True)
            embedded = await open_log(self._directory / "log", clock=self._clock, settings=self._embedded_settings)
            stack.push_async_callback(embedded.close)
            return embedded
        from mainstem.log.engines.nats import open_nats_log  # noqa: PLC0415 (an extra: only where it is chosen)
        from mainstem.log.engines.state import StateDirectory  # noqa: PLC0415 (as above)

        log = await open_nats_log(self._address, settings=self._nats_settings)
        stack.push_async_callback(log.close)
        state = await asyncio.to_thread(StateDirectory.take, self._directory, log.id, str(self._address))
        stack.callback(state.release)
        return log

    async def _start_services(self, stack: AsyncExitStack, log: Log, blobs: BlobStore) -> None:
        from mainstem.services.contract import ServiceContext  # noqa: PLC0415 (brings the web framework)

        for service in self._services:
            directory = self._directory / "services" / service.name
            await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
            stack.push_async_callback(service.stop)
            await service.start(ServiceContext(log, self._bus, self._flow, blobs, self._clock, directory))

    async def stop(self) -> None:
        """Stop in the reverse order; open runs go on at the next start. Idempotent.

        Once begun it is carried out: a caller that is cancelled is let go, and the next :meth:`start` or :meth:`stop`
        waits for what is under way. Half an application would hold the directory, and nobody could end it.
        """
        if self._stopping is None and self._running is not None:
            self._stopping = asyncio.create_task(self._stop(self._running), name="mainstem stop")
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _stop(self, stack: AsyncExitStack) -> None:
        try:
            async with stack:
                await self._stop_dashboard()
        finally:
            self._running = self._log = self._blobs = self._dashboard = self._stopping = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        async with self:
            yield

    @property
    def lifespan(self) -> Callable[[object], Any]:
        """For the host: ``FastAPI(lifespan=ms.lifespan)``, ``Starlette(lifespan=ms.lifespan)``."""
        return self._lifespan

    # ---- the dashboard

    @property
    def traced(self) -> type[Traced]:
        """Middleware that keeps callers' traces: ``Starlette(middleware=[Middleware(ms.traced)])``,
        ``FastAPI(...).add_middleware(ms.traced)``.

        What a request publishes and starts is then in the trace of its ``traceparent`` header, or all in one new trace.
        """
        return Traced

    @property
    def asgi(self) -> ASGIApp:
        """Dashboard, HTTP API and services as one ASGI application, to be mounted under any prefix.

        Served alone, it starts and stops the application itself.
        """
        return self._asgi

    async def dashboard(self) -> Dashboard:
        """Return the dashboard, made when it is first asked for: an application without visitors does not pay for it.

        Raises:
            NotStartedError: The application is not running.
        """
        if self._dashboard is not None:
            return self._dashboard
        if self._stopping is not None:
            raise NotStartedError("The dashboard")
        if self._making is None:
            # A task of its own: the request that happens to be the first may be given up, and others wait for it, too.
            self._making = asyncio.create_task(self._make_dashboard(self.log), name="mainstem dashboard")
        return await asyncio.shield(self._making)

    async def _make_dashboard(self, log: Log) -> Dashboard:
        from mainstem.web.application import Dashboard  # noqa: PLC0415 (as above)

        try:
            dashboard = Dashboard(
                log,
                self._directory,
                clock=self._clock,
                panels=[panel for service in self._services for panel in service.panels()],
                routes={service.name: service.routes() for service in self._services},
                groups=self._bus.groups,
                under_way=self._flow.under_way,
                at_work=self._flow.at_work,
                token=self._token,
            )
            try:
                await dashboard.start()
            except BaseException:
                await dashboard.stop()
                raise
            self._dashboard = dashboard
            return dashboard
        finally:
            self._making = None

    async def _stop_dashboard(self) -> None:
        if self._making is not None:  # it takes no longer than opening a file, and requests wait for it
            await asyncio.wait([self._making])
        if self._dashboard is not None:
            await self._dashboard.stop()


def _settings_of(
    address: NatsAddress | None, settings: LogSettings | NatsSettings | None
) -> tuple[LogSettings | None, NatsSettings | None]:
    """Return the settings as those of the engine that they are for."""
    if settings is None:
        return None, None
    if address is None:
        if isinstance(settings, LogSettings):
            return settings, None
        wanted = "LogSettings, for a directory"
    else:
        from mainstem.log.engines.nats import NatsSettings  # noqa: PLC0415 (an extra: only where it is chosen)

        if isinstance(settings, NatsSettings):
            return None, settings
        wanted = "NatsSettings, for a log on NATS"
    raise InvalidArgumentError(f"log_settings: expected {wanted}, got {type(settings).__name__}.")


class _Face:
    """The ASGI application: hands requests to the dashboard, and starts the application where it is served alone."""

    def __init__(self, mainstem: Mainstem) -> None:
        self._mainstem = mainstem

    def __repr__(self) -> str:
        return f"<asgi of {self._mainstem!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        dashboard = await self._mainstem.dashboard()
        await dashboard.asgi(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._mainstem.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:  # also where the server is cancelled, and says nothing of a shutdown
            await self._mainstem.stop()
        await send({"type": "lifespan.shutdown.complete"})
