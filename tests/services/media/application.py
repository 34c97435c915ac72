"""An application with the media service, as a program: python application.py DIRECTORY [SOURCE]. Ends when told to on
standard input.

With a SOURCE, it is published as an upload with the id ``upload-1``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mainstem.app import Mainstem
from mainstem.services.media import Media

WORKERS = 2


async def main(directory: Path, source: Path | None) -> None:
    """Run until standard input ends."""
    ms = Mainstem(directory, services=[Media(workers=WORKERS, preset="slow")])
    async with ms:
        if source is not None:
            blob = await ms.blobs.put_bytes(await asyncio.to_thread(source.read_bytes))
            upload = {
                "upload_id": "upload-1",
                "blob": blob,
                "size_bytes": 1,
                "filename": "clip.mp4",
                "content_type": "",
                "metadata": {},
            }
            await ms.publish("upload.completed", upload, about=["upload:upload-1"])
        print("running", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
