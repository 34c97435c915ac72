"""One server process: an application on an open socket. ``mainstem dev`` runs it, again after each change.

The socket is the supervisor's, so the address stays across restarts and a browser's request waits instead of failing.
The supervisor also holds the other end of a pipe: when it dies, however, the pipe ends, and so does this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import uvicorn

from mainstem.base.errors import MainstemError
from mainstem.cli.errors import ApplicationLoadError
from mainstem.cli.listening import address_of
from mainstem.cli.running import RunningServer, remove_server, write_server

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from starlette.types import Message, Receive, Scope, Send

    from mainstem.cli.loading import Application

_GRACE_S = 2
_TICKS_A_SECOND = 10
_logger = logging.getLogger(__name__)
_uvicorn_logger = logging.getLogger("uvicorn.error")


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one; return what it is now.

    The soft limit of most systems is 1,024, for programs that use select(2). Connections use one each, and so do the
    log's segments and uploads' files: who merely connects a thousand times must not keep the log from its next segment.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # macOS has a lower limit of the kernel's behind an unlimited one
        _logger.info("the limit of open descriptors stays %d: %s", soft, error)
        return soft
    return hard


class _Server(uvicorn.Server):
    """Uvicorn, telling when it answers and when it no longer does, and ending with the supervisor."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_end: Callable[[], None], parent_pipe: int | None
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_end = on_end
        self._parent_pipe = parent_pipe
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exiting = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until asked to end. Uvicorn's own looks ten times a second, which keeps an idle machine awake."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += _TICKS_A_SECOND
            with contextlib.suppress(TimeoutError):  # a second has passed: the Date header is made anew
                async with asyncio.timeout(1.0):
                    await self._exiting.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal, and wake the loop for it."""
        super().handle_exit(sig, frame)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._exiting.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if self._parent_pipe is not None:
            self._loop.add_reader(self._parent_pipe, self._supervisor_is_gone)
        _uvicorn_logger.setLevel(logging.CRITICAL)  # a failing start is told once, by whoever called serve()
        await super().startup(sockets)
        _uvicorn_logger.setLevel(logging.WARNING)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_end()  # here, and not after run(): uvicorn lets the signal that ended it end the process
        await super().shutdown(sockets)

    def _supervisor_is_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent_pipe or 0)
        self.should_exit = True
        self._exiting.set()


class _Started:
    """The application, remembering with which error its start failed; one that left Mainstem out has failed, too."""

    def __init__(self, application: Application) -> None:
        self._asgi = application.asgi
        self._mainstem = application.mainstem
        self.failure: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._asgi(scope, receive, send)
            return

        async def send_without_traceback(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete" and not self._mainstem.is_running:
                raise ApplicationLoadError(
                    "the application mounts ms.asgi, but was made without lifespan=ms.lifespan: nothing of mainstem "
                    "was started.",
                    try_command="lifespan=ms.lifespan where the application is made; in a lifespan of your own, "
                    "async with ms: around its yield",
                )
            await send({**message, "message": ""} if "message" in message else message)

        try:
            await self._asgi(scope, receive, send_without_traceback)
        except Exception as error:
            self.failure = error
            raise


def serve(
    application: Application,
    listener: socket.socket,
    *,
    on_ready: Callable[[str], None],
    parent_pipe: int | None = None,
) -> bool:
    """Serve until SIGINT or SIGTERM (or the end of the supervisor); return whether it ever answered.

    Args:
        application: What to serve.
        listener: A listening socket.
        on_ready: Called once with the dashboard's address (its token included), when it answers.
        parent_pipe: Descriptor that ends when the supervisor does.

    Raises:
        ApplicationLoadError: The application started without Mainstem, or raised something of its own.
        MainstemError: Mainstem did not start.
    """
    # What the application logs is shown, unless it has decided about its logging itself.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(levelname)-7s  %(name)s: %(message)s")
    raise_descriptor_limit()
    data = application.mainstem.directory
    url = address_of(listener) + application.prefix
    pid = os.getpid()

    token = application.mainstem.token or ""

    def ready() -> None:
        try:
            write_server(data, RunningServer(url, pid, token))
        except OSError as error:
            # A full disk, perhaps: what can be read is served, and the log says for itself what it can still write.
            _logger.warning("commands will not find this server, and need --url %s: %s", url, error)
        on_ready(f"{url}/?token={quote(token)}" if token else f"{url}/")

    started = _Started(application)
    config = uvicorn.Config(
        started,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, ready, lambda: remove_server(data, pid), parent_pipe)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if started.failure is None:
            raise
        raise _start_error(started.failure) from started.failure
    return server.started


def _start_error(failure: Exception) -> MainstemError:
    """Return what a failed start is reported as; an error that is not ours was printed with its traceback."""
    if isinstance(failure, MainstemError):
        return failure
    traceback.print_exception(failure)
    return ApplicationLoadError(f"starting the application raised {type(failure).__name__}: {failure}")
