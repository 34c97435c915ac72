"""Child program: an uploads service in a data directory, on a port of the loopback address that it prints.

``python -m tests.services.uploads.server_program DATA [PORT]``
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mainstem.services.uploads import Uploads
from tests.services.uploads.helpers import listening, serving


async def main() -> None:
    """Serve until killed."""
    data, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    async with serving(data, Uploads(checkpoint_bytes=256 << 10)) as desk, listening(desk, port) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
