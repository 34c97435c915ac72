"""What this machine lacks for a task, and the one command that brings it.

Python packages and browser code come by lock file and need nothing but Python; this is about the programs of the
operating system, on Debian 12 as packages. ``make run`` needs none of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Need:
    """One Debian package that some tasks need.

    Attributes:
        package: Name of the package.
        probes: Programs (searched on PATH) or glob patterns (with a slash); one that exists is enough.
        tasks: The make targets that need it.
        why: What for.
    """

    package: str
    probes: tuple[str, ...]
    tasks: frozenset[str]
    why: str


NEEDS = (
    Need("chromium", ("chromium",), frozenset({"test"}), "browser tests of the dashboard and the player"),
    Need("fonts-dejavu-core", ("/usr/share/fonts/**/*.ttf",), frozenset({"test"}), "text in the browser tests' pages"),
    Need("redis-server", ("redis-server",), frozenset({"test", "bench"}), "the peer of log.append"),
    Need("strace", ("strace",), frozenset({"test"}), "a kill at every system call of the log"),
    Need(
        "postgresql",
        ("initdb", "/usr/lib/postgresql/*/bin/initdb"),
        frozenset({"bench"}),
        "the store of flow.steps' peer",
    ),
)
"""Everything beyond Python, git and make."""

EXIT_MISSING = 2
"""Exit code when something is missing that could not be installed."""


def is_present(need: Need) -> bool:
    """Tell whether one of the need's probes is there."""
    return any(_exists(probe) for probe in need.probes)


def _exists(probe: str) -> bool:
    if "/" not in probe:
        return shutil.which(probe) is not None
    return next(Path("/").glob(probe.lstrip("/")), None) is not None


def missing(task: str, needs: Sequence[Need] = NEEDS) -> list[Need]:
    """Return what the task (``"all"``: any of them) needs and this machine has not."""
    return [need for need in needs if task in need.tasks | {"all"} and not is_present(need)]


def apt_line(needs: Sequence[Need]) -> str:
    """Return the one command that installs them."""
    return "apt-get install --yes --no-install-recommends " + " ".join(sorted(need.package for need in needs))


def install(needs: Sequence[Need]) -> int:
    """Install them with apt-get, as root; return an exit code."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-qq"], apt_line(needs).split())
    for command in commands:
        print("+", " ".join(command), flush=True)
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            print(f"{command[0]} failed. By hand: {apt_line(needs)}", file=sys.stderr)
            return EXIT_MISSING
    return 0


def report(task: str) -> int:
    """Print what is there and what is not; return an exit code."""
    print(f"python   {sys.version.split()[0]} at {sys.executable}")
    lacking = missing(task)
    for need in NEEDS:
        state = "missing" if need in lacking else "there"
        if task in need.tasks | {"all"}:
            print(f"{state:8} {need.package}: {need.why} (make {', make '.join(sorted(need.tasks))})")
    if not lacking:
        print("Nothing is missing.")
        return 0
    print(f"\nTo install what is missing:\n  {apt_line(lacking)}")
    return EXIT_MISSING


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Say what this machine lacks, and the command that brings it.")
    parser.add_argument("task", nargs="?", default="all", choices=["all", "test", "bench"])
    parser.add_argument(
        "--install", action="store_true", help="install it, as root; otherwise print the command and exit 2"
    )
    arguments = parser.parse_args()
    if not arguments.install:
        return report(arguments.task)
    lacking = missing(arguments.task)
    if not lacking:
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return install(lacking)
    names = ", ".join(need.package for need in lacking)
    print(f"Missing: {names}. As root:\n  {apt_line(lacking)}", file=sys.stderr)
    return EXIT_MISSING


if __name__ == "__main__":
    sys.exit(main())
