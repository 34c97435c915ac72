"""An application for the player's test: uploads become video.

    python video_app.py DIRECTORY

Prints its port once it answers.
"""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from mainstem import Mainstem, Uploads
from mainstem.services.media import Media

ms = Mainstem(sys.argv[1], services=[Uploads(), Media(preset="ultrafast")])
app = Starlette(routes=[Mount("/deep/prefix", ms.asgi)], lifespan=ms.lifespan)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        print(sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)).run([listener])
