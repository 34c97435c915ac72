"""A log that leads or follows: whichever of the processes on a directory owns it, all of them use it alike."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from mainstem.base.names import check_pattern, check_stream
from mainstem.host import forks
from mainstem.host.clock import Clock, SystemClock
from mainstem.host.disk import Disk, SystemDisk
from mainstem.log.contract import Append, LogStats, Record, StoredRecord, Traits
from mainstem.log.embedded import EmbeddedLog, LogSettings, open_log
from mainstem.log.embedded.calls import encode_call
from mainstem.log.embedded.layout import epochs, socket_name
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogDeposedError,
    LogInUseError,
    LogUnreachableError,
)
from mainstem.log.shared.client import LeaderConnection, LeaderLostError, LeaderSilentError, connect
from mainstem.log.shared.server import LogServer

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_RETRY_MIN_S = 0.005
_RETRY_MAX_S = 0.05

Role = EmbeddedLog | LeaderConnection
"""What a process is to the log: its owner, or attached to it."""


class SharedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How processes on one directory watch over each other.

    Attributes:
        patience_s: A leader that says nothing for so long is deposed.
        ping_s: How often those who are attached ask whether it is there, and how often it looks whether it still leads.
        open_timeout_s: How long opening waits for an owner that neither answers nor lets go: one that shares with
            nobody, or one that is still reading a long log.
        takeover_timeout_s: How long a call waits for a new leader before it fails, unwritten.
    """

    patience_s: float = 2.0
    ping_s: float = 0.5
    open_timeout_s: float = 30.0
    takeover_timeout_s: float = 30.0


class SharedLog:
    """The log of one directory, led by one process and shared by all; see :class:`mainstem.log.contract.Log`.

    Made by :func:`open_shared_log`. When the leader dies, or does not answer, one of the others takes over; appends
    that were not sent yet, reads and tails go on with the new leader, and so do appends with a ``dedup_id``, which are
    safe to repeat. Other appends that were under way raise ``AppendOutcomeUnknownError``.
    """

    def __init__(
        self, directory: Path, disk: Disk, clock: Clock, settings: LogSettings, shared: SharedSettings
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._clock = clock
        self._settings = settings
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._pid, self._forks = os.getpid(), forks.count
        self._role: Role | None = None
        self._server: LogServer | None = None
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._keeper: asyncio.Task[None] | None = None
        self._failure = ""
        self._silent_epoch = 0
        self._roused = asyncio.Event()
        self._closing = False
        self._seen_position = 0
        self._random = random.Random()

    def __repr__(self) -> str:
        state = "closed" if self._closing else "leading" if self.is_leading else "attached" if self._role else "between"
        return f"<SharedLog {self._directory}, {state}>"

    # ---- roles

    @property
    def is_leading(self) -> bool:
        """Whether this process owns the log."""
        return isinstance(self._role, EmbeddedLog)

    async def leading(self) -> None:
        """Return once this process owns the log.

        Raises:
            LogClosedError: It was closed first.
        """
        while not self.is_leading:
            self._check_open()
            await asyncio.shield(self._changed)

    async def following(self) -> None:
        """Return once this process does not own the log, or the log is closed."""
        while self.is_leading and not self._closing and not self._failure:
            await asyncio.shield(self._changed)

    async def start(self) -> None:
        """Lead or follow; called by :func:`open_shared_log`.

        Raises:
            LogInUseError: A process owns the log that shares it with nobody.
            LogError: The log cannot be opened.
        """
        self._take(await self._find_role(self._shared.open_timeout_s))
        self._keeper = self._loop.create_task(self._keep(), name=f"log {self._directory}")

    async def _keep(self) -> None:
        """Watch over the role, and find another one when it is lost."""
        try:
            while True:
                role = self._role
                if isinstance(role, EmbeddedLog):
                    await self._until_deposed(role)
                    await self._step_down(role)
                elif role is not None:
                    await self._until_lost(role)
                self._take(await self._find_role(None))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is: nobody may wait for a role that never comes)
            _logger.critical("log %s: this process cannot go on: %r", self._directory, error)
            self._failure = str(error)
            self._take(None)

    def _take(self, role: Role | None) -> None:
        self._role = role
        changed, self._changed = self._changed, self._loop.create_future()
        changed.set_result(None)

    async def _until_deposed(self, engine: EmbeddedLog) -> None:
        """Look now and then, and when a call has found out."""
        while engine.failure is None:
            try:
                async with asyncio.timeout(self._shared.ping_s):
                    await self._roused.wait()
            except TimeoutError:
                engine.look_for_successor()
            self._roused.clear()

    async def _step_down(self, engine: EmbeddedLog) -> None:
        """Let go of what this process no longer leads. Where its disk failed, others may have more luck."""
        self._seen_position = max(self._seen_position, engine.end_position)
        if not isinstance(engine.failure, LogDeposedError):
            self._failure = f"an earlier write failed ({engine.failure})"
        self._take(None)
        if self._server is not None:
            await self._server.stop()
            self._server = None
        await engine.close()
        if self._failure:
            raise LogClosedError(self._failure)
        _logger.warning("log %s: another process took the log over; this one follows it", self._directory)

    async def _until_lost(self, connection: LeaderConnection) -> None:
        """Return when the connection has ended, or the leader has said nothing for too long."""
        unanswered = 0
        rounds_max = max(1, round(self._shared.patience_s / self._shared.ping_s))
        while not connection.lost.done():
            asked_s = self._loop.time()
            connection.ping()
            await asyncio.wait([connection.lost], timeout=self._shared.ping_s)
            # Counted in rounds, not in seconds: a process that was stopped itself must not blame the leader for it.
            unanswered = 0 if connection.heard_s >= asked_s else unanswered + 1
            if unanswered >= rounds_max and not connection.lost.done():
                _logger.warning("log %s: its leader says nothing for %g s", self._directory, self._shared.patience_s)
                self._silent_epoch = connection.epoch
                connection.drop()
                break
        self._seen_position = max(self._seen_position, connection.end_position)
        self._take(None)

    async def _find_role(self, timeout_s: float | None) -> Role:
        """Lead, or follow whoever does.

        Raises:
            LogInUseError: Neither came about in time.
        """
        until_s = None if timeout_s is None else self._loop.time() + timeout_s
        delay_s = _RETRY_MIN_S
        depose, self._silent_epoch = self._silent_epoch, 0
        while True:
            try:
                return await self._lead(depose=depose)
            except LogInUseError as error:
                in_use = error
            depose = 0
            try:
                return await self._follow()
            except LeaderSilentError as silent:
                depose = silent.epoch
                continue
            except (OSError, LeaderLostError):
                if until_s is not None and self._loop.time() > until_s:
                    raise in_use from None
            await asyncio.sleep(delay_s * (0.5 + self._random.random()))  # it is just coming, or going
            delay_s = min(delay_s * 2, _RETRY_MAX_S)

    async def _lead(self, *, depose: int) -> EmbeddedLog:
        engine = await open_log(
            self._directory,
            disk=self._disk,
            clock=self._clock,
            settings=self._settings,
            depose=depose,
            claim_first=self._keeper is not None,
        )
        server = LogServer(engine, self._directory / socket_name(engine.epoch))
        try:
            await server.start()
        except BaseException:
            await engine.close()
            raise
        self._server = server
        return engine

    async def _follow(self) -> LeaderConnection:
        latest = epochs(self._disk.list_directory(self._directory))[-1:]
        if not latest:
            raise FileNotFoundError(self._directory)
        return await connect(self._directory, latest[0], self._shared.patience_s)

    async def _current(self) -> Role:
        """Return the role, waiting for one.

        Raises:
            LogClosedError: The log is closed, or cannot go on in this process; nothing was written.
            LogUnreachableError: No leader was found in time; nothing was written.
        """
        if self._role is None:
            until_s = self._loop.time() + self._shared.takeover_timeout_s
            while self._role is None:
                self._check_open()
                left_s = until_s - self._loop.time()
                if left_s <= 0:
                    raise LogUnreachableError(
                        f"{self._directory}: the log has had no leader for {self._shared.takeover_timeout_s:g} s. "
                        "Nothing was written.",
                        try_command=f"mainstem log verify {self._directory}",
                    )
                await asyncio.wait([self._changed], timeout=left_s)
        self._check_open()
        return self._role

    async def _after(self, role: Role) -> None:
        """Return once this role, which has just failed, is no longer the one."""
        while self._role is role:
            self._check_open()
            if isinstance(role, EmbeddedLog):
                if role.failure is None:
                    raise LogClosedError(f"{self._directory}: the log is closed. Nothing was written.")
                self._roused.set()
            await asyncio.wait([self._changed])

    def _check_open(self) -> None:
        if self._closing:
            raise LogClosedError(f"{self._directory}: the log is closed. Nothing was written.")
        if self._failure:
            raise LogClosedError(
                f"{self._directory}: {self._failure}, which ended the log's life in this process. Nothing was written. "
                "Acknowledged records are safe; start the process again.",
                try_command=f"mainstem log verify {self._directory}",
            )
        if self._forks != forks.count:
            raise LogClosedError(
                f"{self._directory}: the log was opened by process {self._pid} and cannot be used in a forked child. "
                "Nothing was written."
            )

    # ---- the contract

    @property
    def traits(self) -> Traits:
        """What this engine can do."""
        return msgspec.structs.replace(self._settings.traits, single_owner=False)

    @property
    def end_position(self) -> int:
        """The last durable position that this process has seen."""
        if self._role is not None:
            self._seen_position = max(self._seen_position, self._role.end_position)
        return self._seen_position

    async def append(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int:
        """Append to one stream; see :meth:`mainstem.log.contract.Log.append`."""
        return (await self._append(((stream, records, expected_position),), dedup_id, use_reserve))[-1]

    def append_now(
        self,
        stream: str,
        records: Sequence[Record],
        *,
        expected_position: int | None = None,
        dedup_id: str | None = None,
        use_reserve: bool = False,
    ) -> int | None:
        """Append without waiting, where that can be; see :meth:`mainstem.log.contract.Log.append_now`."""
        self._check_open()
        role = self._role
        if not isinstance(role, EmbeddedLog) or role.failure is not None:
            return None
        return role.append_now(
            stream, records, expected_position=expected_position, dedup_id=dedup_id, use_reserve=use_reserve
        )

    async def append_many(
        self, appends: Sequence[Append], *, dedup_id: str | None = None, use_reserve: bool = False
    ) -> tuple[int, ...]:
        """Append to several streams at once; see :meth:`mainstem.log.contract.Log.append_many`."""
        return await self._append(
            [(item.stream, item.records, item.expected_position) for item in appends], dedup_id, use_reserve
        )

    async def _append(
        self, appends: Sequence[tuple[str, Sequence[Record], int | None]], dedup_id: str | None, use_reserve: bool
    ) -> tuple[int, ...]:
        self._check_open()
        call = encode_call(appends, dedup_id, use_reserve, self._settings)
        while True:
            role = await self._current()
            try:
                if isinstance(role, EmbeddedLog):
                    return await role.commit(call)
                return await role.append(call)
            except LeaderLostError as lost:
                if lost.sent and not dedup_id:
                    raise AppendOutcomeUnknownError(
                        f"{self._directory}: the leader of the log was lost before it answered; the records may be "
                        "there or not. Retry with the same dedup_id."
                    ) from None
            except AppendOutcomeUnknownError:
                # The one who led was deposed. A call that has a name can be told apart by whoever leads now.
                if not dedup_id or (isinstance(role, EmbeddedLog) and not isinstance(role.failure, LogDeposedError)):
                    raise
            except LogClosedError:
                if isinstance(role, EmbeddedLog) and not isinstance(role.failure, LogDeposedError):
                    raise
            await self._after(role)

    async def _ask(self, question: Callable[[Role], Awaitable[T]]) -> T:
        """Answer a question by whoever leads; by the next one, where that one is lost."""
        while True:
            role = await self._current()
            try:
                return await question(role)
            except LeaderLostError:
                await self._after(role)
            except LogClosedError:
                await self._after(role)

    async def read(self, pattern: str, after: int = 0, limit: int = 1000) -> Sequence[StoredRecord]:
        """Return durable records; see :meth:`mainstem.log.contract.ReadableLog.read`."""
        return await self._ask(lambda role: role.read(pattern, after, limit))

    async def last(self, stream: str) -> StoredRecord | None:
        """Return the last durable record of one stream, or ``None``."""
        check_stream(stream)
        return await self._ask(lambda role: role.last(stream))

    async def stats(self) -> LogStats:
        """Return the log's size in records, streams and bytes."""
        return await self._ask(lambda role: role.stats())

    async def tail(self, pattern: str, after: int = 0) -> AsyncGenerator[Sequence[StoredRecord], None]:
        """Yield batches of durable records for ever; see :meth:`mainstem.log.contract.ReadableLog.tail`.

        Raises:
            LogClosedError: The log was closed, or cannot go on in this process.
        """
        check_pattern(pattern)
        while True:
            role = await self._current()
            batches = role.tail(pattern, after)
            try:
                async for records in batches:
                    after = records[-1].position
                    yield records
            except (LeaderLostError, LogClosedError):
                await self._after(role)
            finally:
                await batches.aclose()

    async def close(self) -> None:
        """Finish what is in flight, and let go: of the log, or of its leader. Idempotent."""
        if self._closing or self._forks != forks.count:
            return
        self._closing = True
        await asyncio.shield(self._loop.create_task(self._finish()))

    async def _finish(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        role = self._role
        if isinstance(role, EmbeddedLog):
            self._seen_position = max(self._seen_position, role.end_position)
            await role.close()
        elif role is not None:
            self._seen_position = max(self._seen_position, role.end_position)
            role.drop()
        if self._server is not None:
            await self._server.stop()
        self._take(None)


async def open_shared_log(
    directory: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    clock: Clock | None = None,
    settings: LogSettings | None = None,
    shared: SharedSettings | None = None,
) -> SharedLog:
    """Open the log in a directory together with other processes: the first leads, the others attach to it.

    Raises:
        LogInUseError: A process owns the log that shares it with nobody.
        LogCorruptError: Acknowledged bytes are damaged or missing; nothing was changed.
        LogFormatError: Another version of mainstem wrote it, or leads it; nothing was changed.
        OSError: The disk failed.
    """
    log = SharedLog(
        Path(directory),
        disk or SystemDisk(),
        clock or SystemClock(),
        settings or LogSettings(),
        shared or SharedSettings(),
    )
    await log.start()
    return log
