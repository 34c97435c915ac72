"""Opening a log to read it, in a data directory or on a server, whether an application runs on it or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mainstem.base.codec import NotDecodableError, decode
from mainstem.cli.errors import NotFoundError, UsageError
from mainstem.log import ReadableLog, StoredRecord, open_reader
from mainstem.log.embedded.layout import MANIFEST_NAME, META_NAME

if TYPE_CHECKING:
    from mainstem.log.engines.nats import NatsAddress

_READ_RECORDS = 10_000
_PATIENCE_S = 10.0


def log_directory(data: Path | NatsAddress) -> Path:
    """Return the log's directory within a data directory, or ``data`` itself where it is one.

    Raises:
        NotFoundError: There is no log in either.
        UsageError: The log is on a server, and the command is about files.
    """
    if not isinstance(data, Path):
        raise UsageError(
            f"the log at {data} has no files here, which this is about. Nothing was changed.",
            try_command=f"mainstem log stats {data}",
        )
    for candidate in (data / "log", data):
        # A log that lost its meta file is a damaged one: whoever opens it says so.
        if any((candidate / name).exists() for name in (META_NAME, MANIFEST_NAME)):
            return candidate
    raise NotFoundError(
        f"there is no log in {data}: expected {data / 'log' / 'log.meta'}. Nothing was changed.",
        try_command="mainstem dev app.py, which makes one, or --data DIR for another place",
    )


@asynccontextmanager
async def open_data(data: Path | NatsAddress) -> AsyncIterator[ReadableLog]:
    """Open the log of a data directory, or one on a server, for reading only; works beside a running application."""
    if isinstance(data, Path):
        reader = await open_reader(log_directory(data))
        try:
            yield reader
        finally:
            await reader.close()
        return
    from mainstem.log.engines.nats import NatsSettings, open_nats_log  # noqa: PLC0415 (an extra: where it is named)

    log = await open_nats_log(data, settings=NatsSettings(patience_s=_PATIENCE_S), create=False)
    try:
        yield log
    finally:
        await log.close()


async def read_all(log: ReadableLog, pattern: str, after: int = 0) -> AsyncGenerator[StoredRecord]:
    """Yield the durable records of matching streams behind ``after``, up to the end as it was at the call."""
    end = log.end_position
    while after < end:
        records = await log.read(pattern, after, _READ_RECORDS)
        if not records:
            return
        for record in records:
            if record.position > end:
                return
            yield record
        after = records[-1].position


async def last_records_begin(log: ReadableLog, pattern: str, count: int) -> int:
    """Return the position to read after, so that the last ``count`` matching records come, and no more of them.

    Looks at the log's end first and goes back in growing steps, so that a rare stream costs one pass and a busy one
    little.
    """
    end = log.end_position
    if count == 0:
        return end
    window = 4096
    while True:
        after = max(0, end - window)
        async with aclosing(read_all(log, pattern, after)) as records:
            positions = [record.position async for record in records]
        if len(positions) > count:
            return positions[-count - 1]
        if len(positions) == count:
            return positions[0] - 1
        if after == 0:
            return 0
        window *= 8


def readable_value(value: bytes) -> dict[str, object]:
    """Return a record's value for JSON output, under a name that says what it is: ``value``, ``text`` or ``base64``."""
    with suppress(NotDecodableError):  # not JSON, or nothing that this process can take in: text, or bytes
        return {"value": decode(value)}
    with suppress(UnicodeDecodeError):
        return {"text": value.decode()}
    return {"base64": value}
