"""The garbage collector rests while an application starts."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mainstem.cli.collector import collector_at_rest


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the collector as it was found."""
    yield
    gc.unfreeze()
    gc.enable()


def test_it_rests_until_it_is_told() -> None:
    """The collector rests until the start is over, and what was made until then is left out of its passes."""
    with collector_at_rest() as end_rest:
        assert not gc.isenabled()
        end_rest()
        frozen = gc.get_freeze_count()
        assert gc.isenabled() and frozen > 0
    assert gc.get_freeze_count() <= frozen  # its end freezes nothing more: what came meanwhile may be garbage one day


def test_it_works_again_after_a_failure() -> None:
    """A start that fails leaves a collector that works."""
    with pytest.raises(ZeroDivisionError), collector_at_rest():
        _ = 1 / 0
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    """Who had turned the collector off finds it as it was."""
    gc.disable()
    with collector_at_rest() as end_rest:
        end_rest()
    assert not gc.isenabled()
