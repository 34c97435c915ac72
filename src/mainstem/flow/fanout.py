"""``gather`` and ``map``: branches side by side, numbered by the order of their arguments."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.branch import Branch, scope
from mainstem.flow.journal import GatherFailed
from mainstem.flow.replay import enter, left_behind, mismatch
from mainstem.flow.run import PASSED_ON, encode_entry

if TYPE_CHECKING:
    from mainstem.flow.history import Past

BRANCHES_MAX = 50_000
"""Most branches of one ``gather`` or ``map``."""

Work = Callable[[], Awaitable[Any]]


class _BranchFailedError(Exception):
    """Ends a worker whose branch raised. What it raised is kept beside it: a ``SystemExit`` that came out of a task
    would end the process.
    """


async def fan_out(parent: Branch, key: str, name: str, work: Sequence[Work], max_concurrency: int | None) -> list[Any]:
    """Run branches within a run and return their results, in order.

    When one fails the others are cancelled and awaited, and its error is raised; which one it was is on record, so that
    it is the same on replay.
    """
    run = parent.run
    past = await enter(parent, key, "gather", name)
    if not work:
        return []
    fan = _Fan(parent, key, work, only=past)
    run.pending += 1
    run.constructs += 1
    try:
        results = await fan.run(min(len(work), max_concurrency or len(work)))
    except asyncio.CancelledError:
        run.check_interrupted(parent, key)
        raise
    finally:
        run.pending -= 1
        run.constructs -= 1
        parent.passed = max(parent.passed, fan.passed)
    if past is not None:
        await mismatch(parent, key, f"the error of branch {past.branch}", "no error in that branch")
    return results


class _Fan:
    """The branches of one call. Workers, each a task, take one branch after the other."""

    def __init__(self, parent: Branch, key: str, work: Sequence[Work], only: Past | None) -> None:
        self._parent = parent
        self._run = parent.run
        self._key = key
        self._work = work
        self._indices = iter(range(len(work)) if only is None else [only.branch] if only.branch < len(work) else [])
        self._only = only
        self._results: list[Any] = [None] * len(work)
        self._failed: tuple[int, BaseException] | None = None
        self._left: list[str] = []
        self._began_ns = self._run.engine.clock.time_ns()
        self._tasks: list[asyncio.Task[None]] = []
        self.passed = parent.passed

    async def run(self, workers: int) -> list[Any]:
        loop = self._run.engine.loop
        if self._only is not None:
            self._abandon_all()
            workers = 1
        self._tasks = [loop.create_task(self._worker(queued=False)) for _ in range(workers)]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await self._cancel_rest()
            for awaitable in self._work:
                _close(awaitable)
        if self._failed is not None:
            index, error = self._failed
            if self._left and self._run.ending is None:
                await self._run.pause_over(error, self._left)
            if self._only is None and self._run.ending is None:
                self._run.journal.put_soon(encode_entry(GatherFailed(self._key, index)))
            raise error
        for task in self._tasks:
            task.result()  # raises where one was broken off in a way that is not foreseen: its branch has no result
        return self._results

    async def _worker(self, *, queued: bool) -> None:
        for index in self._indices:
            prefix = f"{self._key}[{index}]/"
            branch = Branch(
                self._run,
                prefix,
                asyncio.current_task(),
                passed=self._parent.passed,
                queued_ns=self._began_ns if queued else 0,
            )
            if self._only is not None:
                self._run.revived.add(prefix)
            scope.set(branch)
            queued = True
            try:
                self._results[index] = await self._work[index]()
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if self._failed is not None or self._run.ending is not None or (task is not None and task.cancelling()):
                    raise
                self._fail(index, error, prefix)
                raise _BranchFailedError from None
            except PASSED_ON:
                raise
            except BaseException as error:  # noqa: BLE001 (the code of users: whatever it is, the branch has failed)
                self._fail(index, error, prefix)
                raise _BranchFailedError from None
            finally:
                self.passed = max(self.passed, branch.passed)

    def _fail(self, index: int, error: BaseException, prefix: str) -> None:
        """Note the first failure, and whether the history goes on where the code now raised: in that branch, or behind
        the call, unless it is on record that the call failed.
        """
        if self._failed is None:
            self._failed = (index, error)
            if self._run.uncalled:
                self._left = self._run.left_over(prefix)
                if self._only is None:
                    self._left += left_behind(self._parent)

    async def _cancel_rest(self) -> None:
        interrupted = False
        open_tasks = [task for task in self._tasks if not task.done()]
        for task in open_tasks:
            task.cancel()
        if open_tasks or self._failed is not None:
            self._abandon_all()
        while open_tasks:
            try:
                await asyncio.wait(open_tasks)
            except asyncio.CancelledError:
                # Cancelled ourselves meanwhile: nobody may be left running behind our back, so this is passed on
                # afterwards.
                interrupted = True
                for task in open_tasks:
                    task.cancel()
            open_tasks = [task for task in open_tasks if not task.done()]
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # looked at: the first failure is the one that counts
        if interrupted:
            raise asyncio.CancelledError

    def _abandon_all(self) -> None:
        self._run.abandoned.add(self._key)
        if self._only is not None:
            self._run.revived.discard(f"{self._key}[{self._only.branch}]/")


def _close(work: Work) -> None:
    """Close what never ran, so that Python does not warn about coroutines that nobody awaited."""
    awaitable = getattr(work, "awaitable", None)
    if inspect.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
        awaitable.close()


class Given:
    """An argument of ``gather``: something to await, once."""

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self.awaitable = awaitable

    def __call__(self) -> Awaitable[Any]:
        """Return it."""
        return self.awaitable


def check_fan(count: int, max_concurrency: int | None) -> None:
    """Refuse what is over the limits.

    Raises:
        InvalidArgumentError: More than 50,000 branches, or no concurrency.
    """
    if count > BRANCHES_MAX:
        raise InvalidArgumentError(f"{count} branches: at most {BRANCHES_MAX} are run by one call; split the work.")
    if max_concurrency is not None and max_concurrency < 1:
        raise InvalidArgumentError(f"max_concurrency={max_concurrency}: expected 1 or more, or None for all at once.")


async def fan_out_plainly(work: Sequence[Work], max_concurrency: int | None) -> list[Any]:
    """The same outside of a workflow: ordinary tasks, nothing recorded."""
    if not work:
        return []
    results: list[Any] = [None] * len(work)
    indices = iter(range(len(work)))

    async def worker() -> None:
        for index in indices:
            results[index] = await work[index]()

    tasks = [asyncio.create_task(worker()) for _ in range(min(len(work), max_concurrency or len(work)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in work:
            _close(one)
    return results
