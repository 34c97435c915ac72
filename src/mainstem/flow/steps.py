"""Steps: functions whose results are durable. In a workflow a call costs one commit; elsewhere it is an ordinary
call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

import msgspec

from mainstem.base.codec import NotDecodableError, NotJsonError, digest
from mainstem.base.errors import InvalidArgumentError
from mainstem.base.text import message_of
from mainstem.bus.retry import Retry
from mainstem.flow.branch import Attempt, Branch, current_branch, scope
from mainstem.flow.errors import StepFailedError, ValueTooLargeError, WorkerDiedError
from mainstem.flow.executors import Call, RemoteError
from mainstem.flow.functions import NO_ARGUMENTS, RecordedFunction, encode_arguments
from mainstem.flow.history import Past
from mainstem.flow.journal import StepCompleted, StepFailed, StepStarted
from mainstem.flow.replay import enter, mismatch
from mainstem.flow.run import PASSED_ON, Run, encode_entry, error_info
from mainstem.flow.timers import TimeLimit
from mainstem.trace.context import TraceContext, use_trace
from mainstem.ui.format import shorten

if TYPE_CHECKING:
    from mainstem.flow.executors import Executors

P = ParamSpec("P")
R = TypeVar("R")

ExecutorName = Literal["inline", "thread", "process"]
"""Where a step runs: on the event loop, in a thread, in a process of its own."""

_WORKER_DEATHS_MAX = 3
"""A step whose worker died is tried again so often, also where its retry policy has fewer attempts."""

_NO_ARGUMENTS_DIGEST = digest(NO_ARGUMENTS)
_ENTRY_OVERHEAD_BYTES = 4096
"""What an entry holds beside a step's result, at most."""


class Step(Generic[P, R]):
    """A function whose result is durable within a workflow. Made by ``@flow.step``.

    Calling it returns a coroutine, also for a plain function (which runs in a thread, or where ``executor`` says). In a
    workflow the call's place in the history is taken at the moment of the call, and the result is what reading its JSON
    back gives.
    """

    def __init__(
        self,
        recorded: RecordedFunction,
        executors: Executors,
        *,
        retry: Retry,
        timeout_s: float | None,
        executor: ExecutorName | None,
        record_start: bool,
    ) -> None:
        self.recorded = recorded
        self.name = recorded.name
        self.retry = retry
        self.timeout_s = recorded.check_timeout(timeout_s)
        self.executor: ExecutorName = executor or ("inline" if recorded.is_async else "thread")
        self.record_start = record_start
        self.executors = executors
        self.direct = self.executor == "inline" and recorded.is_async and timeout_s is None
        functools.update_wrapper(self, recorded.function)
        if self.executor == "thread" and recorded.is_async:
            raise InvalidArgumentError(
                f"{recorded.where} is a coroutine function: it runs 'inline' or in a 'process', not in a thread."
            )

    def __repr__(self) -> str:
        return f"<Step {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call it."""
        branch = current_branch()
        if branch is None:
            return self.executors.call_plainly(self, args, kwargs)
        return perform(branch, branch.take(self.name), self, args, kwargs, branch.passed)


async def perform(
    branch: Branch,
    key: str,
    step: Step[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    passed: int,
    *,
    last: bool = False,
) -> Any:
    """Answer a step's call within a run: from the history, or by carrying it out and recording the result.

    ``passed`` is the branch's at the moment of the call. With ``last`` the result goes into the same commit as the
    run's end, and its JSON is returned.
    """
    run = branch.run
    if args or kwargs:
        arguments = encode_arguments(args, kwargs)
        fingerprint = digest(arguments)
    else:
        arguments, fingerprint = NO_ARGUMENTS, _NO_ARGUMENTS_DIGEST
    past = None
    if run.past or run.ending is not None or run.engine.draining:  # else it is new, and nothing stands in its way
        past = await enter(branch, key, "step", f"step {key}({arguments[:200].decode('utf-8', 'replace')})")
    if past is not None:
        if past.name != step.name or past.digest != fingerprint:
            await mismatch(branch, key, f"digest {past.digest}", f"digest {fingerprint}, arguments {arguments[:200]!r}")
        if past.result is not None:
            branch.passed = max(branch.passed, past.claims)
            return bytes(past.result) if last else await _recorded_result(branch, key, step, past.result)
        if past.error is not None and not past.retry_at_ns and not past.under_way:
            branch.passed = max(branch.passed, past.claims)
            raise StepFailedError(step.name, key, past.attempt, past.error)
    carrying = Carrying(branch, key, step, args, kwargs, arguments, fingerprint)
    run.pending += 1
    try:
        completed, raw, result = await carrying.attempts(past, passed)
        if last:
            run.journal.put_soon(completed)
            return raw
        await run.journal.write(completed)
    except asyncio.CancelledError:
        run.check_interrupted(branch, key)
        raise
    finally:
        run.pending -= 1
    branch.passed = run.claims
    return result


async def _recorded_result(branch: Branch, key: str, step: Step[..., Any], result: msgspec.Raw) -> Any:
    """Return a result that is on record; stop the run when it does not fit what the step is said to return."""
    try:
        return step.recorded.decode_result(result)
    except Exception as error:  # noqa: BLE001 (the annotation, a model's validation: whatever it is, it does not fit)
        recorded = f"the result {shorten(bytes(result)[:400].decode('utf-8', 'replace'), 200)}"
        await mismatch(branch, key, recorded, message_of(error, 500))


class Carrying:
    """One call of a step being carried out: attempt after attempt, until one succeeds or there is none left."""

    __slots__ = (
        "_args",
        "_arguments",
        "_branch",
        "_digest",
        "_key",
        "_kwargs",
        "_limit",
        "_run",
        "_spent",
        "_started_ns",
        "_step",
        "_waiting_since_ns",
    )

    def __init__(
        self,
        branch: Branch,
        key: str,
        step: Step[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        arguments: bytes,
        fingerprint: str,
    ) -> None:
        self._branch = branch
        self._run: Run = branch.run
        self._key = key
        self._step = step
        self._args = args
        self._kwargs = kwargs
        self._arguments = arguments
        self._digest = fingerprint
        self._spent = 0  # attempts of the retry policy's; attempt numbers are higher where one may have been begun
        self._waiting_since_ns = 0
        self._started_ns = 0
        self._limit: TimeLimit | None = None

    async def attempts(self, past: Past | None, passed: int) -> tuple[bytes, bytes, Any]:
        """Return the completed entry, encoded, the result's JSON, and the result.

        Raises:
            StepFailedError: The last attempt failed; that is durable.
        """
        run, step = self._run, self._step
        attempt = self._first_attempt(past, passed)
        self._spent = past.spent + past.under_way if past is not None else 0
        if past is not None and past.retry_at_ns:
            await self._wait_for_retry(past.retry_at_ns)
        self._waiting_since_ns = self._branch.queued_ns
        self._branch.queued_ns = 0
        while True:
            try:
                raw, result = await self._attempt(attempt)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if run.ending is not None or (task is not None and task.cancelling()):
                    raise
                failure: BaseException = error  # the step's own doing: an error as any other
            except PASSED_ON:
                raise
            except Exception as error:  # noqa: BLE001 (the step's: whatever it is, the attempt has failed)
                failure = error
            except BaseException as error:  # noqa: BLE001 (such as sys.exit(): an error as any other)
                failure = RuntimeError(f"the step raised {type(error).__name__}: {message_of(error, 1000)}")
                failure.__cause__ = error
            else:
                waited_ns = self._waited_ns()
                completed = StepCompleted(
                    self._key, step.name, attempt, self._digest, msgspec.Raw(raw), self._started_ns, waited_ns
                )
                return encode_entry(completed), raw, result
            retry_at_ns = await self._record_failure(attempt, failure)
            if not retry_at_ns:
                raise StepFailedError(step.name, self._key, attempt, error_info_of(failure)) from failure
            await self._wait_for_retry(retry_at_ns)
            attempt += 1
            self._waiting_since_ns = 0

    def _first_attempt(self, past: Past | None, passed: int) -> int:
        """Number the next attempt: 1 only when it is certain that none was ever started before."""
        earlier = past.attempt if past is not None else 0
        if self._step.record_start:
            return earlier + 1
        # Each process that took the run over since may have started it, and died before that left a record.
        return earlier + 1 + self._run.claims - max(passed, past.claims if past is not None else 0)

    async def _attempt(self, attempt: int) -> tuple[bytes, Any]:
        run, step = self._run, self._step
        engine = run.engine
        if step.record_start:
            await run.journal.write(encode_entry(StepStarted(self._key, step.name, attempt, self._digest)))
        inside = scope.set(Attempt(run, self._key, attempt))
        engine.active += 1
        self._started_ns = engine.clock.time_ns()
        run.under_way[self._key] = attempt, self._started_ns
        try:
            with use_trace(lambda: step_span(run, self._key, attempt)):
                return await self._call(attempt)
        finally:
            run.under_way.pop(self._key, None)
            engine.active -= 1
            if engine.draining and not engine.active:
                engine.idle.set()
            scope.reset(inside)

    async def _call(self, attempt: int) -> tuple[bytes, Any]:
        run, step = self._run, self._step
        if step.direct:
            return self._checked(*step.recorded.round_trip(await step.recorded.function(*self._args, **self._kwargs)))
        call = Call(
            step, self._args, self._kwargs, self._arguments, run.id, run.function, self._key, attempt, self._began
        )
        if step.timeout_s is None:
            return self._checked(*await step.executors.call(call))
        with TimeLimit(run.engine.timers, f"it did not end within {step.timeout_s:g} s") as self._limit:
            if step.executor == "inline":
                self._begin_limit()  # elsewhere it begins with the work: a wait for a free place is not the step's
            return self._checked(*await step.executors.call(call))

    def _checked(self, raw: bytes, result: Any) -> tuple[bytes, Any]:
        limit = self._run.engine.limits.entry_max_bytes - _ENTRY_OVERHEAD_BYTES
        if len(raw) > limit:
            raise ValueTooLargeError(
                f"step {self._key}: its result is {len(raw)} bytes of JSON, over the limit of {limit} bytes. It was "
                "not kept. Store it as a blob and return its id."
            )
        return raw, result

    def _begin_limit(self) -> None:
        if self._limit is not None and self._step.timeout_s is not None:
            self._limit.begin(self._run.engine.clock.monotonic_s() + self._step.timeout_s)

    def _began(self) -> None:
        """The executor had a free place: what came before was waiting."""
        self._begin_limit()
        if not self._waiting_since_ns:
            self._waiting_since_ns = self._started_ns
        self._started_ns = self._run.engine.clock.time_ns()
        if self._key in self._run.under_way:
            self._run.under_way[self._key] = self._run.under_way[self._key][0], self._started_ns

    def _waited_ns(self) -> int:
        return max(0, self._started_ns - self._waiting_since_ns) if self._waiting_since_ns else 0

    async def _record_failure(self, attempt: int, error: BaseException) -> int:
        """Make a failed attempt durable; return when the next one is, or 0."""
        run, retry = self._run, self._step.retry
        retry_at_ns = 0
        self._spent += 1
        if may_retry(retry, error, self._spent):
            retry_at_ns = run.engine.clock.time_ns() + round(retry.delay_s(self._spent, run.engine.random) * 1e9)
        failed = StepFailed(
            self._key,
            self._step.name,
            attempt,
            self._digest,
            error_info_of(error),
            self._started_ns,
            self._waited_ns(),
            retry_at_ns,
        )
        await run.journal.write(encode_entry(failed))
        self._branch.passed = run.claims
        return retry_at_ns

    async def _wait_for_retry(self, retry_at_ns: int) -> None:
        run = self._run
        await run.engine.wait_for_retry(run, retry_at_ns)
        if run.engine.draining:
            await run.park()


def step_span(run: Run, key: str, attempt: int) -> TraceContext:
    """Return the context of a step's attempt; it is derived, so that a replay does not double the span."""
    return run.trace.child("step", run.id, key, str(attempt))


def may_retry(retry: Retry, error: BaseException, attempt: int) -> bool:
    """Tell whether another attempt follows the ``attempt``-th that was spent; what cannot get better by itself is not
    tried again.
    """
    if isinstance(error, (NotJsonError, NotDecodableError, ValueTooLargeError)):
        return False
    if isinstance(error, WorkerDiedError):
        return attempt < max(retry.max_attempts, _WORKER_DEATHS_MAX)
    if isinstance(error, RemoteError):
        return attempt < retry.max_attempts and error.retryable
    return retry.retries(error, attempt)


def error_info_of(error: BaseException) -> Any:
    """Return an error as it is recorded; one from a worker process comes as recorded there."""
    return error.info if isinstance(error, RemoteError) else error_info(error)
