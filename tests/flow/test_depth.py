"""Values that are nested deeply: taken up to a limit, everywhere; refused beyond it, at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mainstem.base.codec import DEPTH_MAX, NotJsonError
from mainstem.bus import Event
from mainstem.flow import RunFailedError
from mainstem.log import Record
from tests.flow.support import App, running
from tests.support import run, until


def _nested(depth: int) -> Any:
    value: Any = []
    for _level in range(depth - 1):
        value = [value]
    return value


class Deep:
    """A workflow that an event starts, with a step that takes and returns the event's value."""

    def __init__(self) -> None:
        self.blocked = True

    def __call__(self, app: App) -> None:
        """Declare it."""

        @app.flow.step
        async def same(value: Any) -> Any:
            app.seen.append("step")
            return value

        @app.flow.step
        async def waits() -> None:
            app.seen.append("waits")
            if self.blocked:
                await asyncio.Event().wait()

        @app.flow.workflow(on="deep.events")
        async def work(value: Any) -> Any:
            value = await same(value)
            await waits()
            return value

        @app.flow.workflow
        async def too_deep() -> None:
            await same(_nested(DEPTH_MAX + 1))

        @app.bus.subscribe("deep.events", group="g", start="beginning")
        async def handler(event: Event[Any]) -> None:
            app.seen.append(event.position)

        app.work, app.too_deep = work, too_deep


def test_the_deepest_value_goes_everywhere(tmp_path: Path) -> None:
    """A value of the greatest depth is published, starts a run, passes through a step, and survives a restart."""
    deep = Deep()

    async def scenario() -> None:
        async with running(tmp_path, deep) as app:
            await app.bus.publish("deep.events", _nested(DEPTH_MAX))
            await until(lambda: "waits" in app.seen)
            run_id = next(iter(app.engine.runs))
            await app.crash()
        deep.blocked = False
        async with running(tmp_path, deep) as app:
            assert await app.flow.handle(run_id).result(timeout_s=10) == _nested(DEPTH_MAX)
            assert app.seen == ["waits"]

    run(scenario())


def test_what_is_deeper_is_refused(tmp_path: Path) -> None:
    """A value beyond the limit is refused where it would be written, and nothing is; an event of a stranger's that is
    deeper becomes a dead letter, and the application starts again.
    """
    deep = Deep()

    async def scenario() -> None:
        async with running(tmp_path, deep) as app:
            with pytest.raises(NotJsonError, match="nested more than 200 deep"):
                await app.work.start(_nested(DEPTH_MAX + 1), id="r")
            with pytest.raises(NotJsonError, match="nested more than 200 deep"):
                await app.bus.publish("deep.events", _nested(DEPTH_MAX + 1))
            assert await app.log.read("$run.r") == []
            handle = await app.too_deep.start(id="t")
            with pytest.raises(RunFailedError, match="nested more than 200 deep"):
                await handle.result(timeout_s=10)
            for depth in (300, 600):
                await app.log.append("deep.events", [Record(b"[" * depth + b"]" * depth)])
            await until(lambda: app.bus.groups()[0].dead == 2 or app.bus.groups()[1].dead == 2)
        async with running(tmp_path, deep):
            pass

    run(scenario())
