"""Where in a run the code is: branches, which name the calls made in them, and the step that is being carried out."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from mainstem.flow.errors import StartedInWorkerError, StepOutsideBranchError

if TYPE_CHECKING:
    from mainstem.flow.run import Run


class Branch:
    """A line of calls within a run, one after the other: the workflow function itself, or one branch of a ``gather``
    or ``map``.

    Calls get their keys here, at the moment of the call: prefix of the branch, name, and how often the name was called
    in this branch. So a key does not depend on what other branches do meanwhile.

    Attributes:
        prefix: Empty for the workflow function, ``map#1[17]/`` for a branch.
        task: The task that runs it; calls from another are refused.
        queued_ns: Since when its next call has waited for its turn, wall clock; 0 for not at all.
        passed: How often the run had been taken over when the last record was made that the branch got past. A call
            that comes after that record was not started by the processes before it: what is called after one that this
            process made is new for certain.
    """

    __slots__ = ("_counts", "passed", "prefix", "queued_ns", "run", "task")

    def __init__(
        self, run: Run, prefix: str, task: asyncio.Task[object] | None, *, passed: int, queued_ns: int = 0
    ) -> None:
        self.run = run
        self.prefix = prefix
        self.task = task
        self.passed = passed
        self.queued_ns = queued_ns
        self._counts: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Branch {self.prefix or 'top'} of {self.run.id}>"

    def take(self, name: str) -> str:
        """Return the key of a call that is being made now.

        Raises:
            StepOutsideBranchError: The running task is not the branch's own.
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:  # called from a thread, which has no event loop
            task = None
        if task is not self.task:
            raise StepOutsideBranchError(name)
        occurrence = self._counts.get(name, 0) + 1
        self._counts[name] = occurrence
        local = f"{name}#{occurrence}"
        uncalled = self.run.uncalled
        if uncalled and (here := uncalled.get(self.prefix)) is not None:
            here.discard(local)
            if not here:
                del uncalled[self.prefix]
        return self.prefix + local


class RunFace(msgspec.Struct, frozen=True):
    """As much of a run as is known in a worker process."""

    id: str
    function: str


class Attempt:
    """The attempt at a step that the running code belongs to."""

    __slots__ = ("key", "number", "run")

    def __init__(self, run: Run | RunFace, key: str, number: int) -> None:
        self.run = run
        self.key = key
        self.number = number


scope: ContextVar[Branch | Attempt | None] = ContextVar("mainstem_scope", default=None)
"""A branch while workflow code runs, an attempt while a step does, ``None`` elsewhere."""


def refuse_in_worker() -> None:
    """Refuse to start an application in a worker process, which only wants to find a step in its script.

    Raises:
        StartedInWorkerError: This is one.
    """
    here = scope.get()
    if here is not None and isinstance(here.run, RunFace):
        raise StartedInWorkerError


def current_branch() -> Branch | None:
    """Return the branch of the running workflow code; ``None`` outside a workflow, and inside a step."""
    here = scope.get()
    return here if type(here) is Branch else None


class RunInfo(msgspec.Struct, frozen=True):
    """What the running code is a part of.

    Attributes:
        run_id: The run.
        function: Its workflow or job.
        step_key: The step being carried out; empty in the workflow's own code.
        attempt: The step's attempt: 1 means that it was certainly never started before; 0 outside a step.
    """

    run_id: str
    function: str
    step_key: str = ""
    attempt: int = 0


def current_run() -> RunInfo | None:
    """Return the run that the running code is a part of, or ``None``."""
    here = scope.get()
    if here is None:
        return None
    if isinstance(here, Branch):
        return RunInfo(here.run.id, here.run.function)
    return RunInfo(here.run.id, here.run.function, here.key, here.number)
