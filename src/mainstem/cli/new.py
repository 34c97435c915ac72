"""``mainstem new``: a small complete application to begin with."""

from __future__ import annotations

import argparse
import re
import secrets
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Final

from mainstem.cli.arguments import add_json
from mainstem.cli.errors import EXIT_OK, TargetExistsError, UsageError
from mainstem.cli.output import Output

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_MARK = "@NAME@"

TEMPLATES: Final = {
    "app.py": "app.py.tmpl",
    "test_app.py": "test_app.py.tmpl",
    "README.md": "README.md.tmpl",
    "pyproject.toml": "pyproject.toml.tmpl",
    ".gitignore": "gitignore.tmpl",
}
"""The files of a new application, and the templates that they come from."""

_EPILOG = """\
The application takes orders over HTTP, charges them in a workflow with a
durable step, and sends mails from a queue. It runs, its tests pass, and its
README says how; begin by changing it. What exists already is never
overwritten.

Examples:
  mainstem new shop && cd shop && mainstem dev app.py
  mainstem new services/billing      the last part is the name
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mainstem new``."""
    parser.epilog = _EPILOG
    parser.add_argument("path", metavar="NAME", type=Path, help="directory to make; its last part is the name")
    add_json(parser)


def run(arguments: argparse.Namespace, output: Output) -> int:
    """Write the application; return 0."""
    target: Path = arguments.path
    written = write_application(target)
    if output.as_json:
        output.document({"directory": str(target), "files": written})
        return EXIT_OK
    output.text(f"{output.style(str(target), 'bold')} is ready:")
    for name in written:
        output.text(f"  {name}")
    output.text(f"\nGo on with:\n  cd {target}\n  mainstem dev app.py")
    return EXIT_OK


def write_application(target: Path) -> list[str]:
    """Write a new application into a directory that does not exist yet; return the names of its files.

    All files appear at once, or none does.

    Raises:
        UsageError: The directory's name cannot be a package's: expected a-z, 0-9, ``-`` and ``_``, a letter first.
        TargetExistsError: There is something already; nothing was changed.
    """
    name = target.resolve().name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be an application's name: expected 1 to 64 of a-z, 0-9, '-' and '_', a letter first.",
            try_command="mainstem new shop",
        )
    if target.exists() or target.is_symlink():
        raise TargetExistsError(
            f"{target} exists already. Nothing was changed.", try_command=f"mainstem new {target}-2"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own: what a killed one left behind is in nobody's way.
    unfinished = target.with_name(f".{name}.{secrets.token_hex(4)}.unfinished")
    unfinished.mkdir()
    try:
        templates = files("mainstem.cli") / "templates"
        for file, template in TEMPLATES.items():
            text = (templates / template).read_text(encoding="utf-8")
            (unfinished / file).write_text(text.replace(_MARK, name), encoding="utf-8")
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    return list(TEMPLATES)
