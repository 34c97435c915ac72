"""Orders: one HTTP call, and everything after it is durable and visible.

    mainstem dev app.py
    curl -d '{"id": "1", "email": "ada@example.org", "cents": 4200}' http://127.0.0.1:8000/orders

The call publishes an event; a workflow charges the customer and ships; a job sends the mail. Kill the process at any
moment: what was done stays done, and what was not goes on when it is started again.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from mainstem import Event, Mainstem, Retry

logger = logging.getLogger(__name__)

ms = Mainstem(os.environ.get("DATA", "data"))


@dataclass
class Order:
    """What a customer wants."""

    id: str
    email: str
    cents: int


@dataclass
class Receipt:
    """What the customer gets for it."""

    order_id: str
    email: str
    charge_id: str


@ms.step(retry=Retry(max_attempts=4))
async def charge(order: Order) -> Receipt:
    """Charge the customer: here a payment provider would be called, with the order's id against double charges."""
    logger.info("charging %d cents for order %s", order.cents, order.id)
    return Receipt(order.id, order.email, f"charge-{order.id}")


@ms.workflow(on="orders.created")
async def fulfil(order: Order) -> Receipt:
    """Everything that follows from an order, in the order in which it happens."""
    receipt = await charge(order)
    await ms.sleep(seconds=1)  # packing takes a while; the sleep survives a restart
    await ms.publish("orders.fulfilled", receipt, about=[f"order:{order.id}"])
    return receipt


@ms.job(queue="mail", concurrency=2, rate_limit="100/m")
def send_mail(to: str, body: str) -> None:
    """Send a mail; a plain function runs in a thread."""
    logger.info("mail to %s: %s", to, body)


@ms.subscribe("orders.fulfilled", group="mail")
async def tell_customer(event: Event[Receipt]) -> None:
    """Enqueue one mail for each fulfilled order."""
    receipt = event.value
    body = f"Your order {receipt.order_id} is on its way."
    await send_mail.enqueue(receipt.email, body, id=f"mail-{receipt.order_id}")


async def take_order(request: Request) -> JSONResponse:
    """Take an order: answer once it is durable, not once it is done."""
    try:
        order = msgspec.json.decode(await request.body(), type=Order)
    except msgspec.MsgspecError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    position = await ms.publish("orders.created", order, key=order.id, about=[f"order:{order.id}"])
    return JSONResponse({"order": order.id, "position": position}, status_code=202)


api = Starlette(
    routes=[Route("/orders", take_order, methods=["POST"]), Mount("/mainstem", ms.asgi)],
    middleware=[Middleware(ms.traced)],  # whatever follows from a request is in the request's trace
    lifespan=ms.lifespan,
)
