"""Where a step's function runs: on the event loop, in a thread, in a worker process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mainstem.flow.journal import ErrorInfo
from mainstem.host.threads import call_in_thread

if TYPE_CHECKING:
    from mainstem.flow.process_pool import ProcessPool
    from mainstem.flow.steps import Step

_THREADS_MAX = 32


class RemoteError(Exception):
    """A step failed in a worker process.

    Attributes:
        info: The error, as it was recorded there.
        retryable: Whether the step's retry policy covers it.
    """

    def __init__(self, info: ErrorInfo, retryable: bool) -> None:
        super().__init__(f"{info.type}: {info.message}")
        self.info = info
        self.retryable = retryable


class Call(msgspec.Struct):
    """One attempt at a step.

    Attributes:
        arguments: The arguments as JSON.
        began: To be called when work begins, after waiting for a free place.
    """

    step: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    arguments: bytes
    run_id: str
    function: str
    key: str
    attempt: int
    began: Callable[[], None]


class Executors:
    """The threads and worker processes of one application, started when first needed."""

    def __init__(self) -> None:
        self._thread_places: asyncio.Semaphore | None = None
        self._processes: ProcessPool | None = None

    @property
    def processes(self) -> ProcessPool:
        """The pool of worker processes."""
        if self._processes is None:
            from mainstem.flow.process_pool import ProcessPool  # noqa: PLC0415 (few applications have such steps)

            self._processes = ProcessPool(os.cpu_count() or 1)
        return self._processes

    async def call(self, call: Call) -> tuple[bytes, Any]:
        """Carry out an attempt; return the result's JSON, and the result."""
        step: Step[..., Any] = call.step
        recorded = step.recorded
        if step.executor == "process":
            raw = await self._in_process(call)
            return raw, recorded.decode_result(raw)
        if step.executor == "thread":
            return recorded.round_trip(await self._in_thread(recorded.function, call.args, call.kwargs, call.began))
        result = recorded.function(*call.args, **call.kwargs)
        return recorded.round_trip(await result if recorded.is_async else result)

    async def call_plainly(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a step outside of a workflow: an ordinary call, in the place where the step runs; nothing is
        recorded.
        """
        function = step.recorded.function
        if step.recorded.is_async:
            return await function(*args, **kwargs)
        if step.executor == "inline":
            return function(*args, **kwargs)
        return await self._in_thread(function, args, kwargs, None)

    async def _in_thread(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        began: Callable[[], None] | None,
    ) -> Any:
        if self._thread_places is None:
            self._thread_places = asyncio.Semaphore(_THREADS_MAX)
        # A call that is given up (out of time, cancelled) gives its place back; its thread ends by itself, or never.
        async with self._thread_places:
            if began is not None:
                began()
            return await call_in_thread(lambda: function(*args, **kwargs), name="mainstem-step")

    async def _in_process(self, call: Call) -> bytes:
        answer = await self.processes.call(call)
        if answer.error is not None:
            raise RemoteError(answer.error, answer.retryable)
        return bytes(answer.result)

    async def close(self) -> None:
        """End the worker processes; a thread that still works ends by itself, or with the process."""
        if self._processes is not None:
            processes, self._processes = self._processes, None
            await processes.close()
        self._thread_places = None
