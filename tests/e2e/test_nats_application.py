"""One application on both engines: what it does does not depend on where its log is. And two on one log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mainstem import Event, InvalidArgumentError, Mainstem, Retry
from mainstem.base.codec import decode
from mainstem.bus.cursors import DeadLetter
from mainstem.bus.group import READ_AHEAD_RECORDS
from mainstem.flow import RunCancelledError, RunFencedError, StepFailedError, current_run
from mainstem.flow.history import decode_entry
from mainstem.flow.journal import JOURNAL_PREFIX, RunCompleted, StepCompleted
from mainstem.log import LogSettings, LogUnreachableError
from mainstem.log.engines.nats import NatsSettings
from mainstem.log.engines.state import StateInUseError, StateOfAnotherLogError
from tests.contract.nats_server import NatsServer, unused_address
from tests.support import run, until

MakeApplication = Callable[..., Mainstem]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests: each has a log of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(params=["embedded", "nats"])
def application(request: pytest.FixtureRequest, tmp_path: Path) -> MakeApplication:
    """Return what makes an application: each time the same log, as after a restart."""
    if request.param == "embedded":
        return lambda: Mainstem(tmp_path / "data")
    server: NatsServer = request.getfixturevalue("server")
    address = server.address(request.node.name.partition("[")[0])
    return lambda: Mainstem(address, state_directory=tmp_path / "state")


def test_every_durable_call(application: MakeApplication) -> None:
    """An event starts a workflow of steps, gather, map, sleep, a job with retries and an event to a subscriber."""

    async def scenario() -> None:
        ms = application()
        seen: list[tuple[int, int]] = []
        attempts: list[int] = []

        @ms.step
        async def double(number: int) -> int:
            return 2 * number

        @ms.step(retry=Retry(max_attempts=5, base_s=0.01))
        def unreliable(number: int) -> int:
            attempts.append(number)
            if len(attempts) < 3:
                raise OSError("not yet")
            return number

        @ms.job(queue="mail", retry=Retry(max_attempts=3, base_s=0.01))
        def mail(to: str) -> str:
            return f"sent to {to}"

        @ms.workflow(on="numbers.*")
        async def work(number: int) -> int:
            a, b = await ms.gather(double(number), double(number + 1))
            total = a + b + sum(await ms.map(double, range(100), max_concurrency=20)) + await unreliable(1)
            await ms.sleep(seconds=0.05)
            await ms.publish("totals.new", total, key="k", about=["number:7"])
            await mail.enqueue("a@b.c", id="the-mail")
            return total

        @ms.subscribe("totals.>", group="audit")
        async def audit(event: Event[int]) -> None:
            seen.append((event.value, event.position))

        async with ms:
            position = await ms.publish("numbers.first", 7)
            await until(lambda: seen)
            total = 14 + 16 + 9900 + 1
            assert seen[0][0] == total
            handle = ms.flow.handle(f"work@{position}")
            assert await handle.result(timeout_s=10) == total
            assert await ms.flow.handle("the-mail").result(timeout_s=10) == "sent to a@b.c"
            event = (await ms.log.read("totals.new"))[0]
            assert (event.position, event.headers["about"], event.key) == (seen[0][1], "number:7", b"k")

    run(scenario())


def test_what_was_left_open_goes_on(application: MakeApplication) -> None:
    """Stopped in mid run, the next start goes on: what was done is not done again, cursors go on where they were."""
    executions: list[str] = []
    handled: list[int] = []
    gate = asyncio.Event

    def declared(reached: asyncio.Event, go: asyncio.Event) -> tuple[Mainstem, Any]:
        ms = application()

        @ms.step
        async def note(word: str) -> str:
            executions.append(word)
            return word

        @ms.step
        async def wait() -> str:
            reached.set()
            await go.wait()
            return "waited"

        @ms.workflow
        async def work() -> list[str]:
            words = [await note("first"), *(await ms.map(note, ["a", "b", "c"]))]
            await ms.sleep(seconds=0.01)
            return [*words, await wait(), await note("last")]

        @ms.subscribe("events.>", group="g", start="beginning")
        async def handle(event: Event[int]) -> None:
            handled.append(event.value)

        return ms, work

    async def scenario() -> None:
        reached, go = gate(), gate()
        ms, work = declared(reached, go)
        async with ms:
            await work.start(id="the-run")
            for number in range(5):
                await ms.publish("events.e", number, key="k")
            await reached.wait()
            await until(lambda: len(handled) == 5)
            await ms.flow.stop(grace_s=0.0)
        reached, go = gate(), gate()
        go.set()
        ms, work = declared(reached, go)
        async with ms:
            result = await ms.flow.handle("the-run").result(timeout_s=10)
            assert result == ["first", "a", "b", "c", "waited", "last"]
            await ms.publish("events.e", 5, key="k")
            await until(lambda: len(handled) == 6)
        assert sorted(executions) == ["a", "b", "c", "first", "last"], "a completed step ran again"
        assert handled == [0, 1, 2, 3, 4, 5]

    run(scenario())


def test_failures_cancels_and_dead_letters(application: MakeApplication) -> None:
    """A step's error reaches the workflow, a run can be cancelled, and an event that always fails is a dead letter."""

    async def scenario() -> None:
        ms = application()
        begun = asyncio.Event()

        @ms.step
        async def fails() -> None:
            raise ValueError("no")

        @ms.step
        async def hangs() -> None:
            begun.set()
            await asyncio.Event().wait()

        @ms.workflow
        async def careful() -> str:
            try:
                await fails()
            except StepFailedError as error:
                return str(error.caused_by(ValueError))
            return "no error"

        @ms.workflow
        async def endless() -> None:
            await hangs()

        @ms.subscribe("bad.>", group="bad", retry=Retry(max_attempts=2, base_s=0.01))
        async def bad(event: Event[int]) -> None:
            raise ValueError(f"never {event.value}")

        async with ms:
            assert await (await careful.start()).result(timeout_s=10) == "True"
            handle = await endless.start()
            await begun.wait()
            await handle.cancel("enough")
            with pytest.raises(RunCancelledError, match="enough"):
                await handle.result(timeout_s=10)
            await ms.publish("bad.one", 1)
            letter = await until(lambda: ms.log.last("$dead.bad"))
            assert b"never 1" in letter.value

    run(scenario())


@pytest.mark.parametrize("count", [READ_AHEAD_RECORDS + 500])
def test_more_dead_letters_than_a_commit_holds(application: MakeApplication, count: int) -> None:
    """Over a thousand events given up at once all have their letter, whatever the engine's batches hold."""

    async def scenario() -> None:
        ms = application()
        failing = asyncio.Event()

        @ms.subscribe("bad.>", group="bad", retry=Retry(max_attempts=1), concurrency=1000, start="beginning")
        async def bad(event: Event[int]) -> None:
            await failing.wait()
            raise ValueError(f"never {event.value}")

        logging.getLogger("mainstem.bus.group").setLevel(logging.CRITICAL)
        try:
            async with ms:
                await asyncio.gather(*(ms.publish("bad.one", number) for number in range(count)))
                failing.set()

                async def letters() -> bool:
                    records = await ms.log.read("$dead.bad", limit=10_000)
                    return len(records) >= count

                await until(letters, 30.0)
                found = [record.value for record in await ms.log.read("$dead.bad", limit=10_000)]
                assert len({decode(value, DeadLetter).position for value in found}) == len(found) == count
        finally:
            logging.getLogger("mainstem.bus.group").setLevel(logging.NOTSET)

    run(scenario())


def test_the_dashboard_works(application: MakeApplication) -> None:
    """Pages are made from the log, wherever that is."""

    async def scenario() -> None:
        ms = application()

        @ms.workflow
        async def work() -> str:
            return "done"

        async with ms:
            await (await work.start(id="shown")).result(timeout_s=10)
            transport = httpx.ASGITransport(app=ms.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                for path in ("/", "/runs", "/runs/shown", "/streams", "/api/runs/shown"):
                    page = await client.get(path)
                    assert page.status_code == 200, path
                assert "shown" in (await client.get("/runs")).text

    run(scenario())


# ---- its server is killed


@pytest.mark.serial
def test_an_application_outlives_its_server(tmp_path: Path) -> None:
    """The server killed again and again under an application: every run and event is done once, nothing is stopped."""

    async def scenario() -> None:
        with NatsServer(tmp_path / "nats") as server:
            ms = Mainstem(server.address(), state_directory=tmp_path / "state")
            executions: list[tuple[str, str]] = []
            seen: list[int] = []

            @ms.step
            async def note(number: int) -> int:
                here = current_run()
                assert here is not None
                executions.append((here.run_id, here.step_key))
                return number

            @ms.workflow
            async def work(number: int) -> int:
                total = 0
                for one in range(10):
                    total += sum(await ms.gather(note(one), note(number)))
                    await ms.sleep(seconds=0.02)
                    await ms.publish("done", number * 100 + one, key=str(number))
                return total

            @ms.subscribe("done", group="audit")
            async def audit(event: Event[int]) -> None:
                seen.append(event.value)

            async with ms:
                handles = [await work.start(number, id=f"work-{number}") for number in range(20)]
                for kill in range(1, 4):
                    await until(lambda kill=kill: len(seen) > 30 * kill, 30.0)  # type: ignore[misc]
                    server.kill()
                    await asyncio.to_thread(server.start)
                results = await asyncio.gather(*(handle.result(timeout_s=60) for handle in handles))
                assert results == [45 + 10 * number for number in range(20)]
                await until(lambda: len(set(seen)) == 200, 30.0)
                assert [group.failure for group in ms.bus.groups()] == [""]
            assert len(executions) == len(set(executions)) == 400, "a step was carried out twice"

    run(scenario(), timeout_s=120.0)


def test_it_stops_while_its_server_is_away(tmp_path: Path) -> None:
    """An application whose server is gone can be stopped, in time."""

    async def scenario() -> None:
        with NatsServer(tmp_path / "nats") as server:
            settings = NatsSettings(answer_s=1.0)
            ms = Mainstem(server.address(), state_directory=tmp_path / "state", log_settings=settings)
            going = asyncio.Event()

            @ms.step
            async def slow() -> None:
                going.set()

            @ms.workflow
            async def work() -> None:
                while True:
                    await slow()

            await ms.start()
            await work.start()
            await going.wait()
            server.kill()
            async with asyncio.timeout(20.0):
                await ms.stop()

    run(scenario())


# ---- two applications on one log


def _workers(address: str, directory: Path, name: str, executions: list[tuple[str, str]]) -> Mainstem:
    ms = Mainstem(address, state_directory=directory / name)

    @ms.step
    async def note(word: str) -> str:
        executions.append((name, word))
        return word

    @ms.workflow(on="orders.>")
    async def work(order: str) -> str:
        first = await note(f"{order} first")
        await ms.sleep(seconds=0.3)
        return first + " " + await note(f"{order} second")

    @ms.subscribe("orders.>", group="audit", start="beginning")
    async def audit(event: Event[str]) -> None:
        executions.append((name, f"{event.value} audited"))

    return ms


def test_what_two_applications_see_is_done_by_one(server: NatsServer, tmp_path: Path) -> None:
    """Two applications on one log: each event starts one run, each step is carried out once, whoever is first.

    The first application's groups end when the second one takes them over.
    """
    address = server.address("two")
    executions: list[tuple[str, str]] = []

    async def scenario() -> None:
        first = _workers(address, tmp_path, "first", executions)
        second = _workers(address, tmp_path, "second", executions)
        async with first:
            positions = [await first.publish("orders.new", "a")]
            await until(lambda: ("first", "a first") in executions and ("first", "a audited") in executions)
            async with second:
                positions += [await second.publish("orders.new", name) for name in "bcd"]
                for each in positions:

                    async def ended(run_id: str = f"work@{each}") -> bool:
                        last = await second.log.last(JOURNAL_PREFIX + run_id)
                        return last is not None and isinstance(decode_entry(last.value), RunCompleted)

                    await until(ended)
                await until(lambda: all(group.failure for group in first.bus.groups()))
                assert [status.failure for status in second.bus.groups()] == ["", ""]
        steps = [what for _who, what in executions if not what.endswith("audited")]
        assert sorted(steps) == sorted(f"{name} {half}" for name in "abcd" for half in ("first", "second"))
        audited = {what for _who, what in executions if what.endswith("audited")}
        assert audited == {f"{name} audited" for name in "abcd"}

    run(scenario())


def test_a_run_in_mid_step_is_taken_over(server: NatsServer, tmp_path: Path) -> None:
    """A second application that starts has the first one's run: the attempt is number 2, the first result refused."""
    address = server.address("midstep")

    async def scenario() -> None:
        attempts: list[tuple[str, int]] = []
        gates = {"first": asyncio.Event(), "second": asyncio.Event()}

        def declared(name: str) -> tuple[Mainstem, Any]:
            ms = Mainstem(address, state_directory=tmp_path / name)

            @ms.step
            async def charge() -> str:
                here = current_run()
                assert here is not None
                attempts.append((name, here.attempt))
                await gates[name].wait()
                return name

            @ms.workflow(name="pay")
            async def pay() -> str:
                return await charge()

            return ms, pay

        (first, pay), (second, _pay) = declared("first"), declared("second")
        async with first:
            waiting = asyncio.create_task((await pay.start(id="order-1")).result())
            await until(lambda: attempts == [("first", 1)])
            async with second:
                await until(lambda: attempts == [("first", 1), ("second", 2)])
                gates["first"].set()
                with pytest.raises(RunFencedError, match="Something else writes to it"):
                    await waiting
                gates["second"].set()
                assert await second.flow.handle("order-1").result(timeout_s=10) == "second"
                journal = [decode_entry(record.value) for record in await second.log.read(JOURNAL_PREFIX + "order-1")]
                results = [entry for entry in journal if isinstance(entry, StepCompleted)]
                assert [entry.attempt for entry in results] == [2]

    run(scenario())


def test_a_group_is_taken_over_at_the_start(server: NatsServer, tmp_path: Path) -> None:
    """The later process has the group, however busy the earlier one is; the earlier one stops and says why."""
    address = server.address("taken")

    async def scenario() -> None:
        seen: list[tuple[str, int]] = []

        def declared(name: str) -> Mainstem:
            ms = Mainstem(address, state_directory=tmp_path / name)

            @ms.subscribe("e.>", group="g")
            async def handle(event: Event[int]) -> None:
                seen.append((name, event.value))

            return ms

        first, second = declared("first"), declared("second")
        async with first:
            await first.publish("e.1", 0)
            await until(lambda: seen == [("first", 0)])
            async with second:
                number = 1
                while not first.bus.groups()[0].failure:
                    await first.publish("e.1", number)
                    number += 1
                assert "GroupFencedError" in first.bus.groups()[0].failure
                await until(lambda: {("second", each) for each in range(1, number)} <= set(seen))
                assert second.bus.groups()[0].failure == ""
                cursors = await second.log.read("$group.g")
                assert len({record.position for record in cursors}) == len(cursors)

    run(scenario())


# ---- where its state is


def test_the_state_belongs_to_one_log_and_one_process(server: NatsServer, tmp_path: Path) -> None:
    """A state directory is refused to a second application and to another log, as is an embedded log's directory."""

    async def scenario() -> None:
        state = tmp_path / "state"
        async with Mainstem(server.address("one"), state_directory=state) as ms:
            assert ms.directory == state
            with pytest.raises(StateInUseError, match=str(state)):
                await Mainstem(server.address("one"), state_directory=state).start()
        async with Mainstem(server.address("one"), state_directory=state):
            pass
        with pytest.raises(StateOfAnotherLogError, match="another state_directory"):
            await Mainstem(server.address("another"), state_directory=state).start()
        async with Mainstem(tmp_path / "data"):
            pass
        with pytest.raises(StateOfAnotherLogError, match="embedded"):
            await Mainstem(server.address("one"), state_directory=tmp_path / "data").start()

    run(scenario())


def test_where_the_state_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the program, under the log's name; nothing is shown of a password."""
    monkeypatch.chdir(tmp_path)
    ms = Mainstem("nats://me:secret@localhost/orders")
    assert ms.directory == Path("mainstem-state/orders")
    assert "nats://localhost/orders" in repr(ms)
    assert "secret" not in repr(ms)


def test_arguments_that_do_not_fit(tmp_path: Path) -> None:
    """A state directory beside a data directory, and settings of the other engine, are refused at once."""
    with pytest.raises(InvalidArgumentError, match="state_directory"):
        Mainstem(tmp_path, state_directory=tmp_path / "state")
    with pytest.raises(InvalidArgumentError, match="LogSettings"):
        Mainstem(tmp_path, log_settings=NatsSettings())
    with pytest.raises(InvalidArgumentError, match="NatsSettings"):
        Mainstem("nats://localhost", log_settings=LogSettings())


def test_without_a_server_it_does_not_start(tmp_path: Path) -> None:
    """No server: the start fails in time, with an error that says where."""

    async def scenario() -> None:
        settings = NatsSettings(patience_s=0.5)
        ms = Mainstem(unused_address(), state_directory=tmp_path / "state", log_settings=settings)
        with pytest.raises(LogUnreachableError, match="no connection within"):
            await ms.start()
        assert not ms.is_running

    run(scenario())
