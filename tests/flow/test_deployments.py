"""A new version of the code meets runs of the old one: what no longer fits pauses, and can go on with the old code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mainstem.flow import RunFailedError, RunPausedError
from mainstem.flow.journal import GatherFailed, RunPaused
from tests.flow.support import App, running
from tests.support import run, until


@dataclass
class Order:
    """What the old version starts runs with."""

    number: int


@dataclass
class OrderWithCurrency:
    """The same with a field that the old version did not have."""

    number: int
    currency: str


class Versions:
    """One application in two versions: ``new`` says what is different in the second."""

    def __init__(self) -> None:
        self.new = ""

    def __call__(self, app: App) -> None:
        """Declare it."""
        self._declare_steps(app)
        self._declare_straight(app)
        self._declare_fanned(app)
        self._declare_job(app)

    def _break_if(self, place: str) -> None:
        if self.new == place:
            raise NameError("a typo of the new deployment")

    async def _wait(self, app: App) -> None:
        app.seen.append("waits")
        if not self.new:
            await asyncio.Event().wait()

    def _declare_steps(self, app: App) -> None:
        @app.flow.step
        async def charge(number: int) -> int:
            app.seen.append(f"charge {number}")
            return number

        if self.new == "result":
            charge.recorded.function.__annotations__["return"] = dict[str, int]

        @app.flow.step
        async def waits() -> None:
            await self._wait(app)

        @app.flow.step(record_start=True)
        async def waits_on_record() -> None:
            await self._wait(app)

        app.charge, app.waits, app.waits_on_record = charge, waits, waits_on_record

    def _declare_straight(self, app: App) -> None:
        async def straight(number: int) -> str:
            self._break_if("top")
            await app.charge(number)
            self._break_if("behind")
            await app.waits()
            return "done"

        async def takes_two(number: int, currency: str) -> str:
            return await straight(number)

        app.straight = app.flow.workflow(name="straight")(takes_two if self.new == "parameter" else straight)

    def _declare_fanned(self, app: App) -> None:
        async def branch(number: int) -> None:
            self._break_if(f"branch {number}")
            await app.charge(number)

        async def fanned(number: int) -> str:
            try:
                await app.flow.map(branch, list(range(number)))
            except NameError:
                return "caught"
            await app.waits_on_record()
            return "done"

        app.fanned = app.flow.workflow(name="fanned")(fanned)

    def _declare_job(self, app: App) -> None:
        async def order(order: Any) -> None:
            await app.waits()

        async def job(order: Any) -> None:
            await self._wait(app)

        kind = OrderWithCurrency if self.new == "field" else Order
        order.__annotations__["order"] = job.__annotations__["order"] = kind
        app.order = app.flow.workflow(name="order")(order)
        app.job = app.flow.job(name="job")(job)


async def _begin(app: App, function: str) -> None:
    if function == "job":
        await app.job.enqueue(Order(1), id="r")
    elif function == "order":
        await app.order.start(Order(1), id="r")
    else:
        await getattr(app, function).start(3, id="r")
    await until(lambda: "waits" in app.seen)


@pytest.mark.parametrize(
    ("new", "function", "words"),
    [
        ("top", "straight", "Recorded: charge#1. Called: raised NameError: a typo of the new deployment."),
        ("parameter", "straight", "does not take the arguments that the run was started with. Recorded: {"),
        ("result", "straight", "Recorded: the result 3. Called: expected JSON of type dict"),
        ("branch 1", "fanned", "Recorded: map#1[1]/charge#1, waits_on_record#1. Called: raised NameError"),
        ("field", "order", "missing required field `currency`"),
        ("field", "job", "missing required field `currency`"),
    ],
)
def test_a_new_version_that_raises_pauses_the_run(tmp_path: Path, new: str, function: str, words: str) -> None:
    """A typo, a new field, another type in a deployment end no run: it is paused, with what was raised, and goes on
    when the old code is back.
    """
    versions = Versions()

    async def scenario() -> None:
        async with running(tmp_path, versions) as app:
            await _begin(app, function)
            await app.crash()
        versions.new = new
        async with running(tmp_path, versions) as app:
            with pytest.raises(RunPausedError) as caught:
                await app.flow.handle("r").result(timeout_s=10)
            assert words in str(caught.value)
            assert app.seen == []
            entries = await app.entries("r")
            assert isinstance(entries[-1], RunPaused)
            assert not any(isinstance(entry, GatherFailed) for entry in entries)
        versions.new = ""
        async with running(tmp_path, versions) as app:
            await app.flow.handle("r").resume("the old code is back")
            await until(lambda: app.seen == ["waits"])
            await app.crash()

    run(scenario())


def test_an_error_behind_the_history_is_a_failure(tmp_path: Path) -> None:
    """Where the history ends, an error of the code is the run's own: it fails."""
    versions = Versions()

    async def scenario() -> None:
        async with running(tmp_path, versions) as app:
            await _begin(app, "straight")
            await app.crash()
        versions.new = "behind"
        async with running(tmp_path, versions) as app:
            with pytest.raises(RunFailedError, match="NameError: a typo"):
                await app.flow.handle("r").result(timeout_s=10)

    run(scenario())


def test_a_branch_that_fails_as_it_did_is_no_misfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on record in other branches is no reason to pause when one fails as it did before; also where the process
    died before the failure of the call was on record.
    """
    fine_done = asyncio.Event()

    def declare(app: App) -> None:
        @app.flow.step
        async def fails() -> None:
            await fine_done.wait()
            raise ValueError("no")

        @app.flow.step
        async def fine(number: int) -> int:
            return number

        async def branch(number: int) -> None:
            if number == 0:
                await fails()
            for count in range(3):
                await fine(count)
            fine_done.set()
            await asyncio.Event().wait()

        @app.flow.workflow
        async def work() -> None:
            await app.flow.map(branch, [0, 1])

        app.work = work

    def dies(fan: Any, *_what: Any) -> None:
        fan._run.journal.abandon()

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            with monkeypatch.context() as patch:
                patch.setattr("mainstem.flow.fanout._Fan._fail", dies)
                await app.work.start(id="r")
                await until(lambda: not app.engine.runs)
            assert (await app.types("r")) == ["Started", *["StepCompleted"] * 3, "StepFailed"]
        async with running(tmp_path, declare) as app:
            with pytest.raises(RunFailedError, match="ValueError: no"):
                await app.flow.handle("r").result(timeout_s=10)

    run(scenario())
