"""A process that appends under conditions, for ``test_nats_engine.py``, which starts several on one log.

``python -m tests.contract.nats_racer ADDRESS NUMBER`` prints how many positions it won.
"""

from __future__ import annotations

import asyncio
import sys

from mainstem.log import PositionConflictError, Record
from mainstem.log.engines.nats import open_nats_log

STREAM = "race"
TRIES = 200


async def main() -> None:
    """Race, and print the number of wins."""
    log = await open_nats_log(sys.argv[1])
    wins = 0
    last = await log.last(STREAM)
    expected = last.position if last is not None else 0
    for _ in range(TRIES):
        record = Record(sys.argv[2].encode(), headers={"expected": str(expected)})
        try:
            expected = await log.append(STREAM, [record], expected_position=expected)
        except PositionConflictError as conflict:
            expected = conflict.actual
        else:
            wins += 1
    await log.close()
    print(wins)


if __name__ == "__main__":
    asyncio.run(main())
