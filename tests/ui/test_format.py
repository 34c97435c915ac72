"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import pytest

from mainstem.ui.format import (
    age_element,
    format_age,
    format_bytes,
    format_count,
    format_duration,
    format_many,
    format_rate,
    iso_time,
    shorten,
    time_element,
)

MOMENT_NS = 1_795_530_377_123_000_000


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.00 KiB"),
        (1_310_720, "1.25 MiB"),
        (50 << 20, "50.0 MiB"),
        (1 << 62, "4096 PiB"),
    ],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    """Sizes have three significant digits and a binary unit."""
    assert format_bytes(size_bytes) == shown


@pytest.mark.parametrize(
    ("duration_ns", "shown"),
    [
        (850_000, "850 µs"),
        (12_400_000, "12.4 ms"),
        (999_600_000, "1.00 s"),
        (3_200_000_000, "3.20 s"),
        (247_000_000_000, "4 min 07 s"),
        (7_500_000_000_000, "2 h 05 min"),
        (273_600_000_000_000, "3 d 4 h"),
        (-5_000_000, "−5.00 ms"),
    ],
)
def test_durations(duration_ns: int, shown: str) -> None:
    """Durations have the units that matter."""
    assert format_duration(duration_ns) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (4_560_000, "4.56M"), (7e9, "7.00G")]
)
def test_counts(count: float, shown: str) -> None:
    """Counts below ten thousand are in full."""
    assert format_count(count) == shown


@pytest.mark.parametrize(("rate", "shown"), [(0, "0/s"), (0.1, "6/min"), (12, "12/s"), (1234.4, "1,234/s")])
def test_rates(rate: float, shown: str) -> None:
    """A rate below one a second is told by the minute."""
    assert format_rate(rate) == shown


@pytest.mark.parametrize(("age_s", "shown"), [(0, "now"), (12, "12 s ago"), (-200, "in 3 min"), (90_000, "1 d ago")])
def test_ages(age_s: int, shown: str) -> None:
    """Ages are rough, in both directions."""
    assert format_age(age_s * 1_000_000_000) == shown


def test_times_are_machine_readable() -> None:
    """A time element carries ISO 8601 in UTC, which the browser shows in the reader's own zone."""
    assert iso_time(MOMENT_NS) == "2026-11-24T14:26:17.123Z"
    assert 'datetime="2026-11-24T14:26:17.123Z"' in time_element(MOMENT_NS)
    assert ">14:26:17.123<" in time_element(MOMENT_NS, with_date=False)
    assert ">1 min ago<" in age_element(MOMENT_NS, MOMENT_NS + 61_000_000_000)


def test_no_time_is_a_dash() -> None:
    """Time 0 means none."""
    assert ">–<" in time_element(0)
    assert ">–<" in age_element(0, MOMENT_NS)


def test_times_beyond_the_calendar_do_not_break_a_page() -> None:
    """A stranger's number that is no year of ours is shown as such."""
    assert iso_time(1 << 90) == "beyond the calendar"


def test_shortening() -> None:
    """Text that fits is left alone; other text ends in an ellipsis, within the limit."""
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"


def test_a_count_with_its_noun() -> None:
    """One is singular, everything else plural."""
    assert [format_many(count, "record") for count in (0, 1, 1234)] == ["0 records", "1 record", "1,234 records"]
