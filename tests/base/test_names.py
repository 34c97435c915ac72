"""Stream names and patterns."""

from __future__ import annotations

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import STREAM_NAME_MAX_BYTES, check_pattern, check_stream, is_exact, is_system_stream, matcher


@pytest.mark.parametrize(
    "name", ["a", "orders.created", "$run.01h", "a-b_c.d:e", "ключ.x", "a" * STREAM_NAME_MAX_BYTES]
)
def test_good_names_are_returned(name: str) -> None:
    """A valid name comes back as it is, and is a pattern for itself."""
    assert check_stream(name) == name
    assert check_pattern(name) == name
    assert is_exact(name)
    assert matcher(name)(name)


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a\0b", "a.*", "a.>", "я" * 128, "\ud800"])
def test_bad_names_are_refused(name: str) -> None:
    """Empty tokens, white space, control characters, wildcards and over 255 bytes are refused, with the name told."""
    with pytest.raises(InvalidArgumentError) as caught:
        check_stream(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("a.*", ["a.b"], ["a", "a.b.c", "ab.c"]),
        ("a.>", ["a.b", "a.b.c"], ["a", "ab.c"]),
        ("*.b", ["a.b", "c.b"], ["b", "a.b.c"]),
        ("*.b.>", ["a.b.c", "a.b.c.d"], ["a.b", "a.c.b"]),
        (">", ["a", "a.b", "$run.1"], []),
        ("*", ["a", "$x"], ["a.b"]),
        ("$run.>", ["$run.1"], ["$runs.1", "$run"]),
        ("a+.*", ["a+.b"], ["aa.b"]),
    ],
)
def test_patterns_match_as_in_nats(pattern: str, matched: list[str], others: list[str]) -> None:
    """``*`` is one token, a final ``>`` one or more; nothing else is special."""
    assert not is_exact(pattern)
    assert all(map(matcher(pattern), matched))
    assert not any(map(matcher(pattern), others))


@pytest.mark.parametrize("pattern", ["", "a.>.b", ">a", "a*", "a. b", ">.a"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    """Wildcards stand alone in their token, and ``>`` stands last."""
    with pytest.raises(InvalidArgumentError):
        matcher(pattern)


def test_system_streams_begin_with_a_dollar() -> None:
    """``$…`` belongs to the system."""
    assert is_system_stream("$run.1")
    assert not is_system_stream("run.$1")
