"""Plain functions outside the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading

import pytest

from mainstem.host.threads import call_in_thread

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="")


def test_results_errors_and_context() -> None:
    """What the function returns or raises arrives, and it sees the caller's context without being able to change it."""

    async def run() -> None:
        tenant.set("a")

        def look() -> tuple[str, bool]:
            seen = tenant.get()
            tenant.set("b")
            return seen, threading.current_thread().daemon

        assert await call_in_thread(look) == ("a", True)
        assert tenant.get() == "a"
        with pytest.raises(ZeroDivisionError):
            await call_in_thread(lambda: 1 // 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await call_in_thread(next, iter(()))

    asyncio.run(run())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError])
def test_what_would_end_the_loop_is_an_error(kind: type[BaseException]) -> None:
    """``sys.exit()`` and its like in a thread are failures of that function, and end neither task, loop nor process."""

    def breaks_off() -> None:
        raise kind(3)

    async def run() -> int:
        with pytest.raises(RuntimeError, match=f"the function raised {kind.__name__}: 3") as caught:
            await call_in_thread(breaks_off)
        assert isinstance(caught.value.__cause__, kind)
        return 1

    assert asyncio.run(run()) == 1


def test_functions_that_hang_hold_up_nobody() -> None:
    """A hundred calls that never end leave the next one its turn, and the process can end."""
    code = """
import asyncio, threading
from mainstem.host.threads import call_in_thread
async def main():
    stuck = [asyncio.create_task(call_in_thread(threading.Event().wait)) for _ in range(100)]
    await asyncio.sleep(0)
    print(await call_in_thread(lambda: "next"))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.returncode) == ("next\n", 0), done.stderr
