"""Make ``.venv`` hold what the lock files name, and the project itself, editable; nothing to do when it does already.

Run by the Makefile with any Python of 3.11 or later; uses the standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PYTHON_NEEDED = (3, 11)

PROFILES: Mapping[str, str] = {"run": "run", "dev": "dev"}
"""What a make target wants: the name of a lock file in ``requirements/``."""

NODE_LOCK = "node"
"""Brings npm where the system has none; ``dev`` has it anyway."""

CLIPS_LOCK = "clips"
"""Packages that are wanted for a file within: installed without their dependencies."""


class SetUpError(Exception):
    """The environment could not be made; the message says why."""


def locks_of(profile: str, *, has_npm: bool) -> list[str]:
    """Return the names of the lock files to install for a profile."""
    return [PROFILES[profile], *([] if has_npm or profile == "dev" else [NODE_LOCK])]


def _has_npm() -> bool:
    return shutil.which("npm") is not None


def fingerprint(root: Path, profile: str) -> str:
    """Return a digest over everything that decides what an environment of this profile holds."""
    names = [f"requirements/{name}.lock" for name in (*locks_of(profile, has_npm=_has_npm()), CLIPS_LOCK)]
    digest = hashlib.sha256(f"{sys.version_info[:2]} {root}".encode())
    for name in (*names, "pyproject.toml"):
        digest.update(name.encode() + b"\0" + (root / name).read_bytes())
    return digest.hexdigest()


def stamp_path(root: Path, profile: str) -> Path:
    """Return the file that holds the fingerprint of what was installed last."""
    return root / ".venv" / f".set-up-{profile}"


def is_current(root: Path, profile: str) -> bool:
    """Tell whether the environment was made from the present lock files."""
    stamp = stamp_path(root, profile)
    return stamp.is_file() and stamp.read_text("utf-8") == fingerprint(root, profile)


def install_commands(root: Path, profile: str) -> list[list[str]]:
    """Return the commands that fill the environment, in order; every archive is checked against its hash."""
    pip = [str(root / ".venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locks = [str(root / f"requirements/{name}.lock") for name in locks_of(profile, has_npm=_has_npm())]
    wanted = [argument for lock in locks for argument in ("--requirement", lock)]
    clips = ["--no-deps", "--requirement", str(root / f"requirements/{CLIPS_LOCK}.lock")]
    return [
        [*pip, "--require-hashes", *wanted],
        [*pip, "--require-hashes", *clips],
        [*pip, "--no-deps", "--no-build-isolation", "--editable", str(root)],
    ]


def set_up(root: Path, profile: str) -> bool:
    """Make the environment current; tell whether there was something to do.

    Raises:
        SetUpError: Python is too old or has no venv, or an installation failed.
    """
    if sys.version_info < PYTHON_NEEDED:
        raise SetUpError(
            f"Python {sys.version.split()[0]} is too old: 3.11 or later is needed (make PYTHON=python3.11 …)."
        )
    if is_current(root, profile):
        return False
    if not (root / ".venv/bin/python").exists():
        _make_environment(root / ".venv")
    print(f"set-up: installing requirements/{profile}.lock into .venv", flush=True)
    for command in install_commands(root, profile):
        if subprocess.run(command, check=False).returncode:
            raise SetUpError(f"this failed: {' '.join(command)}")
    stamp_path(root, profile).write_text(fingerprint(root, profile), "utf-8")
    return True


def _make_environment(directory: Path) -> None:
    try:
        venv.create(directory, with_pip=True)
    except (subprocess.CalledProcessError, ImportError) as error:
        raise SetUpError(f"no environment could be made (Debian: apt-get install python3.11-venv): {error}") from error


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Make .venv hold what the lock files name.")
    parser.add_argument("profile", choices=sorted(PROFILES))
    try:
        set_up(ROOT, parser.parse_args().profile)
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
