"""The arithmetic between measurements and the printed line."""

from __future__ import annotations

import doctest

import pytest

from bench import ratios
from bench.model import Contender
from bench.ratios import Measured, best, line, ratio, significant, winners
from tests.bench.support import bench_of, contender


def measured(item: Contender, *values: float, **details: object) -> Measured:
    return Measured(item, values, details)


OURS = contender("ours", "mainstem")
REDIS = contender("peer", "redis", variant="a")
REDIS_B = contender("peer", "redis", variant="b")
SQLITE = contender("peer", "sqlite")
RAW = contender("limit", "raw", variant="append")
RAW_B = contender("limit", "raw", variant="overwrite")


def test_higher_is_better() -> None:
    """A rate twice as high is a ratio of 2."""
    assert ratio(200.0, 100.0, "higher") == 2.0


def test_lower_is_better() -> None:
    """A time half as long is a ratio of 2."""
    assert ratio(1.0, 2.0, "lower") == 2.0


def test_nothing_to_compare_with() -> None:
    """Without another number there is no ratio."""
    assert ratio(1.0, None, "higher") is None
    assert best([], "higher") is None


@pytest.mark.parametrize(("ours", "other", "better"), [(1.0, 0.0, "higher"), (0.0, 1.0, "lower")])
def test_zero_is_no_measurement(ours: float, other: float, better: str) -> None:
    """A measurement of 0 is refused, not divided by."""
    with pytest.raises(ValueError, match="must be above 0"):
        ratio(ours, other, better)  # type: ignore[arg-type]


def test_best_follows_the_direction() -> None:
    """The best of several is the highest rate or the shortest time."""
    assert best([1.0, 3.0, 2.0], "higher") == 3.0
    assert best([1.0, 3.0, 2.0], "lower") == 1.0


def test_median_of_rounds() -> None:
    """A contender's number is the median over its rounds, so one odd round does not count."""
    assert measured(OURS, 10.0, 1000.0, 12.0).median == 12.0


@pytest.mark.parametrize(("better", "expected"), [("higher", "b"), ("lower", "a")])
def test_the_best_variant_stands_for_a_name(better: str, expected: str) -> None:
    """Of two ways of a peer, the better median counts."""
    found = winners([measured(REDIS, 1.0), measured(REDIS_B, 2.0)], "peer", better)  # type: ignore[arg-type]
    assert found["redis"].contender.variant == expected


def test_line_compares_with_the_best_peer_and_the_best_limit() -> None:
    """The printed ratios are to the best variant of the best peer and of the limit."""
    entries = [
        measured(OURS, 90.0, 100.0, 110.0),
        measured(REDIS, 10.0, 10.0, 10.0),
        measured(REDIS_B, 20.0, 25.0, 30.0),
        measured(SQLITE, 5.0, 5.0, 5.0, note="x"),
        measured(RAW, 100.0, 100.0, 100.0),
        measured(RAW_B, 200.0, 200.0, 200.0),
    ]
    made = line(bench_of(OURS, REDIS, REDIS_B, SQLITE, RAW, RAW_B), entries, rounds=3, seconds=5.0)
    assert made["ours"] == 100.0
    assert made["peers"] == {"redis": 25.0, "sqlite": 5.0}
    assert made["limit"] == {"raw": 200.0}
    assert (made["ratio_best_peer"], made["ratio_limit"]) == (4.0, 0.5)
    assert made["spread"]["redis (b)"] == [20.0, 30.0]
    assert made["variants"]["redis (a)"] == {"value": 10.0, "ratio": 10.0}
    assert made["details"] == {"sqlite": {"note": "x"}}


def test_line_where_lower_is_better() -> None:
    """Where a time is measured, the fastest peer is the best one, and a ratio above 1 is still ours."""
    bench = bench_of(OURS, REDIS, SQLITE, better="lower")
    made = line(bench, [measured(OURS, 2.0), measured(REDIS, 6.0), measured(SQLITE, 4.0)], rounds=1, seconds=1.0)
    assert made["ratio_best_peer"] == 2.0
    assert made["ratio_limit"] is None


def test_line_needs_ours() -> None:
    """A line without our own number cannot be made."""
    with pytest.raises(ValueError, match="exactly one"):
        line(bench_of(REDIS), [measured(REDIS, 1.0)], rounds=1, seconds=1.0)


def test_documented_examples() -> None:
    """The examples in the documentation of the arithmetic give what they say."""
    found = doctest.testmod(ratios)
    assert found.attempted >= 2 and found.failed == 0


def test_four_digits() -> None:
    """Numbers are printed with four significant digits."""
    assert (significant(123456.0), significant(0.0123456), significant(None)) == (123500.0, 0.01235, None)
