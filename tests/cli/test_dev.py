"""``mainstem dev``: a real application, changed and killed while it runs."""

from __future__ import annotations

import http.client
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from mainstem.cli.arguments import TOKEN_VARIABLE
from mainstem.cli.dev import Wish
from mainstem.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from mainstem.cli.listening import address_of, listen
from mainstem.cli.new import write_application
from mainstem.cli.running import SERVER_FILE, read_server
from mainstem.cli.serve import raise_descriptor_limit
from tests.cli.conftest import Invoke
from tests.support import children_of, wait_until

UNMOUNTED = """
from mainstem import Mainstem
from starlette.applications import Starlette
ms = Mainstem("data")
api = Starlette(lifespan=ms.lifespan)
"""
BROKEN_START = """
from contextlib import asynccontextmanager
from mainstem import Mainstem
from starlette.applications import Starlette
ms = Mainstem("data")
@asynccontextmanager
async def lifespan(app):
    raise ValueError("no database")
    yield
api = Starlette(lifespan=lifespan)
api.mount("/mainstem", ms.asgi)
"""
UNSTARTED = """
from mainstem import Mainstem
from starlette.applications import Starlette
ms = Mainstem("data")
api = Starlette()
api.mount("/mainstem", ms.asgi)
"""
ORDER = {"id": "1", "email": "ada@example.org", "cents": 4200}


class Dev:
    """A running ``mainstem dev --json``."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def next_event(self, kind: str) -> dict[str, object]:
        """Return the next thing that happens, which is of this kind."""
        assert self.process.stdout is not None
        event = msgspec.json.decode(self.process.stdout.readline(), type=dict[str, object])
        assert event["event"] == kind, event
        return event

    def next_error(self) -> dict[str, str]:
        """Return the next thing that is told, which is an error."""
        assert self.process.stdout is not None
        return msgspec.json.decode(self.process.stdout.readline(), type=dict[str, dict[str, str]])["error"]


@contextmanager
def developing(directory: Path, *words: str, environment: dict[str, str] | None = None) -> Iterator[Dev]:
    """Run ``mainstem dev app.py`` in a directory, on a free port."""
    command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0", "--json", *words]
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
    ) as process:
        try:
            yield Dev(process)
        finally:
            process.kill()


def ask(
    url: str, method: str = "GET", path: str | None = None, body: object = None, token: str = ""
) -> tuple[int, bytes]:
    """Do one request; return status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    connection.request(method, path or parts.path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The application of ``mainstem new``."""
    write_application(tmp_path / "shop")
    return tmp_path / "shop"


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat").read_text() if Path(f"/proc/{pid}/stat").exists() else ") Z"
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_it_serves_and_starts_again_after_a_change(shop: Path, invoke: Invoke) -> None:
    """An order runs through; a change starts the application again at the same address; Ctrl-C ends both processes."""
    with developing(shop) as dev:
        url = str(dev.next_event("ready")["url"])
        assert ask(url)[0] == 200
        assert ask(url, "POST", "/orders", ORDER)[0] == 202
        data = shop / "data"
        wait_until(lambda: "completed" in invoke("runs", "--function", "send_mail", "--data", data).out, 30)
        assert "order:1" in invoke("trace", "order:1", "--data", data).out

        with (shop / "app.py").open("a") as file:
            file.write("\n# changed\n")
        assert dev.next_event("changed")["files"] == ["app.py"]
        again = dev.next_event("ready")
        assert again["url"] == url
        assert ask(url)[0] == 200
        assert read_server(data) is not None

        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(20) == EXIT_INTERRUPTED
        assert has_ended(int(str(again["pid"])))
        assert not (data / SERVER_FILE).exists()


def test_a_broken_change_is_waited_out(shop: Path) -> None:
    """When the changed code does not even import, its end is told, and the next change starts it again."""
    good = (shop / "app.py").read_text()
    with developing(shop) as dev:
        dev.next_event("ready")
        (shop / "app.py").write_text("1 / 0\n")
        dev.next_event("changed")
        assert "ZeroDivisionError" in dev.next_error()["message"]
        assert dev.next_event("ended")["exit_code"] == EXIT_FAILED
        (shop / "app.py").write_text(good)
        dev.next_event("changed")
        dev.next_event("ready")
        dev.process.send_signal(signal.SIGTERM)
        assert dev.process.wait(20) == EXIT_OK


def test_an_error_of_the_changed_code_is_json_where_json_was_asked_for(shop: Path) -> None:
    """What a program reads from ``--json`` is JSON also when the changed code holds no application."""
    with developing(shop) as dev:
        dev.next_event("ready")
        (shop / "app.py").write_text("x = 1\n")
        dev.next_event("changed")
        error = dev.next_error()
        assert error["code"] == "application-load" and "no Mainstem objects" in error["message"]
        dev.next_event("ended")


STUBBORN = """
import signal
from mainstem import Mainstem
from starlette.applications import Starlette
from contextlib import asynccontextmanager
ms = Mainstem("data")
@asynccontextmanager
async def lifespan(app):
    async with ms:
        yield
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        open("ending", "w").close()
        while not __import__("os").path.exists("let"):
            await __import__("asyncio").sleep(0.01)
api = Starlette(lifespan=lifespan)
api.mount("/mainstem", ms.asgi)
"""


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_who_is_impatient_gets_the_same_end(tmp_path: Path, signals: tuple[signal.Signals, signal.Signals]) -> None:
    """A second signal, while the application is ending, changes nothing: no traceback, and no process is left."""
    (tmp_path / "app.py").write_text(STUBBORN)
    with developing(tmp_path) as dev:
        pid = int(str(dev.next_event("ready")["pid"]))
        dev.process.send_signal(signals[0])
        wait_until((tmp_path / "ending").exists, 20)
        dev.process.send_signal(signals[1])
        (tmp_path / "let").touch()
        assert dev.process.wait(20) == (EXIT_INTERRUPTED if signals[0] == signal.SIGINT else EXIT_OK)
        assert has_ended(pid)


def test_a_signal_is_noted_and_not_raised() -> None:
    """Of signals the first is kept, one that was ignored stays so, and afterwards they do what they did before."""
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Wish() as wish:
            assert not select.select([wish.fileno()], [], [], 0)[0]
            signal.raise_signal(signal.SIGINT)
            assert wish.signal is None
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
            assert wish.signal == signal.SIGTERM
            assert select.select([wish.fileno()], [], [], 0)[0]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_the_application_ends_with_its_supervisor(shop: Path) -> None:
    """After ``kill -9`` of the command, the server process ends by itself and lets go of the log."""
    with developing(shop) as dev:
        pid = int(str(dev.next_event("ready")["pid"]))
        assert pid in children_of(dev.process.pid)
        dev.process.kill()
        dev.process.wait(20)
        wait_until(lambda: has_ended(pid), 20)
        assert not (shop / "data" / SERVER_FILE).exists()


def test_without_reload_it_is_one_process(shop: Path) -> None:
    """``--no-reload`` serves in the command's own process; SIGTERM ends it and removes the address file."""
    with developing(shop, "--no-reload") as dev:
        ready = dev.next_event("ready")
        assert ready["pid"] == dev.process.pid
        assert ask(str(ready["url"]))[0] == 200
        dev.process.send_signal(signal.SIGTERM)
        assert dev.process.wait(20) in (EXIT_OK, -signal.SIGTERM)
        assert not (shop / "data" / SERVER_FILE).exists()


def test_the_limit_of_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit becomes the hard one; where the kernel refuses, it stays."""
    limits = [(64, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, new: limits.append(new))
    assert raise_descriptor_limit() == 4096 and limits[-1] == (4096, 4096)

    def refuse(_what: int, _new: tuple[int, int]) -> None:
        raise ValueError("as told")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    limits.append((64, 4096))
    assert raise_descriptor_limit() == 64


def test_it_serves_where_its_address_cannot_be_written(shop: Path) -> None:
    """On a disk that takes no file more, the server says that commands will not find it, and serves."""
    (shop / "data" / SERVER_FILE).mkdir(parents=True)
    with developing(shop, "--no-reload") as dev:
        assert ask(str(dev.next_event("ready")["url"]))[0] == 200
        dev.process.send_signal(signal.SIGTERM)
        assert dev.process.wait(20) in (EXIT_OK, -signal.SIGTERM)
    assert [path.name for path in (shop / "data").glob(SERVER_FILE + "*")] == [SERVER_FILE]


def test_a_run_is_cancelled_through_the_application(shop: Path, invoke: Invoke) -> None:
    """``runs cancel`` finds the running application, which cancels the run and keeps the reason."""
    with (shop / "app.py").open("a") as file:
        file.write('\n\n@ms.workflow(on="naps")\nasync def nap(hours: int) -> None:\n    await ms.sleep(hours=hours)\n')
        file.write("\n\nasync def begin(request: Request) -> JSONResponse:\n")
        file.write('    handle = await nap.start(5, id="nap-1")\n    return JSONResponse(handle.id)\n')
        file.write('\n\napi.routes.append(Route("/nap", begin, methods=["POST"]))\n')
    data = shop / "data"
    with developing(shop, environment={TOKEN_VARIABLE: "correct horse"}) as dev:
        url = str(dev.next_event("ready")["url"])
        assert url.endswith("?token=correct%20horse")
        assert ask(url, path="/mainstem/")[0] == 401
        assert ask(url, path="/mainstem/", token="correct horse")[0] == 200
        assert ask(url, "POST", "/nap", {})[0] == 200
        result = invoke("runs", "cancel", "nap-1", "--reason", "overslept", "--data", data)
        assert (result.code, result.err) == (EXIT_OK, "")
        wait_until(lambda: "overslept" in invoke("runs", "nap-1", "--data", data).out, 20)
        assert invoke("runs", "cancel", "nap-1", "--json", "--data", data).code == EXIT_FAILED


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("x = 1\n", "found no Mainstem objects"),
        ("from mainstem import Mainstem\na = Mainstem('a')\nb = Mainstem('b')\n", "found 2 Mainstem objects"),
        (UNMOUNTED, "does not mount the dashboard"),
        ("import nothing_like_it\n", "ModuleNotFoundError"),
    ],
)
def test_a_file_without_an_application(tmp_path: Path, code: str, word: str) -> None:
    """What is missing is said in a sentence; an error of the user's own code comes with its traceback."""
    (tmp_path / "app.py").write_text(code)
    command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_FAILED
    assert word in done.stderr
    assert ("Traceback" in done.stderr) == ("nothing_like_it" in code)
    assert "loading.py" not in done.stderr


def test_a_dashboard_without_an_application_of_its_own(tmp_path: Path) -> None:
    """A file with nothing but ``ms`` is served with the dashboard below /mainstem/, where / leads."""
    (tmp_path / "app.py").write_text("from mainstem import Mainstem\nms = Mainstem('data')\n")
    with developing(tmp_path, "--no-reload") as dev:
        url = str(dev.next_event("ready")["url"])
        assert urlsplit(url).path == "/mainstem/"
        assert ask(url)[0] == 200
        assert ask(url, path="/")[0] == 307


def test_two_at_once_are_refused(shop: Path) -> None:
    """A second ``dev`` on the same data ends with the first one's process id."""
    with developing(shop) as dev:
        pid = dev.next_event("ready")["pid"]
        command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0"]
        done = subprocess.run(command, cwd=shop, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == EXIT_FAILED
        assert done.stderr.startswith("error: ")
        assert f"process {pid}" in done.stderr


def test_a_start_that_fails_shows_whose_fault_it_is(tmp_path: Path) -> None:
    """An error of the user's own in the lifespan is printed with its traceback, and ends the command."""
    (tmp_path / "app.py").write_text(BROKEN_START)
    command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_FAILED
    assert "line 8, in lifespan" in done.stderr
    assert done.stderr.endswith("error: starting the application raised ValueError: no database\n")


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_a_forgotten_lifespan_is_told(tmp_path: Path, reload: str) -> None:
    """An application that was made without the lifespan is not served; what to write is said, without a traceback."""
    (tmp_path / "app.py").write_text(UNSTARTED)
    command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0", reload]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (EXIT_FAILED, "")
    assert done.stderr.startswith("error: the application mounts ms.asgi, but was made without lifespan=ms.lifespan")
    assert "try: lifespan=ms.lifespan where the application is made" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_is_no_file(invoke: Invoke, shop: Path) -> None:
    """A directory in the file's place is called one, and its file is named."""
    result = invoke("dev", shop)
    assert result.code == EXIT_FAILED
    assert "is a directory" in result.err
    assert f"mainstem dev {shop / 'app.py'}" in result.err


def test_one_file_is_watched_in_the_singular(tmp_path: Path) -> None:
    """How many files are watched is said with the right noun."""
    (tmp_path / "app.py").write_text("from mainstem import Mainstem\nms = Mainstem('data')\n")
    command = [sys.executable, "-m", "mainstem.cli", "dev", "app.py", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready in" in process.stdout.readline()
        assert process.stdout.readline().startswith("watching 1 Python file in ")
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(20) == EXIT_OK


def test_other_machines_need_a_token(invoke: Invoke, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that others can reach is refused without a token; a taken or impossible port is a usage error."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    result = invoke("dev", shop / "app.py", "--host", "0.0.0.0")
    assert result.code == EXIT_USAGE
    assert "demands a token" in result.err
    monkeypatch.setenv(TOKEN_VARIABLE, "abc")
    short = invoke("dev", shop / "app.py")
    assert (short.code, "the token has 3 characters" in short.err) == (EXIT_USAGE, True)
    monkeypatch.delenv(TOKEN_VARIABLE)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        assert invoke("dev", shop / "app.py", "--port", port).code == EXIT_USAGE
    assert invoke("dev", shop / "app.py", "--port", 99999).code == EXIT_USAGE
    assert invoke("dev", shop / "missing.py").code == EXIT_FAILED


def test_a_name_that_hides_a_module_is_refused(tmp_path: Path) -> None:
    """A file named like a module of Python would hide it, and is refused before it does harm."""
    (tmp_path / "queue.py").write_text("from mainstem import Mainstem\nms = Mainstem('data')\n")
    command = [sys.executable, "-m", "mainstem.cli", "dev", "queue.py", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_FAILED
    assert "would hide" in done.stderr
