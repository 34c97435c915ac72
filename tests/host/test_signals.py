"""Being told of the end before the handler that was there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from mainstem.host.signals import ENDING, before_ending


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What was called, with a handler of somebody else's in place."""
    calls: list[str] = []
    earlier = signal.signal(signal.SIGTERM, lambda _number, _frame: calls.append("theirs"))
    yield calls
    signal.signal(signal.SIGTERM, earlier)


def test_both_are_called_in_order(heard: list[str]) -> None:
    """The callback comes first, then the handler that was there; after undoing only that."""
    assert signal.SIGTERM in ENDING
    undo = before_ending(lambda: heard.append("ours"))
    signal.raise_signal(signal.SIGTERM)
    undo()
    signal.raise_signal(signal.SIGTERM)
    assert heard == ["ours", "theirs", "theirs"]


def test_a_handler_that_came_later_is_left(heard: list[str]) -> None:
    """Undoing does not remove what somebody else has put in place meanwhile."""
    undo = before_ending(lambda: heard.append("ours"))
    signal.signal(signal.SIGTERM, lambda _number, _frame: heard.append("later"))
    undo()
    signal.raise_signal(signal.SIGTERM)
    assert heard == ["later"]


def test_a_signal_without_a_handler_is_left() -> None:
    """A process that a signal ends at once is ended at once."""
    earlier = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        before_ending(lambda: None)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_other_threads_have_no_signals(heard: list[str]) -> None:
    """In another thread nothing is done."""
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: before_ending(lambda: heard.append("ours")))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
