"""Promises of the command, each with code that breaks it: the check passes on the one and fails on the other."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mainstem.cli import log as log_command
from mainstem.cli import main
from mainstem.cli import running as running_module
from mainstem.cli import tail as tail_command
from mainstem.cli.errors import ApplicationNeededError
from mainstem.cli.running import SERVER_FILE, RunningServer, write_server
from mainstem.log import Append, Record
from mainstem.log.embedded.verify import VerifyReport
from tests.cli.conftest import write_log


def invoke(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Run the command; return exit code and standard output."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    return main(words), stream.getvalue()


def strangers_do_not_steer_the_terminal(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record with escape sequences is printed without them."""
    write_log(directory, [Append("a", [Record(b"\x1b]0;owned\x07\x1b[2J")])])
    _code, text = invoke(monkeypatch, "tail", "a", "--no-follow", "--data", str(directory))
    assert "owned" in text
    assert "\x1b" not in text


def damage_is_an_exit_code(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged log does not pass for a sound one."""
    write_log(directory, [Append("a", [Record(b"payload")])])
    file = directory / "log" / "0000000001-000001.wal"
    file.write_bytes(file.read_bytes().replace(b"payload", b"pAyload"))
    code, _text = invoke(monkeypatch, "log", "verify", str(directory))
    assert code == 1


def the_token_is_the_owners_only(directory: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can read the token of a running application."""
    write_server(directory, RunningServer("http://127.0.0.1:1/mainstem", 1, "secret"))
    assert (directory / SERVER_FILE).stat().st_mode & 0o077 == 0


def a_stranger_is_not_asked(directory: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed server left names a port that may be anyone's: nobody there is asked, or sent the token."""
    write_server(directory, RunningServer("http://127.0.0.1:1/mainstem", 2**22 + 1, "secret"))
    refused = False
    try:
        running_module.running_server(directory)
    except ApplicationNeededError:
        refused = True  # as it should: a mutant is to fail by an assertion
    assert refused, "whoever answers at the address would be asked"


def owner_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever left an address is taken for the application that runs."""
    monkeypatch.setattr(running_module, "owner_pid", lambda data: (running_module.read_server(data) or NOBODY).pid)


def escapes_left_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What strangers wrote is printed as it is."""
    monkeypatch.setattr(tail_command, "printable", lambda text: text)


def findings_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every log is reported as sound."""
    monkeypatch.setattr(log_command, "verify_directory", lambda _disk, _directory: VerifyReport())


def mode_left_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with the address is written like any other."""
    monkeypatch.setattr(
        running_module, "write_server", lambda data, server: (data / SERVER_FILE).write_text(str(server))
    )
    monkeypatch.setitem(globals(), "write_server", running_module.write_server)


NOBODY = RunningServer("", 0)

Check = Callable[[Path, pytest.MonkeyPatch], None]
CASES: Sequence[tuple[Check, Callable[[pytest.MonkeyPatch], None]]] = (
    (strangers_do_not_steer_the_terminal, escapes_left_in),
    (damage_is_an_exit_code, findings_ignored),
    (the_token_is_the_owners_only, mode_left_to_chance),
    (a_stranger_is_not_asked, owner_unchecked),
)


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _mutant in CASES), ids=lambda check: check.__name__)
def test_promise(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code as it is keeps the promise."""
    check(tmp_path, monkeypatch)


@pytest.mark.parametrize(("check", "mutant"), CASES, ids=[mutant.__name__ for _check, mutant in CASES])
def test_mutant(
    check: Check, mutant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken code does not keep it, and the check notices."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path, monkeypatch)
