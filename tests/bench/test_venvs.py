"""The peers' environments: pinned, and built once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import venvs
from bench.__main__ import BENCHES
from bench.model import BenchError
from bench.workspace import ROOT, environment

NAMES = sorted({item.venv for bench in BENCHES for item in bench.contenders if item.venv})


def test_our_own_interpreter() -> None:
    """Contenders without an environment of their own run in ours."""
    assert venvs.python_of(None) == sys.executable


@pytest.mark.parametrize("name", NAMES)
def test_requirements_are_pinned(name: str) -> None:
    """Every package of a peer's environment has one version."""
    rows = [row for row in venvs.requirements(name).read_text().splitlines() if row and not row.startswith("#")]
    assert rows
    assert all("==" in row for row in rows)


def test_every_requirements_file_is_used() -> None:
    """No pinned environment is left over."""
    assert {path.stem.removeprefix("requirements-") for path in (ROOT / "bench").glob("requirements-*.txt")} == set(
        NAMES
    )


def test_built_once_and_again_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment is built when its pins are new, and only then."""
    pins = tmp_path / "requirements-x.txt"
    pins.write_text("a==1\n")
    commands: list[list[str]] = []

    def command(name: str, argv: list[str]) -> None:
        commands.append(argv)
        (tmp_path / "venvs" / name).mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(venvs, "VENVS", tmp_path / "venvs")
    monkeypatch.setattr(venvs, "requirements", lambda name: pins)
    monkeypatch.setattr(venvs, "_command", command)
    python = venvs.python_of("x")
    assert python == str(tmp_path / "venvs" / "x" / "bin" / "python")
    assert len(commands) == 2
    venvs.python_of("x")
    assert len(commands) == 2
    pins.write_text("a==2\n")
    venvs.python_of("x")
    assert len(commands) == 4


def test_failed_build_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that cannot be built is an error with what the tool said, and is tried again next time."""
    pins = tmp_path / "requirements-x.txt"
    pins.write_text("a==1\n")
    monkeypatch.setattr(venvs, "VENVS", tmp_path / "venvs")
    monkeypatch.setattr(venvs, "requirements", lambda name: pins)

    def run(argv: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 1, "", "no such version")

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        with pytest.raises(BenchError, match="no such version"):
            venvs.python_of("x")


def test_children_get_a_small_environment() -> None:
    """A contender sees little of who runs the bench; ours finds the source."""
    assert environment(ours=True)["PYTHONPATH"] == str(ROOT / "src")
    assert set(environment(ours=False)) <= {"PATH", "HOME", "LANG", "TMPDIR", "MAINSTEM_FFMPEG"}
