"""What a house rule finds, and the files that the rules look at."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.support import ROOT


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule.

    Attributes:
        path: The file, relative to the source tree.
        line: Line number, from 1; 0 for the file as a whole.
        message: What is wrong, and what is expected.
    """

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Source:
    """One Python file, parsed.

    Attributes:
        path: Relative to the source tree.
        text: The whole file.
        tree: Its syntax tree.
    """

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, text: str, path: str = "src/mainstem/sample.py") -> Source:
        """Parse a text, as if it were the file at ``path``."""
        return cls(path, text, ast.parse(text))

    @property
    def lines(self) -> list[str]:
        """The lines, without their ends."""
        return self.text.splitlines()

    def comment_in(self, first: int, last: int) -> bool:
        """Tell whether a comment stands on one of the lines from ``first`` to ``last``, counted from 1."""
        return any("# " in line for line in self.lines[max(first - 1, 0) : last])

    def found(self, node: ast.AST, message: str) -> Finding:
        """Return a finding at a node of the tree."""
        return Finding(self.path, getattr(node, "lineno", 0), message)


@cache
def project_files() -> tuple[str, ...]:
    """Return all files of the project: committed, or new and not ignored; relative to the source tree."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(sorted(name for name in set(listed.split("\0")) if name and (ROOT / name).is_file()))


def sources(*directories: str) -> Iterator[Source]:
    """Yield the project's Python files below some directories."""
    for name in project_files():
        if name.endswith(".py") and name.startswith(tuple(f"{directory}/" for directory in directories)):
            yield Source.of((ROOT / name).read_text("utf-8"), name)


def report(findings: Iterable[Finding]) -> str:
    """Return the findings, one a line; empty when there are none."""
    return "\n".join(map(str, sorted(findings, key=lambda found: (found.path, found.line))))


def name_of(node: ast.expr) -> str:
    """Return the dotted name that an expression is, such as ``pytest.mark.skip``; empty when it is none."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, attribute):
            before = name_of(value)
            return f"{before}.{attribute}" if before else ""
        case ast.Call(function):
            return name_of(function)
        case _:
            return ""
