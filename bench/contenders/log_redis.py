"""Redis streams: each task on a connection of its own, or the commands of all tasks together on one."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio as redis  # type: ignore[import-not-found]

from bench.child import Meter, Task, check_count, keep_doing, linger, report, run


class Pipeline:
    """One connection on which whatever tasks want at the moment travels together."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def append(self, stream: str, value: bytes) -> None:
        """Add a record to a stream; return once the server has answered."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((stream, value, done))
        self._wake.set()
        await done

    async def pump(self) -> None:
        """Send what waits, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            taken, self._waiting = self._waiting, []
            pipeline = self._client.pipeline(transaction=False)
            for stream, value, _ in taken:
                pipeline.xadd(stream, {"v": value})
            await pipeline.execute()
            for _, _, done in taken:
                done.set_result(None)


async def main(task: Task) -> None:
    """Append for the given time and report appends a second."""
    clients = [redis.Redis(unix_socket_path=task["redis_socket"]) for _ in range(task["tasks"])]
    value = os.urandom(task["value_bytes"])
    streams = [f"bench.{index}" for index in range(task["tasks"])]
    configured = await clients[0].config_get("append*")
    if configured.get("appendfsync") != "always" or configured.get("appendonly") != "yes":
        raise RuntimeError(f"the server is not durable: {configured}")
    meter = Meter(task)
    if task["mode"] == "pipeline":
        pipeline = Pipeline(clients[0])
        pump = asyncio.create_task(pipeline.pump())
        await keep_doing(lambda index: pipeline.append(streams[index], value), task["tasks"], meter)
        pump.cancel()
    else:
        await keep_doing(lambda index: clients[index].xadd(streams[index], {"v": value}), task["tasks"], meter)
    found = sum([await clients[0].xlen(stream) for stream in streams])
    check_count(found, meter.total(), "Redis")
    for client in clients:
        await client.aclose()
    report(meter.per_second())
    linger()


if __name__ == "__main__":
    run(main)
