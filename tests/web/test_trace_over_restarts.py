"""Spans come from records: what a restart replays is not told a second time."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from mainstem import Mainstem
from mainstem.flow.workflows import Workflow
from mainstem.log import open_reader
from mainstem.log.contract import StoredRecord
from mainstem.trace.spans import Span
from mainstem.web.trace_view import trace_spans
from tests.support import run, until


def application(directory: Path) -> tuple[Mainstem, Workflow[[], int]]:
    """An application whose workflow charges, tells, packs for a moment and ships, logging as it goes."""
    ms = Mainstem(directory)

    @ms.step
    async def charge() -> int:
        logging.getLogger("shop").warning("charging")
        return 1

    @ms.step
    async def ship() -> int:
        return 2

    @ms.workflow(name="fulfil")
    async def fulfil() -> int:
        charged = await charge()
        await ms.publish("orders.charged", charged)
        await ms.sleep(seconds=0.5)
        return charged + await ship()

    return ms, fulfil


async def records_of(directory: Path) -> list[StoredRecord]:
    """Return all records of a closed application."""
    reader = await open_reader(directory / "log")
    try:
        return list(await reader.read(">", limit=65_536))
    finally:
        await reader.close()


def test_a_replay_doubles_no_span(tmp_path: Path) -> None:
    """A run that is taken up again by a second process has one span for each step, event, sleep and log line."""

    async def live() -> list[Span]:
        first, fulfil = application(tmp_path)
        async with first:
            await fulfil.start(id="one")
            await until(lambda: first.log.last("orders.charged"), what="the first half")
        second, _ = application(tmp_path)
        async with second:
            assert await second.flow.handle("one").result(timeout_s=30) == 3
        records = await records_of(tmp_path)
        assert any(b'"claimed"' in record.value for record in records if record.stream == "$run.one")
        return trace_spans(records, now_ns=0)

    spans = run(live())
    # What may have died between the sleep's end and a slow machine's takeover is no span of a replay.
    certain = [span for span in spans if span.attributes.get("unended") != "may have died"]
    told = Counter((span.kind, span.name.split("#")[0]) for span in certain)
    assert told["step", "charge"] == told["step", "ship"] == told["run", "fulfil"] == 1
    assert {count for (kind, _), count in told.items() if kind in {"event", "log"}} == {1}
    ids = [span.span_id for span in spans if span.span_id]
    assert len(ids) == len(set(ids))
