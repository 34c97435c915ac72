"""What a pool and its worker processes say to each other: frames of a length (4 bytes, big endian) and JSON. Never
pickle.
"""

from __future__ import annotations

import msgspec

from mainstem.flow.errors import ValueTooLargeError
from mainstem.flow.journal import ErrorInfo, LogLine

FRAME_MAX_BYTES = 64 << 20
"""Longest frame."""

LENGTH_BYTES = 4
"""Size of the length in front of a frame."""


class Hello(msgspec.Struct, frozen=True):
    """First frame to a worker: how to find the user's modules.

    Attributes:
        sys_path: The parent's import path.
        main_path: File of the parent's ``__main__`` module, or an empty string.
        parent_pid: The parent; the worker ends with it.
        log_level: Level of the parent's root logger: what it would not log is not sent.
    """

    sys_path: list[str]
    main_path: str
    parent_pid: int
    log_level: int


class Request(msgspec.Struct, frozen=True):
    """One attempt at a step.

    Attributes:
        module: Module of the step's function; ``__main__`` means the file in :class:`Hello`.
        qualname: Its name there.
        arguments: JSON of the arguments.
        traceparent: The attempt's trace context.
    """

    module: str
    qualname: str
    arguments: msgspec.Raw
    run_id: str
    function: str
    key: str
    attempt: int
    traceparent: str


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """The worker has the request; it is said before work begins, so a worker that ended without it began nothing."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, tag="answer"):
    """How the attempt ended: a result, or an error."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorInfo | None = None
    retryable: bool = False


class Line(msgspec.Struct, frozen=True, tag="line"):
    """A line of logging, while the attempt runs."""

    line: LogLine


def frame(message: msgspec.Struct) -> bytes:
    """Return a message as a frame.

    Raises:
        ValueTooLargeError: It is longer than 64 MiB.
    """
    body = msgspec.json.encode(message)
    if len(body) > FRAME_MAX_BYTES:
        raise ValueTooLargeError(
            f"a step's arguments or result, {len(body)} bytes as a message to or from a worker process: at most "
            f"{FRAME_MAX_BYTES} bytes are passed on. It was not kept. Store it as a blob and pass its id on."
        )
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def body_bytes(prefix: bytes) -> int:
    """Return the length that a frame's first four bytes announce.

    Raises:
        ValueError: It is longer than 64 MiB.
    """
    size = int.from_bytes(prefix, "big")
    if size > FRAME_MAX_BYTES:
        raise ValueError(f"a frame of {size} bytes is over the limit of {FRAME_MAX_BYTES} bytes")
    return size
