"""What a call may look like: arguments are checked where a run is started, and what is called plainly is plain."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mainstem.base.codec import NotJsonError
from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.functions import RecordedFunction
from tests.flow.support import App, running
from tests.support import run


def _declare(app: App) -> None:
    @app.flow.workflow
    async def work(x: int, *more: str, last: float = 0.0) -> int:
        return x

    @app.flow.job()
    def plain(x: int) -> tuple[int, bool]:
        return x + 1, threading.current_thread() is threading.main_thread()

    @app.flow.job()
    async def quick(x: int) -> int:
        return x + 1

    @app.flow.step
    async def gives_an_object() -> object:
        return object()

    @app.flow.workflow
    async def fails() -> str:
        try:
            await gives_an_object()
        except Exception as error:
            return str(error)
        return ""

    app.work, app.plain, app.quick, app.fails = work, plain, quick, fails


def test_arguments_are_checked_against_the_annotations(tmp_path: Path) -> None:
    """``start`` and ``enqueue`` refuse an argument that its annotation does not take, name it, and write nothing."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            for begin in (app.work.start, app.plain.enqueue):
                with pytest.raises(InvalidArgumentError, match=r": x: .*Nothing was started"):
                    begin("abc")
                with pytest.raises(InvalidArgumentError, match=r": x: .*Nothing was started"):
                    begin(x="abc")
            with pytest.raises(InvalidArgumentError, match=": more: "):
                app.work.start(1, "two", 3)
            with pytest.raises(InvalidArgumentError, match=": last: "):
                app.work.start(1, last="soon")
            assert app.log.end_position == 0
            assert await (await app.work.start(1, "two", "three", last=4)).result() == 1

    run(scenario())


def test_more_arguments_than_parameters_are_those_of_the_starred_one() -> None:
    """Positional arguments beyond the named ones are read by the annotation of ``*more``, whatever follows it."""

    def function(first: int, *more: str, last: float) -> None: ...

    args, kwargs = RecordedFunction(function, None).decode_arguments(b'{"args":[1,"a","b"],"kwargs":{"last":2.5}}')
    assert (args, kwargs) == ([1, "a", "b"], {"last": 2.5})


def test_a_job_is_called_as_a_step_is(tmp_path: Path) -> None:
    """Calling a job gives something to await, also for a plain function, which runs in a thread; nothing is written."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            assert await app.plain(1) == (2, False)
            assert await app.quick(1) == 2
            assert app.log.end_position == 0

    run(scenario())


def test_a_result_that_is_no_json_is_not_said_to_be_nothing(tmp_path: Path) -> None:
    """The error of a step that ran says that its result was not written, not that nothing was done."""

    async def scenario() -> None:
        async with running(tmp_path, _declare) as app:
            said = await (await app.fails.start()).result()
            assert NotJsonError.__name__ in said
            assert "It was not written." in said
            assert "Nothing was" not in said

    run(scenario())
