"""Write the lock files anew: Python packages with hashes, browser code with integrity; neither with an address.

``requirements/dev.lock`` decides; ``run.lock`` (the library with its media extra, and what the demonstration needs) is
a part of it. Versions that still fit are kept; ``--upgrade`` takes the newest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LOCKS = {
    "dev": ["pyproject.toml", "--extra", "media", "--extra", "nats", "--group", "dev"],
    "run": [
        "pyproject.toml",
        "--extra",
        "media",
        "--group",
        "build",
        "--group",
        "demo",
        "--constraint",
        "requirements/dev.lock",
    ],
    "clips": ["--group", "clips", "--no-deps"],
    "node": ["--group", "node", "--constraint", "requirements/dev.lock"],
}
"""Lock file: what it is compiled from. Order matters: the others are held to the first."""


def compile_command(name: str, *, upgrade: bool) -> list[str]:
    """Return the command that writes one lock file, for all platforms and Pythons that the project supports."""
    return [
        *(sys.executable, "-m", "uv", "pip", "compile", *LOCKS[name]),
        *("--universal", "--generate-hashes", "--no-emit-index-url", "--quiet", "--python-version", "3.11"),
        *("--custom-compile-command", "make lock", "--output-file", f"requirements/{name}.lock"),
        *(["--upgrade"] if upgrade else []),
    ]


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the lock files anew.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade
    (ROOT / "requirements").mkdir(exist_ok=True)
    npm = ["npm", "update" if upgrade else "install", "--package-lock-only"]
    for command in [*(compile_command(name, upgrade=upgrade) for name in LOCKS), npm]:
        print("+", " ".join(command), flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
