"""Probing a source in a child process with limits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mainstem.base.codec import NotDecodableError, decode
from mainstem.base.errors import MissingExtraError
from mainstem.host.errors import ProcessOutputError, ProcessTimeoutError
from mainstem.host.process import run_process
from mainstem.services.media.source import Limits, Refusal, SourceFacts

_ANSWER_MAX_BYTES = 64 << 20
_CHILD = ["-m", "mainstem.services.media._probe_child"]
_NO_MODULE = "No module named 'av'"
_Answer = SourceFacts | Refusal
_PACKAGES = Path(__file__).parents[3]
"""Where the package ``mainstem`` lies, so that the child finds it."""


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
            [sys.executable, *_CHILD, path],
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
        try:
            answer: SourceFacts | Refusal = decode(result.stdout, _Answer)
            return answer
        except NotDecodableError as error:
            # A child that a file has taken over may say anything; it is not believed.
            return Refusal("probe_limits", f"Looking at the file gave no sensible answer ({error}).")
    if _NO_MODULE in result.stderr_text:
        raise MissingExtraError("media", "Probing a video")
    said = result.stderr_text.rpartition("\n")[2][-200:]
    how = f"signal {-result.exit_code}" if result.exit_code < 0 else said or f"exit code {result.exit_code}"
    return Refusal("probe_limits", f"Looking at the file crashed or needed more than it may ({how}).")
