"""The index of fault families is complete, and names tests that exist."""

from __future__ import annotations

from tests.house.findings import sources
from tests.house.project_rules import is_a_test
from tests.log.families.index import FAMILIES


def test_every_family_is_shown() -> None:
    """There are eighteen families; each names tests, or says what part of the log it waits for."""
    assert list(FAMILIES) == list(range(1, 19))
    for number, family in FAMILIES.items():
        assert family.title
        assert family.tests or family.absent, f"family {number} is shown by nothing"


def test_every_named_test_exists() -> None:
    """Each test that the index names is there."""
    tests = {source.path: source for source in sources("tests")}
    for family in FAMILIES.values():
        for name in family.tests:
            path, _, function = name.partition("::")
            assert is_a_test(path, function, tests), f"{name} is not there"
