"""``mainstem dev``: an application with its dashboard, started again whenever its code changes.

The command is a supervisor: it owns the listening socket and watches the files; the application runs in a child process
(:mod:`mainstem.cli.child`), which is asked to end with SIGTERM and killed when it does not. Whatever ends the
supervisor, the child ends too.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final, Self

from mainstem.cli.arguments import TOKEN_VARIABLE, add_json
from mainstem.cli.collector import collector_at_rest
from mainstem.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, ApplicationLoadError, UsageError
from mainstem.cli.listening import listen
from mainstem.cli.output import Output, format_count
from mainstem.cli.watch import Snapshot, changed_files, take_snapshot
from mainstem.web.identity import check_token, is_loopback

_LOOK_EVERY_S: Final = 0.5
_SETTLED_AFTER_S: Final = 0.1
_STOP_WITHIN_S: Final = 8.0

_EPILOG = f"""\
FILE is a Python file with  ms = Mainstem(...)  at its top level and, where
the application has pages of its own, an ASGI application named api, app or
asgi that mounts ms.asgi. Without one, the dashboard is served alone.

The application starts again when a .py file below FILE's directory changes.
Runs that were under way go on where they were: what a step returned before is
not done again.

Any address but this machine's own demands a token, from --token or
${TOKEN_VARIABLE}.

Examples:
  mainstem dev app.py                on http://127.0.0.1:8000
  mainstem dev app.py --port 0       on a free port; the address is printed
  mainstem dev app.py --no-reload    one process, no watching (in a container,
                                     or under systemd)
  {TOKEN_VARIABLE}=s3cret-token mainstem dev app.py --host 0.0.0.0
                                     reachable from other machines
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mainstem dev``."""
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=Path, help="Python file with the application, such as app.py")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for a free one (default: 8000)")
    parser.add_argument(
        "--token", help=f"what the dashboard demands (better in ${TOKEN_VARIABLE}: others can see arguments)"
    )
    parser.add_argument(
        "--reload",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start again when code changes (the default), or run as one process",
    )
    add_json(parser, "one JSON object a line for each thing that happens")


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit code."""
    check_file(arguments.file)
    listener = _listen(arguments)
    with listener:
        return (
            _supervise(arguments.file, listener, output)
            if arguments.reload
            else _serve_here(arguments.file, listener, output)
        )


def check_file(path: Path) -> None:
    """Check that there is a file to run.

    Raises:
        ApplicationLoadError: There is nothing, or a directory, or it is named like a module of Python.
    """
    if path.is_file():
        # Before a process is started: it would import this file where it means Python's own.
        if path.stem in sys.stdlib_module_names:
            raise ApplicationLoadError.hides_module(path)
        return
    if path.is_dir():
        raise ApplicationLoadError(
            f"{path} is a directory: expected the Python file in it that makes the Mainstem.",
            try_command=f"mainstem dev {path / 'app.py'}",
        )
    raise ApplicationLoadError(
        f"{path}: there is no such file.", try_command="mainstem new NAME, which writes a small application"
    )


def _listen(arguments: argparse.Namespace) -> socket.socket:
    if arguments.token:
        os.environ[TOKEN_VARIABLE] = arguments.token
    if token := os.environ.get(TOKEN_VARIABLE):
        check_token(token)
    if not is_loopback(arguments.host) and not os.environ.get(TOKEN_VARIABLE):
        raise UsageError(
            f"--host {arguments.host} lets other machines in: that demands a token. Nothing was started.",
            try_command=f"{TOKEN_VARIABLE}=$(openssl rand -hex 16) mainstem dev {arguments.file} --host …",
        )
    try:
        return listen(arguments.host, arguments.port)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {arguments.host}, port {arguments.port}: {error}. Nothing was started.",
            try_command=f"mainstem dev {arguments.file} --port 0, for a free port",
        ) from error


def _serve_here(file: Path, listener: socket.socket, output: Output) -> int:
    begin = time.monotonic()
    with collector_at_rest() as end_rest:
        from mainstem.cli.loading import load_application  # noqa: PLC0415
        from mainstem.cli.serve import serve  # noqa: PLC0415

        def ready(url: str) -> None:
            end_rest()
            _announce(output, url, os.getpid(), time.monotonic() - begin)

        return EXIT_OK if serve(load_application(file), listener, on_ready=ready) else EXIT_FAILED


def _announce(output: Output, url: str, pid: int, took_s: float) -> None:
    if output.as_json:
        output.json_line({"event": "ready", "url": url, "pid": pid, "took_s": round(took_s, 3)})
        return
    output.text(f"{output.style('mainstem', 'bold')}  {output.style(url, 'blue')}  ready in {took_s:.2f} s")
    output.flush()


class Wish:
    """SIGINT and SIGTERM as a note of the first that came, while this is entered, and not as an exception.

    An exception may come anywhere: between the start of a child and its having a name, or while one is being ended, by
    whoever is impatient; then the child would outlive its supervisor.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._come, self._noted = os.pipe()
        heeded = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a script's "&": its terminal's Ctrl-C is not for us
            heeded.append(signal.SIGINT)
        self._earlier = {number: signal.signal(number, self._note) for number in heeded}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Let signals do again what they did before."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        os.close(self._noted)
        os.close(self._come)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            os.write(self._noted, b"1")

    def fileno(self) -> int:
        """Return a descriptor that can be read from once a signal has come."""
        return self._come


def _supervise(file: Path, listener: socket.socket, output: Output) -> int:
    directory = file.resolve().parent
    alive_read, alive_write = os.pipe()  # the child sees its end when this process is gone
    child: Child | None = None
    ever_ready = False
    with Wish() as wish:
        try:
            while wish.signal is None:
                before = take_snapshot(directory)
                child = Child(file, listener, alive_read, as_json=output.as_json)
                while not changed_files(before, take_snapshot(directory)):
                    url = child.wait(_LOOK_EVERY_S, wish)
                    if wish.signal is not None:
                        break
                    if url:
                        _announce(output, url, child.pid, child.age_s)
                        if not ever_ready and not output.as_json:
                            output.text(
                                f"watching {format_count(len(before), 'Python file')} in {directory}; Ctrl-C ends it"
                            )
                            output.flush()
                        ever_ready = True
                    code = child.take_exit_code()
                    if code is not None and not ever_ready:
                        return code
                    if code is not None:
                        _report_end(output, code)
                else:
                    _report_change(output, changed_files(before, _settled_snapshot(directory)), directory)
                    child.stop()
            return EXIT_INTERRUPTED if wish.signal == signal.SIGINT else EXIT_OK
        finally:
            if child is not None:
                child.stop()
            os.close(alive_write)
            os.close(alive_read)


def _settled_snapshot(directory: Path) -> Snapshot:
    """Return the files once they have stopped changing: an editor writes in several steps, a checkout many files."""
    snapshot = take_snapshot(directory)
    while True:
        select.select([], [], [], _SETTLED_AFTER_S)
        later = take_snapshot(directory)
        if later == snapshot:
            return later
        snapshot = later


def _report_change(output: Output, changed: list[str], directory: Path) -> None:
    names = [os.path.relpath(path, directory) for path in changed]
    if output.as_json:
        output.json_line({"event": "changed", "files": names})
        return
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    output.text(f"{', '.join(names[:3])}{more} changed: starting again")
    output.flush()


def _report_end(output: Output, code: int) -> None:
    if output.as_json:
        output.json_line({"event": "ended", "exit_code": code})
        return
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    output.text(f"{output.style('the application ended', 'red')} ({how}); it starts again when its code changes")
    output.flush()


class Child:
    """One server process of the application.

    Args:
        file: The application's file.
        listener: The listening socket that it takes over.
        alive_pipe: Read end of a pipe whose other end only this process holds.
        as_json: Whether it is to tell of an error as JSON.
    """

    def __init__(self, file: Path, listener: socket.socket, alive_pipe: int, *, as_json: bool = False) -> None:
        self._began = time.monotonic()
        self._ready_pipe, child_end = os.pipe()
        self._answer = b""
        self._ended = False
        command = [sys.executable, "-m", "mainstem.cli.child", os.fspath(file)]
        command += [str(listener.fileno()), str(alive_pipe), str(child_end)] + (["--json"] if as_json else [])
        try:
            self._process = subprocess.Popen(command, pass_fds=[listener.fileno(), alive_pipe, child_end])
        finally:
            os.close(child_end)
        self._end = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    def wait(self, timeout_s: float, wish: Wish) -> str:
        """Wait a while, or for a wish; return the dashboard's address the moment it becomes ready, else ``""``."""
        if self._ready_pipe < 0:
            # Popen.wait() would look twenty times a second.
            select.select([wish.fileno(), *([] if self._ended else [self._end])], [], [], timeout_s)
            return ""
        if self._ready_pipe not in select.select([wish.fileno(), self._ready_pipe], [], [], timeout_s)[0]:
            return ""
        part = os.read(self._ready_pipe, 4096)
        self._answer += part
        if part and b"\n" not in self._answer:
            return ""
        self._close_ready_pipe()
        return self._answer.decode().strip()

    def take_exit_code(self) -> int | None:
        """Return the exit code once after the process ended (negative: a signal); ``None`` at all other times."""
        code = self._process.poll()
        if code is None or self._ended:
            return None
        self._ended = True
        return code

    def stop(self) -> None:
        """Ask the process to end, kill it where it does not, and reap it. Idempotent."""
        self._close_ready_pipe()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        end, self._end = self._end, -1
        if end >= 0:
            os.close(end)

    def _close_ready_pipe(self) -> None:
        pipe, self._ready_pipe = self._ready_pipe, -1
        if pipe >= 0:
            os.close(pipe)
