"""The bus: events are published to streams, and groups of consumers handle them at their own pace."""

from __future__ import annotations

import asyncio
import inspect
import random
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.hints import resolve_hints
from mainstem.base.names import check_pattern, check_stream
from mainstem.bus.cursors import DEAD_PREFIX, GROUP_PREFIX
from mainstem.bus.errors import BusNotStartedError, DuplicateGroupError, SubscribedTooLateError
from mainstem.bus.events import Event, Outgoing, current_traceparent, outgoing, publish_hook
from mainstem.bus.group import ConsumerGroup, GroupStatus, Subscription
from mainstem.bus.retry import Retry
from mainstem.host.clock import Clock
from mainstem.log.contract import NO_HEADERS, Log

H = TypeVar("H", bound=Callable[[Event[Any]], Awaitable[None] | None])

_CONCURRENCY_MAX = 1000
_GRACE_S = 5.0


class Bus:
    """Publish and subscribe over one log.

    Subscriptions are declared before :meth:`start`. :meth:`attach` makes publishing possible; :meth:`start` begins to
    consume.
    """

    def __init__(self, clock: Clock, *, random_source: random.Random | None = None) -> None:
        self._clock = clock
        self._random = random_source or random.Random()
        self._log: Log | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._groups: list[ConsumerGroup] = []
        self._started = False

    def __repr__(self) -> str:
        return f"<Bus {'running' if self._started else 'stopped'}, {len(self._subscriptions)} groups>"

    # ---- publishing

    def publish(
        self,
        stream: str,
        value: object,
        *,
        key: str = "",
        about: Iterable[str] = (),
        headers: Mapping[str, str] = NO_HEADERS,
        durable: bool = False,
    ) -> Coroutine[Any, Any, int]:
        """Publish an event; await it.

        Outside a workflow it returns the event's position once the event is durable. Inside a workflow the event is
        written with the run's next record, at the latest when the run next waits, exactly once however often the run is
        replayed; the await returns 0 at once, or with ``durable=True`` the position once it is durable.

        Args:
            stream: Dotted name, e.g. ``"orders.created"``.
            value: Anything that :mod:`mainstem.base.codec` writes as JSON.
            key: Events of one stream and key are handled in order; up to 1,024 bytes of UTF-8.
            about: Entities that the event is about, such as ``"order:1234"``.
            headers: Further text fields.
            durable: Inside a workflow: wait until it is durable.

        Raises:
            InvalidArgumentError: A name is invalid, or the value cannot be written as JSON.
            BusNotStartedError: The application is not running.
            LogError: It could not be written.
        """
        event = outgoing(stream, value, key=key, about=about, headers=headers, durable=durable)
        hook = publish_hook.get()
        taken_over = hook(event) if hook is not None else None
        return taken_over if taken_over is not None else self._append(event)

    async def _append(self, event: Outgoing) -> int:
        if self._log is None:
            raise BusNotStartedError(f"publish({event.stream!r})")
        return await self._log.append(event.stream, [event.record(current_traceparent())])

    # ---- subscribing

    def subscribe(
        self,
        pattern: str,
        *,
        group: str | None = None,
        retry: Retry | None = None,
        concurrency: int = 16,
        start: Literal["new", "beginning"] = "new",
    ) -> Callable[[H], H]:
        """Declare a handler of events: a consumer group with a durable cursor.

        Each event is handled at least once. Events of one stream and key are handled in order, one at a time; a failing
        one is retried and holds back its own key only; after the last attempt it goes to ``$dead.<group>``. A plain
        function runs in a thread.

        Args:
            pattern: Streams, such as ``"orders.*"`` or ``"orders.>"``. One that begins with a wildcard does not match
                the system's streams.
            group: The cursor's name; by default the function's module and name.
            retry: When a failed event is tried again; by default 5 attempts.
            concurrency: Most events in the handler at once, 1 to 1,000.
            start: Where a group begins that is not known yet: behind the log's end, or at its beginning.

        Raises:
            DuplicateGroupError: The group exists.
            SubscribedTooLateError: The application runs already.
        """

        def declare(handler: H) -> H:
            name = group or f"{handler.__module__}.{handler.__qualname__}".replace("<locals>", "locals").replace(
                "<", ""
            ).replace(">", "")
            self._declare(
                Subscription(
                    pattern=pattern,
                    group=name,
                    handler=handler,
                    annotation=None,
                    retry=retry or Retry(),
                    concurrency=concurrency,
                    start=start,
                )
            )
            return handler

        return declare

    def consume(
        self,
        pattern: str,
        *,
        group: str,
        handler: Callable[[Event[msgspec.Raw]], Awaitable[None]],
        retry: Retry | None = None,
        concurrency: int = 16,
        start: Literal["new", "beginning"] = "new",
    ) -> None:
        """Declare a group of mainstem's own, whose events' values are not decoded (``Event[msgspec.Raw]``)."""
        self._declare(
            Subscription(
                pattern=pattern,
                group=group,
                handler=handler,
                annotation=msgspec.Raw,
                retry=retry or Retry(),
                concurrency=concurrency,
                start=start,
                own=True,
            )
        )

    def _declare(self, subscription: Subscription) -> None:
        check_pattern(subscription.pattern)
        check_stream(GROUP_PREFIX + subscription.group)
        check_stream(DEAD_PREFIX + subscription.group)
        if not 1 <= subscription.concurrency <= _CONCURRENCY_MAX:
            raise InvalidArgumentError(f"concurrency={subscription.concurrency}: expected 1 to {_CONCURRENCY_MAX}.")
        if subscription.start not in ("new", "beginning"):
            raise InvalidArgumentError(f"start={subscription.start!r}: expected 'new' or 'beginning'.")
        if self._started:
            raise SubscribedTooLateError(
                f"group {subscription.group!r} was declared while the application runs. Nothing was changed. Declare "
                "subscriptions when the module is imported."
            )
        if subscription.group in self._subscriptions:
            raise DuplicateGroupError(
                f"group {subscription.group!r} has a handler already. Nothing was changed. Give each handler a group "
                "of its own: @ms.subscribe(pattern, group='another-name')."
            )
        self._subscriptions[subscription.group] = subscription

    # ---- life

    def attach(self, log: Log) -> None:
        """Make publishing possible, without consuming yet."""
        self._log = log

    async def start(self, log: Log) -> None:
        """Begin to consume; groups that are new are made durable before this returns."""
        self.attach(log)
        self._groups = [
            ConsumerGroup(log, self._clock, _resolved(one), self._random) for one in self._subscriptions.values()
        ]
        self._started = True
        await asyncio.gather(*(group.start() for group in self._groups))

    async def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Stop consuming: running handlers get ``grace_s`` seconds, then are cancelled; cursors are saved. Idempotent.

        Publishing stays possible until the log is closed.
        """
        self._started = False
        groups, self._groups = self._groups, []
        await asyncio.gather(*(group.stop(grace_s) for group in groups))

    def groups(self) -> list[GroupStatus]:
        """Return how each group is doing."""
        return [group.status() for group in self._groups]


def _resolved(subscription: Subscription) -> Subscription:
    """Return the subscription with the type of its events' values, now that all names of its module are defined."""
    if subscription.own:
        return subscription
    return msgspec.structs.replace(subscription, annotation=_value_annotation(subscription.handler))


def _value_annotation(handler: Callable[..., Any]) -> Any:
    """Return T of a handler's first parameter, ``Event[T]``; ``Any`` where it says nothing."""
    parameters = list(inspect.signature(handler).parameters.values())
    if not parameters:
        raise InvalidArgumentError(
            f"{handler!r}: a handler takes one event: async def handler(event: Event[Order]) -> None."
        )
    annotation = resolve_hints(handler).get(parameters[0].name, Event)
    if annotation is Event or annotation is Any:
        return Any
    if typing.get_origin(annotation) is not Event:
        name = getattr(annotation, "__name__", annotation)
        raise InvalidArgumentError(
            f"{handler.__qualname__}({parameters[0].name}: {name}): a handler takes an event. Write Event[{name}]."
        )
    return typing.get_args(annotation)[0]
