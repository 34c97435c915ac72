"""Steps in worker processes that do what they should not: the worker outlives it, and what it tells is exact."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from mainstem.flow import RunFailedError
from mainstem.flow.journal import LogLine
from mainstem.flow.process_pool import Worker
from tests.flow import process_steps
from tests.flow.support import App, running
from tests.flow.test_workers import outcome
from tests.support import run

pytestmark = pytest.mark.usefixtures("no_children_left")


async def _misbehaves(app: App, how: str, marker: Path) -> Any:
    handle = await app.misbehaves.start(how, str(marker), id="r")
    return await handle.result(timeout_s=50)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("exits", "SystemExit: enough"),
        ("aborts", "tests.flow.process_steps.Abort: enough"),
        ("returns too much", "ValueTooLargeError: .*67108.* bytes"),
    ],
)
def test_what_a_step_raises_is_its_error_whatever_it_is(tmp_path: Path, how: str, words: str) -> None:
    """A step that exits, aborts or returns too much has failed with that, was carried out once, and its worker goes
    on.
    """

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            with pytest.raises(RunFailedError, match=words):
                await _misbehaves(app, how, tmp_path / "marker")
            assert await app.types("r") == ["Started", "StepFailed", "RunFailed"]
            (pid,) = (tmp_path / "marker").read_text().split()
            assert str((await (await app.work.start(1)).result())[0]) == pid

    run(scenario())


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ("logs what is no text", [("a\\udcff", "file b\\udcff")]),
        ("logs what cannot be formatted", []),
    ],
)
def test_a_line_that_cannot_be_written_fails_no_step(tmp_path: Path, how: str, kept: list[tuple[str, str]]) -> None:
    """What a step logs is kept as far as it is text, and the step goes on."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            assert await _misbehaves(app, how, tmp_path / "marker") == "well"
            lines = [decode(one.value, type=LogLine) for one in await app.log.read("$lines.r")]
            assert [(line.logger, line.message) for line in lines] == kept

    run(scenario())


def test_a_step_cannot_read_what_is_for_its_worker(tmp_path: Path) -> None:
    """The standard input of a step in a process is empty."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            assert await _misbehaves(app, "reads", tmp_path / "marker") == ""

    run(scenario())


def test_arguments_that_no_message_holds_are_refused(tmp_path: Path) -> None:
    """They fail the step once, by their size, and no worker is lost."""

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            handle = await app.takes_too_much.start()
            with pytest.raises(RunFailedError, match="ValueTooLargeError"):
                await handle.result()
            assert await app.types(handle.id) == ["Started", "StepFailed", "RunFailed"]

    run(scenario())


def test_a_reused_worker_that_dies_is_a_failed_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has served before, and is killed in mid step, is told from one that was dead already: the step
    began, so its next attempt is the second.
    """
    monkeypatch.setattr("os.cpu_count", lambda: 1)

    async def scenario() -> None:
        async with running(tmp_path, process_steps.declare) as app:
            first = (await (await app.work.start(1)).result())[0]
            handle = await app.dies.start(str(tmp_path / "marker"))
            assert await handle.result() == 2
            assert await app.types(handle.id) == ["Started", "StepFailed", "StepCompleted", "RunCompleted"]
            failed: Any = (await app.entries(handle.id))[1]
            assert f"the worker process {first} ended (signal 9)" in failed.error.message

    run(scenario())


def test_a_start_that_is_cancelled_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled while a worker starts leaves none behind."""

    async def scenario() -> None:
        begun = asyncio.Event()

        async def never(_self: Worker, _data: bytes) -> None:
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Worker, "_send", never)
        spawning = asyncio.create_task(Worker.spawn())
        await begun.wait()
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning

    run(scenario())


def test_a_script_that_exits_when_loaded_is_the_steps_error(tmp_path: Path) -> None:
    """A script without the guard that ends in ``sys.exit()`` fails the step with that; no worker dies of it."""
    done = outcome(tmp_path, '\nif __name__ == "__main__":\n    asyncio.run(main())\nelse:\n    sys.exit("loaded")\n')
    assert "SystemExit: loaded" in done.stdout, done.stderr
    assert "worker process" not in done.stdout
