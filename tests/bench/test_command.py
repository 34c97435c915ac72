"""The command: ``python -m bench``."""

from __future__ import annotations

import json

import pytest

import bench.__main__ as command
from tests.bench.support import bench_of, contender

HELPER = "tests.bench.misbehaving"
GOOD = bench_of(contender("ours", "mainstem", HELPER, mode="echoes"), contender("limit", "raw", HELPER, mode="echoes"))
BAD = bench_of(contender("ours", "mainstem", "no.such.module"), name="bad.bench")
ROWS = {"log.append.c100", "log.append.c1", "log.batch", "flow.steps.c64", "flow.steps.c1", "media.encode", "app.start"}


def test_all_rows_are_there() -> None:
    """Every row of the table of figures has its bench."""
    assert {bench.name for bench in command.BENCHES} == ROWS
    assert len(command.BENCHES) == len(ROWS)


def test_prints_one_object_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output has one JSON object for each bench, and nothing else."""
    monkeypatch.setattr(command, "BENCHES", (GOOD, GOOD))
    assert command.main(["--rounds", "1", "--seconds", "0.05"]) == 0
    lines = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [line["bench"] for line in lines] == ["a.bench", "a.bench"]


def test_failure_is_told_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bench that cannot be run makes the exit code 1; those behind it are run."""
    monkeypatch.setattr(command, "BENCHES", (BAD, GOOD))
    assert command.main(["--rounds", "1", "--seconds", "0.05"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(row)["bench"] for row in out.splitlines()] == ["a.bench"]
    assert "error: bad.bench" in err


def test_only_selects(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``--only`` runs what it names."""
    monkeypatch.setattr(command, "BENCHES", (BAD, GOOD))
    assert command.main(["--only", "a.bench", "--rounds", "1", "--seconds", "0.05"]) == 0
    assert json.loads(capsys.readouterr().out)["bench"] == "a.bench"


@pytest.mark.parametrize(
    "arguments", [["--only", "no.such"], ["--rounds", "0"], ["--seconds", "0"], ["--seconds", "inf"]]
)
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name, or a number that makes no sense, is refused with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
