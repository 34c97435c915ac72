"""SQLite as a log: in the loop's thread, or behind one writer thread, a commit an append or for all that wait."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from pathlib import Path

from bench.child import Meter, Task, check_count, keep_doing, linger, report, run

_INSERT = "INSERT INTO log (stream, value) VALUES (?, ?)"

_Waiting = tuple[str, bytes, "asyncio.Future[None]"]


def connect(path: Path) -> sqlite3.Connection:
    """Open a database with the settings of the comparison; commits are written by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    (level,) = connection.execute("PRAGMA synchronous").fetchone()
    if (mode, level) != ("wal", 2):
        raise RuntimeError(f"the database has journal_mode={mode}, synchronous={level}; expected wal, 2")
    connection.execute("CREATE TABLE log (position INTEGER PRIMARY KEY, stream TEXT NOT NULL, value BLOB NOT NULL)")
    return connection


class Writer(threading.Thread):
    """The one thread that writes."""

    def __init__(self, connection: sqlite3.Connection, *, grouped: bool) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self._grouped = grouped
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()

    async def append(self, stream: str, value: bytes) -> None:
        """Add a record; return once it is committed."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((stream, value, done))
        await done

    def stop(self) -> None:
        """Finish what is queued and end."""
        self._queue.put(None)
        self.join()

    def run(self) -> None:
        """Commit what comes until stopped."""
        while (first := self._queue.get()) is not None:
            taken = [first]
            # Only this thread takes, so what qsize() counts is there; stop() comes after the last append was answered.
            if self._grouped:
                taken += [item for _ in range(self._queue.qsize()) if (item := self._queue.get()) is not None]
            if len(taken) == 1:
                self._connection.execute(_INSERT, first[:2])
            else:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(_INSERT, [item[:2] for item in taken])
                self._connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._acknowledge, taken)

    @staticmethod
    def _acknowledge(taken: list[_Waiting]) -> None:
        for _, _, done in taken:
            done.set_result(None)


async def main(task: Task) -> None:
    """Append for the given time and report appends a second."""
    connection = connect(Path(task["directory"]) / "log.sqlite")
    value = os.urandom(task["value_bytes"])
    streams = [f"bench.{index}" for index in range(task["tasks"])]

    async def inline(index: int) -> None:
        connection.execute(_INSERT, (streams[index], value))

    meter = Meter(task)
    if task["mode"] == "inline":
        await keep_doing(inline, task["tasks"], meter)
    else:
        writer = Writer(connection, grouped=task["mode"] == "grouped")
        writer.start()
        await keep_doing(lambda index: writer.append(streams[index], value), task["tasks"], meter)
        writer.stop()
    (found,) = connection.execute("SELECT count(*) FROM log").fetchone()
    check_count(found, meter.total(), "SQLite")
    connection.close()
    report(meter.per_second())
    linger()


if __name__ == "__main__":
    run(main)
