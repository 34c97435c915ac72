"""One server process: an application on an open socket. ``mainstem dev`` runs it, again after each change.

The socket is the supervisor's, so the address stays across restarts and a browser's request waits instead of failing.
The supervisor also holds the other end of a pipe: when it dies, however, the pipe ends, and so does this process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import uvicorn

from mainstem.base.errors import MainstemError
from mainstem.cli.errors import EXIT_INTERRUPTED, exit_code_of
from mainstem.cli.loading import Application, load_application
from mainstem.cli.output import Output
from mainstem.cli.running import RunningServer, remove_server, write_server

_GRACE_S = 2


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; ``port`` 0 lets the kernel choose.

    Raises:
        OSError: The address is taken, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address that a browser on this machine uses for a listening socket: ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Uvicorn, telling when it answers and ending with the supervisor."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], parent_pipe: int | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._parent_pipe = parent_pipe

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._parent_pipe is not None:
            asyncio.get_running_loop().add_reader(self._parent_pipe, self._supervisor_is_gone)
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def _supervisor_is_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent_pipe or 0)
        self.should_exit = True


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
    """
    data = application.mainstem.directory
    url = address_of(listener) + application.prefix
    pid = os.getpid()

    token = application.mainstem.token or ""

    def ready() -> None:
        write_server(data, RunningServer(url, pid, token))
        on_ready(f"{url}/?token={quote(token)}" if token else f"{url}/")

    config = uvicorn.Config(
        application.asgi,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, ready, parent_pipe)
    try:
        server.run(sockets=[listener])
    finally:
        remove_server(data, pid)
    return server.started


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mainstem.cli.serve", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent-pipe", type=int, required=True)
    parser.add_argument("--ready-pipe", type=int, required=True)
    arguments = parser.parse_args()

    def tell_supervisor(url: str) -> None:
        os.write(arguments.ready_pipe, url.encode() + b"\n")
        os.close(arguments.ready_pipe)

    try:
        application = load_application(arguments.file)
        listener = socket.socket(fileno=arguments.fd)
        return 0 if serve(application, listener, on_ready=tell_supervisor, parent_pipe=arguments.parent_pipe) else 1
    except MainstemError as error:
        Output(as_json=False).error(error)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(_main())
