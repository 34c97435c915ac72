"""One connection to NATS: requests with one answer or many, and what becomes of them when it is lost."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from mainstem.base.errors import MissingExtraError
from mainstem.log.engines.nats import wire
from mainstem.log.engines.nats.address import NatsAddress
from mainstem.log.errors import LogClosedError, LogUnreachableError

try:
    import nats.errors
    from nats.aio.client import Client
except ImportError as error:
    raise MissingExtraError("nats", "a log on NATS") from error

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_logger = logging.getLogger(__name__)

_RECONNECT_PAUSE_S = 0.1
_CONNECT_TIMEOUT_S = 2
_PING_S = 5
_PINGS_UNANSWERED = 2


class NotSentError(Exception):
    """Nothing of the request left this process, or nobody was there to take it."""


class NoAnswerError(Exception):
    """The request was sent, and its answer did not come: the connection was lost, or the time was up."""


class Inbox:
    """Where the answers to one request arrive, in order."""

    __slots__ = ("_arrived", "_messages", "_reason", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._messages: deque[Msg] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._reason = ""

    def deliver(self, message: Msg) -> None:
        """Take a message in."""
        self._messages.append(message)
        self._wake()

    def lose(self, reason: str) -> None:
        """Nothing more will come."""
        self._reason = reason
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def take(self) -> Msg | None:
        """Return the next message if it is there already."""
        return self._messages.popleft() if self._messages else None

    async def next(self, timeout_s: float) -> Msg:
        """Wait for the next message.

        Raises:
            NoAnswerError: None came in time, or the connection was lost.
        """
        if not self._messages:
            if self._reason:
                raise NoAnswerError(self._reason)
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived
            except TimeoutError:
                raise NoAnswerError(f"no answer within {timeout_s:g} s") from None
            finally:
                self._arrived = None
            if not self._messages:
                raise NoAnswerError(self._reason)
        return self._messages.popleft()


class NatsConnection:
    """A connection that comes back by itself, as long as the log is open.

    What was asked and not answered when it is lost fails at once: whoever asked knows whether to ask again.
    """

    def __init__(self, address: NatsAddress) -> None:
        self._address = address
        self._client = Client()
        self._inboxes: dict[str, Inbox] = {}
        self._numbers = itertools.count()
        self._prefix = ""
        self._up = asyncio.Event()
        self._closed = False
        self._last_error = "no server answered"

    def __repr__(self) -> str:
        state = "closed" if self._closed else "up" if self._up.is_set() else "down"
        return f"<NatsConnection {self._address}, {state}, {len(self._inboxes)} questions open>"

    @classmethod
    async def open(cls, address: NatsAddress, *, within_s: float) -> Self:
        """Connect.

        Raises:
            LogUnreachableError: That took longer than ``within_s`` seconds.
        """
        self = cls(address)
        try:
            async with asyncio.timeout(within_s):
                await self._client.connect(
                    servers=address.servers,
                    name="mainstem",
                    error_cb=self._note_error,
                    disconnected_cb=self._lost,
                    reconnected_cb=self._back,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_PAUSE_S,  # type: ignore[arg-type]  # it is passed to sleep()
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    ping_interval=_PING_S,
                    max_outstanding_pings=_PINGS_UNANSWERED,
                    pending_size=0,  # while there is no connection nothing is kept to be sent later
                    skip_subject_validation=True,  # names were checked, more strictly
                )
                self._prefix = self._client.new_inbox() + "."
                # Unbounded: what may come is bounded by what was asked for.
                await self._client.subscribe(
                    self._prefix + "*", cb=self._deliver, pending_msgs_limit=0, pending_bytes_limit=0
                )
        except TimeoutError:
            await self._client.close()
            raise LogUnreachableError(
                f"{address}: no connection within {within_s:g} s: {self._last_error}. Nothing was written.",
                try_command=f"nats server check connection -s {address.scheme}://{address.hosts[0]}",
            ) from None
        except BaseException:
            await self._client.close()
            raise
        self._up.set()
        return self

    @property
    def message_max_bytes(self) -> int:
        """The server's ``max_payload``."""
        return int(self._client.max_payload)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        version = self._client.connected_server_version
        return version.major, version.minor

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""
        return self._up.is_set()

    @property
    def last_error(self) -> str:
        """What went wrong last."""
        return self._last_error

    # ---- its life

    async def _note_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        _logger.debug("%s: %s", self._address, self._last_error)

    async def _lost(self) -> None:
        self._up.clear()
        if self._closed:
            return
        _logger.warning("%s: the connection was lost (%s); connecting again", self._address, self._last_error)
        self._lose_all(f"the connection was lost: {self._last_error}")

    async def _back(self) -> None:
        _logger.warning("%s: connected again", self._address)
        self._up.set()

    def _lose_all(self, reason: str) -> None:
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            inbox.lose(reason)

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait for the connection; tell whether it is there.

        Raises:
            LogClosedError: The log was closed.
        """
        if not self._closed and not self._up.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._up.wait()
            except TimeoutError:
                return False
        if self._closed:
            raise LogClosedError(f"{self._address}: the log is closed. Nothing was written.")
        return True

    async def close(self) -> None:
        """End the connection; whoever still waits gets no answer. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._lose_all("the log was closed")
        self._up.set()  # whoever waits for a connection is to see that there will be none
        await self._client.close()

    # ---- asking

    async def _deliver(self, message: Msg) -> None:
        inbox = self._inboxes.get(message.subject[len(self._prefix) :])
        if inbox is not None:
            inbox.deliver(message)

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[Inbox]:
        """Open an inbox for the time of a question."""
        token = str(next(self._numbers))
        inbox = self._inboxes[token] = Inbox(self._prefix + token)
        try:
            yield inbox
        finally:
            self._inboxes.pop(token, None)

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator[Inbox]:
        """Open an inbox for a consumer's messages, which arrive under their own subjects.

        Raises:
            NotSentError: There is no connection.
        """
        token = str(next(self._numbers))
        inbox = self._inboxes[token] = Inbox(f"{self._prefix}{token}.consumer")

        async def deliver(message: Msg) -> None:
            inbox.deliver(message)

        try:
            if self._closed or not self._up.is_set():
                raise NotSentError("there is no connection")
            subscription = await self._client.subscribe(
                inbox.subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
            )
            try:
                yield inbox
            finally:
                if not self._client.is_closed:
                    await subscription.unsubscribe()
        finally:
            self._inboxes.pop(token, None)

    async def send(
        self, subject: str, value: bytes = b"", *, reply: str = "", fields: wire.Fields | None = None
    ) -> None:
        """Send one message.

        Raises:
            NotSentError: There is no connection.
        """
        if self._closed or not self._up.is_set():
            raise NotSentError("there is no connection")
        try:
            await self._client.publish(subject, value, reply=reply, headers=fields)
        except (nats.errors.Error, OSError) as error:
            raise NotSentError(str(error) or type(error).__name__) from error

    async def ask(
        self, subject: str, value: bytes = b"", *, timeout_s: float, fields: wire.Fields | None = None
    ) -> Msg:
        """Send one message and return the answer.

        Raises:
            NotSentError: There is no connection, or nobody takes messages of this subject.
            NoAnswerError: It was sent, and no answer came.
        """
        async with self.inbox() as inbox:
            await self.send(subject, value, reply=inbox.subject, fields=fields)
            message = await inbox.next(timeout_s)
        if status_of(message) == "503":
            raise NotSentError("the server has no JetStream stream of this name that works at the moment")
        return message


def status_of(message: Msg) -> str:
    """Return the status in a message's first line, such as ``"204"``; empty where it is none of the server's own."""
    return (message.headers or {}).get(wire.STATUS, "")
