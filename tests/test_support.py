"""The helpers of the tests can fail too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.support import TimedOutError, children_of, free_port, run, until, wait_until


def test_waiting_returns_the_first_true_value() -> None:
    """Both ways of waiting return what became true."""
    values = iter([None, 0, 7])
    assert wait_until(lambda: next(values)) == 7
    again = iter([None, 8])
    assert run(until(lambda: next(again))) == 8


def test_waiting_for_an_async_predicate() -> None:
    """An async predicate is awaited each time."""
    values = iter([None, "there"])

    async def predicate() -> str | None:
        return next(values)

    assert run(until(predicate)) == "there"


def test_waiting_in_vain_says_what_for() -> None:
    """What never becomes true fails at the deadline, with its name."""
    with pytest.raises(TimedOutError, match=r"not within 0\.02 s: the moon"):
        wait_until(lambda: False, 0.02, what="the moon")
    with pytest.raises(TimedOutError, match="the moon"):
        run(until(lambda: False, 0.02, what="the moon"))


def test_run_is_bounded() -> None:
    """A coroutine that waits for ever fails the test instead of hanging it."""

    async def for_ever() -> None:
        await until(lambda: False, 1000)

    with pytest.raises(TimeoutError):
        run(for_ever(), timeout_s=0.05)


def test_free_port_can_be_bound() -> None:
    """The port is free on the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_children_are_found_with_their_children() -> None:
    """A grandchild is found, with its command line, and is gone once killed."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input() # grandchild'], stdin=0)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child:
        wait_until(
            lambda: any("grandchild" in line for pid, line in children_of(os.getpid()).items() if pid != child.pid)
        )
        assert child.stdin is not None
        child.stdin.close()
        child.wait(10)
    wait_until(lambda: not any("grandchild" in line for line in children_of(os.getpid()).values()))
