"""The application of the media tests, broken: after a restart it has forgotten the results of encoded chunks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from mainstem.flow import history
from mainstem.flow.journal import StepCompleted
from tests.services.media.application import main

_update = history._update


def _forget(past: history.Past, entry: Any, position: int) -> None:
    if not (isinstance(entry, StepCompleted) and entry.name == "encode_chunk"):
        _update(past, entry, position)


if __name__ == "__main__":
    history._update = _forget
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
