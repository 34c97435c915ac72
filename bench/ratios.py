"""From measurements to the printed line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.model import Bench, Better, Contender


@dataclass(frozen=True)
class Measured:
    """A contender's numbers, one a round.

    Attributes:
        contender: Whose they are.
        values: At least one.
        details: What the contender reported beside its number in the last round.
    """

    contender: Contender
    values: Sequence[float]
    details: Mapping[str, Any]

    @property
    def median(self) -> float:
        """The middle one of the numbers."""
        return median(self.values)


def best(values: Sequence[float], better: Better) -> float | None:
    """Return the value that wins; ``None`` of none."""
    if not values:
        return None
    return max(values) if better == "higher" else min(values)


def ratio(ours: float, other: float | None, better: Better) -> float | None:
    """Return how many times better than another's number ours is: above 1 we win, whatever the unit.

    ``None`` where there is nothing to compare with.

    >>> ratio(200.0, 100.0, "higher"), ratio(2.0, 3.0, "lower")
    (2.0, 1.5)
    """
    if other is None:
        return None
    numerator, denominator = (ours, other) if better == "higher" else (other, ours)
    if denominator <= 0:
        raise ValueError(f"a measurement of {denominator} cannot be compared with {numerator}: both must be above 0")
    return numerator / denominator


def winners(measured: Sequence[Measured], role: str, better: Better) -> dict[str, Measured]:
    """Return for each name of a role the variant with the best median, of those that count."""
    found: dict[str, Measured] = {}
    for candidate in measured:
        if candidate.contender.role != role or not candidate.contender.counts:
            continue
        name = candidate.contender.name
        if name not in found or best([found[name].median, candidate.median], better) == candidate.median:
            found[name] = candidate
    return found


def line(bench: Bench, measured: Sequence[Measured], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the JSON object that a bench prints.

    Numbers are medians over the rounds, of the best variant of each name. ``ratio_best_peer`` and ``ratio_limit`` are
    ``None`` where a bench has no peer or no limit.
    """
    ours = winners(measured, "ours", bench.better)
    if len(ours) != 1:
        raise ValueError(f"{bench.name} has {len(ours)} contenders of ours; it needs exactly one name")
    (mine,) = ours.values()
    peers = winners(measured, "peer", bench.better)
    limits = winners(measured, "limit", bench.better)
    best_peer = best([peer.median for peer in peers.values()], bench.better)
    limit = best([entry.median for entry in limits.values()], bench.better)
    return {
        "bench": bench.name,
        "unit": bench.unit,
        "ours": significant(mine.median),
        "peers": {name: significant(entry.median) for name, entry in peers.items()},
        "limit": {name: significant(entry.median) for name, entry in limits.items()},
        "ratio_best_peer": significant(ratio(mine.median, best_peer, bench.better)),
        "ratio_limit": significant(ratio(mine.median, limit, bench.better)),
        "better": bench.better,
        "rounds": rounds,
        "seconds": seconds,
        "spread": {
            entry.contender.label: [significant(min(entry.values)), significant(max(entry.values))]
            for entry in measured
        },
        "variants": {
            entry.contender.label: {
                "value": significant(entry.median),
                "ratio": significant(ratio(mine.median, entry.median, bench.better)),
            }
            for entry in measured
            if entry.contender.variant
        },
        "details": {entry.contender.label: dict(entry.details) for entry in measured if entry.details},
        "settings": dict(bench.settings),
    }


def significant(value: float | None, digits: int = 4) -> float | None:
    """Round to significant digits: more of them would claim a precision that no run has.

    >>> significant(123456.0), significant(0.012345), significant(None)
    (123500.0, 0.01235, None)
    """
    return None if value is None else float(f"{value:.{digits}g}")
