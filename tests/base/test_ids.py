"""Identifiers."""

from __future__ import annotations

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import ID_MAX_CHARS, check_id, new_id
from mainstem.base.names import check_stream


def test_ids_sort_by_time() -> None:
    """Ids made a millisecond apart sort in that order."""
    assert new_id(1_000_000_000_000) < new_id(1_000_001_000_000)


def test_ids_are_distinct_and_safe() -> None:
    """A thousand ids of one moment differ, and each can be a token of a stream's name."""
    ids = {new_id(1_000_000_000_000) for _ in range(1000)}
    assert len(ids) == 1000
    for one in ids:
        assert len(one) == 26
        assert check_id(one) == one
        check_stream(f"$run.{one}")


@pytest.mark.parametrize("value", ["", "a.b", "../x", "-a", "a/b", "a" * (ID_MAX_CHARS + 1), "a b", "é"])
def test_bad_ids_are_refused(value: str) -> None:
    """What could leave a file name, an address or a stream's token is refused."""
    with pytest.raises(InvalidArgumentError, match="order id"):
        check_id(value, "order id")
