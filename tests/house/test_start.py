"""What a start loads. Importing is most of a start: a module that few applications need comes when it is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from mainstem.cli.listening import listen

NAME_ONLY = {"mainstem"}
"""What ``import mainstem`` loads beside the standard library: the face, which imports its names when they are used."""

FACE_PACKAGES = {"mainstem", "msgspec", "google_crc32c", "typing_extensions"}
"""Packages that ``from mainstem import Mainstem`` loads: JSON and checksums, no web server and no framework."""

FACE_ROOMS = {"app", "base", "bus", "flow", "host", "log", "trace", "ui"}
"""Rooms that it loads."""

SERVER_PACKAGES = {
    *FACE_PACKAGES,
    "anyio",
    "click",  # uvicorn's own command line: its package imports it
    "httptools",
    "starlette",
    "uvicorn",
    "uvloop",
}
"""Packages that a server loads until the first page is shown."""

SUPERVISOR_PACKAGES = {"mainstem", "msgspec", "typing_extensions"}
"""Packages that the supervisor of ``mainstem dev`` loads: it watches files and owns a socket."""

RARE = {
    "argparse",
    "email.mime",
    "gzip",
    "http.server",
    "importlib.metadata",
    "importlib.resources",
    "sqlite3.dump",
    "unittest",
    "urllib.request",
    "xml",
    "zipfile",
    "mainstem.cli.command",
    "mainstem.cli.output",
    "mainstem.flow.process_pool",
    "mainstem.flow.spans",
    "mainstem.log.engines.nats.engine",
    "mainstem.services",
    "mainstem.testing",
    "mainstem.trace.waterfall",
    "mainstem.web.panels.run_page",
    "mainstem.web.trace_view",
    "mainstem.web.waterfall_view",
}
"""Modules that no start loads; what needs one imports it inside the function that does."""

RARE_BEFORE_SERVING = {"multiprocessing", "sqlite3", "email", "http", "json", "tempfile", "shutil", "pickle"}
"""Modules that the library's face does not load either."""

APPLICATION = """
import atexit, sys
from mainstem import Mainstem
ms = Mainstem("data")
atexit.register(lambda: print(*sorted(sys.modules), sep="\\n"))
"""


def loaded_by(statement: str) -> set[str]:
    """Return the modules that are there after a statement in a fresh interpreter, and were not before."""
    script = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*sorted(set(sys.modules) - before), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def loaded_by_server(directory: Path) -> set[str]:
    """Return the modules of an application's process under ``mainstem dev`` that has shown its first page."""
    (directory / "app.py").write_text(APPLICATION)
    parent_read, parent_write = os.pipe()
    ready_read, ready_write = os.pipe()
    with listen("127.0.0.1", 0) as listener:
        descriptors = (listener.fileno(), parent_read, ready_write)
        child = subprocess.Popen(
            [sys.executable, "-m", "mainstem.cli.child", "app.py", *map(str, descriptors)],
            cwd=directory,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
        )
        os.close(parent_read)
        os.close(ready_write)
    with child, os.fdopen(ready_read) as ready:
        try:
            url = urlsplit(ready.readline().strip())
            connection = HTTPConnection(url.netloc, timeout=20)
            connection.request("GET", url.path, headers={"accept": "text/html"})
            assert connection.getresponse().status == 200
            connection.close()
            os.close(parent_write)  # the supervisor is gone: the server ends in order, and tells what it loaded
            loaded, _ = child.communicate(timeout=20)
        finally:
            child.send_signal(signal.SIGKILL)
    return set(loaded.decode().split())


def packages(modules: Collection[str]) -> set[str]:
    """Return the packages of modules, without the standard library, the script and what compilers put beside."""
    names = {module.partition(".")[0] for module in modules}
    return {name for name in names - sys.stdlib_module_names if not name.startswith(("_", "cython"))}


def within(modules: Collection[str], names: Collection[str]) -> set[str]:
    """Return those modules that are one of the names or below it."""
    return {module for module in modules if any(module == name or module.startswith(name + ".") for name in names)}


def test_the_package_alone_loads_nothing() -> None:
    """``import mainstem`` loads no package and no room."""
    loaded = loaded_by("import mainstem")
    assert packages(loaded) == NAME_ONLY
    assert within(loaded, {"mainstem"}) == {"mainstem"}
    assert not within(loaded, {"asyncio", "logging", *RARE_BEFORE_SERVING})


def test_an_application_loads_no_web_framework() -> None:
    """Declaring an application loads JSON and checksums, none of what serves pages, and nothing that is rarely used."""
    loaded = loaded_by("from mainstem import Mainstem; Mainstem('data')")
    assert packages(loaded) <= FACE_PACKAGES
    assert {name.split(".")[1] for name in loaded if name.startswith("mainstem.")} == FACE_ROOMS
    assert not within(loaded, RARE | RARE_BEFORE_SERVING)


def test_a_server_loads_what_its_first_page_needs(tmp_path: Path) -> None:
    """A server that has shown a page has loaded the web framework, and neither traces, services nor a command line."""
    loaded = loaded_by_server(tmp_path)
    assert {"mainstem.web.panels.overview", "sqlite3"} <= loaded
    assert packages(loaded) - {"app"} <= SERVER_PACKAGES
    assert not within(loaded, RARE)


def test_the_supervisor_loads_no_server() -> None:
    """The process that watches an application's files holds neither the log nor the web server in memory."""
    loaded = loaded_by("import mainstem.cli.command, mainstem.cli.dev")
    assert packages(loaded) <= SUPERVISOR_PACKAGES
    assert not within(loaded, {"asyncio", "logging", "sqlite3", "mainstem.app", "mainstem.log"})
