"""Child processes: bounded, limited, never left running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from mainstem.host import process
from mainstem.host.errors import (
    ProcessFailedError,
    ProcessNotStartedError,
    ProcessOutputError,
    ProcessTimeoutError,
)
from mainstem.host.process import ProcessResult, run_process
from tests.support import ROOT, children_of, run, until, wait_until

PYTHON = sys.executable

pytestmark = pytest.mark.usefixtures("no_children_left")


def python(code: str, **options: object) -> ProcessResult:
    return run(run_process([PYTHON, "-c", code], **{"timeout_s": 20.0, **options}))  # type: ignore[arg-type]


def test_result() -> None:
    """Exit code, both outputs and the program are in the result; a non-zero exit code is an answer."""
    result = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (result.exit_code, result.stdout, result.stderr_text) == (3, b"out\n", "err")
    assert result.program == str(Path(PYTHON).absolute())
    with pytest.raises(ProcessFailedError, match="exited with 3") as caught:
        result.check()
    assert caught.value.exit_code == 3 and caught.value.stderr == "err"


def test_check_returns_the_result() -> None:
    """``check`` passes a success on."""
    result = python("pass")
    assert result.check() is result and result.duration_s > 0


def test_arguments_are_not_interpreted() -> None:
    """There is no shell: an argument arrives as it is."""
    hostile = "; echo $(id) `id` && * ' \" \\"
    result = run(run_process([PYTHON, "-c", "import sys; print(sys.argv[1])", hostile], timeout_s=20))
    assert result.stdout.decode() == hostile + "\n"


def test_standard_input() -> None:
    """``stdin`` is fed to the program; without it, its input is empty."""
    code = "import sys; print(len(sys.stdin.buffer.read()))"
    assert python(code, stdin=b"x" * 300_000).stdout == b"300000\n"
    assert python(code).stdout == b"0\n"


def test_input_that_is_not_read() -> None:
    """A program that ends before it has read its input is no error."""
    assert python("pass", stdin=b"x" * 1_000_000).exit_code == 0


def test_environment_is_reduced() -> None:
    """Of the environment only the few named variables are passed on, and what the caller adds, such as TRACEPARENT."""
    os.environ["A_SECRET"] = "hush"
    try:
        result = python("import os; print(*sorted(os.environ))", env={"TRACEPARENT": "00-1-2-01"})
    finally:
        del os.environ["A_SECRET"]
    names = result.stdout.decode().split()
    assert "TRACEPARENT" in names and "A_SECRET" not in names
    assert set(names) <= {
        "PATH",
        "HOME",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "SYSTEMROOT",
        "LC_ALL",
        "LC_CTYPE",
        "TRACEPARENT",
    }


def test_on_stdout_takes_the_output() -> None:
    """``on_stdout`` gets the bytes as they come, and the result keeps none."""
    taken: list[bytes] = []
    result = python("print('x' * 100_000)", on_stdout=taken.append)
    assert b"".join(taken) == b"x" * 100_000 + b"\n" and result.stdout == b""


def test_too_much_output() -> None:
    """A program that writes more than allowed is killed, and says so."""
    with pytest.raises(ProcessOutputError, match="more than 1,000 bytes"):
        python("while True: print('x' * 1000)", stdout_max_bytes=1000)


def test_much_too_much_output() -> None:
    """A flood that fills all buffers is stopped as well, on either output, and whatever the program was to read."""
    flood = "import sys\nwhile True: sys.{}.write('x' * 1_000_000)"
    for _ in range(3):
        with pytest.raises(ProcessOutputError):
            python(flood.format("stdout"), stdout_max_bytes=4 << 20, stdin=b"x" * 1_000_000)
    with pytest.raises(ProcessTimeoutError):
        python(flood.format("stderr"), timeout_s=1)


def test_end_of_standard_error_is_kept() -> None:
    """Of too much standard error the end is kept."""
    result = python("import sys; sys.stderr.write('a' * 100_000 + 'the end')", stderr_max_bytes=100)
    assert len(result.stderr) == 100 and result.stderr_text.endswith("athe end")


def test_time_out() -> None:
    """A program that runs too long is killed with its whole process group, and what it said last is in the error."""
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('going on', file=sys.stderr, flush=True); import signal; signal.pause()"
    )
    with pytest.raises(ProcessTimeoutError, match=r"longer than 2 s and was killed\. The last it said: going on"):
        python(code, timeout_s=2)


def test_cancelled() -> None:
    """When the await is cancelled, the program is gone before the cancellation arrives."""

    async def scenario() -> None:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(data: bytes) -> None:
            started.set_result(int(data))

        code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
        task = asyncio.create_task(run_process([PYTHON, "-c", code], timeout_s=30, on_stdout=note))
        pid = await started
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pid)

    run(scenario())


def test_callback_that_fails() -> None:
    """An error of ``on_stdout`` ends the program and is passed on."""

    def fail(_data: bytes) -> None:
        raise ValueError("not wanted")

    with pytest.raises(ValueError, match="not wanted"):
        python("import signal; print(1, flush=True); signal.pause()", on_stdout=fail)


def test_missing_program() -> None:
    """A program that does not exist is an error that names it."""
    with pytest.raises(ProcessNotStartedError, match="no-such-program"):
        run(run_process(["no-such-program"], timeout_s=1))


def test_missing_directory(tmp_path: Path) -> None:
    """A working directory that does not exist is an error of the start."""
    with pytest.raises(ProcessNotStartedError):
        run(run_process([PYTHON, "-c", "pass"], timeout_s=1, cwd=tmp_path / "nowhere"))


def test_processor_time_is_limited() -> None:
    """Beyond its CPU limit the kernel ends the program."""
    assert python("while True: pass", cpu_max_s=0.5).exit_code in (-signal.SIGKILL, -signal.SIGXCPU)


def test_memory_is_limited() -> None:
    """Beyond its address space, allocations fail."""
    result = python("bytearray(1 << 30)", address_space_max_bytes=512 << 20)
    assert result.exit_code == 1 and "MemoryError" in result.stderr_text


def test_file_size_is_limited(tmp_path: Path) -> None:
    """Beyond the largest file size, writing fails."""
    code = "open('big', 'wb', buffering=0).write(bytes(5000)); open('big', 'ab', buffering=0).write(b'x')"
    result = python(code, file_size_max_bytes=4096, cwd=tmp_path)
    assert result.exit_code != 0 and (tmp_path / "big").stat().st_size == 4096


def test_on_uvloop() -> None:
    """It works the same on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run_process([PYTHON, "-c", "print(1)"], timeout_s=20))
        assert result.stdout == b"1\n"
        with pytest.raises(ProcessTimeoutError):
            runner.run(run_process([PYTHON, "-c", "import signal; signal.pause()"], timeout_s=1))


# ---- the parent is killed

PARENT = """
import asyncio, sys
from mainstem.host import process
{mutant}
code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
asyncio.run(process.run_process([sys.executable, "-c", code], timeout_s=60, on_stdout=lambda data: print(data.decode(),
flush=True)))
"""


def child_after_kill(tmp_path: Path, mutant: str = "") -> int | None:
    """Kill a parent with SIGKILL; return its child's pid, or ``None`` if that is gone within two seconds."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    arguments = [PYTHON, "-c", PARENT.format(mutant=mutant)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert child in children_of(os.getpid())
        parent.kill()
        parent.wait()
    try:
        wait_until(lambda: not is_running(child), 2.0)
    except AssertionError:
        return child
    return None


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """When the parent is killed with SIGKILL, its child is gone."""
    assert child_after_kill(tmp_path) is None


def test_mutant_without_parent_death_signal(tmp_path: Path) -> None:
    """Without the launcher's parent-death signal the child survives: the test above would notice."""
    launcher = tmp_path / "launcher.py"
    source = Path(ROOT / "src/mainstem/host/_launcher.py").read_text()
    broken = source.replace("        die_with_parent(parent_pid)\n", "        pass\n")
    assert broken != source
    launcher.write_text(broken)
    survivor = child_after_kill(tmp_path, mutant=f"process._LAUNCHER = {str(launcher)!r}")
    assert survivor is not None
    os.kill(survivor, signal.SIGKILL)


def test_mutant_without_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the launcher's limits a program takes all the memory that it wants: the test of memory would notice."""
    launcher = tmp_path / "launcher.py"
    source = Path(ROOT / "src/mainstem/host/_launcher.py").read_text()
    broken = source.replace("            resource.setrlimit(kind, (limit, limit))\n", "            pass\n")
    assert broken != source
    launcher.write_text(broken)
    monkeypatch.setattr(process, "_LAUNCHER", str(launcher))
    with pytest.raises(AssertionError):
        test_memory_is_limited()


def test_orphan_does_not_start() -> None:
    """A launcher whose parent has died already, before the kernel was asked, does not start the program."""
    launcher = ROOT / "src/mainstem/host/_launcher.py"
    arguments = [PYTHON, "-I", "-S", str(launcher), "1", "0", "0", "0", PYTHON, "-c", "print('started')"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (127, "")


def test_launcher_names_what_cannot_be_executed(tmp_path: Path) -> None:
    """A program that cannot be executed gives 127 and a sentence."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o700)
    result = run(run_process([broken], timeout_s=20))
    assert result.exit_code == 127 and "cannot be executed" in result.stderr_text


def test_many_at_once() -> None:
    """Many processes side by side do not mix their outputs."""

    async def scenario() -> None:
        results = await asyncio.gather(
            *(run_process([PYTHON, "-c", f"print({number})"], timeout_s=30) for number in range(8))
        )
        assert [int(result.stdout) for result in results] == list(range(8))
        await until(lambda: not any("-c" in line for line in children_of(os.getpid()).values()))

    run(scenario())
