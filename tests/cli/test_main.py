"""The command as a whole: help, exit codes, errors."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mainstem.base.errors import InvalidArgumentError, MainstemError
from mainstem.cli import COMMANDS, main
from mainstem.cli.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NEEDS_APPLICATION,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_USAGE,
    ApplicationLoadError,
    ApplicationNeededError,
    ApplicationRefusedError,
    CommandError,
    NotFoundError,
    OperatingSystemError,
    TargetExistsError,
    UsageError,
    exit_code_of,
)
from mainstem.log import LogNotFoundError
from tests.cli.conftest import Invoke


def test_help_lists_every_command(invoke: Invoke) -> None:
    """``mainstem --help`` names each command and each exit code."""
    result = invoke("--help")
    assert result.code == EXIT_OK
    for name in COMMANDS:
        assert f"\n    {name} " in result.out
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130"):
        assert f"\n  {code} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_by_example(name: str, invoke: Invoke) -> None:
    """The help of each command shows at least one example of it."""
    result = invoke(name, "--help")
    assert result.code == EXIT_OK
    assert "Examples:" in result.out
    assert result.out.count(f"mainstem {name}") >= 2


def test_help_imports_neither_log_nor_web() -> None:
    """``mainstem --help`` loads neither the log, the web server nor msgspec's users, so that it is quick."""
    script = (
        "import sys; from mainstem.cli import main; main(['--help']); "
        "print([name for name in ('mainstem.log', 'uvicorn', 'starlette', 'mainstem.app') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_command_is_a_usage_error(invoke: Invoke) -> None:
    """Without a command the help is printed and the exit code is 2."""
    result = invoke()
    assert result.code == EXIT_USAGE
    assert "Begin with:" in result.out


def test_unknown_command_is_a_usage_error(invoke: Invoke) -> None:
    """An unknown command ends with exit code 2 and names the ones there are."""
    result = invoke("frobnicate")
    assert result.code == EXIT_USAGE
    assert "runs" in result.err


def test_version(invoke: Invoke) -> None:
    """``mainstem --version`` prints the installed version."""
    result = invoke("--version")
    assert result.code == EXIT_OK
    assert result.out.startswith("mainstem 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x"), EXIT_FAILED),
        (UsageError("x"), EXIT_USAGE),
        (NotFoundError("x"), EXIT_NOT_FOUND),
        (ApplicationNeededError("x"), EXIT_NEEDS_APPLICATION),
        (ApplicationRefusedError("x"), EXIT_FAILED),
        (ApplicationLoadError("x"), EXIT_FAILED),
        (TargetExistsError("x"), EXIT_FAILED),
        (OperatingSystemError("x"), EXIT_FAILED),
        (InvalidArgumentError("x"), EXIT_USAGE),
        (LogNotFoundError("x"), EXIT_NOT_FOUND),
        (MainstemError("x"), EXIT_FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: MainstemError, code: int) -> None:
    """An error's kind decides the exit code."""
    assert exit_code_of(error) == code


def test_an_error_is_a_message_and_a_command_to_try(invoke: Invoke, tmp_path: Path) -> None:
    """An error of mainstem prints its message and what to try to standard error, and no traceback."""
    result = invoke("log", "stats", tmp_path)
    assert result.code == EXIT_NOT_FOUND
    assert result.err.startswith("error: there is no log in")
    assert "\n  try: mainstem dev" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_an_error_is_json_where_json_was_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    """With ``--json`` an error is one JSON object on standard output."""
    result = invoke("log", "stats", tmp_path, "--json")
    assert result.code == EXIT_NOT_FOUND
    error = result.json["error"]
    assert isinstance(error, dict)
    assert error["code"] == "not-found"
    assert error["try"]


@pytest.mark.parametrize(
    "words", [("tail", "a", "--json", "--nonsense"), ("log", "--json"), ("frobnicate", "--json")], ids=" ".join
)
def test_a_usage_error_is_json_where_json_was_asked_for(words: tuple[str, ...], invoke: Invoke) -> None:
    """Also a command line that makes no sense is one JSON object on standard output."""
    result = invoke(*words)
    assert result.code == EXIT_USAGE and result.err == ""
    error = result.json["error"]
    assert isinstance(error, dict)
    assert error["code"] == "usage" and error["message"].startswith("mainstem") and error["try"].endswith("--help")


def test_a_refusal_of_the_system_is_no_traceback(invoke: Invoke, orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read ends the command with a sentence that names it."""

    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "data/log/0000000001-000001.wal")

    monkeypatch.setattr("mainstem.cli.log.verify_directory", refuse)
    result = invoke("log", "verify", orders)
    assert result.code == EXIT_FAILED
    assert result.err == "error: data/log/0000000001-000001.wal: Permission denied.\n"


def test_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, orders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the command with exit code 130 and not a word."""

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mainstem.cli.log.verify_directory", interrupt)
    assert main(["log", "verify", str(orders)]) == EXIT_INTERRUPTED
    assert capsys.readouterr() == ("", "")


def test_broken_pipe_ends_quietly(orders: Path) -> None:
    """When the reader of the output goes away, the command ends with exit code 141 and not a word."""
    command = [sys.executable, "-m", "mainstem.cli", "tail", ">", "--after", "0", "--data", str(orders)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    write_one_more(orders)
    with process.stderr:
        assert process.wait(20) == EXIT_BROKEN_PIPE
        assert process.stderr.read() == b""


def write_one_more(data: Path) -> None:
    """Append one record, which a following command then tries to print."""
    from mainstem.log import Append, Record
    from tests.cli.conftest import write_log

    write_log(data, [Append("orders.created", [Record(b'{"id": 99}')])])


@pytest.mark.parametrize("where", [">/dev/full", ">&-", ">/dev/full 2>&1", ">&- 2>&-"])
@pytest.mark.parametrize(
    "words",
    ["--version", "--help", "tail '>' --no-follow", "tail '>' --no-follow --json", "log stats --json", "runs x --json"],
)
def test_an_output_that_cannot_be_written_is_a_failure(words: str, where: str, orders: Path) -> None:
    """On a full disk, and with its output closed, a command says in a sentence that it could not print, and fails."""
    data = "" if words.startswith("-") else f"--data {orders}" if not words.startswith("log") else str(orders)
    done = run_in_shell(f"{words} {data} {where}")
    assert done.returncode == (EXIT_NOT_FOUND if words.startswith("runs") else EXIT_FAILED)
    assert (done.stderr == "") == ("2>" in where)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if done.stderr and not words.startswith("runs"):
        assert done.stderr.startswith("error: standard output: ") and done.stderr.count("\n") == 1


def run_in_shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run ``mainstem`` with words and redirections."""
    command = ["sh", "-c", f"exec {sys.executable} -m mainstem.cli {line}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    """A directory whose name is no UTF-8 is named in an error, as text and as JSON."""
    directory = shlex.quote(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    for words in ("runs", "tail '>' --json"):
        done = run_in_shell(f"{words} --data {directory}")
        assert done.returncode == EXIT_NOT_FOUND
        assert "\\udcff" in done.stdout + done.stderr
