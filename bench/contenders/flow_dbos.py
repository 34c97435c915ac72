"""DBOS: no-op steps in workflows, as functions in threads or as coroutines, on SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from dbos import DBOS  # type: ignore[import-not-found]

from bench.child import Meter, Task, check_count, linger, read_task, report


def database_url(task: Task) -> str:
    """Return where DBOS shall keep its state: the server's database, or a file."""
    url: str = task.get("postgres_url") or f"sqlite:///{Path(task['directory']) / 'dbos.sqlite'}"
    return url


def launch(task: Task) -> None:
    """Start DBOS on the task's database."""
    config = {
        "name": "bench",
        "system_database_url": database_url(task),
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    if "pool" in task:
        config["sys_db_pool_size"] = task["pool"]
    DBOS(config=config)


def sync_runs(task: Task) -> Meter:
    """Run workflows of plain functions, one after the other in each thread."""
    step = DBOS.step(name="noop")(lambda number: number)

    meters: list[Meter] = []

    def body(count: int) -> bool:
        for number in range(count):
            step(number)
            if not meters[0].tick():
                return False
        return True

    workflow = DBOS.workflow(name="bench")(body)
    DBOS.launch()
    meters.append(Meter(task))

    def client() -> None:
        while workflow(task["steps_per_run"]):
            pass

    threads = [threading.Thread(target=client) for _ in range(task["runs"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return meters[0]


async def async_runs(task: Task) -> Meter:
    """Run workflows of coroutines, one after the other in each task."""

    async def noop(number: int) -> int:
        return number

    step = DBOS.step(name="noop")(noop)
    meters: list[Meter] = []

    async def body(count: int) -> bool:
        for number in range(count):
            await step(number)
            if not meters[0].tick():
                return False
        return True

    workflow = DBOS.workflow(name="bench")(body)
    DBOS.launch()
    meters.append(Meter(task))

    async def client() -> None:
        while await workflow(task["steps_per_run"]):
            pass

    await asyncio.gather(*(client() for _ in range(task["runs"])))
    return meters[0]


def main(task: Task) -> None:
    """Run steps for the given time and report steps a second."""
    launch(task)
    meter = asyncio.run(async_runs(task)) if task["mode"] == "async" else sync_runs(task)
    recorded = sum(len(DBOS.list_workflow_steps(run.workflow_id)) for run in DBOS.list_workflows(load_input=False))
    check_count(recorded, meter.total(), "DBOS")
    report(meter.per_second())
    DBOS.destroy()
    linger()


if __name__ == "__main__":
    main(read_task())
