"""What holds for every test: what is collected, which tests have the machine to themselves, nothing left running."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import TimedOutError, children_of, wait_until


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write lone surrogates in what a test logged out: a report with them cannot pass from a worker to pytest."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect ``test_*.py`` only: ``--doctest-modules`` would import helpers and child programs as well."""
    if collection_path.suffix == ".py" and not collection_path.name.startswith("test_"):
        return True
    return None


@pytest.fixture(autouse=True)
def _room_on_the_machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a test marked ``serial`` run alone, also when several workers share the run.

    The room is a readers' and writer's lock between the workers. Whoever wants in passes the gate first and holds it
    while waiting, so that a serial test is not overtaken for ever.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    serial = request.node.get_closest_marker("serial") is not None
    of_the_run = tmp_path_factory.getbasetemp().parent
    with (of_the_run / "gate.lock").open("w") as gate, (of_the_run / "room.lock").open("w") as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if serial else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.fixture
def no_children_left() -> Iterator[None]:
    """Fail the test when processes that it started are still there five seconds after its end."""
    before = children_of(os.getpid())

    def new() -> dict[int, str]:
        return {pid: line for pid, line in children_of(os.getpid()).items() if pid not in before}

    yield
    try:
        wait_until(lambda: not new(), 5.0)
    except TimedOutError:
        pytest.fail(f"left running: {new()}")
