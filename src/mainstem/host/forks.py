"""Telling a forked child from the process that it was: what it inherited is not its own."""

from __future__ import annotations

import os

count = 0
"""How often this process's line of ancestors was forked since the module was loaded: remembered, and compared later, it
tells whether a handle was opened by this very process. Looking at it costs a tenth of a system call.
"""


def _count_one_more() -> None:
    global count  # noqa: PLW0603 (one number for the process, changed by the child alone)
    count += 1


os.register_at_fork(after_in_child=_count_one_more)
