"""Being told that the process is asked to end, before whoever handles it does.

A web server that is asked to end waits for its open answers. Live streams never end by themselves, so they must hear of
it first; the server's own handler is called right after.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)
"""The signals by which a process is asked to end."""


def before_ending(callback: Callable[[], None], signals: Sequence[signal.Signals] = ENDING) -> Callable[[], None]:
    """Have ``callback`` called when a signal comes, before the handler that is there now; return what undoes it.

    Nothing is done outside the main thread, which alone gets signals, and for a signal that has no handler of Python's:
    then the process ends at once, as before.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    placed: list[tuple[signal.Signals, Any, Any]] = []
    for number in signals:
        earlier = signal.getsignal(number)
        if callable(earlier):
            handler = _chained(callback, earlier)
            signal.signal(number, handler)
            placed.append((number, handler, earlier))

    def undo() -> None:
        for number, handler, earlier in placed:
            if signal.getsignal(number) is handler:  # else somebody has replaced it meanwhile
                signal.signal(number, earlier)

    return undo


def _chained(callback: Callable[[], None], earlier: Callable[[int, FrameType | None], Any]) -> Any:
    def handler(number: int, frame: FrameType | None) -> Any:
        callback()
        return earlier(number, frame)

    return handler
