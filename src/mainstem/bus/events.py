"""Events: the typed view of a record; and what publishing one means while a workflow runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import msgspec

from mainstem.base.codec import encode
from mainstem.base.errors import InvalidArgumentError
from mainstem.base.names import check_stream, is_system_stream
from mainstem.log.contract import ABOUT, NO_HEADERS, TRACEPARENT, Record, StoredRecord
from mainstem.trace.context import current_trace, new_trace

T = TypeVar("T")

ABOUT_MAX_ENTITIES = 32
"""Most entities that one record names."""

KEY_MAX_BYTES = 1024
"""Longest key of an event, in UTF-8 bytes."""

HEADERS_MAX_BYTES = 8 << 10
"""Most bytes of an event's own headers, names and values together, in UTF-8."""


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A record as a handler sees it.

    Attributes:
        value: The payload, decoded by the handler's annotation: ``Event[Order]`` gives an ``Order``.
        stream: Name of its stream.
        position: Its place in the log; the event's identity.
        time_ns: Wall-clock time of its commit.
        key: Events of one stream and key are handled in order; empty for none.
        headers: Text fields.
        about: The entities that it is about, such as ``("order:1234",)``.
        attempt: How often the handler was given this event, this time included, from 1.
    """

    value: T
    stream: str
    position: int
    time_ns: int
    key: str = ""
    headers: Mapping[str, str] = NO_HEADERS
    about: tuple[str, ...] = ()
    attempt: int = 1


class Outgoing(msgspec.Struct, frozen=True):
    """An event on its way out: already checked and encoded.

    Attributes:
        durable: Whether the publisher wants to wait until it is durable, and its position.
    """

    stream: str
    value: bytes
    key: bytes
    headers: Mapping[str, str]
    about: tuple[str, ...]
    durable: bool

    def record(self, traceparent: str, about: tuple[str, ...] = ()) -> Record:
        """Return the record that is written, under a trace context and with further entities."""
        headers = dict(self.headers)
        if traceparent:
            headers.setdefault(TRACEPARENT, traceparent)
        entities = tuple(dict.fromkeys((*self.about, *about)))
        if entities:
            headers[ABOUT] = " ".join(entities)
        return Record(self.value, self.key, headers or NO_HEADERS)


PublishHook = Callable[[Outgoing], "Coroutine[Any, Any, int] | None"]
"""Takes an event over, or answers ``None``: then it is appended at once."""

publish_hook: ContextVar[PublishHook | None] = ContextVar("mainstem_publish_hook", default=None)
"""Set in the context of a workflow, so that its events go with its own records; the bus knows nothing else of
workflows.
"""


def check_about(about: Iterable[str]) -> tuple[str, ...]:
    """Return entities as a tuple, without repetition.

    Raises:
        InvalidArgumentError: One is not ``kind:id`` without white space, or there are more than 32.
    """
    entities = tuple(dict.fromkeys((about,) if isinstance(about, str) else about))
    for entity in entities:
        kind, colon, identity = entity.partition(":")
        if (
            not (kind and colon and identity)
            or len(entity) > 255
            or any(c.isspace() or not c.isprintable() for c in entity)
        ):
            raise InvalidArgumentError(
                f"about {entity!r}: expected a kind, a colon and an id without white space, such as 'order:1234', "
                "of at most 255 characters."
            )
    if len(entities) > ABOUT_MAX_ENTITIES:
        raise InvalidArgumentError(f"about names {len(entities)} entities; at most {ABOUT_MAX_ENTITIES} are kept.")
    return entities


def check_key(key: str) -> bytes:
    """Return an event's key as it is recorded.

    Raises:
        InvalidArgumentError: It is no text that UTF-8 can carry, or longer than 1,024 bytes.
    """
    try:
        data = key.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise InvalidArgumentError(f"key={key!r:.200}: expected text. Nothing was published.") from error
    if len(data) > KEY_MAX_BYTES:
        raise InvalidArgumentError(
            f"a key of {len(data)} bytes, {key!r:.100}…: expected at most {KEY_MAX_BYTES}. Nothing was published. Use "
            "an id, or a hash of the text."
        )
    return data


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return an event's headers as they are recorded.

    Raises:
        InvalidArgumentError: A name or a value is no text that UTF-8 can carry, or they are over 8 KiB together.
    """
    size_bytes = 0
    try:
        checked = dict(headers)
        for name, value in checked.items():
            size_bytes += len(name.encode()) + len(value.encode())
    except (AttributeError, TypeError, ValueError) as error:  # the last: UnicodeEncodeError, dict() of what is no pairs
        raise InvalidArgumentError(
            f"headers={headers!r:.200}: expected text for each name and value. Nothing was published."
        ) from error
    if size_bytes > HEADERS_MAX_BYTES:
        raise InvalidArgumentError(
            f"headers of {size_bytes} bytes: expected at most {HEADERS_MAX_BYTES}. Nothing was published. What is "
            "long belongs into the value."
        )
    return checked


def about_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the entities in a record's headers."""
    return tuple(headers[ABOUT].split()) if ABOUT in headers else ()


def outgoing(
    stream: str,
    value: object,
    *,
    key: str = "",
    about: Iterable[str] = (),
    headers: Mapping[str, str] = NO_HEADERS,
    durable: bool = False,
) -> Outgoing:
    """Check and encode an event.

    Raises:
        InvalidArgumentError: The stream's name is invalid or the system's, the key is no text or longer than 1 KiB, a
            header is no text or all are over 8 KiB, or ``about`` is malformed.
        NotJsonError: The value cannot be written as JSON.
    """
    check_stream(stream)
    if is_system_stream(stream):
        raise InvalidArgumentError(
            f"{stream!r}: streams that begin with '$' are the system's own. Nothing was published."
        )
    return Outgoing(stream, encode(value), check_key(key), check_headers(headers), check_about(about), durable)


def current_traceparent() -> str:
    """Return the running code's trace context as a header; where there is none, a new trace begins with the event."""
    return (current_trace() or new_trace()).traceparent


def event_of(record: StoredRecord, value: T, attempt: int) -> Event[T]:
    """Return the event of a record whose value was decoded."""
    return Event(
        value=value,
        stream=record.stream,
        position=record.position,
        time_ns=record.time_ns,
        key=record.key.decode("utf-8", "replace"),
        headers=record.headers,
        about=about_of(record.headers),
        attempt=attempt,
    )
