"""Video from a bad connection: resumable uploads in, adaptive streams out, everything in one log.

    mainstem dev examples/video/app.py

Upload with any tus client to /mainstem/uploads/files; a durable workflow makes three renditions of what arrives, and
the dashboard at /mainstem/ plays them. Kill the process at any moment: an upload goes on where it was, and at most one
chunk per worker is encoded again.
"""

from __future__ import annotations

import logging
import os

from mainstem import Event, Mainstem
from mainstem.services.media import Media, VideoReady
from mainstem.services.uploads import Uploads

logger = logging.getLogger(__name__)

media = Media()
ms = Mainstem(os.environ.get("DATA", "data"), services=[Uploads(max_size_bytes=4 << 30), media])


@ms.subscribe("video.ready", group="announce")
async def announce(event: Event[VideoReady]) -> None:
    """Say where a new video is; an application would tell the one who uploaded it."""
    logger.info("%s is ready: /mainstem/%s", event.value.filename, event.value.playlist)
