"""Ids of runs: what an event or a workflow starts can be taken by nobody, whatever the functions are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import ID_MAX_CHARS
from mainstem.base.names import check_stream
from mainstem.flow.functions import check_name
from mainstem.flow.ids import check_run_id, made_id
from tests.flow.support import App, running
from tests.support import run, until

_NAMES = st.builds(str.__add__, st.sampled_from("Az_"), st.text("Az_09.-", max_size=99))


@given(_NAMES, st.integers(1, 2**63))
def test_any_name_that_is_accepted_makes_an_id(name: str, position: int) -> None:
    """The id of a run of any function is a run's id and a stream's name; of two functions it is never the same."""
    try:
        check_name(name)
    except InvalidArgumentError:
        assert ".." in name or name.endswith(".")
        return
    run_id = made_id(name, str(position))
    assert check_run_id(run_id) == run_id
    assert run_id.rpartition("@") == (name, "@", str(position))
    check_stream(f"$run.{run_id}")


@pytest.mark.parametrize("value", ["", "@1", "a@", "a@x", "a@1@2", "1@1", "a b@1", "a/b@1", "a" * ID_MAX_CHARS + "@1"])
def test_what_is_no_runs_id_is_refused(value: str) -> None:
    """What neither a caller can choose nor a function's name and a place give is refused."""
    with pytest.raises(InvalidArgumentError, match="run id"):
        check_run_id(value)


def test_an_events_run_cannot_be_taken_before(tmp_path: Path) -> None:
    """A run with an id chosen by hand, function, sign and the coming position, leaves the event's run alone."""

    def declare(app: App) -> None:
        @app.flow.workflow(on="orders.created")
        async def order(number: int) -> int:
            app.seen.append(number)
            return number

        app.order = order

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            coming = app.log.end_position + 3  # this run's two records are before it
            by_hand = await app.order.start(7, id=f"order-{coming}")
            assert await by_hand.result() == 7
            assert await app.bus.publish("orders.created", 7) == coming
            await until(lambda: app.seen == [7, 7], 5.0)
            with pytest.raises(InvalidArgumentError, match="run id"):
                await app.order.start(7, id=f"order@{coming + 9}")

    run(scenario())


def test_names_that_look_alike_have_their_own_runs(tmp_path: Path) -> None:
    """Functions called ``a.b``, ``a_b`` and ``_b`` each carry one event out."""

    def declare(app: App) -> None:
        def follow(name: str) -> None:
            @app.flow.workflow(on="orders.created", name=name)
            async def work(number: int) -> None:
                app.seen.append((name, number))

        for name in ("a.b", "a_b", "_b"):
            follow(name)

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            await app.bus.publish("orders.created", 1)
            await until(lambda: sorted(app.seen) == [("_b", 1), ("a.b", 1), ("a_b", 1)])

    run(scenario())


@pytest.mark.parametrize("name", ["billing.charge", "_charge", "x" * 100])
def test_a_function_of_any_name_is_started_within_a_workflow(tmp_path: Path, name: str) -> None:
    """A name that can be declared can be started, by a workflow too, and is found by its handle's id again."""

    def declare(app: App) -> None:
        @app.flow.workflow(name=name)
        async def charge(number: int) -> int:
            return number + 1

        @app.flow.workflow
        async def parent(number: int) -> tuple[str, int]:
            handle = await charge.start(number)
            return handle.id, await handle.result()

        app.parent = parent

    async def scenario() -> None:
        async with running(tmp_path, declare) as app:
            child, result = await (await app.parent.start(1)).result()
            assert result == 2
            assert (await app.flow.handle(child).status()).function == name

    run(scenario())


@pytest.mark.parametrize("name", ["a..b", "a.", ".a", "a@b"])
def test_names_without_an_id_are_refused_when_declared(name: str) -> None:
    """What could not be part of a stream's name cannot name a function."""
    with pytest.raises(InvalidArgumentError, match="cannot name"):
        check_name(name)
