"""Processes on one log, whose leaders are killed and stopped: the short form of ``make chaos``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_is_lost_or_doubled_when_leaders_die(tmp_path: Path) -> None:
    """Three processes append and follow while their leader is killed or stopped again and again.

    Each acknowledged record is found once, at the position that was said, and no tail has a gap or a repetition.
    """
    command = [sys.executable, "-m", "chaos", "--seconds", "8", "--every", "1", "--workers", "3", "--tasks", "4"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert result["acknowledged"] > 500 and result["leaders_killed"] + result["leaders_stopped"] >= 2
    assert (result["lost"], result["duplicated"], result["gaps"]) == (0, 0, 0)
