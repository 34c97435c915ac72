"""Worker processes for CPU-bound steps: spawned, never forked; one step at a time each; killed to cancel."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainstem.flow.errors import WorkerDiedError
from mainstem.flow.log_lines import keep_line
from mainstem.flow.process_protocol import LENGTH_BYTES, Answer, Hello, Line, Request, Taken, body_bytes, frame
from mainstem.trace.context import current_trace

if TYPE_CHECKING:
    from mainstem.flow.executors import Call

_message_decoder: msgspec.json.Decoder[Answer | Line | Taken] = msgspec.json.Decoder(Answer | Line | Taken)


class Worker:
    """One process.

    Attributes:
        has_taken: Whether it said that it had the last request; before that it began nothing of it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.has_taken = False
        assert process.stdin is not None and process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    @classmethod
    async def spawn(cls) -> Worker:
        """Start a process and tell it where the user's modules are."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mainstem.flow.process_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        worker = cls(process)
        try:
            await worker._send(frame(Hello(list(sys.path), _main_path(), os.getpid(), logging.getLogger().level)))
        except BaseException:
            await asyncio.shield(worker.kill())
            raise
        return worker

    async def _send(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended: what it wrote tells what it had begun
            self._stdin.write(data)
            await self._stdin.drain()

    async def call(self, request: bytes, key: str) -> Answer:
        """Have it do one thing: a frame with the :class:`Request`, for the step ``key``.

        Raises:
            WorkerDiedError: It ended before it answered; ``has_taken`` tells whether it may have begun.
        """
        self.has_taken = False
        try:
            await self._send(request)
            while True:
                prefix = await self._stdout.readexactly(LENGTH_BYTES)
                message = _message_decoder.decode(await self._stdout.readexactly(body_bytes(prefix)))
                match message:
                    case Answer():
                        return message
                    case Line():
                        keep_line(message.line)
                    case Taken():
                        self.has_taken = True
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            status = await self._process.wait()
            cause = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise WorkerDiedError(f"the worker process {self.pid} ended ({cause}) before step {key} did.") from error

    async def kill(self) -> None:
        """End it, and wait until it is gone."""
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            self._process.kill()
        self._stdin.close()
        await self._process.wait()


def _main_path() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(Path(path).resolve()) if path else ""


def _environment() -> dict[str, str]:
    """Return the worker's environment: ours, with mainstem itself on the import path, wherever it was imported from."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class ProcessPool:
    """Up to ``size`` workers, started when they are needed and kept."""

    def __init__(self, size: int) -> None:
        self._places = asyncio.Semaphore(size)
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()

    def __repr__(self) -> str:
        return f"<ProcessPool {len(self._busy)} busy, {len(self._idle)} idle>"

    async def call(self, call: Call) -> Answer:
        """Carry out one attempt in a worker; a worker whose caller is cancelled (or runs out of time) is killed.

        Raises:
            WorkerDiedError: The worker ended before it answered.
            ValueTooLargeError: The arguments are too large to be passed on.
        """
        function = call.step.recorded.function
        trace = current_trace()
        request = frame(
            Request(
                function.__module__,
                function.__qualname__,
                msgspec.Raw(call.arguments),
                call.run_id,
                call.function,
                call.key,
                call.attempt,
                trace.traceparent if trace is not None else "",
            )
        )
        async with self._places:
            while True:
                is_new = not self._idle
                worker = await Worker.spawn() if is_new else self._idle.pop()
                self._busy.add(worker)
                reusable = False
                try:
                    if is_new or worker.alive:
                        call.began()
                        answer = await worker.call(request, call.key)
                        reusable = True
                        return answer
                except WorkerDiedError:
                    if is_new or worker.has_taken:
                        raise
                    # It had died while it was idle, and nothing was begun: the next one has a try.
                finally:
                    self._busy.discard(worker)
                    if reusable and worker.alive:
                        self._idle.append(worker)
                    else:
                        await asyncio.shield(worker.kill())

    async def close(self) -> None:
        """Kill all workers."""
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(worker.kill() for worker in workers))
