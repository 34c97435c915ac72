"""The smallest run of each bench, without the peers whose environments are large."""

from __future__ import annotations

import pytest

from bench.__main__ import BENCHES
from bench.model import Bench
from bench.runner import run_bench
from tests.bench.support import assert_well_formed, cheap

FLOW = [bench for bench in BENCHES if bench.name.startswith("flow.")]
LOG = [bench for bench in BENCHES if bench.name.startswith("log.")]


@pytest.mark.parametrize("bench", LOG, ids=lambda bench: bench.name)
def test_log(bench: Bench) -> None:
    """The log's benches run ours, Redis, SQLite and the raw limit, and print a well-formed line."""
    small = cheap(bench)
    assert small == bench
    assert_well_formed(run_bench(small, rounds=1, seconds=0.2), small)


@pytest.mark.parametrize("bench", FLOW, ids=lambda bench: bench.name)
def test_flow(bench: Bench) -> None:
    """The benches of durable steps run ours and the raw limit, and print a well-formed line."""
    small = cheap(bench)
    assert {item.role for item in small.contenders} == {"ours", "limit"}
    assert_well_formed(run_bench(small, rounds=1, seconds=0.3), small)
