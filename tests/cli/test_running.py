"""Finding the running application, and asking it to change something."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from mainstem.cli.arguments import TOKEN_VARIABLE
from mainstem.cli.errors import ApplicationNeededError, ApplicationRefusedError, NotFoundError, UsageError
from mainstem.cli.running import (
    SERVER_FILE,
    RunningServer,
    Wished,
    named_server,
    owner_pid,
    read_server,
    remove_server,
    running_server,
    wish_for,
    write_server,
)
from mainstem.host.lock import RecordLock
from mainstem.log import open_log


class Answering(BaseHTTPRequestHandler):
    """Answers by the run's id: notes the wish, refuses, does not know, or is no mainstem."""

    def do_POST(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append((self.path, self.headers.get("authorization", ""), body))
        run_id, wish = self.path.removeprefix("/ms/api/runs/").split("/")
        noted = msgspec.json.encode(Wished(run_id, wish, 7))
        status, answer = {
            "noted": (202, noted),
            "ended": (400, b'{"error": {"code": "web-bad-request", "message": "run a is completed."}}'),
            "odd": (500, b'"\xff"'),
            "moved": (302, b""),
            "empty": (200, b"{}"),
            "another": (202, noted.replace(b"another", b"others")),
            "no-text": (200, b'{"run_id": "\xff"}'),
            "nested": (200, b"[" * 50_000),
        }.get(run_id, (404, b'{"error": {"code": "web-not-found", "message": "no run b."}}'))
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.send_header("location", f"http://{self.headers['host']}/ms/api/runs/noted/cancel")
        self.end_headers()
        self.wfile.write(answer)

    heard: ClassVar[list[tuple[str, str, bytes]]] = []

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
        """Say nothing."""


@contextmanager
def answering_server(data: Path, token: str = "") -> Iterator[RunningServer]:
    """Run a server that is announced in a data directory by the process that runs on it."""
    data.mkdir()
    lock = RecordLock(data / "state.lock")
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    announced = RunningServer(f"http://127.0.0.1:{server.server_port}/ms", os.getpid(), token)
    write_server(data, announced)
    Answering.heard.clear()
    try:
        yield announced
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        lock.release()


@contextmanager
def saying(answer: bytes) -> Iterator[RunningServer]:
    """Run something that says the same to whoever connects, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", os.getpid(), "s3cret")
        thread.join()


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


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"url":"\xff","pid":1}',
        b"[" * 50_000,
        b'{"url":"nonsense","pid":1}',
        b'{"url":"http://[","pid":1}',
        '{"url":"http://127.0.0.1:1/","pid":1,"token":"tok€n"}'.encode(),
        b'{"url":"http://127.0.0.1:1/","pid":1,"token":"a\\nb"}',
    ],
)
def test_a_damaged_file_is_no_server(tmp_path: Path, content: bytes) -> None:
    """A file that is no JSON of the right shape, or names nothing that can be asked, counts as none."""
    (tmp_path / SERVER_FILE).write_bytes(content)
    assert read_server(tmp_path) is None


def test_a_wish_is_noted(tmp_path: Path) -> None:
    """The reason goes as JSON with the token, and the answer says where the wish is written down."""
    data = tmp_path / "data"
    with answering_server(data, "s3cret"):
        assert wish_for(running_server(data), "noted", "cancel", "x") == Wished("noted", "cancel", 7)
    assert Answering.heard == [("/ms/api/runs/noted/cancel", "Bearer s3cret", b'{"reason":"x"}')]


def test_refusals_are_told(tmp_path: Path) -> None:
    """What the application refuses or does not know is an error with the application's own sentence."""
    with answering_server(tmp_path / "data") as server:
        with pytest.raises(ApplicationRefusedError, match="run a is completed"):
            wish_for(server, "ended", "cancel", "")
        with pytest.raises(ApplicationRefusedError, match="answered 500"):
            wish_for(server, "odd", "cancel", "")
        with pytest.raises(NotFoundError, match="no run b"):
            wish_for(server, "b", "cancel", "")


@pytest.mark.parametrize("run_id", ["empty", "another", "no-text", "nested"])
def test_an_answer_that_notes_nothing_is_no_success(tmp_path: Path, run_id: str) -> None:
    """A 200 of whoever happens to listen there is not taken for the wish's being written down."""
    with answering_server(tmp_path / "data") as server, pytest.raises(ApplicationRefusedError, match="is no mainstem"):
        wish_for(server, run_id, "cancel", "")


def test_the_token_is_not_sent_elsewhere(tmp_path: Path) -> None:
    """A redirect is not followed: it would take the token to whatever it names."""
    data = tmp_path / "data"
    with answering_server(data, "s3cret") as server, pytest.raises(ApplicationRefusedError, match="answered 302"):
        wish_for(server, "moved", "cancel", "")
    assert len(Answering.heard) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n{}", b"\xff" * 70_000]
)
def test_what_speaks_no_http_is_no_mainstem(answer: bytes) -> None:
    """Another service at the address, and an application that ends while it answers, are told in a sentence."""
    with saying(answer) as server, pytest.raises(ApplicationRefusedError, match="is no mainstem"):
        wish_for(server, "noted", "cancel", "")


def test_without_a_running_application(tmp_path: Path) -> None:
    """Without ``server.json``, and with one that a killed server left, the error says that an application is needed;
    nobody is asked, as the port may be anyone's by then.
    """
    with pytest.raises(ApplicationNeededError, match="no application runs on"):
        running_server(tmp_path)
    data = tmp_path / "data"
    with answering_server(data) as server:
        write_server(data, RunningServer(server.url, 2**22 + 1, "s3cret"))  # above the kernel's largest process id
        with pytest.raises(ApplicationNeededError, match=f"process {os.getpid()} runs on .*not started by"):
            running_server(data)
        assert Answering.heard == []
    with pytest.raises(ApplicationNeededError, match=r"process 4194305, which was at .*, is gone"):
        running_server(data)
    for url in (server.url, f"http://{'a' * 70}.example:1"):
        with pytest.raises(ApplicationNeededError, match="nobody answers at"):
            wish_for(RunningServer(url, 0), "noted", "cancel", "")


def test_another_server_is_told_of(tmp_path: Path) -> None:
    """Where a process that mainstem dev did not start holds the log, the error names it, and how to reach it."""

    async def check() -> None:
        log = await open_log(tmp_path / "log")
        try:
            assert owner_pid(tmp_path) == owner_pid(tmp_path / "log") == os.getpid()
            with pytest.raises(
                ApplicationNeededError, match=f"process {os.getpid()} runs on .*not started by"
            ) as caught:
                running_server(tmp_path)
            assert "--url" in caught.value.try_command
            announced = RunningServer("http://127.0.0.1:1/ms", os.getpid())
            write_server(tmp_path, announced)
            assert running_server(tmp_path) == announced
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
    for token in ("tok€n", "a\nb", " a"):
        with pytest.raises(UsageError, match="no header can carry"):
            named_server(url, token)
    with answering_server(tmp_path / "data") as server:
        assert wish_for(named_server(server.url + "/", "s3cret"), "noted", "resume", "").position == 7
    assert Answering.heard[0][1] == "Bearer s3cret"
