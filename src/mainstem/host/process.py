"""Child processes: argument lists only, limited, bounded in output, and never left running.

A child lives in a session of its own and dies with its parent, also when the parent is killed with SIGKILL: a small
launcher (:mod:`mainstem.host._launcher`) asks the kernel for that (``PR_SET_PDEATHSIG``), sets the limits and becomes
the program. The kernel sends that signal when the *thread* that made the child ends, so children are made on the
event loop's own thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from mainstem.host.errors import ProcessFailedError, ProcessNotStartedError, ProcessOutputError, ProcessTimeoutError

_LAUNCHER = str(Path(__file__).with_name("_launcher.py"))
_READ_BYTES = 1 << 16
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")

STDOUT_MAX_BYTES = 1 << 20
"""How much standard output is kept where the caller says nothing."""

STDERR_MAX_BYTES = 1 << 16
"""How much of the end of standard error is kept where the caller says nothing."""


class ProcessResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a child process ended.

    Attributes:
        program: Path of the program.
        exit_code: Its exit code; a negative number is the signal that ended it.
        stdout: What it wrote to standard output; empty where ``on_stdout`` took it.
        stderr: The end of what it wrote to standard error.
        duration_s: From before its start until after its end.
    """

    program: str
    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def stderr_text(self) -> str:
        """Standard error as text, with undecodable bytes replaced."""
        return self.stderr.decode("utf-8", "replace").strip()

    def check(self) -> ProcessResult:
        """Return this result if the process exited with 0.

        Raises:
            ProcessFailedError: It did not.
        """
        if self.exit_code != 0:
            raise ProcessFailedError(self.program, self.exit_code, self.stderr_text)
        return self


def tied_to_this_process(
    argv: Sequence[str | Path],
    *,
    cpu_max_s: float = 0,
    address_space_max_bytes: int = 0,
    file_size_max_bytes: int = 0,
) -> list[str]:
    """Return the argument list that runs a program which dies with this process, also when that is killed (Linux).

    It must be run from the thread of the event loop, which lives as long as the process. Arguments, and 0 for no limit,
    as for :func:`run_process`.

    Raises:
        ProcessNotStartedError: There is no such program.
    """
    limits = [str(os.getpid()), str(math.ceil(cpu_max_s)), str(address_space_max_bytes), str(file_size_max_bytes)]
    return [sys.executable, "-I", "-S", _LAUNCHER, *limits, _find(str(argv[0])), *map(str, argv[1:])]


async def run_process(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    stdout_max_bytes: int = STDOUT_MAX_BYTES,
    stderr_max_bytes: int = STDERR_MAX_BYTES,
    cpu_max_s: float = 0,
    address_space_max_bytes: int = 0,
    file_size_max_bytes: int = 0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    stdin: bytes | None = None,
) -> ProcessResult:
    """Run a program to its end and return how it ended; a non-zero exit code is an answer, not an error.

    Whatever ends the await early (cancellation, the time-out, too much output) kills the child's whole process group
    first and waits until it is gone. If this process is killed, the kernel kills the child (Linux).

    Args:
        argv: The program (a path, or a name to look up in PATH) and its arguments. There is no shell.
        timeout_s: Wall-clock limit.
        stdout_max_bytes: Most bytes of standard output that are accepted.
        stderr_max_bytes: How much of the end of standard error is kept; what comes before is dropped.
        cpu_max_s: Limit of CPU time over all its threads, rounded up to seconds; 0 for none. Beyond it the kernel
            kills it.
        address_space_max_bytes: Limit of its address space; 0 for none. Beyond it, its allocations fail.
        file_size_max_bytes: Largest file that it may write; 0 for none.
        cwd: Its working directory.
        env: Variables beside the few that are passed on (PATH, HOME, TMPDIR, LD_LIBRARY_PATH); ``TRACEPARENT``
            belongs here.
        on_stdout: Takes standard output as it comes, instead of it being kept; ``stdout_max_bytes`` then still limits
            the sum.
        stdin: Bytes for its standard input; ``None`` gives it an empty one.

    Raises:
        ProcessNotStartedError: There is no such program, or the system would not start it.
        ProcessTimeoutError: It ran longer than ``timeout_s``; it was killed.
        ProcessOutputError: It wrote more than ``stdout_max_bytes``; it was killed.
    """
    program = _find(str(argv[0]))
    command = tied_to_this_process(
        [program, *argv[1:]],
        cpu_max_s=cpu_max_s,
        address_space_max_bytes=address_space_max_bytes,
        file_size_max_bytes=file_size_max_bytes,
    )
    started_s = time.monotonic()
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=cwd,
            env=_environment(env),
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessNotStartedError(program, error.strerror or str(error)) from error
    output = _Output(program, stdout_max_bytes, stderr_max_bytes, on_stdout)
    try:
        async with asyncio.timeout(timeout_s):
            await _communicate(process, stdin, output)
    except TimeoutError:
        await _kill_and_reap(process)
        raise ProcessTimeoutError(program, timeout_s, output.stderr_text()) from None
    except BaseException:  # cancellation too: nothing of ours may go on running
        await _kill_and_reap(process)
        raise
    return ProcessResult(
        program=program,
        exit_code=process.returncode if process.returncode is not None else 0,
        stdout=bytes(output.stdout),
        stderr=bytes(output.stderr),
        duration_s=time.monotonic() - started_s,
    )


def _find(name: str) -> str:
    """Return a program's absolute path: the child may have another working directory."""
    found = shutil.which(name)
    if found is None:
        raise ProcessNotStartedError(name, "no such program, or it may not be executed")
    return os.path.abspath(found)


class _Output:
    """What a child wrote, within bounds."""

    def __init__(
        self, program: str, stdout_max_bytes: int, stderr_max_bytes: int, on_stdout: Callable[[bytes], None] | None
    ) -> None:
        self._program = program
        self._stdout_max_bytes = stdout_max_bytes
        self._stderr_max_bytes = stderr_max_bytes
        self._on_stdout = on_stdout
        self._stdout_bytes = 0
        self.stdout = bytearray()
        self.stderr = bytearray()

    def take_stdout(self, data: bytes) -> None:
        self._stdout_bytes += len(data)
        if self._stdout_bytes > self._stdout_max_bytes:
            raise ProcessOutputError(self._program, self._stdout_max_bytes)
        if self._on_stdout is not None:
            self._on_stdout(data)
        else:
            self.stdout += data

    def take_stderr(self, data: bytes) -> None:
        self.stderr += data
        del self.stderr[: max(0, len(self.stderr) - self._stderr_max_bytes)]

    def stderr_text(self) -> str:
        return self.stderr.decode("utf-8", "replace").strip()


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes | None, output: _Output) -> None:
    """Feed and read a process until it has ended and both of its outputs are at their end."""
    if process.stdout is None or process.stderr is None:
        raise AssertionError("the process was started with pipes")
    tasks = [
        asyncio.ensure_future(_drain(process.stdout, output.take_stdout)),
        asyncio.ensure_future(_drain(process.stderr, output.take_stderr)),
        asyncio.ensure_future(_feed(process.stdin, stdin)),
    ]
    try:
        await asyncio.gather(*tasks)
        await process.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(stream: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    while data := await stream.read(_READ_BYTES):
        take(data)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None or data is None:
        return
    # A program that ends, or closes its input, before it has read all of it is within its rights; its exit code tells.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    stream.close()


async def _kill_and_reap(process: asyncio.subprocess.Process) -> None:
    """Kill the child's process group and return once the child is gone."""
    # The group exists from the child's birth (setsid before exec) until its last member ends.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(asyncio.ensure_future(_reap(process)))


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait for a killed child. Its pipes are emptied meanwhile: asyncio tells of its end only when they are closed."""
    if process.stdin is not None:
        process.stdin.close()
    pipes = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    await asyncio.gather(process.wait(), *(_drain(stream, _discard) for stream in pipes))


def _discard(_data: bytes) -> None:
    """Take what nobody wants any more."""


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**environment, "LC_ALL": "C.UTF-8", **(extra or {})}
