"""Workflows and jobs: functions whose runs are durable. Both are started with one commit and carried out by the
engine.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import check_id
from mainstem.base.text import message_of
from mainstem.bus.events import check_about
from mainstem.flow.branch import current_branch
from mainstem.flow.functions import RecordedFunction
from mainstem.flow.handles import RunHandle
from mainstem.flow.ids import made_id
from mainstem.flow.journal import JournalEntry, RunCompleted, Started
from mainstem.flow.run import Body, Run
from mainstem.flow.steps import Step, perform
from mainstem.trace.context import derived_span_id
from mainstem.ui.format import shorten

if TYPE_CHECKING:
    from mainstem.flow.flow import Flow

P = ParamSpec("P")
R = TypeVar("R")

DELAY_MAX_S = 100 * 365 * 86_400.0
"""Longest delay of a job: a hundred years."""


class Workflow(Generic[P, R]):
    """A durable function. Made by ``@flow.workflow``.

    ``await workflow.start(...)`` starts a run. Calling it runs the function where it is called: within another workflow
    its steps become steps of that run; elsewhere it is an ordinary call, and nothing is recorded.
    """

    def __init__(self, flow: Flow, recorded: RecordedFunction, *, timeout_s: float | None, in_turn: bool) -> None:
        recorded.refuse_parameters("id", "about")
        if not recorded.is_async:
            raise InvalidArgumentError(
                f"{recorded.where}: a workflow is a coroutine function: async def {recorded.name}(...)."
            )
        self._flow = flow
        self.recorded = recorded
        self.name = recorded.name
        self.timeout_s = recorded.check_timeout(timeout_s)
        self.in_turn = in_turn
        functools.update_wrapper(self, recorded.function)

    def __repr__(self) -> str:
        return f"<Workflow {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the function here, as a part of what calls it."""
        result: Coroutine[Any, Any, R] = self.recorded.function(*args, **kwargs)
        return result

    def start(
        self,
        *args: Any,
        id: str | None = None,  # noqa: A002 (what it is called everywhere else)
        about: Iterable[str] = (),
        **kwargs: Any,
    ) -> Coroutine[Any, Any, RunHandle[R]]:
        """Start a run; returns its handle once its existence is durable.

        Args:
            args: The function's arguments; anything that is JSON by :mod:`mainstem.base.codec`.
            id: Names the run. Starting it again with the same arguments gives the existing run: so a start can be
                retried.
            about: Entities that the run is about, such as ``"order:1"``; all its records and events are.
            kwargs: As ``args``.

        Raises:
            RunIdConflictError: A run with this id exists, of another function or with other arguments.
            InvalidArgumentError: The arguments do not fit the function, or are no JSON.
            FlowNotStartedError: The application is not running.
        """
        arguments = msgspec.Raw(self.recorded.checked_arguments(args, kwargs))
        started = Started(self.name, "workflow", arguments, timeout_s=self.timeout_s or 0.0, in_turn=self.in_turn)
        return self._flow.start_run(self.recorded, started, _id_here(id, self.name), check_about(about))

    def body(self, started: Started) -> Body:
        """Return what a run does."""

        async def execute(run: Run) -> JournalEntry:
            args, kwargs = await _recorded_arguments(run, self.recorded, started)
            result = await self.recorded.function(*args, **kwargs)
            return RunCompleted(msgspec.Raw(self.recorded.round_trip(result)[0]))

        return execute


class Job(Generic[P, R]):
    """A durable function of one step, in a queue. Made by ``@flow.job``. Calling it returns a coroutine, also for a
    plain function, and is an ordinary call as of a step outside of a workflow: nothing is recorded or tried again.
    """

    def __init__(self, flow: Flow, step: Step[P, R], *, queue: str) -> None:
        step.recorded.refuse_parameters("id", "about", "delay_s")
        self._flow = flow
        self.step = step
        self.recorded = step.recorded
        self.name = step.recorded.name
        self.queue = queue
        functools.update_wrapper(self, step.recorded.function)

    def __repr__(self) -> str:
        return f"<Job {self.name} in {self.queue}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function, as if it were no job."""
        return self.step.executors.call_plainly(self.step, args, kwargs)

    def enqueue(
        self,
        *args: Any,
        id: str | None = None,  # noqa: A002 (what it is called everywhere else)
        about: Iterable[str] = (),
        delay_s: float = 0.0,
        **kwargs: Any,
    ) -> Enqueued[R]:
        """Enqueue a run. On the application's event loop: ``handle = await job.enqueue(...)``; in any other thread
        (Django, Flask): ``job.enqueue(...).wait()``. Either returns once it is durable.

        Args:
            args: The function's arguments.
            id: Names the run, as for a workflow.
            about: Entities that it is about.
            kwargs: As ``args``.
            delay_s: Seconds before which it does not begin, counted from now by the wall clock, whatever is restarted
                meanwhile.

        Raises:
            InvalidArgumentError: The arguments do not fit the function, or are no JSON.
            FlowNotStartedError: The application is not running.
        """
        arguments = msgspec.Raw(self.recorded.checked_arguments(args, kwargs))
        if not 0.0 <= delay_s <= DELAY_MAX_S:
            raise InvalidArgumentError(f"delay_s={delay_s}: expected 0 to {DELAY_MAX_S:.0f}. Nothing was enqueued.")
        not_before_ns = self._flow.clock.time_ns() + round(delay_s * 1e9) if delay_s else 0
        started = Started(self.name, "job", arguments, self.queue, not_before_ns)
        run_id = _id_here(id, self.name)
        entities = check_about(about)
        return Enqueued(self._flow, lambda: self._flow.start_run(self.recorded, started, run_id, entities))

    def body(self, started: Started) -> Body:
        """Return what a run does: its one step, whose result and the run's end are one commit."""

        async def execute(run: Run) -> JournalEntry:
            args, kwargs = await _recorded_arguments(run, self.recorded, started)
            key = run.root.take(self.name)
            raw = await perform(run.root, key, self.step, tuple(args), kwargs, run.root.passed, last=True)
            return RunCompleted(msgspec.Raw(raw))

        return execute


class Enqueued(Generic[R]):
    """A job on its way to the log: await it on the event loop, or call :meth:`wait` in another thread."""

    def __init__(self, flow: Flow, start: Callable[[], Coroutine[Any, Any, RunHandle[R]]]) -> None:
        loop = flow.loop_if_elsewhere()
        self._thread_future: ThreadFuture[RunHandle[R]] | None = None
        self._coroutine: Coroutine[Any, Any, RunHandle[R]] | None = None
        if loop is not None:
            self._thread_future = asyncio.run_coroutine_threadsafe(start(), loop)
        else:
            self._coroutine = start()

    def __await__(self) -> Generator[Any, None, RunHandle[R]]:
        waiting: Awaitable[RunHandle[R]]
        if self._coroutine is not None:
            waiting = self._coroutine
        elif self._thread_future is not None:
            waiting = asyncio.wrap_future(self._thread_future)
        return waiting.__await__()

    def wait(self, timeout_s: float | None = 30.0) -> RunHandle[R]:
        """Return the handle once the job is durable; for threads without an event loop.

        Raises:
            InvalidArgumentError: Called on the application's own event loop, which it would block; await it there.
            TimeoutError: It took longer; the job may have been enqueued.
        """
        if self._thread_future is None:
            if self._coroutine is not None:
                self._coroutine.close()
            raise InvalidArgumentError(
                "enqueue(...).wait() was called on the application's event loop, which it would block for ever. "
                "Nothing was enqueued. Write: await job.enqueue(...)"
            )
        return self._thread_future.result(timeout_s)


async def _recorded_arguments(
    run: Run, recorded: RecordedFunction, started: Started
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments that a run was started with; stop it when the function no longer takes them."""
    try:
        args, kwargs = recorded.decode_arguments(started.arguments)
        if run.claims:
            recorded.signature.bind(*args, **kwargs)
    except Exception as error:  # annotations, a model's validation: whatever it is, they do not fit
        arguments = bytes(started.arguments)[:400].decode("utf-8", "replace")
        await run.pause(
            f"{recorded.where} does not take the arguments that the run was started with.",
            recorded=shorten(arguments, 200),
            called=message_of(error, 500),
        )
        raise asyncio.CancelledError from error
    return args, kwargs


def _id_here(chosen: str | None, name: str) -> str | None:
    """Return the id of a run that is started from here, ``None`` for any: the chosen one; within a workflow one that
    follows from the place of the call, so that a replay starts nothing twice.
    """
    if chosen is not None:
        return check_id(chosen, "run id")
    branch = current_branch()
    if branch is None:
        return None
    key = branch.take(f"start.{name}")
    return made_id(name, derived_span_id(branch.run.id, key))
