"""Opening: connect, make the JetStream stream where there is none, and refuse one that does not keep the contract."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec

from mainstem.log.engines.nats import wire
from mainstem.log.engines.nats.address import NatsAddress, parse_address
from mainstem.log.engines.nats.connection import NatsConnection, NotSentError
from mainstem.log.engines.nats.engine import NatsLog, NatsSettings
from mainstem.log.engines.nats.reading import STREAM_NOT_FOUND, StreamInfo, StreamReader
from mainstem.log.errors import LogFormatError, LogNotFoundError, NotWrittenError, UnsupportedByEngineError

_logger = logging.getLogger(__name__)

OLDEST_VERSION = (2, 12)
"""The first version of the server with atomic batches."""

_FORMAT = "1"
_FORMAT_NAME, _ID_NAME = "mainstem.format", "mainstem.id"
_NS = 1_000_000_000
_ANOTHER_CONFIGURATION = 10058

_REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "retention": ("limits",),
    "storage": ("file",),
    "discard": ("new",),
    "max_msgs": (-1, 0),
    "max_age": (0,),
    "max_msgs_per_subject": (-1, 0),
    "allow_direct": (True,),
    "allow_atomic": (True,),
    "no_ack": (None, False),
    "sealed": (None, False),
    "allow_rollup_hdrs": (None, False),
    "allow_msg_ttl": (None, False),
    "persist_mode": (None, "", "default"),
    "mirror": (None,),
    "sources": (None,),
    "subject_transform": (None,),
}
"""What a stream must be so that no acknowledged record goes by itself, and appends are what the contract says.
``max_bytes`` may be set: a full log refuses.
"""


def configuration_of(address: NatsAddress, settings: NatsSettings, log_id: str) -> dict[str, Any]:
    """Return the configuration of a new log's stream."""
    return {
        "name": address.name,
        "subjects": [address.subjects + ">"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": settings.replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msgs_per_subject": -1,
        "allow_direct": True,
        "allow_atomic": True,
        "duplicate_window": int(settings.dedup_window_s * _NS),
        "metadata": {_FORMAT_NAME: _FORMAT, _ID_NAME: log_id},
    }


def check_configuration(address: NatsAddress, settings: NatsSettings, config: Mapping[str, Any]) -> None:
    """Refuse a stream that is none of mainstem's, or would not keep the contract.

    Raises:
        LogFormatError: It is one; nothing was changed.
    """
    found = config.get("metadata", {}).get(_FORMAT_NAME)
    if found != _FORMAT:
        what = f"is of format {found}, this version knows {_FORMAT}" if found else "was not made by mainstem"
        raise LogFormatError(f"{address}: the JetStream stream {address.name!r} {what}. Nothing was changed.")
    wrong = [
        f"{name} is {config.get(name)!r}, expected {expected[-1]!r}"
        for name, expected in _REQUIRED.items()
        if config.get(name) not in expected
    ]
    if config.get("subjects") != [address.subjects + ">"]:
        wrong.append(f"subjects are {config.get('subjects')}, expected [{address.subjects + '>'!r}]")
    if config.get("duplicate_window", 0) <= settings.patience_s * _NS:
        wrong.append(f"duplicate_window is {config.get('duplicate_window', 0) / _NS:g} s, not over patience_s")
    if wrong:
        raise LogFormatError(
            f"{address}: the JetStream stream {address.name!r} would not keep what the log promises: "
            f"{'; '.join(wrong)}. Nothing was changed.",
            try_command=f"nats stream info {address.name}",
        )


async def open_nats_log(
    address: str | NatsAddress, *, settings: NatsSettings | None = None, create: bool = True
) -> NatsLog:
    """Open the log on a NATS server, making its JetStream stream where there is none.

    Args:
        address: ``nats://[user:password@]host[:port][,host…]/name[?sync=always]``; ``tls://`` where the connection must
            be encrypted. The name is that of the stream, ``mainstem`` by default.
        settings: How the server is used.
        create: Whether to make the stream where there is none.

    Raises:
        InvalidArgumentError: The address is malformed.
        LogUnreachableError: No server answered within ``patience_s``.
        LogNotFoundError: There is no such stream, and none was to be made.
        LogFormatError: The stream is of another make, or configured so that records would be lost; nothing was changed.
        UnsupportedByEngineError: The server is older than 2.12, or has no JetStream.
        NotWrittenError: The stream could not be made.
    """
    settings = settings or NatsSettings()
    parsed = parse_address(address) if isinstance(address, str) else address
    connection = await NatsConnection.open(parsed, within_s=settings.patience_s)
    try:
        if connection.version < OLDEST_VERSION:
            raise UnsupportedByEngineError(
                f"{parsed}: the server is NATS {'.'.join(map(str, connection.version))}; a log needs 2.12 or later, "
                "which has atomic batches. Nothing was changed."
            )
        reader = StreamReader(
            connection,
            parsed.name,
            parsed.subjects,
            answer_s=settings.answer_s,
            patience_s=settings.patience_s,
        )
        info = await _info_or_new(parsed, settings, connection, reader, create=create)
        check_configuration(parsed, settings, info.config)
    except BaseException:
        await connection.close()
        raise
    reader.replicated = info.config.get("num_replicas", 1) > 1
    if create and not parsed.synced:  # whoever only reads is told nothing of it
        _logger.warning(
            "%s: whether the server syncs each record before it acknowledges it cannot be seen from here. Without "
            "'sync_interval: always' in its configuration a power cut can take the last two minutes. Add ?sync=always "
            "to the address once it is set.",
            parsed,
        )
    return NatsLog(
        parsed,
        settings,
        connection,
        reader,
        log_id=info.config["metadata"][_ID_NAME],
        end_position=info.state.last_seq,
        dedup_window_s=info.config["duplicate_window"] / _NS,
    )


async def _info_or_new(
    address: NatsAddress, settings: NatsSettings, connection: NatsConnection, reader: StreamReader, *, create: bool
) -> StreamInfo:
    info = await reader.info()
    if info.error is None:
        return info
    if info.error.err_code != STREAM_NOT_FOUND:
        raise UnsupportedByEngineError(
            f"{address}: the server refused: {info.error.description} (error {info.error.err_code}). A log needs "
            "JetStream. Nothing was changed."
        )
    if not create:
        raise LogNotFoundError(f"{address}: there is no log of this name on the server. Nothing was changed.")
    request = msgspec.json.encode(configuration_of(address, settings, uuid4().hex))

    async def make() -> StreamInfo:
        subject = f"$JS.API.STREAM.CREATE.{address.name}"
        message = await connection.ask(subject, request, timeout_s=settings.answer_s)
        made = msgspec.json.decode(message.data, type=StreamInfo)
        if made.error is not None and wire.judge(made.error) == "passing":
            raise NotSentError(made.error.description)
        return made

    made = await reader.persist("making the stream", make)
    if made.error is not None and made.error.err_code != _ANOTHER_CONFIGURATION:
        raise NotWrittenError(
            f"{address}: the stream could not be made: {made.error.description} (error {made.error.err_code})."
        )
    # Someone else may have made it at this moment, under another id: what the server has counts.
    return await reader.info()
