"""What the journal says of the chunks of one video: begun, done, begun again. Pure."""

from __future__ import annotations

import msgspec

from mainstem.flow.journal import JOURNAL_PREFIX, JournalEntry, StepCompleted, StepStarted
from mainstem.log import StoredRecord

_decode: msgspec.json.Decoder[JournalEntry] = msgspec.json.Decoder(JournalEntry)


class ChunkJournal:
    """A fold over journal records, looking only at steps of one name.

    Args:
        step_name: Name of the step that encodes a chunk.
    """

    def __init__(self, step_name: str) -> None:
        self._step_name = step_name
        self._beginnings: dict[str, int] = {}
        self._done: set[str] = set()
        self.position = 0

    def add(self, record: StoredRecord) -> None:
        """Take in one record; what is no journal record of such a step is passed over."""
        self.position = record.position
        if not record.stream.startswith(JOURNAL_PREFIX):
            return
        entry = _decode.decode(record.value)
        if isinstance(entry, StepStarted | StepCompleted) and entry.name == self._step_name:
            step = f"{record.stream} {entry.key}"
            if isinstance(entry, StepStarted):
                self._beginnings[step] = self._beginnings.get(step, 0) + 1
            else:
                self._done.add(step)

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
