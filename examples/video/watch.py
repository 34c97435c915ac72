"""What the log says of one upload's video: planned, chunks begun and done and begun again, ready or failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mainstem.flow.history import decode_entry, describe_pause
from mainstem.flow.journal import (
    JOURNAL_PREFIX,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunQuarantined,
    StepCompleted,
    StepStarted,
)
from mainstem.log import ABOUT, StoredRecord
from mainstem.services.media import VideoReady, VideoRefused

CHUNK_STEP = "encode_chunk"
"""Name of the step that encodes one chunk."""


class VideoWatch:
    """A fold over all records of a log in which one video is made.

    Attributes:
        upload_id: The upload that the video is made from; set it once it is known.
        position: Position of the last record that was taken in.
        total: Number of chunks; 0 until it is planned.
        ready: The final event, once it is there.
        failure: Why there will be no video; empty while there may be one.
    """

    def __init__(self) -> None:
        self.upload_id = ""
        self.position = 0
        self.total = 0
        self.ready: VideoReady | None = None
        self.failure = ""
        self._beginnings: dict[str, int] = {}
        self._done: set[str] = set()

    def add(self, records: Sequence[StoredRecord]) -> None:
        """Take in records, in the log's order."""
        for record in records:
            self.position = record.position
            if record.stream.startswith(JOURNAL_PREFIX):
                self._add_journal(record)
            elif record.stream == f"$media.{self.upload_id}":
                planned = msgspec.json.decode(record.value, type=dict[str, object])
                if planned.get("type") == "planned":
                    self.total = int(str(planned["chunks_total"]))
            elif f"upload:{self.upload_id}" in record.headers.get(ABOUT, "").split():
                self._add_outcome(record)

    def _add_outcome(self, record: StoredRecord) -> None:
        if record.stream == "video.ready":
            self.ready = msgspec.json.decode(record.value, type=VideoReady)
        elif record.stream == "video.refused":
            refused = msgspec.json.decode(record.value, type=VideoRefused)
            self.failure = f"the clip was refused: {refused.message} ({refused.reason})"

    def _add_journal(self, record: StoredRecord) -> None:
        step = record.stream
        match decode_entry(record.value):
            case StepStarted(key=key, name=name) if name == CHUNK_STEP:
                step = f"{record.stream} {key}"
                self._beginnings[step] = self._beginnings.get(step, 0) + 1
            case StepCompleted(key=key, name=name) if name == CHUNK_STEP:
                self._done.add(f"{record.stream} {key}")
            case RunFailed(error=error):
                self.failure = f"run {step.removeprefix(JOURNAL_PREFIX)} failed: {error.type}: {error.message}"
            case RunCancelled(reason=reason):
                self.failure = f"run {step.removeprefix(JOURNAL_PREFIX)} was cancelled: {reason}"
            case RunPaused() | RunQuarantined() as entry:
                self.failure = f"run {step.removeprefix(JOURNAL_PREFIX)} waits for a decision: {describe_pause(entry)}"
            case _:
                pass

    @property
    def done(self) -> int:
        """Number of chunks whose result is durable."""
        return len(self._done)

    @property
    def under_way(self) -> int:
        """Number of chunks that have begun and are not done."""
        return len(self._beginnings.keys() - self._done)

    @property
    def encoded_again(self) -> int:
        """Number of chunks whose encoding began more than once."""
        return sum(count > 1 for count in self._beginnings.values())
