"""The log: the one place where anything is kept. Everything else is a projection of it.

``contract.py`` says what every engine offers; ``frame.py`` is the format on disk; ``embedded/`` is the engine of one
process and one directory; ``engines/`` are those over servers that exist.

    log = await open_log("data/log")
    position = await log.append("orders.created", [Record(b'{"id": 1}')])
"""

from mainstem.log.contract import (
    ABOUT,
    NO_HEADERS,
    TRACEPARENT,
    Append,
    Log,
    LogStats,
    ReadableLog,
    Record,
    StoredRecord,
    Traits,
)
from mainstem.log.embedded import EmbeddedLog, EmbeddedReader, LogSettings, open_log, open_reader, owner_pid
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogCorruptError,
    LogDeposedError,
    LogError,
    LogFormatError,
    LogFullError,
    LogInUseError,
    LogNotFoundError,
    LogUnreachableError,
    NotWrittenError,
    PositionConflictError,
    UnsupportedByEngineError,
)

__all__ = [
    "ABOUT",
    "NO_HEADERS",
    "TRACEPARENT",
    "Append",
    "AppendOutcomeUnknownError",
    "EmbeddedLog",
    "EmbeddedReader",
    "Log",
    "LogClosedError",
    "LogCorruptError",
    "LogDeposedError",
    "LogError",
    "LogFormatError",
    "LogFullError",
    "LogInUseError",
    "LogNotFoundError",
    "LogSettings",
    "LogStats",
    "LogUnreachableError",
    "NotWrittenError",
    "PositionConflictError",
    "ReadableLog",
    "Record",
    "StoredRecord",
    "Traits",
    "UnsupportedByEngineError",
    "open_log",
    "open_reader",
    "owner_pid",
]
