"""The first program of every child process: ties its life to its parent's, limits it, becomes the real program.

Run as ``python -I -S _launcher.py PARENT_PID CPU_S ADDRESS_SPACE_BYTES FILE_SIZE_BYTES PROGRAM ARGUMENT…`` with 0 for
"no limit". A program of its own instead of a ``preexec_fn``: code between fork and exec in a process with threads can
deadlock, and uvloop and asyncio would each need their own. It imports nothing that costs time to import.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_EXIT_CANNOT_EXECUTE = 127


def main(arguments: list[str]) -> None:
    """Limit this process, then execute the program. Returns never: it ends in ``execv`` or ``_exit``."""
    parent_pid, cpu_s, address_space_bytes, file_size_bytes = (int(text) for text in arguments[:4])
    program = arguments[4:]
    if sys.platform == "linux":
        die_with_parent(parent_pid)
    limits = [
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_FSIZE, file_size_bytes),
    ]
    for kind, limit in limits:
        if limit:
            resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        os.execv(program[0], program)  # noqa: S606 (an argument list, which is the point)
    except OSError as error:
        os.write(2, f"{program[0]} cannot be executed: {error.strerror}\n".encode())
        os._exit(_EXIT_CANNOT_EXECUTE)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends, and end now if it already has."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        os.write(2, b"prctl(PR_SET_PDEATHSIG) failed\n")
        os._exit(_EXIT_CANNOT_EXECUTE)
    if os.getppid() != parent_pid:  # it died between our birth and the call above: no signal would ever come
        os._exit(_EXIT_CANNOT_EXECUTE)


if __name__ == "__main__":
    main(sys.argv[1:])
