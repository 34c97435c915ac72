"""What a process and its descendants use, from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Usage:
    """What a set of processes has used since their start, and holds now.

    Attributes:
        cpu_s: Time on a processor, user and system, resolution 10 ms.
        wakeups: Voluntary context switches of all threads: each one ends a sleep.
        resident_bytes: Resident memory; what processes share counts for each.
        proportional_bytes: The same, what is shared divided among those who share it.
        processes: How many there are.
    """

    cpu_s: float
    wakeups: int
    resident_bytes: int
    proportional_bytes: int
    processes: int


def status_fields(text: str) -> dict[str, str]:
    r"""Parse a ``Name: value`` file such as ``/proc/PID/status``.

    >>> status_fields("VmRSS:\t  812 kB\nvoluntary_ctxt_switches:\t7\n")["VmRSS"]
    '812 kB'
    """
    fields = (row.partition(":") for row in text.splitlines())
    return {name: value.strip() for name, colon, value in fields if colon}


def stat_fields(text: str) -> list[str]:
    """Split ``/proc/PID/stat`` behind the program's name, which may hold spaces and parentheses.

    >>> stat_fields("7 (a) b) S 1 7")
    ['S', '1', '7']
    """
    return text.rpartition(")")[2].split()


def descendants(root: int, parents: Mapping[int, int]) -> list[int]:
    """Return a process and everything below it.

    >>> descendants(2, {2: 1, 3: 2, 4: 3, 5: 1})
    [2, 3, 4]
    """
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def process_tree(root: int) -> list[int]:
    """Return the pids of a running process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(*_GONE):  # it ended while we looked
                parents[int(entry.name)] = int(stat_fields((entry / "stat").read_text())[1])
    return descendants(root, parents)


def usage(pids: Iterable[int]) -> Usage:
    """Return what processes have used; those that have ended count nothing."""
    cpu_ticks = wakeups = resident_kb = proportional_kb = processes = 0
    for pid in pids:
        base = Path("/proc") / str(pid)
        with contextlib.suppress(*_GONE):  # it ended while we looked
            fields = stat_fields((base / "stat").read_text())
            memory = status_fields((base / "smaps_rollup").read_text())
            threads = [status_fields((thread / "status").read_text()) for thread in (base / "task").iterdir()]
            cpu_ticks += int(fields[11]) + int(fields[12])
            resident_kb += int(memory["Rss"].split()[0])
            proportional_kb += int(memory["Pss"].split()[0])
            wakeups += sum(int(thread["voluntary_ctxt_switches"]) for thread in threads)
            processes += 1
    return Usage(cpu_ticks / _TICKS_PER_S, wakeups, resident_kb * 1024, proportional_kb * 1024, processes)


def watch_idle(root: int, seconds: float) -> dict[str, float]:
    """Watch a process and its descendants that have nothing to do.

    Returns:
        ``resident_mb``, ``proportional_mb`` (at the end), ``cpu_percent`` of one processor, ``wakeups_per_s``,
        ``processes``.
    """
    before, begin_s = usage(process_tree(root)), time.monotonic()
    time.sleep(seconds)
    after, elapsed_s = usage(process_tree(root)), time.monotonic() - begin_s
    return {
        "resident_mb": round(after.resident_bytes / 1e6, 1),
        "proportional_mb": round(after.proportional_bytes / 1e6, 1),
        "cpu_percent": round(100 * (after.cpu_s - before.cpu_s) / elapsed_s, 3),
        "wakeups_per_s": round((after.wakeups - before.wakeups) / elapsed_s, 2),
        "processes": after.processes,
    }
