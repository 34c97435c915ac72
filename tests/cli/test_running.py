"""Finding the running application, and asking it to change something."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from mainstem.cli.arguments import TOKEN_VARIABLE
from mainstem.cli.errors import ApplicationNeededError, ApplicationRefusedError, NotFoundError, UsageError
from mainstem.cli.running import (
    SERVER_FILE,
    RunningServer,
    call_application,
    named_server,
    owner_pid,
    read_server,
    remove_server,
    write_server,
)
from mainstem.log import open_log


class Answering(BaseHTTPRequestHandler):
    """Answers by path: echoes, refuses, or does not know."""

    def do_POST(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        echo = {"path": self.path, "token": self.headers.get("authorization"), "body": msgspec.json.decode(body)}
        status, answer = {
            "/ms/ok": (200, msgspec.json.encode(echo)),
            "/ms/no": (409, b'{"error": {"code": "run-ended", "message": "run a is completed."}}'),
            "/ms/odd": (500, b"<html>"),
            "/ms/page": (200, b"<html>"),
        }.get(self.path, (404, b'{"error": {"code": "not-found", "message": "no run b."}}'))
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


@contextmanager
def answering_server(data: Path, token: str = "") -> Iterator[None]:
    """Run a server that is announced in a data directory."""
    data.mkdir()
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    write_server(data, RunningServer(f"http://127.0.0.1:{server.server_port}/ms", 1, token))
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_file_is_the_owners_only(tmp_path: Path) -> None:
    """``server.json`` has mode 0600, is replaced by the next server, and removed by its own writer only."""
    write_server(tmp_path, RunningServer("http://127.0.0.1:1/ms", 10, "secret"))
    assert (tmp_path / SERVER_FILE).stat().st_mode & 0o777 == 0o600
    write_server(tmp_path, RunningServer("http://127.0.0.1:2/ms", 11))
    remove_server(tmp_path, 10)
    assert read_server(tmp_path) == RunningServer("http://127.0.0.1:2/ms", 11)
    remove_server(tmp_path, 11)
    assert read_server(tmp_path) is None
    remove_server(tmp_path, 11)


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full, the error is told, the file of before stays, and no half of a new one."""
    write_server(tmp_path, RunningServer("http://127.0.0.1:1/ms", 10))

    def full(_self: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "as told")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="as told"):
        write_server(tmp_path, RunningServer("http://127.0.0.1:2/ms", 11))
    assert [path.name for path in tmp_path.iterdir()] == [SERVER_FILE]


def test_a_damaged_file_is_no_server(tmp_path: Path) -> None:
    """A file that is no JSON of the right shape counts as none."""
    (tmp_path / SERVER_FILE).write_text("{")
    assert read_server(tmp_path) is None


def test_an_answer_comes_back(tmp_path: Path) -> None:
    """The body goes as JSON with the token, and the answer comes back decoded."""
    data = tmp_path / "data"
    with answering_server(data, "s3cret"):
        answer = call_application(data, "/ok", {"reason": "x"})
    assert answer == {"path": "/ms/ok", "token": "Bearer s3cret", "body": {"reason": "x"}}


def test_refusals_are_told(tmp_path: Path) -> None:
    """What the application refuses or does not know is an error with the application's own sentence."""
    data = tmp_path / "data"
    with answering_server(data):
        with pytest.raises(ApplicationRefusedError, match="run a is completed"):
            call_application(data, "/no", {})
        with pytest.raises(ApplicationRefusedError, match="answered 500"):
            call_application(data, "/odd", {})
        with pytest.raises(ApplicationRefusedError, match="is no mainstem"):
            call_application(data, "/page", {})
        with pytest.raises(NotFoundError, match="no run b"):
            call_application(data, "/unknown", {})


def test_without_a_running_application(tmp_path: Path) -> None:
    """Without ``server.json``, and with one that a killed server left, the error says that an application is needed."""
    with pytest.raises(ApplicationNeededError, match="no application runs on"):
        call_application(tmp_path, "/ok", {})
    data = tmp_path / "data"
    with answering_server(data):
        pass
    with pytest.raises(ApplicationNeededError, match="does not answer"):
        call_application(data, "/ok", {})


def test_another_server_is_told_of(tmp_path: Path) -> None:
    """Where a process that mainstem dev did not start holds the log, the error names it, and how to reach it."""

    async def check() -> None:
        log = await open_log(tmp_path / "log")
        try:
            assert owner_pid(tmp_path) == owner_pid(tmp_path / "log") == os.getpid()
            with pytest.raises(
                ApplicationNeededError, match=f"process {os.getpid()} runs on .*not started by"
            ) as caught:
                await asyncio.to_thread(call_application, tmp_path, "/ok", {})
            assert "--url" in caught.value.try_command
            write_server(tmp_path, RunningServer("http://127.0.0.1:1/ms", os.getpid()))
            with pytest.raises(ApplicationNeededError, match=f"does not answer .*Process {os.getpid()} runs on it"):
                await asyncio.to_thread(call_application, tmp_path, "/ok", {})
        finally:
            await log.close()
        assert owner_pid(tmp_path) == 0

    asyncio.run(check())


def test_a_server_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address as a browser has it is enough; the token is the argument, the address's own, or the environment's."""
    url = "http://127.0.0.1:8000/mainstem"
    monkeypatch.setenv(TOKEN_VARIABLE, "c")
    assert named_server(f"{url}/?token=b%20b", "a") == RunningServer(url, 0, "a")
    assert named_server(f"{url}/?token=b%20b", None) == RunningServer(url, 0, "b b")
    assert named_server(url, None) == RunningServer(url, 0, "c")
    for wrong in ("", "mainstem", "ftp://a/b", "http://", "http://a:x/", "http://[a", "http://a/ b", "http://a:99999/"):
        with pytest.raises(UsageError, match="expected the dashboard's address"):
            named_server(wrong, None)
    data = tmp_path / "data"
    with answering_server(data, "s3cret"):
        server = read_server(data)
        assert server is not None
        answer = call_application(tmp_path / "elsewhere", "/ok", {}, named_server(server.url + "/", "s3cret"))
    assert answer == {"path": "/ms/ok", "token": "Bearer s3cret", "body": {}}
