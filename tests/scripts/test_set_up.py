"""Set-up does what is needed, once; the doctor knows what is missing."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from scripts import doctor, set_up
from scripts.doctor import EXIT_MISSING, NEEDS, Need, apt_line, is_present, missing
from tests.support import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with what decides about the environment."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / ".venv").mkdir()
    return tmp_path


def test_a_warm_environment_is_left_alone(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fingerprint of the present lock files nothing is run."""
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was run"))
    set_up.stamp_path(tree, "dev").write_text(set_up.fingerprint(tree, "dev"))
    assert not set_up.set_up(tree, "dev")


@pytest.mark.parametrize("changed", ["requirements/dev.lock", "requirements/clips.lock", "pyproject.toml"])
def test_a_change_makes_it_stale(tree: Path, changed: str) -> None:
    """A change of a lock file or of the project file has the environment made current again."""
    set_up.stamp_path(tree, "dev").write_text(set_up.fingerprint(tree, "dev"))
    with (tree / changed).open("a") as file:
        file.write("\n# changed\n")
    assert not set_up.is_current(tree, "dev")


def test_every_archive_is_checked(tree: Path) -> None:
    """Each installation from a lock file demands hashes, and the project itself brings no dependency of its own."""
    *from_locks, project = set_up.install_commands(tree, "run")
    assert all("--require-hashes" in command for command in from_locks)
    assert {"--no-deps", "--no-build-isolation", "--editable"} <= set(project)


def test_node_comes_from_python_where_npm_is_missing() -> None:
    """Without npm on the PATH the run profile installs PyPI's; the dev profile has it anyway."""
    assert set_up.locks_of("run", has_npm=True) == ["run"]
    assert set_up.locks_of("run", has_npm=False) == ["run", "node"]
    assert set_up.locks_of("dev", has_npm=False) == ["dev"]


def test_an_old_python_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 is told what is needed, before anything is made."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    with pytest.raises(set_up.SetUpError, match=r"3\.11"):
        set_up.set_up(tree, "run")


ABSENT = Need("nothing-like-it", ("no-such-program-anywhere",), frozenset({"test"}), "nothing")


def test_what_is_missing_is_found() -> None:
    """A need is present when one of its programs or files is; only the needs of the task count."""
    here = Need("python", ("no-such-program", "python3"), frozenset({"test"}), "")
    file = Need("files", (f"{ROOT}/LICEN*",), frozenset({"test"}), "")
    assert is_present(here)
    assert is_present(file)
    assert missing("test", [here, file, ABSENT]) == [ABSENT]
    assert missing("all", [ABSENT]) == [ABSENT]
    assert missing("bench", [ABSENT]) == []


def test_one_line_installs_it_all() -> None:
    """The doctor's line names every package once."""
    assert apt_line(NEEDS).split()[:2] == ["apt-get", "install"]
    assert apt_line(NEEDS).split()[-len(NEEDS) :] == sorted(need.package for need in NEEDS)


def test_without_root_the_line_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever may not install gets the line for someone who may, and exit code 2."""
    monkeypatch.setattr(doctor, "missing", lambda _task: [ABSENT])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was run"))
    monkeypatch.setattr(sys, "argv", ["doctor", "test", "--install"])
    assert doctor.main() == EXIT_MISSING
    assert apt_line([ABSENT]) in capsys.readouterr().err


def test_root_installs_exactly_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root the same line is run, after an update."""
    ran: list[list[str]] = []

    class Done:
        returncode = 0

    def run(command: list[str], **_: object) -> Done:
        ran.append(command)
        return Done()

    monkeypatch.setattr("subprocess.run", run)
    assert doctor.install([ABSENT]) == 0
    assert ran == [["apt-get", "update", "-qq"], apt_line([ABSENT]).split()]


def test_report_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The report names each package with its state, and exits 2 when one is missing."""
    monkeypatch.setattr(doctor, "NEEDS", (ABSENT,))
    monkeypatch.setattr(doctor, "missing", lambda _task: [ABSENT])
    assert doctor.report("all") == EXIT_MISSING
    assert "missing  nothing-like-it" in capsys.readouterr().out
