"""The types that a user's tools infer from the public names: checked by mypy and by basedpyright, never run."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_type

from mainstem import Event, Mainstem, Retry, RunHandle

ms = Mainstem("data")


@dataclass
class Order:
    """What is bought."""

    id: str


@dataclass
class Receipt:
    """What comes of it."""

    order: Order


@ms.step
async def plain(order: Order) -> Receipt:
    """A step whose decorator stands without options."""
    return Receipt(order)


@ms.step(retry=Retry(max_attempts=4), timeout_s=3)
async def charge(order: Order, *, twice: bool = False) -> Receipt:
    """A step with options."""
    del twice
    return Receipt(order)


@ms.step(executor="process")
def compute(number: int) -> float:
    """A plain function as a step: it is awaited all the same."""
    return float(number)


@ms.workflow(on="orders.created")
async def fulfil(order: Order) -> Receipt:
    """A workflow that an event starts."""
    receipt = await charge(order)
    assert_type(receipt, Receipt)
    assert_type(await plain(order), Receipt)
    assert_type(await compute(3), float)
    both = await ms.gather(charge(order), compute(1))
    assert_type(both, tuple[Receipt, float])
    assert_type(await ms.map(charge, [order]), list[Receipt])
    assert_type(await ms.publish("orders.fulfilled", receipt, about=["order:1"]), int)
    return receipt


@ms.job(queue="mail", concurrency=8, rate_limit="100/m")
def send_mail(to: str, body: str) -> None:
    """A job."""
    del to, body


@ms.subscribe("orders.>", group="audit")
async def audit(event: Event[Order]) -> None:
    """A subscriber, which stays the function that it was."""
    assert_type(event.value, Order)
    assert_type(event.position, int)


async def use(order: Order, event: Event[Order]) -> None:
    """What callers see."""
    awaitable: Coroutine[Any, Any, Receipt] = charge(order, twice=True)
    assert_type(await awaitable, Receipt)
    handle = await fulfil.start(order, id="order-1")
    assert_type(handle, RunHandle[Receipt])
    assert_type(await handle.result(timeout_s=30), Receipt)
    await audit(event)
    await send_mail.enqueue("a@b.c", "hello", delay_s=60)


async def misuse(order: Order) -> None:
    """Each of these lines is an error; that it is one is checked, since an unneeded ignore is an error too.

    What ``start`` and ``enqueue`` are given is checked when they are called: their own ``id`` and ``about`` cannot be
    put beside a function's parameters in the type system of Python.
    """
    await charge("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await charge(order, thrice=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
