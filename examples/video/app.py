"""Video from a bad connection: resumable uploads in, adaptive streams out, everything in one log.

    mainstem dev examples/video/app.py

Upload with any tus client to /mainstem/uploads/files; a durable workflow makes three renditions of what arrives, and the
dashboard at /mainstem/ plays them. Kill the process at any moment: an upload goes on where it was, and at most one chunk per
worker is encoded again.
"""

from __future__ import annotations

import os

from mainstem import Mainstem
from mainstem.services.media import Media
from mainstem.services.uploads import Uploads

WORKERS = os.cpu_count() or 1
"""Chunks that are encoded at the same time."""

ms = Mainstem(
    os.environ.get("DATA", "data"), services=[Uploads(max_size_bytes=4 << 30), Media(workers=WORKERS)]
)
