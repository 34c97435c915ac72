"""A contender that does what the runner must stand."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from bench.child import linger, read_task, report


def main(task: dict[str, Any]) -> int:
    mode = task["mode"]
    if mode == "dies":
        print("a complaint", file=sys.stderr)
        return 3
    if mode == "is silent":
        threading.Event().wait()
    if mode == "leaves a child":
        child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        Path(task["pid_file"]).write_text(str(child.pid))
        return 0
    if mode == "prints junk":
        os.write(1, b"[]\n")
    elif mode == "counts its starts":
        starts = Path(task["directory"], "starts")
        starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
        report(len(starts.read_text()))
    else:
        report(0 if mode == "reports nothing done" else 1, task=task)
    if mode == "never ends":
        threading.Event().wait()
    linger()
    return 4 if mode == "fails at its end" else 0


if __name__ == "__main__":
    sys.exit(main(read_task()))
