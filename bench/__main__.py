"""``python -m bench``: run benches, print one JSON object a line, end with 1 when one could not be run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bench.app_start import APP_START
from bench.flow_steps import FLOW_STEPS
from bench.log_append import LOG_APPEND
from bench.media_encode import MEDIA_ENCODE
from bench.model import Bench, BenchError
from bench.runner import run_bench

BENCHES: tuple[Bench, ...] = (*LOG_APPEND, *FLOW_STEPS, *MEDIA_ENCODE, *APP_START)
"""All benches, in the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 1 when a contender failed or could not be started."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ", ".join(bench.name for bench in BENCHES)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help=f"run this one; may be repeated. One of {names}"
    )
    parser.add_argument("--rounds", type=_positive_int, default=3, help="how often each contender runs (3)")
    parser.add_argument(
        "--seconds", type=_positive, help="how long each works, how long the clip is, how long it idles"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {bench.name for bench in BENCHES}
    if unknown:
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {names}")
    failed = False
    for bench in BENCHES:
        if options.only and bench.name not in options.only:
            continue
        try:
            result = run_bench(bench, rounds=options.rounds, seconds=options.seconds or bench.seconds)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            failed = True
        else:
            print(json.dumps(result), flush=True)
    return 1 if failed else 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
