"""The smallest run of each bench, without the peers whose environments are large."""

from __future__ import annotations

import pytest

from bench.__main__ import BENCHES
from bench.model import Bench
from bench.runner import run_bench
from tests.bench.support import assert_well_formed, cheap

pytestmark = pytest.mark.serial

FLOW = [bench for bench in BENCHES if bench.name.startswith("flow.")]
LOG = [bench for bench in BENCHES if bench.name.startswith("log.")]


@pytest.mark.parametrize("bench", LOG, ids=lambda bench: bench.name)
def test_log(bench: Bench) -> None:
    """The log's benches run ours, Redis, SQLite and the raw limit, and print a well-formed line."""
    small = cheap(bench)
    assert small == bench
    assert_well_formed(run_bench(small, rounds=1, seconds=0.5), small)


@pytest.mark.parametrize("bench", FLOW, ids=lambda bench: bench.name)
def test_flow(bench: Bench) -> None:
    """The benches of durable steps run ours and the raw limit, and print a well-formed line."""
    small = cheap(bench)
    assert {item.role for item in small.contenders} == {"ours", "limit"}
    assert_well_formed(run_bench(small, rounds=1, seconds=0.5), small)


def test_media() -> None:
    """The bench of the media pipeline runs ours and the one ffmpeg command, to the same renditions."""
    (bench,) = (bench for bench in BENCHES if bench.name == "media.encode")
    line = run_bench(bench, rounds=1, seconds=1)
    assert_well_formed(line, bench)
    made = [line["details"][name]["renditions"] for name in ("mainstem", "ffmpeg-one-command")]
    assert made[0] == made[1]
    assert len(made[0]) == 3


def test_app_start() -> None:
    """The bench of an application's start runs ours until a job has run and a page was shown, then watches it idle."""
    (bench,) = (bench for bench in BENCHES if bench.name == "app.start")
    small = cheap(bench)
    assert [item.role for item in small.contenders] == ["ours"]
    line = run_bench(small, rounds=1, seconds=0.5)
    assert_well_formed(line, small)
    details = line["details"]["mainstem"]
    assert line["ours"] == pytest.approx(max(details["job_s"], details["page_s"]), rel=0.01)
    assert details["idle"]["processes"] == 1
