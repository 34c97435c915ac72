"""Errors of workflows, steps and jobs."""

from __future__ import annotations

from mainstem.base.errors import MainstemError
from mainstem.flow.journal import ErrorInfo


class FlowError(MainstemError):
    """Base of the errors of workflows, steps and jobs."""

    code = "flow"


class FlowNotStartedError(FlowError):
    """A run was started, or asked for, while the application is not running."""

    code = "flow-not-started"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: the application is not running. Nothing was written. Start it with the web application's "
            "lifespan (FastAPI(lifespan=ms.lifespan)), or with 'async with ms:'."
        )


class StartedInWorkerError(FlowError):
    """The application was started in a worker process of its own: its script starts it whenever it is loaded."""

    code = "started-in-worker"

    def __init__(self) -> None:
        super().__init__(
            "the application was started inside a worker process, which loads the script only to find a step in it. "
            "Nothing was started. Put what starts the application under the guard\n"
            '  if __name__ == "__main__":\n'
            "      asyncio.run(main())"
        )


class FlowStoppedError(FlowError):
    """The application stopped (or lost its log) before the run ended. The run is safe: it goes on at the next start."""

    code = "flow-stopped"


class DuplicateNameError(FlowError):
    """Two steps, workflows or jobs have the same name; histories name them by it."""

    code = "flow-duplicate-name"


class StepOutsideBranchError(FlowError):
    """A step was called from a task of the caller's own making, where the order of calls is not the same on every
    replay.
    """

    code = "step-outside-branch"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}() was called from a task that mainstem did not make, so its place in the run's history would "
            "depend on chance. "
            f"The step did not run.\n"
            f"  wrong: asyncio.gather(one(a), one(b)), asyncio.create_task(one(a)) or asyncio.wait_for(one(a), 5), "
            f"where one() calls {name}()\n"
            "  right: ms.gather(one(a), one(b)) or ms.map(one, [a, b]); a time limit belongs to the step: "
            "@ms.step(timeout_s=5)"
        )


class CallInterruptedError(FlowError):
    """Workflow code cancelled a call of its own (a step, a sleep, a gather), which no history tells: a replay could go
    another way. The run fails with it, also where the code goes on.
    """

    code = "call-interrupted"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"{key} was cancelled by the workflow's own code, and whether that comes before its result is another time "
            "another matter: after a crash the run could go another way. The run has failed.\n"
            "  wrong: async with asyncio.timeout(5): await step(), asyncio.wait_for(step(), 5), a TaskGroup, "
            "task.cancel()\n"
            "  right: a time limit belongs to the step: @ms.step(timeout_s=5); branches belong to ms.gather and ms.map"
        )
        self.key = key


class StepFailedError(FlowError):
    """A step failed for good; raised into its workflow, the same when it happens and on every replay.

    Attributes:
        step: The step's name.
        key: Its place in the run, such as ``map#1[17]/charge#1``.
        attempt: The attempt that failed last.
        error: Type, message and traceback of the last error.
    """

    code = "step-failed"

    def __init__(self, step: str, key: str, attempt: int, error: ErrorInfo) -> None:
        attempts = f"at attempt {attempt}" if attempt > 1 else "at its only attempt"
        super().__init__(f"step {key} failed {attempts}: {error.type}: {error.message}")
        self.step = step
        self.key = key
        self.attempt = attempt
        self.error = error

    def caused_by(self, *types: type[BaseException]) -> bool:
        """Tell whether the step's error was exactly of one of these types (by name: the history keeps no exception
        objects).
        """
        return any(self.error.type == type_name(one) for one in types)


class ValueTooLargeError(FlowError):
    """A value is too large for a journal; keep it as a blob and pass its id on."""

    code = "value-too-large"


class RunFailedError(FlowError):
    """The run failed.

    Attributes:
        run_id: The run.
        error: Type, message and traceback of what it raised.
    """

    code = "run-failed"

    def __init__(self, run_id: str, error: ErrorInfo, sentence: str) -> None:
        super().__init__(sentence, try_command=f"mainstem trace {run_id}")
        self.run_id = run_id
        self.error = error


class RunCancelledError(FlowError):
    """The run was cancelled.

    Attributes:
        run_id: The run.
        reason: Why.
    """

    code = "run-cancelled"

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} was cancelled: {reason or 'no reason was given'}.")
        self.run_id = run_id
        self.reason = reason


class RunPausedError(FlowError):
    """The run waits for a decision: its history does not fit its code, it was taken over too often without progress, or
    this version cannot read its journal.

    Attributes:
        run_id: The run.
    """

    code = "run-paused"

    def __init__(self, run_id: str, sentence: str, *, try_command: str) -> None:
        super().__init__(sentence, try_command=try_command)
        self.run_id = run_id


class RunNotFoundError(FlowError):
    """There is no run with this id."""

    code = "run-not-found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r} in the log.", try_command="mainstem runs")
        self.run_id = run_id


class RunIdConflictError(FlowError):
    """A run with this id exists, of another function or with other arguments; nothing was started."""

    code = "run-id-conflict"


class RunFencedError(FlowError):
    """Something else wrote to the run's journal: another process owns the run, and this one stopped working on it."""

    code = "run-fenced"


class WorkerDiedError(FlowError):
    """The process in which a step ran ended before the step did (killed, out of memory, a crash in native code)."""

    code = "worker-died"


def type_name(kind: type[BaseException]) -> str:
    """Return an exception type's name as it is recorded: ``ValueError``, ``shop.CardDeclined``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
