"""A forked child is told from its parent."""

from __future__ import annotations

import os

from mainstem.host import forks


def test_a_child_counts_one_more() -> None:
    """In a forked child the number has changed; in the parent it has not."""
    before = forks.count
    pid = os.fork()
    if pid == 0:
        os._exit(0 if forks.count == before + 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert forks.count == before
