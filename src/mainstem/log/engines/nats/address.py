"""Where a log on NATS is: ``nats://[user:password@]host[:port][,host…]/name``. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import msgspec

from mainstem.base.errors import InvalidArgumentError

DEFAULT_NAME = "mainstem"
"""The log's name where the address has none."""

_SCHEMES = ("nats", "tls")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")


class NatsAddress(msgspec.Struct, frozen=True):
    """A log's address, taken apart. Its text is without password or token.

    Attributes:
        scheme: ``nats``, or ``tls`` where the connection must be encrypted.
        user: User and password (or a token), as they stand in the address; empty for none.
        hosts: The servers, each with its port where one is given.
        name: The log's name: that of its JetStream stream, and a token of its subjects.
        synced: Whether the operator vouches for ``sync_interval: always`` (``?sync=always``).
    """

    scheme: str
    user: str
    hosts: tuple[str, ...]
    name: str
    synced: bool

    @property
    def servers(self) -> list[str]:
        """What the client connects to, one address a server."""
        user = f"{self.user}@" if self.user else ""
        return [f"{self.scheme}://{user}{host}" for host in self.hosts]

    @property
    def subjects(self) -> str:
        """What all subjects of the log begin with, the last dot included."""
        return f"mainstem.{self.name}."

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(self.hosts)}/{self.name}"


def is_nats(address: str) -> bool:
    """Tell whether a text is the address of a log on NATS."""
    return address.partition("://")[0] in _SCHEMES and "://" in address


def parse_address(address: str) -> NatsAddress:
    """Take an address apart.

    Raises:
        InvalidArgumentError: It is malformed. The message does not repeat it: it may hold a password.
    """
    parts = urlsplit(address)
    user, _, hosts = parts.netloc.rpartition("@")
    names = tuple(hosts.split(","))
    name = parts.path.strip("/") or DEFAULT_NAME
    if parts.scheme not in _SCHEMES or not all(map(_is_host, names)) or parts.fragment:
        raise _refuse("expected nats://host:port/name, or several hosts separated by commas")
    if not _NAME.fullmatch(name):
        raise _refuse(f"the log's name is {name!r}; expected 1 to 64 letters, digits, '-' or '_'")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synced = options.pop("sync", "") == "always"
    if options or (parts.query and not synced):
        raise _refuse("'?sync=always' is the one option that there is")
    return NatsAddress(parts.scheme, user, names, name, synced)


def _is_host(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and int(match[1] or 1) in range(1, 65_536)


def _refuse(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the address of the log on NATS: {what}. Nothing was opened.")
