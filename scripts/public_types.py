"""Check that every type of the library that users' tools can see is known, as ``py.typed`` promises (basedpyright)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def incomplete(report: Mapping[str, Any]) -> list[str]:
    """Return one line for each exported symbol with a part of unknown type, from basedpyright's report.

    Types that are inferred, such as those of attributes that take a parameter's, are known; ``tests/types`` shows that
    other checkers infer the same for what users touch.
    """
    return [
        f"{symbol['name']}: {symbol['diagnostics'][0]['message'] if symbol['diagnostics'] else 'unknown type'}"
        for symbol in report["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]
    ]


def main() -> int:
    """Run basedpyright; print what is incomplete; return the exit code."""
    search_path = os.pathsep.join([str(ROOT / "src"), sysconfig.get_path("purelib")])
    program = str(Path(sys.executable).parent / "basedpyright")
    command = [program, "--verifytypes", "mainstem", "--ignoreexternal", "--outputjson"]
    environment = {**os.environ, "PYTHONPATH": search_path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    report = json.loads(result.stdout)
    lines = incomplete(report)
    for line in lines:
        print(line, file=sys.stderr)
    if not report["typeCompleteness"]["exportedSymbolCounts"]["withKnownType"]:
        print("basedpyright saw no types: is the project installed?", file=sys.stderr)
        return 1
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
