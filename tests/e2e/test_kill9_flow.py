"""``kill -9`` at any moment: every run finishes with the right result, no completed step runs again, no event is
lost.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mainstem.flow.history import decode_entry, run_id_of
from mainstem.flow.journal import Claimed, StepCompleted, StepFailed
from mainstem.log import EmbeddedReader, open_reader
from mainstem.log.engines.nats import NatsLog, open_nats_log
from tests.contract.nats_server import NatsServer
from tests.e2e import flow_app_facts as facts
from tests.support import ROOT, run, wait_until

KILLS = 50
SEED = 20_261_124
_READY_S = 30.0


class Life:
    """One life of the application."""

    def __init__(self, directory: Path, address: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        self._output = directory / "output.txt"
        with self._output.open("wb") as output, (directory / "errors.txt").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.flow_app", str(directory), *([address] if address else [])],
                stdout=output,
                stderr=errors,
                env=environment,
                cwd=ROOT,
            )

    def said(self, word: str) -> bool:
        """Tell whether it said a word."""
        return word.encode() in self._output.read_bytes()

    def is_up(self) -> bool:
        """Tell whether it works, or has ended."""
        return self.said("ready") or self.process.poll() is not None

    def kill(self) -> None:
        """End it as a power cut would end a process."""
        self.process.kill()
        self.process.wait()


def _live_and_die(directory: Path, address: str) -> int:
    """Kill the application at random moments; return how often it was killed before everything was done."""
    chance = random.Random(SEED)
    kills = 0
    while kills < KILLS:
        life = Life(directory, address)
        early = chance.random() < 0.2
        if not early:
            wait_until(life.is_up, _READY_S, what="the application is up")
        try:
            status = life.process.wait(timeout=chance.uniform(0.0, 0.2))
        except subprocess.TimeoutExpired:
            kills += 1
            life.kill()
        else:
            assert status == 0, (directory / "errors.txt").read_text()[-4000:]
        assert not life.said("finished"), f"everything was done after {kills} kills: the test needs more work"
    return kills


def _finish(directory: Path, address: str) -> None:
    life = Life(directory, address)
    try:
        assert life.process.wait(timeout=60.0) == 0, (directory / "errors.txt").read_text()[-4000:]
        assert life.said("finished")
    finally:
        life.kill()


async def _opened(directory: Path, address: str) -> EmbeddedReader | NatsLog:
    return await (open_nats_log(address) if address else open_reader(directory / "log"))


async def _journals(
    directory: Path, address: str
) -> tuple[dict[tuple[str, str], int], dict[int, tuple[int, int]], Counter[str]]:
    """Return completed attempts by run and key, published events by position, and claims by run."""
    reader = await _opened(directory, address)
    completed: dict[tuple[str, str], int] = {}
    failed: set[tuple[str, str, int]] = set()
    claims: Counter[str] = Counter()
    after = 0
    while batch := await reader.read("$run.>", after, 10_000):
        after = batch[-1].position
        for record in batch:
            entry = decode_entry(record.value)
            run_id = run_id_of(record.stream)
            if isinstance(entry, StepCompleted):
                assert (run_id, entry.key) not in completed, f"{run_id} {entry.key} completed twice"
                completed[run_id, entry.key] = entry.attempt
            elif isinstance(entry, StepFailed):
                assert (run_id, entry.key, entry.attempt) not in failed
                failed.add((run_id, entry.key, entry.attempt))
            elif isinstance(entry, Claimed):
                claims[run_id] += 1
    events = {}
    after = 0
    while batch := await reader.read("work.done", after, 10_000):
        after = batch[-1].position
        for record in batch:
            value = msgspec.json.decode(record.value, type=dict[str, int])
            events[record.position] = (value["number"], value["round"])
    await reader.close()
    return completed, events, claims


@pytest.fixture(params=["embedded", "nats"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return where the log is: an address, or nothing for the directory."""
    if request.param == "embedded":
        yield ""
        return
    with NatsServer(tmp_path / "nats") as server:
        yield server.address()


@pytest.mark.serial
def test_fifty_kills(tmp_path: Path, address: str) -> None:
    """Killed fifty times at random moments, everything is done once, in the end and in order; on each engine."""
    assert _live_and_die(tmp_path, address) == KILLS
    _finish(tmp_path, address)
    completed, events, claims = run(_journals(tmp_path, address))
    assert sum(claims.values()) >= KILLS, "the kills hardly met any work"

    executions = [tuple(line.split()) for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert max(Counter(executions).values()) == 1, "two attempts had the same number: 1 would not mean 'never before'"
    last: dict[tuple[str, str], int] = {}
    for run_id, key, attempt in executions:
        last[run_id, key] = int(attempt)
    assert last == completed, "a completed step ran again, or its result was not that of its last attempt"

    assert sorted(events.values()) == sorted(
        (number, one) for number in range(facts.RUNS) for one in range(facts.ROUNDS)
    )
    seen = [tuple(map(int, line.split())) for line in (tmp_path / "events.txt").read_text().splitlines()]
    assert {position: (number, one) for position, number, one in seen} == events, "an event was lost, or made up"
    firsts = list(dict.fromkeys((number, one) for _position, number, one in seen))
    for number in range(facts.RUNS):
        assert [one for of, one in firsts if of == number] == list(range(facts.ROUNDS)), (
            "events of one key out of order"
        )
