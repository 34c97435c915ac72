"""Our application from process start until one job has run and the dashboard has shown a page; then it stays up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from pathlib import Path
from urllib.parse import urlsplit

from bench.child import read_task, report

task = read_task()

from mainstem import Mainstem  # noqa: E402 (importing is part of what is measured)
from mainstem.cli.loading import Application  # noqa: E402
from mainstem.cli.serve import listen, serve  # noqa: E402

ms = Mainstem(Path(task["directory"]) / "data")


@ms.job(queue="bench")
async def job(number: int) -> int:
    """Return the number."""
    return number


async def run_job() -> float:
    """Run one job; return when it had run."""
    handle = await job.enqueue(7)
    if await handle.result(timeout_s=30) != 7:
        raise RuntimeError("the job's result is not what it returned")
    return time.monotonic()


async def fetch_page(url: str) -> float:
    """Fetch a page; return when it was there."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200 ") or b"</html>" not in answer:
        raise RuntimeError(f"the dashboard answered {answer[:200]!r}")
    return time.monotonic()


async def measure(url: str) -> None:
    """Report when both were done."""
    job_at_s, page_at_s = await asyncio.gather(run_job(), fetch_page(url))
    began_s = task["spawned_at_s"]
    report(max(job_at_s, page_at_s) - began_s, pid=os.getpid(), job_s=job_at_s - began_s, page_s=page_at_s - began_s)


def end_after_failure(done: asyncio.Task[None]) -> None:
    """Tell what failed and stop serving."""
    if not done.cancelled() and (error := done.exception()) is not None:
        traceback.print_exception(error)
        os.kill(os.getpid(), signal.SIGTERM)


measuring: list[asyncio.Task[None]] = []  # the event loop alone would not keep it


def start_measuring(url: str) -> None:
    """Begin when the server listens; a failure ends the process."""
    measuring.append(asyncio.get_running_loop().create_task(measure(url)))
    measuring[0].add_done_callback(end_after_failure)


# Standard input stands for the supervisor: when it ends, so does the server.
serve(Application(ms.asgi, ms, ""), listen("127.0.0.1", 0), on_ready=start_measuring, parent_pipe=0)
