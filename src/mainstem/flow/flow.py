"""The face of the room: declare steps, workflows and jobs; start them; sleep, gather and map within them."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import msgspec

from mainstem.base.codec import NotDecodableError
from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import check_id, new_id
from mainstem.bus import NO_RETRY, Bus, Event, Retry
from mainstem.flow.branch import RunInfo, current_branch, current_run, refuse_in_worker
from mainstem.flow.engine import Engine, Plan, started_record
from mainstem.flow.errors import DuplicateNameError, FlowNotStartedError, RunIdConflictError
from mainstem.flow.executors import Executors
from mainstem.flow.fanout import Given, Work, check_fan, fan_out, fan_out_plainly
from mainstem.flow.functions import RecordedFunction, arguments_of_raw
from mainstem.flow.handles import RunHandle
from mainstem.flow.history import read_entry
from mainstem.flow.ids import check_run_id, made_id
from mainstem.flow.journal import JOURNAL_PREFIX, Started, Trigger
from mainstem.flow.queues import Queue, RateLimit, parse_rate
from mainstem.flow.sleeping import duration_s, sleep_in
from mainstem.flow.steps import ExecutorName, Step
from mainstem.flow.workflows import Job, Workflow
from mainstem.host.clock import Clock
from mainstem.log.contract import Log
from mainstem.log.errors import PositionConflictError
from mainstem.trace.context import current_trace, new_trace
from mainstem.trace.spans import UnderWay

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

_GRACE_S = 5.0
_CONCURRENCY_MAX = 100_000
_QUEUE_CONCURRENCY = 8


class _QueueDeclaration(msgspec.Struct):
    concurrency: int | None
    rate: RateLimit | None


class Flow:
    """Durable workflows, steps and jobs over one log.

    Everything is declared before :meth:`start`; declarations keep the functions' signatures.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self.clock = clock
        self._random = random.Random()
        self._executors = Executors()
        self._steps: dict[str, Step[..., Any]] = {}
        self._functions: dict[str, Workflow[..., Any] | Job[..., Any]] = {}
        self._queues: dict[str, _QueueDeclaration] = {}
        self._limits: dict[str, int] = {}
        self._thread_id = 0
        self.engine: Engine | None = None

    def __repr__(self) -> str:
        return f"<Flow of {len(self._functions)} functions: {self.engine!r}>"

    # ---- declaring

    @overload
    def step(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def step(self, function: Callable[P, R], /) -> Step[P, R]: ...
    @overload
    def step(
        self,
        /,
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        executor: ExecutorName | None = None,
        record_start: bool = False,
        name: str | None = None,
    ) -> StepDecorator: ...
    def step(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        executor: ExecutorName | None = None,
        record_start: bool = False,
        name: str | None = None,
    ) -> Any:
        """Declare a step: within a workflow its result is durable, and a replay takes it from there.

        Args:
            function: The function, where the decorator stands without options.
            retry: When a failed attempt is tried again; by default it is not.
            timeout_s: Limit of one attempt, which then has failed with ``TimeoutError``; a wait for a free thread or
                worker process does not count. A thread cannot be stopped: it runs on, its result is dropped. A worker
                process is killed.
            executor: ``"inline"`` (on the event loop; default of coroutine functions), ``"thread"`` (default of plain
                ones) or ``"process"`` (spawned; arguments and result pass as JSON; the function is a module's top-level
                name).
            record_start: Make each attempt's start durable before work begins: one more commit, and ``attempt`` is
                exact.
            name: Name in histories; by default the function's.
        """

        def declare(function: Callable[..., Any]) -> Step[..., Any]:
            recorded = RecordedFunction(function, name)
            if executor == "process" and "<" in function.__qualname__:
                raise InvalidArgumentError(
                    f"{recorded.where}: a step in a process is found by its name in its module; define it at the "
                    "module's top level."
                )
            step: Step[..., Any] = Step(
                recorded,
                self._executors,
                retry=retry or NO_RETRY,
                timeout_s=timeout_s,
                executor=executor,
                record_start=record_start,
            )
            self._add_name(self._steps, step.name, step, recorded)
            return step

        return declare(function) if function is not None else declare

    @overload
    def workflow(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        on: str | None = None,
        name: str | None = None,
        timeout_s: float | None = None,
        concurrency: int | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
    def workflow(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        on: str | None = None,
        name: str | None = None,
        timeout_s: float | None = None,
        concurrency: int | None = None,
    ) -> Any:
        """Declare a workflow: an async function that is replayed after a crash, so it does its work in steps.

        ``await workflow.start(x)`` starts a durable run. ``await workflow(x)`` outside of a run is an ordinary call:
        its steps are carried out once, nothing is recorded, and a crash ends it for good. Within a workflow it is a
        part of that run.

        Args:
            function: The function, where the decorator stands without options.
            on: Pattern of streams: each event starts one run, exactly once, with the event's value as its argument. The
                run's id is ``<name>@<position of the event>``, which nobody can choose for another run.
            name: Name in histories; by default the function's.
            timeout_s: Limit of a whole run, from its start, up to a hundred years; it then fails with
                ``TimeoutError``.
            concurrency: Most runs that are carried out at once; others wait their turn.
        """

        def declare(function: Callable[..., Any]) -> Workflow[..., Any]:
            recorded = RecordedFunction(function, name)
            workflow: Workflow[..., Any] = Workflow(
                self, recorded, timeout_s=timeout_s, in_turn=concurrency is not None
            )
            self._add_name(self._functions, recorded.name, workflow, recorded)
            if concurrency is not None:
                self._limits[recorded.name] = _check_concurrency(concurrency)
            if on is not None:
                self._bus.consume(
                    on,
                    group=f"workflow.{recorded.name}",
                    handler=lambda event: self._start_from_event(workflow, event),
                    retry=Retry(max_attempts=1000, max_s=30.0),
                    concurrency=64,
                )
            return workflow

        return declare(function) if function is not None else declare

    def job(
        self,
        *,
        queue: str = "default",
        concurrency: int | None = None,
        rate_limit: str | None = None,
        retry: Retry | None = None,
        timeout_s: float | None = None,
        executor: ExecutorName | None = None,
        name: str | None = None,
    ) -> JobDecorator:
        """Declare a job: a durable function of one step, in a queue.

        Args:
            queue: Its queue. Concurrency and rate are those of the queue: of several jobs in it one names them, or all
                the same.
            concurrency: Most of the queue's jobs at once; 8 by default.
            rate_limit: Most starts in a period, such as ``"100/m"`` (``s``, ``m``, ``h``, ``d``).
            retry: When a failed attempt is tried again; by default 5 attempts.
            timeout_s: Limit of one attempt.
            executor: As for a step.
            name: Name in histories; by default the function's.
        """
        rate = parse_rate(rate_limit) if rate_limit is not None else None

        def declare(function: Callable[..., Any]) -> Any:
            recorded = RecordedFunction(function, name)
            step: Step[..., Any] = Step(
                recorded,
                self._executors,
                retry=retry or Retry(),
                timeout_s=timeout_s,
                executor=executor,
                record_start=False,
            )
            self._declare_queue(queue, concurrency, rate)
            job: Job[..., Any] = Job(self, step, queue=queue)
            self._add_name(self._functions, recorded.name, job, recorded)
            return job

        return declare

    def _declare_queue(self, name: str, concurrency: int | None, rate: RateLimit | None) -> None:
        check_id(name, "queue name")
        if concurrency is not None:
            _check_concurrency(concurrency)
        known = self._queues.setdefault(name, _QueueDeclaration(None, None))
        for field, value in (("concurrency", concurrency), ("rate", rate)):
            earlier = getattr(known, field)
            if value is not None and earlier not in (None, value):
                raise InvalidArgumentError(
                    f"queue {name!r}: its {field} was declared as {earlier}, and now as {value}."
                )
            if value is not None:
                setattr(known, field, value)

    def _add_name(self, names: dict[str, Any], name: str, what: Any, recorded: RecordedFunction) -> None:
        if name in names:
            raise DuplicateNameError(
                f"{recorded.where}: {name!r} is the name of {names[name].recorded.where} already. Nothing was changed. "
                "Give it another one with name='...'."
            )
        if self.engine is not None:
            raise InvalidArgumentError(
                f"{recorded.where} was declared while the application runs; declare it at import time."
            )
        names[name] = what

    # ---- life

    async def start(self, log: Log) -> None:
        """Take over the runs that earlier processes left open, and accept new ones. Returns before they have ended.

        Raises:
            StartedInWorkerError: This is a worker process, in which the script was loaded to find a step.
        """
        refuse_in_worker()
        engine = Engine(log, self.clock, self._random, self._executors)
        queues = {
            name: Queue(name, one.concurrency or _QUEUE_CONCURRENCY, one.rate, engine.timers, self.clock.monotonic_s)
            for name, one in self._queues.items()
        }
        for name, function in self._functions.items():
            if isinstance(function, Job):
                queue: Queue | None = queues[function.queue]
            elif name in self._limits:
                queue = Queue(f"workflow {name}", self._limits[name], None, engine.timers, self.clock.monotonic_s)
            else:
                queue = None
            engine.plans[name] = Plan(function.body, queue)
        self._thread_id = threading.get_ident()
        self.engine = engine
        try:
            await engine.start()
        except BaseException:
            self.engine = None
            await engine.stop(0)
            raise

    async def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Let steps under way finish for ``grace_s`` seconds, then leave open runs to the next start. Idempotent."""
        engine = self.engine
        if engine is not None:
            await engine.stop(grace_s)
            self.engine = None
            await self._executors.close()

    def loop_if_elsewhere(self) -> asyncio.AbstractEventLoop | None:
        """Return the application's event loop, if the running code is on another thread; ``None`` on its own.

        Raises:
            FlowNotStartedError: The application is not running.
        """
        if self.engine is None:
            raise FlowNotStartedError("enqueue")
        return None if threading.get_ident() == self._thread_id else self.engine.loop

    # ---- starting runs

    async def start_run(
        self, recorded: RecordedFunction, started: Started, run_id: str | None, about: tuple[str, ...]
    ) -> RunHandle[Any]:
        """Make a run exist, and begin it; an existing one of the same id, function and arguments is returned as it
        is.
        """
        engine = self.engine
        if engine is None or engine.draining:
            raise FlowNotStartedError(f"start of {recorded.name}")
        run_id = run_id if run_id is not None else new_id(self.clock.time_ns())
        branch = current_branch()
        if branch is not None:
            about = tuple(dict.fromkeys((*about, *branch.run.about)))
        origin = current_trace() or new_trace()
        record = started_record(started, origin, about)

        async def make() -> None:
            try:
                position = await engine.log.append(JOURNAL_PREFIX + run_id, [record], expected_position=0)
            except PositionConflictError:
                await self._check_same(engine, run_id, started)
            else:
                engine.begin_new(run_id, started, position, origin, about)

        # The engine's own: whoever is cancelled while it waits here leaves no run behind that nobody carries out.
        await asyncio.shield(engine.starting(make()))
        return RunHandle(self, run_id, recorded)

    @staticmethod
    async def _check_same(engine: Engine, run_id: str, started: Started) -> None:
        first = await engine.log.read(JOURNAL_PREFIX + run_id, 0, 1)
        existing = read_entry(first[0].value)
        if not isinstance(existing, Started):
            raise RunIdConflictError(
                f"run {run_id} exists already, and this version cannot read what it is: start of {started.function}. "
                "Nothing was started.",
                try_command=f"mainstem runs {run_id}",
            )
        if existing.function != started.function or existing.arguments != started.arguments:
            difference = "with other arguments" if existing.function == started.function else f"of {existing.function}"
            raise RunIdConflictError(
                f"run {run_id} exists already, {difference}: start of {started.function}. Nothing was started.",
                try_command=f"mainstem runs {run_id}",
            )

    async def _start_from_event(self, workflow: Workflow[..., Any], event: Event[msgspec.Raw]) -> None:
        arguments = arguments_of_raw(event.value)
        try:
            workflow.recorded.decode_arguments(arguments)
        except NotDecodableError as error:
            raise NotDecodableError(f"the event does not fit {workflow.recorded.where}: {error}") from error
        started = Started(
            workflow.name,
            "workflow",
            msgspec.Raw(arguments),
            trigger=Trigger(event.stream, event.position),
            timeout_s=workflow.timeout_s or 0.0,
            in_turn=workflow.in_turn,
        )
        await self.start_run(workflow.recorded, started, made_id(workflow.name, str(event.position)), event.about)

    def under_way(self, run_id: str) -> list[UnderWay]:
        """Return the attempts at steps of a run that this process is carrying out now, in the order in which they
        began; none for a run that is not there. On the application's event loop only.
        """
        run = self.engine.runs.get(run_id) if self.engine is not None else None
        found = [UnderWay(key, *attempt) for key, attempt in run.under_way.items()] if run is not None else []
        return sorted(found, key=lambda one: one.started_ns)

    def at_work(self) -> frozenset[str]:
        """Return the ids of the runs that had to wait for their turn (jobs, workflows with a limit), have had it in
        this process, and have not ended. On the application's event loop only.
        """
        engine = self.engine
        if engine is None:
            return frozenset()
        in_turn = {name for name, plan in engine.plans.items() if plan.queue is not None}
        return frozenset(run.id for run in engine.runs.values() if run.function in in_turn)

    def handle(self, run_id: str) -> RunHandle[Any]:
        """Return a handle to a run by its id; whether it exists shows when it is used."""
        return RunHandle(self, check_run_id(run_id))

    # ---- within workflows

    def current_run(self) -> RunInfo | None:
        """Return the run, and within a step the step and its attempt, that the running code is a part of."""
        return current_run()

    def sleep(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> Coroutine[Any, Any, None]:
        """Sleep: within a workflow durably, by the wall clock, across restarts; elsewhere an ordinary sleep."""
        for_s = duration_s(seconds, minutes, hours, days)
        branch = current_branch()
        return self.clock.sleep(for_s) if branch is None else sleep_in(branch, branch.take("sleep"), for_s)

    @overload
    def gather(self, a: Awaitable[A], /) -> Coroutine[Any, Any, tuple[A]]: ...
    @overload
    def gather(self, a: Awaitable[A], b: Awaitable[B], /) -> Coroutine[Any, Any, tuple[A, B]]: ...
    @overload
    def gather(self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> Coroutine[Any, Any, tuple[A, B, C]]: ...
    @overload
    def gather(
        self, a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
    ) -> Coroutine[Any, Any, tuple[A, B, C, D]]: ...
    @overload
    def gather(
        self,
        a: Awaitable[T],
        b: Awaitable[T],
        c: Awaitable[T],
        d: Awaitable[T],
        e: Awaitable[T],
        /,
        *more: Awaitable[T],
    ) -> Coroutine[Any, Any, tuple[T, ...]]: ...
    def gather(self, *awaitables: Awaitable[Any]) -> Coroutine[Any, Any, tuple[Any, ...]]:
        """Await several things at once; return their results, in order.

        Each is a branch with a history of its own. When one fails the others are cancelled and awaited, then its error
        is raised.
        """
        check_fan(len(awaitables), None)
        work: list[Work] = [Given(one) for one in awaitables]
        branch = current_branch()
        key = branch.take("gather") if branch is not None else ""

        async def gathered() -> tuple[Any, ...]:
            if branch is None:
                return tuple(await fan_out_plainly(work, None))
            return tuple(await fan_out(branch, key, "gather", work, None))

        return gathered()

    def map(
        self, function: Callable[[T], Awaitable[R]], items: Iterable[T], *, max_concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]:
        """Call an async function (or a step) for each item, at most ``max_concurrency`` at once; return the results,
        in order.

        Each item is a branch with a history of its own, numbered by its place. On the first failure the others are
        cancelled and awaited, then its error is raised.
        """
        listed = list(items)
        check_fan(len(listed), max_concurrency)
        work: list[Work] = [lambda item=item: function(item) for item in listed]  # type: ignore[misc]
        branch = current_branch()
        key = branch.take("map") if branch is not None else ""

        async def mapped() -> list[R]:
            if branch is None:
                return await fan_out_plainly(work, max_concurrency)
            return await fan_out(branch, key, "map", work, max_concurrency)

        return mapped()


class StepDecorator(Protocol):
    """What ``flow.step(...)`` returns: it makes a step of a coroutine function or of a plain one."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


class JobDecorator(Protocol):
    """What ``flow.job(...)`` returns: it makes a job of a coroutine function or of a plain one."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Job[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Job[P, R]: ...


def _check_concurrency(concurrency: int) -> int:
    if not 1 <= concurrency <= _CONCURRENCY_MAX:
        raise InvalidArgumentError(f"concurrency={concurrency}: expected 1 to {_CONCURRENCY_MAX}.")
    return concurrency
