"""Names of streams, and patterns over them (the rules of NATS subjects)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from mainstem.base.errors import InvalidArgumentError

STREAM_NAME_MAX_BYTES = 255
"""Longest stream name, in UTF-8 bytes."""

_TOKEN = r"[^\s.*>\x00-\x1f\x7f\ud800-\udfff]+"
_STREAM = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*")
_PATTERN = re.compile(rf"(?:(?:{_TOKEN}|\*)\.)*(?:{_TOKEN}|\*|>)")


@lru_cache(maxsize=4096)
def check_stream(name: str) -> str:
    """Return ``name`` if it is a valid stream name, e.g. ``"orders.created"``.

    A name is 1 to 255 bytes of UTF-8: tokens without white space, control characters, ``*`` or ``>``, joined by dots.
    Names whose first token begins with ``$`` belong to the system.

    Raises:
        InvalidArgumentError: The name breaks one of these rules.
    """
    if len(name.encode("utf-8", "surrogatepass")) > STREAM_NAME_MAX_BYTES or not _STREAM.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is not a stream name: expected 1 to {STREAM_NAME_MAX_BYTES} bytes of dotted tokens without "
            "white space, '*' or '>', such as 'orders.created'."
        )
    return name


def is_system_stream(name: str) -> bool:
    """Tell whether a stream (or a pattern) names streams of mainstem's own, which begin with ``$``."""
    return name.startswith("$")


@lru_cache(maxsize=4096)
def check_pattern(pattern: str) -> str:
    """Return ``pattern`` if it is valid: ``*`` stands for one token, a final ``>`` for one or more.

    Raises:
        InvalidArgumentError: The pattern is malformed.
    """
    if len(pattern.encode("utf-8", "surrogatepass")) > STREAM_NAME_MAX_BYTES or not _PATTERN.fullmatch(pattern):
        raise InvalidArgumentError(
            f"{pattern!r} is not a stream pattern: expected dotted tokens where '*' stands for one token and a final "
            "'>' for the rest, such as 'orders.*' or 'orders.>'."
        )
    return pattern


def is_exact(pattern: str) -> bool:
    """Tell whether a valid pattern names exactly one stream."""
    return "*" not in pattern and ">" not in pattern


@lru_cache(maxsize=1024)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a predicate that tells whether a stream's name is matched by ``pattern``.

    ``>`` alone matches every stream, the system's included.

    Raises:
        InvalidArgumentError: The pattern is malformed.
    """
    check_pattern(pattern)
    if pattern == ">":
        return lambda _name: True
    if is_exact(pattern):
        return lambda name: name == pattern
    tokens = pattern.split(".")
    if tokens[-1] == ">" and "*" not in tokens:
        prefix = pattern[:-1]
        return lambda name: name.startswith(prefix)
    expression = r"\.".join(
        ".+" if token == ">" else r"[^.]+" if token == "*" else re.escape(token) for token in tokens
    )
    compiled = re.compile(expression)
    return lambda name: compiled.fullmatch(name) is not None
