"""Running contenders: interleaved, each in a fresh interpreter, and nothing left of those that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import runner, workspace
from bench.model import BenchError, Contender, Work
from bench.proc import stat_fields
from bench.runner import run_bench
from tests.bench.support import assert_well_formed, bench_of, contender
from tests.support import wait_until

HELPER = "tests.bench.misbehaving"


def living_processes() -> list[int]:
    """All processes but those that have ended and wait to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                if stat_fields((entry / "stat").read_text())[0] not in "ZX":
                    found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(workspace, "_WORK", tmp_path / "work")
    return tmp_path / "work"


def test_line_of_a_small_bench(own_workspace: Path) -> None:
    """A bench with ours, a peer and a limit gives a well-formed line and leaves no file."""
    bench = bench_of(
        contender("ours", "mainstem"), contender("peer", "other"), contender("limit", "raw", mode="overwrite")
    )
    line = run_bench(bench, rounds=2, seconds=0.5)
    assert_well_formed(line, bench)
    assert (line["rounds"], line["seconds"]) == (2, 0.5)
    assert list(own_workspace.iterdir()) == []


def test_rounds_are_interleaved(capfd: pytest.CaptureFixture[str]) -> None:
    """Each round has every contender once, and every second round goes backwards."""
    bench = bench_of(contender("ours", "a", HELPER, mode="echoes"), contender("peer", "b", HELPER, mode="echoes"))
    run_bench(bench, rounds=3, seconds=0.02)
    told = [row.split(": ")[1] for row in capfd.readouterr().err.splitlines()]
    assert told == ["a", "b", "b", "a", "a", "b"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("dies", "exit code 3 before its result"),
        ("is silent", "no result within"),
        ("prints junk", "expected a value above 0"),
        ("reports nothing done", "expected a value above 0"),
        ("never ends", "did not end within"),
        ("fails at its end", "exit code 4 after its result"),
    ],
)
def test_failing_contenders_are_errors(mode: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that fails in any way ends the bench with an error that names it."""
    monkeypatch.setattr(runner, "_END_S", 0.3)
    bench = bench_of(contender("ours", "mainstem", HELPER, mode=mode), timeout_s=0.5 if mode == "is silent" else 30.0)
    with pytest.raises(BenchError, match=said) as caught:
        run_bench(bench, rounds=1, seconds=0.1)
    assert "a.bench: mainstem failed" in str(caught.value)


def test_what_a_contender_complained_is_shown() -> None:
    """The end of a failed contender's standard error is in the message."""
    with pytest.raises(BenchError, match="a complaint"):
        run_bench(bench_of(contender("ours", "mainstem", HELPER, mode="dies")), rounds=1, seconds=0.1)


def test_children_of_a_failed_contender_are_killed(tmp_path: Path) -> None:
    """What a contender started and left behind is gone when the bench has ended."""
    pid_file = tmp_path / "pid"
    bench = bench_of(contender("ours", "mainstem", HELPER, mode="leaves a child", pid_file=str(pid_file)))
    with pytest.raises(BenchError, match="exit code 0 before its result"):
        run_bench(bench, rounds=1, seconds=0.1)
    child = pid_file.read_text()
    wait_until(lambda: int(child) not in living_processes(), what="the end of the child")


def test_a_server_that_does_not_start_is_an_error() -> None:
    """A peer whose server cannot be started is an error, not a gap."""

    @contextlib.contextmanager
    def broken(directory: Path) -> Iterator[Work]:
        raise BenchError("the server is not installed")
        yield {}

    peer = Contender("peer", "other", "bench.contenders.raw", server=broken)
    with pytest.raises(BenchError, match="not installed"):
        run_bench(bench_of(contender("ours", "mainstem", HELPER, mode="echoes"), peer), rounds=1, seconds=0.05)


def test_what_a_server_yields_reaches_the_contender() -> None:
    """The address of a server is part of the task, beside the bench's and the contender's own work."""

    @contextlib.contextmanager
    def server(directory: Path) -> Iterator[Work]:
        assert directory.is_dir()
        yield {"address": "here"}

    ours = Contender("ours", "mainstem", HELPER, work={"mode": "echoes", "own": 1}, server=server)
    line = run_bench(bench_of(ours, work={"shared": 2}), rounds=1, seconds=0.1)
    task: dict[str, Any] = line["details"]["mainstem"]["task"]
    assert (task["address"], task["own"], task["shared"], task["seconds"]) == ("here", 1, 2, 0.1)


def test_kept_directories_are_found_again() -> None:
    """Where a bench says so, a contender finds its directory again, after one start that does not count."""
    ours = contender("ours", "mainstem", HELPER, mode="counts its starts")
    assert run_bench(bench_of(ours, keeps_directory=True), rounds=2, seconds=0.1)["spread"]["mainstem"] == [2.0, 3.0]
    assert run_bench(bench_of(ours), rounds=2, seconds=0.1)["spread"]["mainstem"] == [1.0, 1.0]


def test_idle_use_is_in_the_details() -> None:
    """Where a bench says so, contenders are watched while idle, in the last round."""
    line = run_bench(bench_of(contender("ours", "mainstem", HELPER, mode="echoes"), idles=True), rounds=2, seconds=0.1)
    assert set(line["details"]["mainstem"]["idle"]) >= {"resident_mb", "cpu_percent", "wakeups_per_s"}
