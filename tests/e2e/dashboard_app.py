"""An application for the browser tests: a shop whose runs complete, fail, sleep and wait for a word.

    python dashboard_app.py DIRECTORY HOST PORT

Prints its port once it answers. ``GET /do/<what>`` makes things happen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from mainstem import Event, Mainstem, Retry, Uploads

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
_logger = logging.getLogger("shop")

ms = Mainstem(sys.argv[1], services=[Uploads()])
gates: dict[str, asyncio.Event] = {}


@ms.step
async def charge(order: int) -> str:
    _logger.info("charging order %d <now>", order)
    return f"receipt {order}"


@ms.step
async def pack(item: int) -> int:
    await asyncio.sleep(0.01)  # sleeps: this is the work, which takes a moment to be drawn
    return item


@ms.step(retry=Retry(max_attempts=2, base_s=0.01))
async def ship(order: int) -> str:
    raise ValueError(f"order {order} has no <postcode>")


@ms.step
async def wait_at(gate: str) -> str:
    await gates.setdefault(gate, asyncio.Event()).wait()
    return "opened"


@ms.workflow(on="orders.created")
async def fulfil(order: int) -> str:
    receipt = await charge(order)
    await ms.map(pack, list(range(6)), max_concurrency=2)
    await ms.publish("orders.fulfilled", receipt, about=[f"order:{order}"])
    return receipt


@ms.workflow()
async def deliver(order: int) -> str:
    return await ship(order)


@ms.workflow()
async def guarded(gate: str) -> str:
    return await wait_at(gate)


@ms.workflow()
async def rest(hours: int) -> None:
    await ms.sleep(hours=hours)


@ms.job(queue="mail")
async def send_mail(to: str) -> None:
    _logger.info("mail to %s", to)


@ms.subscribe("orders.>", group="audit")
async def audit(event: Event[object]) -> None:
    _logger.info("seen %s", event.stream)


async def _order(number: int) -> None:
    await ms.publish("orders.created", number, key=f"k{number}", about=[f"order:{number}"])


async def _many(count: int) -> None:
    for number in range(count):
        await _order(number)
        await send_mail.enqueue(f"user{number}@example.org")


async def _deliver(number: int) -> None:
    await deliver.start(number, id=f"deliver-{number}", about=[f"order:{number}"])


async def _guarded(number: int) -> None:
    await guarded.start(f"gate-{number}", id=f"guarded-{number}")


async def _open(number: int) -> None:
    gates.setdefault(f"gate-{number}", asyncio.Event()).set()


async def _rest(number: int) -> None:
    await rest.start(number, id=f"rest-{number}")


_DEEDS: dict[str, Callable[[int], Awaitable[None]]] = {
    "order": _order,
    "many": _many,
    "deliver": _deliver,
    "guarded": _guarded,
    "open": _open,
    "rest": _rest,
}


async def do(request: Request) -> PlainTextResponse:
    """Make something happen."""
    await _DEEDS[request.path_params["what"]](int(request.query_params.get("n", "1")))
    return PlainTextResponse("done")


app = Starlette(
    routes=[Route("/do/{what}", do), Mount("/some/prefix", ms.asgi)],
    lifespan=ms.lifespan,
)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        print(sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[2], int(sys.argv[3])))
    listener.listen()
    _Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(os.environ.get("PATIENCE_S", "1")))
    ).run([listener])
