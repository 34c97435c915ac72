"""A real process on the real file system, killed with ``-9`` at its system calls, one after the other.

``strace`` kills it as it enters the call: everything before the call has happened, and the call itself has not. A
first run without a kill lists the calls. ``make kill-every-call`` goes through all of them, ``make test`` through
some of each kind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec

from mainstem.host.disk import SystemDisk
from mainstem.log import Record, open_log
from mainstem.log.embedded.verify import verify_directory
from tests.e2e.kill_program import MORE, SETTINGS, value
from tests.support import ROOT, run

CALLS = "pwrite64,pwritev,fdatasync,fsync,openat,rename,renameat,renameat2,unlink,unlinkat,ftruncate,close,fcntl,mkdir"
EVERY = os.environ.get("KILL", "") == "all"
SOME_OF_A_KIND = 4
"""How many calls of each kind ``make test`` tries in each scenario."""

COUNT = 13
"""So many records fill three segments."""

KINDS = frozenset({"pwrite64", "fdatasync", "fsync", "openat", "rename", "unlink", "close", "fcntl"})
"""What the log asks of the system, and each run must hold."""


class Call(msgspec.Struct, frozen=True):
    """One system call of the program: its name, and which one of that name it is, from 1."""

    name: str
    number: int


class Outcome(msgspec.Struct):
    """What a run of the program left behind: exit code, values begun and acknowledged, the calls that it made."""

    code: int
    begun: list[int]
    acknowledged: list[int]
    calls: list[Call]


def traced(directory: Path, count: int, kill_at: Call | None = None) -> Outcome:
    """Run the program under ``strace`` until ``count`` records are there; let it be killed as it enters a call."""
    trace = directory.parent / "calls.txt"
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.kill_program", str(directory), str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin is not None and program.stdout is not None
    assert program.stdout.readline() == "ready 0\n"
    kill = ["-e", f"inject={kill_at.name}:signal=SIGKILL:when={kill_at.number}"] if kill_at else []
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", str(trace), "-e", f"trace={CALLS}", *kill, "-p", str(program.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    assert "attached" in attached, attached + tracer.stderr.read()
    said = program.communicate("go\n", timeout=60)[0]
    tracer.communicate(timeout=60)
    words = [line.split() for line in said.splitlines()]
    names = [line.split(None, 1)[1].split("(")[0] for line in trace.read_text().splitlines()]
    seen: Counter[str] = Counter()
    calls = []
    for name in names:
        if name in CALLS.split(","):
            seen[name] += 1
            calls.append(Call(name, seen[name]))
    return Outcome(
        program.returncode,
        [int(number) for word, number in words if word == "begun"],
        [int(number) for word, number in words if word == "acknowledged"],
        calls,
    )


def judge(directory: Path, outcome: Outcome, there_before: int) -> int:
    """Open what the dead process left, as another one, twice, and append; return how many records it had.

    What was acknowledged is there; what is there was submitted, in order and byte for byte; a second opening finds the
    same; a repeated call is not written again; the check of the directory finds no damage.
    """

    async def opened(repeat: bool) -> list[bytes]:
        log = await open_log(directory, settings=SETTINGS)
        values = [record.value for record in await log.read("a")]
        if repeat and values:
            last = len(values) - 1
            assert await log.append("a", [Record(value(last))], dedup_id=f"call-{last}") == len(values)
            assert log.end_position == len(values)
        await log.close()
        return values

    found = run(opened(repeat=False))
    assert found == [value(number) for number in range(len(found))]
    acknowledged = outcome.acknowledged[-1] + 1 if outcome.acknowledged else there_before
    submitted = outcome.begun[-1] + 1 if outcome.begun else there_before
    assert acknowledged <= len(found) <= submitted
    assert run(opened(repeat=True)) == found
    report = verify_directory(SystemDisk(), directory)
    assert report.sound and report.records == len(found)
    return len(found)


def chosen(calls: list[Call]) -> list[Call]:
    """Return all calls, or some of each kind, spread over the run."""
    if EVERY:
        return calls
    some: list[Call] = []
    for name in dict.fromkeys(call.name for call in calls):
        of_kind = [call for call in calls if call.name == name]
        step = max(1, len(of_kind) // SOME_OF_A_KIND)
        some += of_kind[step // 2 :: step]
    return some


def kill_at_each(base: Path | None, place: Path, there_before: int) -> None:
    """Kill the program at its calls, each time on a directory like ``base``, and judge what is left."""
    directory = place / "log"

    def fresh() -> Path:
        shutil.rmtree(directory, ignore_errors=True)
        if base is not None:
            shutil.copytree(base, directory)
        return directory

    count = there_before + COUNT
    whole = traced(fresh(), count)
    assert whole.code == 0 and len(whole.acknowledged) == COUNT + MORE
    assert {call.name for call in whole.calls} >= KINDS
    counts = set()
    for call in chosen(whole.calls):
        outcome = traced(fresh(), count, call)
        assert outcome.code == -signal.SIGKILL, f"{call} did not kill it"
        counts.add(judge(directory, outcome, there_before))
    assert len(counts) >= SOME_OF_A_KIND  # it was killed in different states


def test_a_life_of_a_log(tmp_path: Path) -> None:
    """Killed at any call of creating, appending, rolling, closing and opening again, it loses and invents nothing."""
    kill_at_each(None, tmp_path, 0)


def test_a_takeover_of_a_killed_one(tmp_path: Path) -> None:
    """Killed at any call of taking over what a killed process left, with a torn tail, it loses and invents nothing."""
    base = tmp_path / "base"
    rolls = [call for call in traced(base, COUNT).calls if call.name == "rename"]
    shutil.rmtree(base)
    left = traced(base, COUNT, rolls[-1])
    assert left.code == -signal.SIGKILL
    path = max(base.glob("*.wal"))
    data = bytearray(path.read_bytes())
    end = -(-len(bytes(data).rstrip(b"\0")) // 64) * 64
    data[end : end + 40] = b"MSF1" + b"unfinished, as a crash leaves it...."
    path.write_bytes(data)
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    kill_at_each(base, tmp_path, judge(copy, left, 0))
