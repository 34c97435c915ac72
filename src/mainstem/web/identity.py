"""What a token and a name of this machine are. Pure, and without the web framework: the command line asks it, too."""

from __future__ import annotations

import ipaddress
from typing import Final

from mainstem.base.errors import InvalidArgumentError

TOKEN_MIN_CHARS: Final = 8
"""Shortest token that is accepted as one."""


def check_token(token: str) -> None:
    """Check that a token is long enough to be one, and that a request can carry it.

    Raises:
        InvalidArgumentError: It is shorter than :data:`TOKEN_MIN_CHARS`, or not :func:`is_sendable`.
    """
    if len(token) < TOKEN_MIN_CHARS:
        raise InvalidArgumentError(f"the token has {len(token)} characters: expected {TOKEN_MIN_CHARS} or more.")
    if not is_sendable(token):
        raise InvalidArgumentError(
            "the token has characters that no header can carry: expected visible ASCII, without spaces at its ends."
        )


def is_sendable(token: str) -> bool:
    """Tell whether ``Authorization: Bearer`` can carry a token: visible ASCII, without spaces at its ends."""
    return token.isascii() and token.isprintable() and token == token.strip()


def host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets; ``""`` if more than a port is behind a bracket."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        return name if not rest or (rest[0] == ":" and rest[1:].isdecimal()) else ""
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_loopback(name: str) -> bool:
    """Tell whether a host name or address is this machine's: ``localhost``, a name below it, 127.0.0.0/8, ``::1``."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost" or name.lower().endswith(".localhost")
