"""Runs a bench: its contenders interleaved, round after round, each in a fresh interpreter.

An odd round goes through them backwards, so that a disk that slows down steadily slows everyone alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bench.model import Bench, BenchError, Contender
from bench.proc import watch_idle
from bench.ratios import Measured, line
from bench.venvs import python_of
from bench.workspace import ROOT, environment, work_directory

_LINE_MAX_BYTES = 1 << 20
_END_S = 30.0


def run_bench(bench: Bench, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Run a bench and return the JSON object to print.

    Args:
        bench: What to compare.
        rounds: How often each contender runs, at least once.
        seconds: How long each works; see the bench.

    Raises:
        BenchError: A contender failed or could not be started. Nothing of it is left running.
    """
    for contender in bench.contenders:
        python_of(contender.venv)
    values: dict[int, list[float]] = {index: [] for index in range(len(bench.contenders))}
    details: dict[int, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        kept: dict[int, Path] = {}
        if bench.keeps_directory:
            for index, contender in enumerate(bench.contenders):
                kept[index] = stack.enter_context(work_directory(bench.name))
                _take_turn(bench, contender, kept[index], seconds=seconds, idle=False)
        for round_index in range(rounds):
            order = sorted(values, reverse=round_index % 2 == 1)
            for index in order:
                idle = bench.idles and round_index == rounds - 1
                with _directory(bench, kept.get(index)) as directory:
                    result = _take_turn(bench, bench.contenders[index], directory, seconds=seconds, idle=idle)
                values[index].append(result["value"])
                details[index] = result["details"]
                _tell(bench, bench.contenders[index], round_index, rounds, result["value"])
    measured = [Measured(bench.contenders[index], values[index], details[index]) for index in values]
    return line(bench, measured, rounds=rounds, seconds=seconds)


@contextlib.contextmanager
def _directory(bench: Bench, kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with work_directory(bench.name) as path:
        yield path


def _tell(bench: Bench, contender: Contender, round_index: int, rounds: int, value: float) -> None:
    text = f"{bench.name} round {round_index + 1}/{rounds}: {contender.label}: {value:,.4g} {bench.unit}"
    print(text, file=sys.stderr, flush=True)


def _take_turn(bench: Bench, contender: Contender, directory: Path, *, seconds: float, idle: bool) -> dict[str, Any]:
    server = contender.server(directory) if contender.server else contextlib.nullcontext({})
    with server as address, _errors_file(directory) as errors:
        task = {**bench.work, **contender.work, **address, "directory": str(directory), "seconds": seconds}
        argv = [python_of(contender.venv), "-m", contender.module]
        with _child(argv, errors, ours=contender.venv is None) as (process, spawned_at_s):
            try:
                result = _exchange(process, {**task, "spawned_at_s": spawned_at_s}, seconds + bench.timeout_s)
                pid = result["details"].pop("pid", process.pid)
                if idle:
                    result["details"]["idle"] = watch_idle(pid, seconds)
                _end(process)
            except (BenchError, OSError, ValueError) as error:
                raise BenchError(f"{bench.name}: {contender.label} failed: {error}\n{_tail(errors)}") from error
    return result


@contextlib.contextmanager
def _errors_file(directory: Path) -> Iterator[IO[bytes]]:
    with (directory / "stderr.txt").open("w+b") as errors:
        yield errors


@contextlib.contextmanager
def _child(argv: list[str], errors: IO[bytes], *, ours: bool) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Start a contender in a process group of its own; whatever is left of the group at the end is killed."""
    spawned_at_s = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=ROOT,
        env=environment(ours=ours),
        start_new_session=True,
        bufsize=0,
    )
    try:
        yield process, spawned_at_s
    finally:
        with contextlib.suppress(ProcessLookupError):  # the group has ended by itself, as it should
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _exchange(process: subprocess.Popen[bytes], task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Send the task; return the line that comes back."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(task).encode() + b"\n")
    received = _read_line(process, process.stdout.fileno(), timeout_s)
    result = json.loads(received)
    if not isinstance(result, dict) or not isinstance(result.get("details"), dict) or not result.get("value", 0) > 0:
        raise BenchError(f"its result is {received[:200]!r}; expected a value above 0 and details")
    return result


def _read_line(process: subprocess.Popen[bytes], output: int, timeout_s: float) -> bytes:
    deadline_s = time.monotonic() + timeout_s
    received = b""
    # The end of the process is watched too: a child of its own may hold the other end of the pipe.
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline_s - time.monotonic()))}
                if not ready:
                    raise BenchError(f"no result within {timeout_s:g} s")
                piece = os.read(output, 65536) if output in ready else b""
                if not piece:
                    raise BenchError(f"it ended with exit code {process.wait()} before its result")
                received += piece
                if len(received) > _LINE_MAX_BYTES:
                    raise BenchError(f"its result has more than {_LINE_MAX_BYTES} bytes")
    finally:
        os.close(ended)
    return received


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        code = process.wait(_END_S)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"it did not end within {_END_S:g} s after its standard input") from error
    if code:
        raise BenchError(f"it ended with exit code {code} after its result")


def _tail(errors: IO[bytes]) -> str:
    errors.flush()
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
    return errors.read().decode(errors="replace")
