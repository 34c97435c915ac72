"""Documents as programs: their code blocks become files or run, their commands run, and what they print is compared.

- A ``python`` block whose first line is ``# name.py`` becomes that file. Any other is run, with ``await`` allowed at
  its top level, in one namespace a page. ``python sketch`` is neither.
- A ``console`` block holds commands after ``$ `` and, below a command, what it prints; ``…`` stands for anything. A
  command without such lines has to succeed.
- ``mainstem dev`` is left running on a free port, in whose place the document says 8000, until the page's end.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support import wait_until

COMMAND_TIMEOUT_S = 60.0
DOCUMENTED_ORIGIN = "http://127.0.0.1:8000"

_BLOCK = re.compile(r"^```(\w+)(?: +(\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\A# ([\w./-]+\.py)\n")
_RUN_BLOCK = """\
import ast, asyncio, inspect, sys
names = {"__name__": "__main__"}
async def main():
    for text in sys.argv[1:]:
        code = compile(text, "<document>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(code, names)
        if inspect.iscoroutine(waiting):
            await waiting
asyncio.run(main())
"""


class DocumentError(AssertionError):
    """A document says what is not so."""


@dataclass(frozen=True)
class Command:
    """One command of a console block, and what the document says that it prints; ``None`` when it says nothing."""

    line: int
    text: str
    printed: str | None


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the word after it, its text, and the line on which the text begins."""

    language: str
    word: str
    text: str
    line: int

    @property
    def file_name(self) -> str:
        """The file that a Python block is; empty for one that is run."""
        match = _FILE.match(self.text)
        return match[1] if match else ""

    def commands(self) -> Iterator[Command]:
        """Yield the commands of a console block."""
        lines = self.text.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            printed = lines[start + 1 : end]
            yield Command(self.line + start, lines[start][2:], "\n".join(printed) if printed else None)


def blocks_of(page: str) -> list[Block]:
    """Return a page's Python and console blocks that are meant to work."""
    found = [
        Block(match[1], match[2] or "", match[3], page.count("\n", 0, match.start()) + 2)
        for match in _BLOCK.finditer(page)
    ]
    return [block for block in found if block.language in {"python", "console"} and block.word != "sketch"]


def matches(expected: str, printed: str) -> bool:
    """Tell whether printed text is what a document shows: spaces at the ends of lines aside, ``…`` for anything."""
    pattern = re.escape("\n".join(line.rstrip() for line in expected.strip().splitlines())).replace("…", ".*")
    return (
        re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip().splitlines()), re.DOTALL) is not None
    )


@dataclass
class Session:
    """A terminal in a directory of its own, with the programs of one environment in front of the PATH.

    Attributes:
        directory: Where the commands run; ``cd`` changes it.
        programs: Directory with ``python`` and ``mainstem``.
    """

    directory: Path
    programs: Path = field(default_factory=lambda: Path(sys.executable).parent)
    _servers: list[subprocess.Popen[str]] = field(default_factory=list)
    _origin: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.send_signal(signal.SIGINT)
            try:
                server.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.communicate()

    def run_page(self, page: str) -> None:
        """Do everything that a page says.

        Raises:
            DocumentError: Something that it says is not so.
        """
        blocks = blocks_of(page)
        for block in blocks:  # a page may show a command above the file that it is about
            if block.file_name:
                (self.directory / block.file_name).write_text(block.text, "utf-8")
        code = [block for block in blocks if block.language == "python" and not block.file_name]
        if code:
            texts = [block.text for block in code]
            self._run(["python", "-c", _RUN_BLOCK, *texts], Command(code[0].line, "the page's Python", None))
        for block in blocks:
            if block.language == "console":
                for command in block.commands():
                    self.run_command(command)

    def run_command(self, command: Command) -> None:
        """Run one command as a reader would.

        Raises:
            DocumentError: It failed, or printed something else.
        """
        words = shlex.split(command.text, comments=True)
        match words:
            case ["pip", "install", *_]:
                return  # the package under test is there already; tests/e2e/test_wheel.py installs it
            case ["make", target, *_]:
                self._check_target(target, command)
            case ["cd", place]:
                self.directory /= place
            case ["mainstem", "dev", *_]:
                self._serve(words)
            case ["curl", *options, address] if set(options[::2]) <= {"-H", "-d"}:
                self._post(options, address, command)
            case ["python" | "mainstem", *_]:
                self._run(words, command)
            case _:
                raise DocumentError(f"line {command.line}: no test knows how to run: {command.text}")

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUTF8": "1",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
        }

    def _run(self, words: Sequence[str], command: Command) -> None:
        result = subprocess.run(
            [str(self.programs / words[0]), *words[1:]],
            cwd=self.directory,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        if command.printed is None and result.returncode:
            raise DocumentError(
                f"line {command.line}: {command.text}: exit {result.returncode}\n{result.stdout}{result.stderr}"
            )
        if command.printed is not None and not matches(command.printed, result.stdout):
            raise DocumentError(
                f"line {command.line}: {command.text} printed\n{result.stdout}{result.stderr}\n"
                f"expected\n{command.printed}"
            )

    def _check_target(self, target: str, command: Command) -> None:
        makefile = Path(__file__).parents[2] / "Makefile"
        if not re.search(rf"^{re.escape(target)}:", makefile.read_text("utf-8"), re.MULTILINE):
            raise DocumentError(f"line {command.line}: there is no make target {target}")

    def _serve(self, words: Sequence[str]) -> None:
        server = subprocess.Popen(
            [str(self.programs / words[0]), *words[1:], "--port", "0", "--json"],
            cwd=self.directory,
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        said = server.stdout.readline()
        ready = json.loads(said) if said else {}
        if "url" not in ready:
            raise DocumentError(f"{' '.join(words)} ended before it was ready: {said or 'it said nothing'}")
        self._origin = "/".join(ready["url"].split("/")[:3])

    def _post(self, options: Sequence[str], address: str, command: Command) -> None:
        pairs = list(zip(options[::2], options[1::2], strict=True))
        headers = dict(text.split(": ", 1) for option, text in pairs if option == "-H")
        body = "".join(text for option, text in pairs if option == "-d")
        if not address.startswith(DOCUMENTED_ORIGIN) or not self._origin:
            raise DocumentError(f"line {command.line}: nothing runs at {address}")
        place = self._origin + address.removeprefix(DOCUMENTED_ORIGIN)
        answer = httpx.post(place, content=body.encode(), headers=headers, timeout=30)
        if answer.is_error:
            raise DocumentError(f"line {command.line}: {address} answered {answer.status_code}: {answer.text}")

    def wait_for(self, words: Sequence[str], text: str, timeout_s: float = 30.0) -> str:
        """Run a command again and again until what it prints holds a text; return what it printed."""

        def printed() -> str:
            result = subprocess.run(
                [str(self.programs / words[0]), *words[1:]],
                cwd=self.directory,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_TIMEOUT_S,
            )
            return result.stdout if text in result.stdout else ""

        return wait_until(printed, timeout_s, what=f"{' '.join(words)} prints {text!r}")
