"""What ``start_mainstem`` runs: declares a job, serves, runs the job and fetches a page when the server answers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.child import read_task, report
from mainstem import Mainstem
from mainstem.cli.listening import listen
from mainstem.cli.loading import Application
from mainstem.cli.serve import serve

if TYPE_CHECKING:
    from mainstem.flow import Job

task = read_task()


async def number_back(number: int) -> int:
    """Return the number."""
    return number


async def run_job(job: Job[[int], int]) -> float:
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


async def measure(job: Job[[int], int], url: str) -> None:
    """Report when both were done."""
    job_at_s, page_at_s = await asyncio.gather(run_job(job), fetch_page(url))
    began_s = task["spawned_at_s"]
    report(max(job_at_s, page_at_s) - began_s, pid=os.getpid(), job_s=job_at_s - began_s, page_s=page_at_s - began_s)


def end_after_failure(done: asyncio.Task[None]) -> None:
    """Tell what failed and stop serving."""
    if not done.cancelled() and (error := done.exception()) is not None:
        traceback.print_exception(error)
        os.kill(os.getpid(), signal.SIGTERM)


def main(end_rest: Callable[[], None]) -> None:
    """Start, measure, and serve on.

    Args:
        end_rest: Called when the server answers.
    """
    measuring: list[asyncio.Task[None]] = []  # the event loop alone would not keep it
    ms = Mainstem(Path(task["directory"]) / "data")
    job = ms.job(queue="bench")(number_back)

    def ready(url: str) -> None:
        end_rest()
        measuring.append(asyncio.get_running_loop().create_task(measure(job, url)))
        measuring[0].add_done_callback(end_after_failure)

    # Standard input stands for the supervisor: when it ends, so does the server.
    serve(Application(ms.asgi, ms, ""), listen("127.0.0.1", 0), on_ready=ready, parent_pipe=0)
