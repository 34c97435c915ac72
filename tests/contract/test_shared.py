"""The log's contract, checked on a shared log: by the process that leads it, and by one that is attached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mainstem.log import Log
from mainstem.log.shared import open_shared_log
from mainstem.testing.contract import LOG_CHECKS
from tests.support import run


@pytest.mark.parametrize("role", ["leading", "attached"])
@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Log], Awaitable[None]], role: str, tmp_path: Path) -> None:
    """The promise holds, whoever asks."""

    async def scenario() -> None:
        leader = await open_shared_log(tmp_path)
        attached = await open_shared_log(tmp_path)
        assert leader.is_leading and not attached.is_leading
        await check(leader if role == "leading" else attached)
        await attached.close()
        await leader.close()

    run(scenario())
