"""Calling plain functions of users outside the event loop, without a pool that they could fill or hold up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any


async def call_in_thread(function: Callable[..., Any], *arguments: Any, name: str = "mainstem-call") -> Any:
    """Call a function in a daemon thread of its own, in a copy of the current context; return what it returns.

    A thread a call costs some 50 µs, and asks nothing of others: a function that never ends holds up neither further
    calls nor the end of the process. Cancelling the await leaves the function running, and drops what it returns.
    How many run at once is the caller's to bound.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            future.set_exception(error)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function, *arguments)
        except BaseException as raised:  # noqa: BLE001 (handed to whoever awaits: it is theirs)
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
