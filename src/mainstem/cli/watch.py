"""Noticing that Python files changed, by looking: no dependency, and the same on every file system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FILES_MAX: Final = 20_000
"""Most files that are looked at; a directory with more of them is not one application's source."""

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = Mapping[str, tuple[int, int]]
"""Modification time in nanoseconds and size in bytes, by path."""


def take_snapshot(directory: Path) -> Snapshot:
    """Return the state of all ``*.py`` files below a directory, without hidden ones, caches, environments."""
    files: dict[str, tuple[int, int]] = {}
    waiting = [os.fspath(directory)]
    while waiting and len(files) < FILES_MAX:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # gone since it was listed, or none of our business: there is no source to watch in it
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SKIPPED:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.name.endswith(".py"):
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # an editor replaces files by renaming; the next look sees the new one
                files[entry.path] = (status.st_mtime_ns, status.st_size)
    return files


def changed_files(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the sorted paths that were added, removed or changed between two snapshots."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
