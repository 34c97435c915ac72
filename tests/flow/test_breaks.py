"""What was found by trying to break workflows: cancelled starts, endings that cannot be written, text that is none."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from mainstem.flow import Enqueued, FlowError, RunFailedError
from mainstem.flow.journal import LOG_LINES_PREFIX
from mainstem.flow.run import error_info
from mainstem.flow.writer import ENTRY_MAX_BYTES
from tests.flow.support import App, running
from tests.support import run, until


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def _declare(app: App) -> None:
    app.go = asyncio.Event()

    @app.flow.workflow
    async def short(value: int) -> int:
        return value

    @app.flow.job()
    async def task(value: int) -> int:
        return value

    @app.flow.workflow
    async def long() -> str:
        return "x" * (ENTRY_MAX_BYTES + 1)

    @app.flow.workflow
    async def no_text() -> None:
        raise ValueError("name \udcff")

    @app.flow.workflow
    async def mute() -> None:
        raise _MuteError

    @app.flow.step
    async def says() -> int:
        logging.getLogger("app").error("name %s", "\udcff")
        return 1

    @app.flow.workflow
    async def talks() -> int:
        return await says()

    app.short, app.task, app.long, app.no_text, app.mute, app.talks = short, task, long, no_text, mute, talks


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_cancelled_start_leaves_no_run_behind_that_nobody_carries_out(tmp_path: Path, turns: int) -> None:
    """Whoever is cancelled in ``start()`` or ``enqueue()``: the run that it made exist is carried out."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:

            async def enqueue() -> None:
                enqueued: Enqueued[int] = app.task.enqueue(2, id="job")
                await enqueued

            for starting in (asyncio.create_task(app.short.start(1, id="run")), asyncio.create_task(enqueue())):
                for _ in range(turns):
                    await asyncio.sleep(0)
                starting.cancel()
                await asyncio.wait([starting])
            assert await (await app.short.start(1, id="run")).result(timeout_s=10) == 1
            assert await (await app.task.enqueue(2, id="job")).result(timeout_s=10) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("name", "said"), [("long", "Keep it as a blob"), ("no_text", r"name \\udcff"), ("mute", "cannot be shown")]
)
def test_an_ending_that_cannot_be_written_is_a_failure(tmp_path: Path, name: str, said: str) -> None:
    """A result over the limit, an error with a lone surrogate or a broken ``__str__``: the run fails, and says so."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            handle = await getattr(app, name).start()
            with pytest.raises(RunFailedError, match=said):
                await handle.result(timeout_s=10)
            assert app.flow.engine is not None
            assert not app.flow.engine.runs

    run(scenario())


def test_an_error_of_a_class_that_cannot_be_shown() -> None:
    """What is recorded of an error needs nothing of its own methods."""
    assert "RuntimeError in __str__" in error_info(_MuteError()).message


def test_a_line_that_is_no_text_fails_no_step(tmp_path: Path) -> None:
    """A lone surrogate in a log line is written out; the step that logged it goes on."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert await (await app.talks.start(id="r")).result(timeout_s=10) == 1
            record = await until(lambda: app.log.last(LOG_LINES_PREFIX + "r"))
            assert record is not None
            assert b"name \\\\udcff" in record.value

    run(scenario())


def test_keeping_a_line_never_raises_into_the_code_that_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong with a line is logging's own affair: it goes to stderr."""

    def broken(*_arguments: object) -> None:
        raise FlowError("no room for a line")

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            monkeypatch.setattr("mainstem.flow.log_lines.add_line", broken)
            assert await (await app.talks.start()).result(timeout_s=10) == 1

    run(scenario())
    assert "no room for a line" in capsys.readouterr().err
