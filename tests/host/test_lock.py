"""The lock of a directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mainstem.host.lock import LockHeldError, RecordLock, lock_owner_pid

HOLDER = """
import os, sys
from pathlib import Path
from mainstem.host.lock import RecordLock
lock = RecordLock(Path(sys.argv[1]))
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()   # a forked child outlives the holder until its input ends
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


def test_second_taker_in_the_process_is_refused(tmp_path: Path) -> None:
    """POSIX would let the same process lock twice; we do not. Released, it can be taken again."""
    lock = RecordLock(tmp_path / "lock")
    with pytest.raises(LockHeldError) as caught:
        RecordLock(tmp_path / "lock")
    assert caught.value.owner_pid == os.getpid()
    lock.release()
    lock.release()
    RecordLock(tmp_path / "lock").release()


def test_holder_is_named_and_its_death_frees(tmp_path: Path) -> None:
    """Another process's pid is told; after SIGKILL the lock is free, though a forked child of the holder lives on."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LockHeldError) as caught:
        RecordLock(tmp_path / "lock")
    assert caught.value.owner_pid == lock_owner_pid(tmp_path / "lock") == holder.pid
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    RecordLock(tmp_path / "lock").release()
    holder.stdin.close()
    holder.stdout.close()


def test_asking_who_holds_it_does_not_let_go(tmp_path: Path) -> None:
    """The holder's own question is answered without touching the file; a free or missing file has no owner."""
    path = tmp_path / "lock"
    assert lock_owner_pid(path) == 0
    lock = RecordLock(path)
    assert lock_owner_pid(path) == os.getpid()
    code = "import sys\nfrom pathlib import Path\nfrom mainstem.host.lock import lock_owner_pid\n"
    ask = [sys.executable, "-c", code + "print(lock_owner_pid(Path(sys.argv[1])))", str(path)]
    assert int(subprocess.run(ask, capture_output=True, check=True).stdout) == os.getpid()
    lock.release()
    assert lock_owner_pid(path) == 0


FORKER = """
import os, signal, sys
from pathlib import Path
from mainstem.host import lock as module
path = Path(sys.argv[1])
lock = module.RecordLock(path)
if sys.argv[2] == "releases":
    module._held_guard.acquire()  # as another thread may at the moment of the fork
if (child := os.fork()) == 0:
    signal.alarm(10)
    if sys.argv[2] == "releases":
        lock.release()
        os.fstat(lock._descriptor)  # raises if it was closed
        os._exit(0)
    assert module.lock_owner_pid(path) == os.getppid()
    try:
        module.RecordLock(path)
    except module.LockHeldError as error:
        os._exit(0 if error.owner_pid == os.getppid() else 1)
    os._exit(1)
_pid, status = os.waitpid(child, 0)
print("child", status, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("deed", ["releases", "takes"])
def test_a_forked_child_has_no_lock(tmp_path: Path, deed: str) -> None:
    """What a child releases is not its own: that touches nothing and waits for nobody. What it takes is its parent's:
    it is told so.
    """
    path = tmp_path / "lock"
    arguments = [sys.executable, "-c", FORKER, str(path), deed]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        try:
            assert parent.stdout.readline() == b"child 0\n"
            assert lock_owner_pid(path) == parent.pid
        finally:
            parent.stdin.close()
