"""Durable workflows, steps and jobs.

Where to look: ``flow.py`` is the face; ``journal.py`` is what a run writes; ``history.py`` folds it; ``run.py`` is one
execution; ``steps.py``, ``sleeping.py``, ``fanout.py`` and ``publishing.py`` are what its code can do; ``branch.py``
names those calls and ``replay.py`` compares them with the history; ``writer.py`` makes them durable; ``engine.py``
takes over what a crash left; ``spans.py`` shows it.

    flow = Flow(bus, SystemClock())

    @flow.step(retry=Retry(max_attempts=4))
    async def charge(order: Order) -> Receipt: ...

    @flow.workflow(on="orders.created")
    async def fulfil(order: Order) -> Receipt:
        receipt = await charge(order)
        await flow.sleep(hours=1)
        return receipt

    await flow.start(log)
    handle = await fulfil.start(order, id="order-1")
    receipt = await handle.result(timeout_s=30)
"""

from mainstem.bus.retry import NO_RETRY, Retry
from mainstem.flow.branch import RunInfo, current_run
from mainstem.flow.errors import (
    CallInterruptedError,
    DuplicateNameError,
    FlowError,
    FlowNotStartedError,
    FlowStoppedError,
    RunCancelledError,
    RunFailedError,
    RunFencedError,
    RunIdConflictError,
    RunNotFoundError,
    RunPausedError,
    StartedInWorkerError,
    StepFailedError,
    StepOutsideBranchError,
    ValueTooLargeError,
    WorkerDiedError,
)
from mainstem.flow.flow import Flow
from mainstem.flow.handles import RunHandle
from mainstem.flow.history import RunFold, RunSummary, describe_failure, fold_run
from mainstem.flow.steps import Step
from mainstem.flow.workflows import Enqueued, Job, Workflow

__all__ = [
    "NO_RETRY",
    "CallInterruptedError",
    "DuplicateNameError",
    "Enqueued",
    "Flow",
    "FlowError",
    "FlowNotStartedError",
    "FlowStoppedError",
    "Job",
    "Retry",
    "RunCancelledError",
    "RunFailedError",
    "RunFencedError",
    "RunFold",
    "RunHandle",
    "RunIdConflictError",
    "RunInfo",
    "RunNotFoundError",
    "RunPausedError",
    "RunSummary",
    "StartedInWorkerError",
    "Step",
    "StepFailedError",
    "StepOutsideBranchError",
    "ValueTooLargeError",
    "WorkerDiedError",
    "Workflow",
    "current_run",
    "describe_failure",
    "fold_run",
]
