"""Small benches for the tests of the runner, and cheap versions of the real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bench.model import Bench, Contender, Json

CHEAP_VENVS = (None, "redis")
"""Environments whose building does not make the tests slow."""


def contender(role: str, name: str, module: str = "bench.contenders.raw", variant: str = "", **work: Json) -> Contender:
    defaults: dict[str, Json] = {"mode": "append", "commit_bytes": 200, "weight": 1}
    return Contender(role, name, module, variant, work=defaults | work)  # type: ignore[arg-type]


def bench_of(*contenders: Contender, **changes: Any) -> Bench:
    bench = Bench("a.bench", "appends/s", "higher", contenders, work={}, settings={"work": "tests"}, seconds=0.1)
    return dataclasses.replace(bench, **changes)


def cheap(bench: Bench, **work: Json) -> Bench:
    """The bench without the peers whose environments are large."""
    kept = tuple(item for item in bench.contenders if item.venv in CHEAP_VENVS)
    return dataclasses.replace(bench, contenders=kept, work={**bench.work, **work})


def assert_well_formed(line: Mapping[str, Any], bench: Bench) -> None:
    """Hold a printed line to the shape that whoever reads it counts on."""
    first = ["bench", "unit", "ours", "peers", "limit", "ratio_best_peer", "ratio_limit"]
    assert list(line)[: len(first)] == first
    assert (line["bench"], line["unit"]) == (bench.name, bench.unit)
    assert line["ours"] > 0
    for role, key in (("peer", "peers"), ("limit", "limit")):
        assert set(line[key]) == {item.name for item in bench.contenders if item.role == role}
        assert all(value > 0 for value in line[key].values())
    assert (line["ratio_best_peer"] is None) == (not line["peers"])
    assert (line["ratio_limit"] is None) == (not line["limit"])
