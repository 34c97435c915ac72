"""Calling plain functions of users outside the event loop, without a pool that they could fill or hold up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

_NOT_OF_A_THREAD = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError)


async def call_in_thread(function: Callable[..., Any], *arguments: Any, name: str = "mainstem-call") -> Any:
    """Call a function in a daemon thread of its own, in a copy of the current context; return what it returns.

    A thread a call costs some 50 µs, and asks nothing of others: a function that never ends holds up neither further
    calls nor the end of the process. Cancelling the await leaves the function running, and drops what it returns.
    How many run at once is the caller's to bound.

    What would end the event loop or be taken for its own doing (``SystemExit``, ``KeyboardInterrupt``,
    ``GeneratorExit``, ``StopIteration``, ``CancelledError``) becomes a ``RuntimeError``: of a function in a thread it
    is a failure as any other.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, _NOT_OF_A_THREAD):
            failure = RuntimeError(f"the function raised {type(error).__name__}: {error}")
            failure.__cause__ = error
            future.set_exception(failure)
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
