"""The NATS engine keeps the log's contract, on a real server that syncs each message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from uuid import uuid4

import pytest

from mainstem.log import Log
from mainstem.log.engines.nats import open_nats_log
from mainstem.testing.contract import LOG_CHECKS
from tests.contract.nats_server import NatsServer
from tests.support import run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all checks: each has a log of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: Callable[[Log], Awaitable[None]], server: NatsServer) -> None:
    """The check holds while the log is open; opened again, it has the same records."""

    async def scenario() -> None:
        address = server.address(uuid4().hex)
        log = await open_nats_log(address)
        await check(log)
        before = await log.read(">", limit=65_536)
        await log.close()
        again = await open_nats_log(address)
        assert await again.read(">", limit=65_536) == before
        await again.close()

    run(scenario())
