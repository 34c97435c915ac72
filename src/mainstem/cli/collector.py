"""The garbage collector while an application starts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[Callable[[], None]]:
    """Let the garbage collector rest while an application is loaded and started; yield what ends that.

    A start makes modules, classes and functions, all of which stay. The collector would look at them again and again
    as they become more, three hundredths of the start, and find nothing. Afterwards it leaves them out for good
    (:func:`gc.freeze`), so that none of its full passes, while requests wait, goes over them again.
    """
    is_resting = gc.isenabled()
    gc.disable()

    def end_rest() -> None:
        nonlocal is_resting
        if is_resting:
            is_resting = False
            gc.freeze()
            gc.enable()

    try:
        yield end_rest
    finally:
        end_rest()
