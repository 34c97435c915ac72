"""Seeded random histories of a log on a failing disk, and the oracle that judges what is recovered.

A **history** is a row of lives. In each life the log is opened, several writers append, read, cancel and retry at
the same time, and then the life ends: by an orderly close, a power cut, a ``kill -9``, an I/O error, in the middle
of anything, recovery included. After each opening everything is read and judged by the :class:`Oracle`. One seed
gives one history, always the same: the event loop runs "threads" itself, in turns that the seed chooses.

    SEEDS=2000 FIRST=500 pytest tests/sim      # histories 500 to 2499
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mainstem.log import (
    Append,
    AppendOutcomeUnknownError,
    EmbeddedLog,
    EmbeddedReader,
    LogClosedError,
    LogError,
    LogFullError,
    LogNotFoundError,
    LogSettings,
    PositionConflictError,
    Record,
    StoredRecord,
    open_log,
    open_reader,
)
from mainstem.log.embedded import engine
from mainstem.log.frame import Commit
from mainstem.testing import SimulatedClock, SimulatedDisk, keep_none, keep_some

DIRECTORY = Path("/data/log")
SETTINGS = LogSettings(
    first_segment_bytes=8 << 10,
    segment_max_bytes=16 << 10,
    reserve_bytes=1 << 10,
    pending_max_bytes=6 << 10,
    cache_bytes=4 << 10,
)
_WRITERS = 4
_SHARED = ("shared.one", "shared.two")


class OracleError(AssertionError):
    """The log broke a promise."""


class SeededLoop(asyncio.SelectorEventLoop):
    """An event loop without threads: what would run in one runs on the loop, a seeded number of turns later."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(f"turns {seed}")

    def run_later(self, job: Callable[[], None]) -> None:
        """Run ``job`` after some turns of the loop."""
        self._after_turns(self._random.choice((0, 0, 1, 3, 10)), job)

    def _after_turns(self, turns: int, job: Callable[[], None]) -> None:
        if turns:
            self.call_soon(self._after_turns, turns - 1, job)
        else:
            self.call_soon(job)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run a function as if in a thread."""
        future: asyncio.Future[Any] = self.create_future()

        def job() -> None:
            try:
                result = func(*args)
            except BaseException as error:  # handed to whoever awaits the future, as an executor does
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.run_later(job)
        return future


class SeededWriter:
    """Stands in for the log's writer thread on a :class:`SeededLoop`."""

    def __init__(self, loop: SeededLoop, _name: str) -> None:
        self._loop = loop

    def submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run ``job`` some turns later, and ``done`` some turns after that."""

        def run() -> None:
            try:
                result, error = job(), None
            except BaseException as raised:  # reported to ``done``, as the thread does
                result, error = None, raised
            self._loop.run_later(lambda: done(result, error))

        self._loop.run_later(run)

    def stop(self) -> None:
        """Nothing to stop."""


class Call:
    """One append, as its caller sees it.

    Attributes:
        appends: What was asked for.
        state: ``open``, ``acknowledged``, ``refused`` (not written), ``unknown``, ``cancelled``; after a recovery the
            last two become ``acknowledged`` or ``lost``.
        answer: Last position of each append, once acknowledged.
        expected: What the first append's stream had to end with; ``None`` where nothing was demanded.
        was_cancelled: Whether its caller gave up on it.
    """

    def __init__(self, writer: int, appends: Sequence[Append], dedup_id: str | None) -> None:
        self.writer = writer
        self.appends = appends
        self.dedup_id = dedup_id
        self.state = "open"
        self.answer: tuple[int, ...] = ()
        self.expected: int | None = None
        self.was_cancelled = False

    def __repr__(self) -> str:
        names = [f"{item.stream}:{item.records[0].value[:12]!r}×{len(item.records)}" for item in self.appends]
        return f"<Call of writer {self.writer} {' '.join(names)} {self.state} {self.answer}>"

    @property
    def rows(self) -> list[tuple[str, Record]]:
        """All records, with their streams, in order."""
        return [(item.stream, record) for item in self.appends for record in item.records]


class Oracle:
    """Knows every call, and judges every record that the log shows."""

    def __init__(self) -> None:
        self.life_calls: list[list[Call]] = [[] for _writer in range(_WRITERS + 1)]
        self._by_value: dict[bytes, Call] = {}
        self._seen: dict[int, StoredRecord] = {}
        self._named: dict[int, str] = {}

    def submitted(self, call: Call) -> None:
        """Note a call at the moment of its submission."""
        self.life_calls[call.writer].append(call)
        for _stream, record in call.rows:
            self._by_value[record.value] = call

    def acknowledged(self, call: Call, answer: tuple[int, ...]) -> None:
        """Note an acknowledgement; a repeated one must say the same."""
        if call.answer and call.answer != answer:
            raise OracleError(f"{call!r}: a retry was answered {answer}")
        call.state, call.answer = "acknowledged", answer

    def saw(self, records: Sequence[StoredRecord]) -> None:
        """Judge records that anyone read: they were submitted, and what was once seen at a position stays."""
        for record in records:
            call = self._by_value.get(record.value)
            if call is None or (record.stream, record.key) not in [(stream, row.key) for stream, row in call.rows]:
                raise OracleError(f"position {record.position}: nobody wrote {record.stream} {record.value[:30]!r}")
            if call.state in ("refused", "lost"):
                raise OracleError(f"position {record.position}: {call!r} is there all the same")
            earlier = self._seen.setdefault(record.position, record)
            if earlier != record:
                raise OracleError(f"position {record.position}: {earlier!r} became {record!r}")

    def saw_last(self, stream: str, position: int) -> None:
        """Note a stream's last position that a conflict named: it was shown, so it must stay."""
        if position:
            self._named[position] = stream

    def judge(self, records: Sequence[StoredRecord]) -> None:
        """Judge everything that a recovery found, and settle what was unknown."""
        if [record.position for record in records] != list(range(1, len(records) + 1)):
            raise OracleError(f"positions have holes: {[record.position for record in records]}")
        by_position = {record.position: record for record in records}
        for position, seen in self._seen.items():
            found = by_position.get(position)
            if found != seen:
                raise OracleError(f"position {position}: {seen!r} was shown, now there is {found!r}")
        for position, stream in self._named.items():
            found = by_position.get(position)
            if found is None or found.stream != stream:
                raise OracleError(f"position {position}: a conflict named it last of {stream}, now there is {found!r}")
        self.saw(records)
        positions: dict[int, list[int]] = {}
        for record in records:
            positions.setdefault(id(self._by_value[record.value]), []).append(record.position)
        for call in {id(call): call for call in self._by_value.values()}.values():
            self._settle(call, positions.get(id(call), []), by_position)
        self._judge_conditions(records)
        self._judge_prefixes()

    def _settle(self, call: Call, positions: list[int], by_position: dict[int, StoredRecord]) -> None:
        if not positions:
            if call.state == "acknowledged":
                raise OracleError(f"{call!r} is gone")
            call.state = "lost" if call.state in ("open", "unknown", "cancelled") else call.state
            return
        rows = call.rows
        if positions != list(range(positions[0], positions[0] + len(rows))):
            raise OracleError(f"{call!r} is there in part or twice, at {positions}")
        for position, (stream, record) in zip(positions, rows, strict=True):
            found = by_position[position]
            if (found.stream, found.value, found.key, dict(found.headers)) != (
                stream,
                record.value,
                record.key,
                dict(record.headers),
            ):
                raise OracleError(f"position {position}: {found!r} instead of {record!r}")
        answer, end = [], positions[0] - 1
        for item in call.appends:
            end += len(item.records)
            answer.append(end)
        self.acknowledged(call, tuple(answer))

    def _judge_conditions(self, records: Sequence[StoredRecord]) -> None:
        last: dict[str, int] = {}
        for record in records:
            call = self._by_value[record.value]
            first = call.appends[0]
            if call.expected is not None and record.value == first.records[0].value:
                before = last.get(record.stream, 0)
                if before != call.expected:
                    raise OracleError(f"{call!r} demanded {call.expected}, and was let in behind {before}")
            last[record.stream] = record.position

    def _judge_prefixes(self) -> None:
        for calls in self.life_calls:
            lost = None
            for call in calls:
                if call.state == "lost" and not call.was_cancelled:
                    lost = call
                elif call.state == "acknowledged" and lost is not None:
                    raise OracleError(f"{lost!r} is gone, though {call!r}, submitted after it, is there")
            calls.clear()


class History:
    """One seeded history; :meth:`run` returns a line that tells what happened, or raises :class:`OracleError`."""

    def __init__(self, seed: int, loop: SeededLoop) -> None:
        self.random = random.Random(f"history {seed}")
        self._settings_random = random.Random(f"settings {seed}")
        self.seed = seed
        self.loop = loop
        self.oracle = Oracle()
        self.clock = SimulatedClock()
        self.disk = SimulatedDisk(on_sync=self._during_sync)
        self.story: list[str] = []
        self._serial = 0
        self._retryable: list[list[Call]] = [[] for _writer in range(_WRITERS + 1)]
        self._failed = False
        self._living = False
        self._violation: Exception | None = None

    def _during_sync(self, _path: Path) -> None:
        """Let a sync take its time; meanwhile another process may look, and the power may fail."""
        self.clock.advance(self.random.choice((0.0002, 0.0002, 0.004)))
        if self.random.random() < 0.1:
            try:
                self._look_beside()
            except (OracleError, LogError) as error:
                self._violation = error  # raised at the next opening: in here it would be taken for the disk's
        if self._living and self.random.random() < 0.01:
            self.disk.cut_power()

    def _look_beside(self) -> None:
        """Read as another process does, within one turn of the loop."""
        with contextlib.suppress(OSError, LogNotFoundError):  # the power is off, or the log is still being created
            beside = EmbeddedReader(self.disk.another_process(), self.clock, DIRECTORY, SETTINGS)
            beside._look()
            for frame in beside._found:
                commit = Commit(frame.header, frame.body)
                self.oracle.saw([commit.record(row) for row in range(commit.record_count)])

    async def run(self) -> str:
        """Live all lives."""
        for life in range(self.random.randint(2, 5)):
            ends = ("close", "power", "power", "kill", "kill", "io error", "cut in between", "deposed", "deposed")
            end = self.random.choice(ends)
            log = await self._open(life)
            await self._live(log, end)
            await self._die(log, end, life)
        log = await self._open(99)
        await log.close()
        return " | ".join(self.story)

    async def _open(self, life: int) -> EmbeddedLog:
        """Open the log, perhaps dying once or twice in the middle of it; then judge what it shows."""
        # Whether lone calls are committed in their caller's own turn is a matter of the load, so of chance here.
        settings = msgspec.structs.replace(SETTINGS, alone_after_commits=self._settings_random.choice((0, 1, 1000)))
        for attempt in range(self.random.choice((0, 0, 1, 2))):
            self.disk.cut_power_after(self.random.randint(0, 14))
            try:
                log = await open_log(DIRECTORY, disk=self.disk, clock=self.clock, settings=settings)
            except OSError:
                self.story.append("died opening")
                self._next_process(f"open {life} {attempt}")
            else:
                self._next_process(f"opened {life} {attempt}")
                await _bury(log)
        log = await open_log(DIRECTORY, disk=self.disk, clock=self.clock, settings=settings)
        records = await _read_all(log)
        if self._violation is not None:
            raise self._violation
        self.oracle.judge(records)
        after = self.disk.crash(keep_none)
        again = await open_log(DIRECTORY, disk=after, clock=self.clock, settings=settings)
        if await _read_all(again) != records:
            raise OracleError("what recovery showed was gone after a power cut")
        await again.close()
        self.story.append(f"{len(records)} records" + (" (torn)" if log.torn else ""))
        return log

    def _next_process(self, name: str) -> None:
        """End this process: by power cut or by kill."""
        old = self.disk
        if self.random.random() < 0.5:
            self.disk = old.crash(keep_some(f"{self.seed} {name}"))
            old.kill()
        else:
            self.disk = old.kill()
        self.disk.on_sync = self._during_sync

    async def _live(self, log: EmbeddedLog, end: str) -> None:
        self._failed = False
        self._living = True
        if end in ("power", "kill"):
            self.disk.cut_power_after(self.random.randint(1, 60))
        elif end == "io error":
            kind = self.random.choice(("sync", "sync", "write"))
            self.disk.fail(
                "sync" if kind == "sync" else "write",
                self.random.randint(1, 20),
                errno.EIO,
                after_bytes=self.random.randint(0, 2000),
            )
        full = self.random.random() < 0.25
        if full:
            self.disk.capacity_bytes = self.disk.used_bytes() + self.random.randint(0, 20_000)
        following = asyncio.ensure_future(self._follow(log, self.random.randint(0, log.end_position)))
        deposing = (self._depose(log),) if end == "deposed" else ()
        await asyncio.gather(*(self._write(log, writer) for writer in range(_WRITERS)), *deposing)
        if full:
            self.disk.capacity_bytes = None
            self.clock.advance(2)
            await asyncio.gather(*(self._write(log, writer) for writer in range(_WRITERS)))
        self._living = False
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # the point of it
            await following

    async def _depose(self, deposed: EmbeddedLog) -> None:
        """Take the log over, as another process, from this one, which lives on and notices when it notices."""
        for _turn in range(self.random.randint(0, 60)):
            await asyncio.sleep(0)
        successor = self.disk.another_process()
        with contextlib.suppress(
            OSError, LogFullError
        ):  # no power, or no room: then nobody was deposed, or for nothing
            log = await open_log(DIRECTORY, disk=successor, clock=self.clock, settings=SETTINGS, depose=deposed.epoch)
            self.oracle.saw(await _read_all(log))
            for _call in range(self.random.randint(0, 3)):
                await self._single(log, _WRITERS)
            self.oracle.saw(await _read_all(log))
            if self.random.random() < 0.5:
                await log.close()
            successor.kill()
            await _bury(log)

    async def _follow(self, log: EmbeddedLog, after: int) -> None:
        """Follow the log live: every record once, in order."""
        with contextlib.suppress(LogClosedError, OSError):  # the log's life, or the disk's, has ended
            async for batch in log.tail(">", after):
                positions = [record.position for record in batch]
                if positions != list(range(after + 1, after + 1 + len(batch))):
                    raise OracleError(f"a tail behind {after} went on with {positions}")
                self.oracle.saw(batch)
                after = positions[-1]

    async def _die(self, log: EmbeddedLog, end: str, life: int) -> None:
        self.story.append(end)
        if end == "io error" and self.random.random() < 0.5:
            self._look_beside()  # not always: a look syncs the file, which hides what was not synced before
        if end == "close":
            await _bury(log)
            self._next_process(f"close {life}")
            return
        if end == "power":
            old = self.disk
            self.disk = old.crash(keep_some(f"{self.seed} {life}"))
            self.disk.on_sync = self._during_sync
            old.kill()
        elif end == "kill":
            self.disk = self.disk.kill()
            self.disk.on_sync = self._during_sync
        else:
            self._next_process(f"end {life}")
        await _bury(log)

    async def _write(self, log: EmbeddedLog, writer: int) -> None:
        """Do what one client does, until it has done enough or the log no longer answers."""
        appending = (self._single, self._single, self._burst, self._conditional, self._retry, self._cancel)
        actions = (*appending, self._look, self._peek)
        for _turn in range(self.random.randint(1, 8)):
            if self._failed:
                return
            try:
                await self.random.choice(actions)(log, writer)
            except OSError:
                self._failed = True  # the disk is gone: reads fail from here on
            for _yield in range(self.random.randint(0, 4)):
                await asyncio.sleep(0)

    def _new_call(self, writer: int) -> Call:
        appends = []
        for stream in self.random.sample((f"own.{writer}", *_SHARED), self.random.choice((1, 1, 1, 2, 3))):
            records = []
            for _row in range(self.random.choice((1, 1, 1, 2, 5))):
                self._serial += 1
                value = b"%d:%d:" % (writer, self._serial) + bytes(self.random.choice((0, 10, 300, 1500)))
                headers = {"traceparent": f"00-{self._serial}"} if self.random.random() < 0.2 else {}
                records.append(Record(value, self.random.choice((b"", b"key")), headers))
            appends.append(Append(stream, records))
        dedup_id = f"call-{self._serial}" if self.random.random() < 0.5 else None
        call = Call(writer, appends, dedup_id)
        if dedup_id is not None:
            self._retryable[writer].append(call)
        return call

    async def _append(self, log: EmbeddedLog, appends: Sequence[Append], dedup_id: str | None) -> tuple[int, ...]:
        use_reserve = self.random.random() < 0.1
        if len(appends) == 1:
            one = appends[0]
            position = log.append_now(
                one.stream,
                one.records,
                expected_position=one.expected_position,
                dedup_id=dedup_id,
                use_reserve=use_reserve,
            )
            if position is not None:
                return (position,)
        return await log.append_many(appends, dedup_id=dedup_id, use_reserve=use_reserve)

    async def _submit(self, log: EmbeddedLog, call: Call, appends: Sequence[Append] | None = None) -> None:
        if call.state in ("lost", "refused"):
            call.state = "open"
        if call.state == "open":
            call.expected = appends[0].expected_position if appends else None
        self.oracle.submitted(call)
        try:
            answer = await self._append(log, appends or call.appends, call.dedup_id)
        except AppendOutcomeUnknownError:
            self._failed = True
            if call.state != "acknowledged":
                call.state = "unknown"
        except PositionConflictError as conflict:
            self.oracle.saw_last(conflict.stream, conflict.actual)
            self._refused(call)
        except LogFullError:
            self._refused(call)
        except LogClosedError:
            self._failed = True
            self._refused(call)
        except asyncio.CancelledError:
            call.was_cancelled = True
            if call.state != "acknowledged":
                call.state = "cancelled"
            raise
        else:
            self.oracle.acknowledged(call, answer)

    def _refused(self, call: Call) -> None:
        if call.state != "acknowledged":  # refusing a retry leaves the first answer as it was
            call.state = "refused"

    async def _single(self, log: EmbeddedLog, writer: int) -> None:
        await self._submit(log, self._new_call(writer))

    async def _burst(self, log: EmbeddedLog, writer: int) -> None:
        calls = [self._new_call(writer) for _call in range(self.random.randint(2, 6))]
        await asyncio.gather(*(self._submit(log, call) for call in calls))

    async def _conditional(self, log: EmbeddedLog, writer: int) -> None:
        call = self._new_call(writer)
        last = await log.last(call.appends[0].stream)
        expected = (last.position if last else 0) + self.random.choice((0, 0, 0, 1))
        first, *others = call.appends
        await self._submit(log, call, [Append(first.stream, first.records, expected), *others])

    async def _retry(self, log: EmbeddedLog, writer: int) -> None:
        settled = [call for call in self._retryable[writer] if call.state in ("acknowledged", "lost")]
        if settled:
            await self._submit(log, self.random.choice(settled))

    async def _cancel(self, log: EmbeddedLog, writer: int) -> None:
        task = asyncio.ensure_future(self._submit(log, self._new_call(writer)))
        for _yield in range(self.random.randint(0, 12)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # the point of it
            await task

    async def _look(self, log: EmbeddedLog, _writer: int) -> None:
        pattern = self.random.choice((">", "shared.*", "own.1"))
        self.oracle.saw(await log.read(pattern, self.random.randint(0, log.end_position), 50))

    async def _peek(self, _log: EmbeddedLog, _writer: int) -> None:
        """Read beside the owner, as another process."""
        reader = await open_reader(DIRECTORY, disk=self.disk.another_process(), clock=self.clock, settings=SETTINGS)
        try:
            self.oracle.saw(await reader.read(">", 0, 1000))
        finally:
            await reader.close()


async def _bury(log: EmbeddedLog) -> None:
    """Close a log. Where its process is dead its disk refuses everything, so nothing is written."""
    with contextlib.suppress(OSError):  # the dead disk refuses the end mark: that is how a death looks
        await log.close()


async def _read_all(log: EmbeddedLog) -> list[StoredRecord]:
    records: list[StoredRecord] = []
    while more := await log.read(">", len(records), 1000):
        records += more
    return records


def run_history(seed: int) -> str:
    """Run one history from beginning to end; return its story.

    Raises:
        OracleError: The log broke a promise, or failed where it must not; the message has the seed.
    """
    loop = SeededLoop(seed)
    history = History(seed, loop)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=lambda: loop) as runner:
        patch.setattr(engine, "WriterThread", SeededWriter)
        try:
            return runner.run(history.run())
        except Exception as error:
            raise OracleError(f"seed {seed}: {error}\n  story: {' | '.join(history.story)}") from error
