"""Reading what processes use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.proc import descendants, process_tree, stat_fields, status_fields, usage, watch_idle

pytestmark = pytest.mark.serial

WAITING = "import subprocess, sys; {more} print(flush=True); sys.stdin.read()"


def start(more: str = "") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(more=more)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()
    assert process.returncode == 0


def test_names_with_spaces_and_parentheses() -> None:
    """A program may name itself so that a naive split of its stat line goes wrong."""
    assert stat_fields("7 (a) b) S 1 7\n") == ["S", "1", "7"]


def test_status_values_are_stripped() -> None:
    """A status file's values come without their padding."""
    assert status_fields("Rss:\t   12 kB\nno colon\n") == {"Rss": "12 kB"}


def test_descendants_over_generations() -> None:
    """Grandchildren count, strangers do not."""
    assert sorted(descendants(2, {2: 1, 3: 2, 4: 3, 5: 1, 6: 4})) == [2, 3, 4, 6]


def test_tree_of_a_process_with_a_child() -> None:
    """The processes of a contender are itself and what it started."""
    more = "subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()']);"
    process = start(more)
    try:
        assert len(process_tree(process.pid)) == 2
    finally:
        end(process)


def test_idle_process_uses_nothing() -> None:
    """A process that waits for input has memory, but no CPU time and no wake-ups."""
    process = start()
    try:
        found = watch_idle(process.pid, 0.3)
    finally:
        end(process)
    assert found["processes"] == 1
    assert found["resident_mb"] >= found["proportional_mb"] > 1
    assert found["cpu_percent"] == 0
    assert found["wakeups_per_s"] < 5


def test_ticking_process_is_seen() -> None:
    """Sleeping in a loop shows as wake-ups."""
    more = "import threading, time; threading.Thread(target=lambda: [time.sleep(0.005) for _ in range(150)]).start();"
    process = start(more)
    try:
        found = watch_idle(process.pid, 0.4)
    finally:
        end(process)
    assert found["wakeups_per_s"] > 50


def test_ended_processes_count_nothing() -> None:
    """A process that has ended meanwhile is no error."""
    process = start()
    end(process)
    assert usage([process.pid]).processes == 0
