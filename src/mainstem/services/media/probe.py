"""Probing a source in a child process with limits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

import mainstem
from mainstem.base.errors import MissingExtraError
from mainstem.host.errors import ProcessOutputError, ProcessTimeoutError
from mainstem.host.process import run_process
from mainstem.services.media.source import Limits, Refusal, SourceFacts

_ANSWER_MAX_BYTES = 64 << 20
_NO_MODULE = "No module named 'av'"
_PACKAGES = Path(mainstem.__path__[0]).parent


async def probe_source(path: Path, limits: Limits, *, env: Mapping[str, str] | None = None) -> SourceFacts | Refusal:
    """Look at a file in a child process and return what it is, or why it is refused.

    A file that crashes the child, or makes it exceed its time or memory, is refused; this process is never at risk.

    Args:
        path: The file; its name is ours.
        limits: See :class:`Limits`.
        env: Variables for the child, such as ``TRACEPARENT``.

    Raises:
        MissingExtraError: PyAV is not installed.
        ProcessNotStartedError: The system would not start the child.
    """
    try:
        result = await run_process(
            [sys.executable, "-m", "mainstem.services.media._probe_child", path],
            timeout_s=limits.probe_timeout_s,
            cpu_max_s=limits.probe_cpu_max_s,
            address_space_max_bytes=limits.probe_memory_max_bytes,
            file_size_max_bytes=1,
            stdout_max_bytes=_ANSWER_MAX_BYTES,
            env={**(env or {}), "PYTHONPATH": str(_PACKAGES), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=msgspec.json.encode(limits),
        )
    except ProcessTimeoutError:
        return Refusal("probe_limits", f"Looking at the file took longer than {limits.probe_timeout_s:g} s.")
    except ProcessOutputError:
        return Refusal("probe_limits", "The description of the file is too large.")
    if result.exit_code == 0:
        return msgspec.json.decode(result.stdout, type=SourceFacts | Refusal)
    if _NO_MODULE in result.stderr_text:
        raise MissingExtraError("media", "Probing a video")
    how = f"signal {-result.exit_code}" if result.exit_code < 0 else result.stderr_text[-200:].splitlines()[-1:]
    return Refusal("probe_limits", f"Looking at the file crashed or needed more than it may ({how}).")
