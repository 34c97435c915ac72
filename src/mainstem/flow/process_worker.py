"""A worker process: reads requests from its standard input, carries them out, answers on what was its standard output.

Started by :mod:`mainstem.flow.process_pool` as ``python -m mainstem.flow.process_worker``. It ends with its parent: by
signal (``PR_SET_PDEATHSIG``), and because its standard input ends.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import runpy
import signal
import sys
import time
from typing import Any, BinaryIO

import msgspec

from mainstem.base.text import recordable
from mainstem.flow.branch import Attempt, RunFace, scope
from mainstem.flow.journal import LogLine
from mainstem.flow.log_lines import LINE_MAX_CHARS
from mainstem.flow.process_protocol import LENGTH_BYTES, Answer, Hello, Line, Request, Taken, body_bytes, frame
from mainstem.flow.run import error_info
from mainstem.flow.steps import Step, may_retry
from mainstem.host._launcher import die_with_parent
from mainstem.trace.context import parse_traceparent, use_trace

_MAIN = "__main__"


def _read(source: BinaryIO) -> bytes | None:
    prefix = source.read(LENGTH_BYTES)
    if len(prefix) < LENGTH_BYTES:
        return None
    size = body_bytes(prefix)
    body = source.read(size)
    return body if len(body) == size else None


def _write(sink: BinaryIO, data: bytes) -> None:
    sink.write(data)
    sink.flush()


class _Lines(logging.Handler):
    """Sends log lines to the parent, which knows the run."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self._sink = sink
        self._attempt: Request | None = None

    def of(self, request: Request | None) -> None:
        self._attempt = request

    def emit(self, record: logging.LogRecord) -> None:
        request = self._attempt
        if request is None:
            return
        try:
            message, level, name = (
                recordable(text, LINE_MAX_CHARS) for text in (self.format(record), record.levelname, record.name)
            )
            data = frame(Line(LogLine(time.time_ns(), level, name, message, request.key, request.attempt)))
        except Exception:  # noqa: BLE001 (a message that cannot be formatted: as logging does it)
            self.handleError(record)
        else:
            _write(self._sink, data)


class _Modules:
    """Finds steps in the user's modules; the file that is ``__main__`` in the parent is loaded under another name,
    once.
    """

    def __init__(self, hello: Hello) -> None:
        self._main_path = hello.main_path
        self._main: dict[str, Any] | None = None

    def find(self, module: str, qualname: str) -> Any:
        first, *rest = qualname.split(".")
        found = self._names_of_main()[first] if module == _MAIN else getattr(importlib.import_module(module), first)
        for name in rest:
            found = getattr(found, name)
        return found

    def _names_of_main(self) -> dict[str, Any]:
        if self._main is None:
            self._main = runpy.run_path(self._main_path, run_name="__mainstem_worker__")
        return self._main


def _carry_out(found: Any, request: Request) -> bytes:
    """Return the answer's frame. Whatever the user's code raises, ``sys.exit()`` too, is what the answer tells."""
    step = found if isinstance(found, Step) else None
    try:
        if step is None:
            raise LookupError(f"{request.module}.{request.qualname} is no step in the worker process")
        args, kwargs = step.recorded.decode_arguments(request.arguments)
        result = step.recorded.function(*args, **kwargs)
        if inspect.isawaitable(result):
            result = asyncio.run(_finish(result))
        return frame(Answer(msgspec.Raw(step.recorded.round_trip(result)[0])))
    except BaseException as error:  # noqa: BLE001 (as it says above)
        return frame(Answer(error=error_info(error), retryable=step is not None and may_retry(step.retry, error, 0)))


async def _finish(awaitable: Any) -> Any:
    return await awaitable


def _answer(modules: _Modules, lines: _Lines, request: Request) -> bytes:
    root = logging.getLogger()
    try:
        found = modules.find(request.module, request.qualname)
        root.handlers[:] = [lines]  # what the module added would show each line a second time
    except BaseException as error:  # noqa: BLE001 (the user's module, which may end in sys.exit(): the answer tells)
        return frame(Answer(error=error_info(error)))
    return _carry_out(found, request)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the ends of the pipes to the parent; what the user's code reads and prints must not get between the
    frames.
    """
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


def main() -> None:
    """Serve until the parent closes the pipe."""
    source, sink = _take_pipes()
    hello_bytes = _read(source)
    if hello_bytes is None:
        return
    hello = msgspec.json.decode(hello_bytes, type=Hello)
    die_with_parent(hello.parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    sys.path[:] = hello.sys_path
    lines = _Lines(sink)
    root = logging.getLogger()
    root.setLevel(hello.log_level)
    root.addHandler(lines)
    modules = _Modules(hello)
    while (body := _read(source)) is not None:
        request = msgspec.json.decode(body, type=Request)
        _write(sink, frame(Taken()))
        lines.of(request)
        scope.set(Attempt(RunFace(request.run_id, request.function), request.key, request.attempt))
        with use_trace(parse_traceparent(request.traceparent)):
            answer = _answer(modules, lines, request)
        lines.of(None)
        _write(sink, answer)


if __name__ == "__main__":
    main()
