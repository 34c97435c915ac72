"""Identifiers: sortable by time, safe in stream names, file names and addresses."""

from __future__ import annotations

import os
import re
import time

from mainstem.base.errors import InvalidArgumentError

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")

ID_MAX_CHARS = 128
"""Longest id that a caller may choose."""


def new_id(time_ns: int | None = None) -> str:
    """Return a new id of 26 characters: 48 bits of milliseconds and 80 random bits, in Crockford's base 32 (a ULID)."""
    milliseconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000
    number = ((milliseconds & ((1 << 48) - 1)) << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def check_id(value: str, what: str = "id") -> str:
    """Return ``value`` if it can serve as an id: 1 to 128 of ``A-Z a-z 0-9 _ -``, not beginning with a sign.

    Raises:
        InvalidArgumentError: It cannot.
    """
    if not _ID.fullmatch(value):
        raise InvalidArgumentError(
            f"{value!r} is not a valid {what}: expected 1 to {ID_MAX_CHARS} of the characters A-Z a-z 0-9 _ -, "
            "beginning with a letter or digit."
        )
    return value
