"""The W3C trace context: which request, in the widest sense, the running code works for.

Source: W3C Recommendation "Trace Context" (level 1), section 3.2, ``traceparent``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextvars import ContextVar

import msgspec

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class TraceContext(msgspec.Struct, frozen=True):
    """A trace and the span within it.

    Attributes:
        trace_id: 32 lower-case hexadecimal digits, not all zero.
        span_id: 16 lower-case hexadecimal digits, not all zero.
    """

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The value of a ``traceparent`` header, version 00, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def child(self, *identity: str) -> TraceContext:
        """Return the context of a span below this one; the same ``identity`` gives the same span id, none a random one.

        Derived ids are what keeps a replay from doubling spans.
        """
        return TraceContext(self.trace_id, derived_span_id(self.trace_id, *identity) if identity else random_span_id())


def derived_span_id(*identity: str) -> str:
    """Return the span id that stands for ``identity``: always the same 16 hexadecimal digits."""
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]


def random_span_id() -> str:
    """Return a random span id."""
    return os.urandom(8).hex()


def new_trace() -> TraceContext:
    """Return the context of a new trace."""
    return TraceContext(os.urandom(16).hex(), random_span_id())


def parse_traceparent(header: str | None) -> TraceContext | None:
    """Return the context in a ``traceparent`` header; ``None`` where it is absent or invalid (a new trace begins)."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace_id, span_id, _flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id)


Deriving = Callable[[], TraceContext]
"""Makes a context when somebody asks for it, which most code never does."""

_current: ContextVar[TraceContext | Deriving | None] = ContextVar("mainstem_trace", default=None)


def current_trace() -> TraceContext | None:
    """Return the context that the running code works under, or ``None``."""
    current = _current.get()
    if current is None or isinstance(current, TraceContext):
        return current
    derived = current()
    _current.set(derived)
    return derived


class use_trace:  # noqa: N801 (a verb in a ``with`` statement)
    """Run the body of a ``with`` under a context, or one that is derived on demand; tasks created inside inherit it."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext | Deriving | None) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _current.set(self._context)

    def __exit__(self, *_raised: object) -> None:
        _current.reset(self._token)
