"""Numbers, sizes and times, as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from mainstem.ui.html import Html, el

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_bytes(size_bytes: int) -> str:
    """Return a size with three significant digits: ``1.25 MiB``."""
    value = float(size_bytes)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{size_bytes} B" if unit == "B" else f"{value:.{_decimals(value)}f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def _decimals(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def format_duration(duration_ns: int) -> str:
    """Return a duration in units that matter: ``850 µs``, ``12.4 ms``, ``3.20 s``, ``4 min 07 s``, ``2 h 05 min``."""
    if duration_ns < 0:
        return "−" + format_duration(-duration_ns)
    if duration_ns < 999_500:
        return f"{duration_ns / 1e3:.0f} µs"
    if duration_ns < 999_500_000:
        value = duration_ns / 1e6
        return f"{value:.{_decimals(value)}f} ms"
    seconds = duration_ns / 1e9
    if seconds < 59.95:
        return f"{seconds:.{_decimals(seconds)}f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def format_count(count: float) -> str:
    """Return a count: in full below 10,000, then ``12.3k``, ``4.56M``."""
    if count < 10_000:
        return f"{count:,.0f}" if count == math.floor(count) else f"{count:.1f}"
    for limit, unit in ((1e6, "k"), (1e9, "M"), (math.inf, "G")):
        if count < limit * 0.9995:
            value = count / (limit / 1000 if limit != math.inf else 1e9)
            return f"{value:.{_decimals(value)}f}{unit}"
    raise AssertionError("the last unit takes everything")


def format_many(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 record``, ``1,234 records``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_rate(per_second: float) -> str:
    """Return a rate with the unit in which it is at least one: ``12.0/s``, ``4/min``, ``0/s``."""
    if per_second <= 0:
        return "0/s"
    if per_second < 1:
        return f"{format_count(round(per_second * 60, 1))}/min"
    return f"{format_count(round(per_second, 1) if per_second < 100 else round(per_second))}/s"


def iso_time(time_ns: int) -> str:
    """Return a wall-clock time as ISO 8601 in UTC, with milliseconds; times beyond year 9999 are shown as such."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return "beyond the calendar"  # a stranger's number; the page is still to be shown
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000_000 % 1000:03}Z"


def time_element(time_ns: int, *, with_date: bool = True) -> Html:
    """Return ``<time>`` in UTC, which the browser shows in the reader's own time zone; a dash for 0."""
    if time_ns <= 0:
        return el("span", "–", class_="dim")
    iso = iso_time(time_ns)
    shown = f"{iso[:10]} {iso[11:19]}" if with_date else iso[11:23]
    return el("time", shown, datetime=iso, title=iso, data_show="date" if with_date else "clock")


def age_element(time_ns: int, now_ns: int) -> Html:
    """Return ``<time>`` that reads as an age (``3 min ago``) and keeps up while the page is open; a dash for 0."""
    if time_ns <= 0:
        return el("span", "–", class_="dim")
    iso = iso_time(time_ns)
    return el("time", format_age(now_ns - time_ns), datetime=iso, title=iso, data_show="age")


def format_age(age_ns: int) -> str:
    """Return how long ago something was, roughly: ``now``, ``12 s ago``, ``in 3 min``."""
    seconds = round(abs(age_ns) / 1e9)
    if seconds < 1:
        return "now"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            amount = f"{seconds // size} {unit}"
            return f"{amount} ago" if age_ns > 0 else f"in {amount}"
    raise AssertionError("a second or more has a unit")


def shorten(value: str, max_chars: int) -> str:
    """Return text of at most ``max_chars``, ending in an ellipsis where it was cut."""
    return value if len(value) <= max_chars else value[: max_chars - 1] + "…"
