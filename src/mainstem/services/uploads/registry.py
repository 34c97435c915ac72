"""What the process knows of its uploads: the open ones in memory, all others in the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainstem.base.codec import NotDecodableError
from mainstem.log.contract import ABOUT, TRACEPARENT, Append, Log, Record
from mainstem.log.errors import LogError, LogFullError, NotWrittenError
from mainstem.services.uploads.errors import (
    UploadNoSpaceError,
    UploadNotFoundError,
    UploadTooManyError,
    UploadUnavailableError,
    UploadUnreadableError,
)
from mainstem.services.uploads.protocol import (
    UPLOAD_COMPLETED,
    UPLOAD_PREFIX,
    Created,
    Expired,
    Finished,
    Progressed,
    Terminated,
    Upload,
    UploadRecord,
    advance,
    encode_record,
    fold,
    unreadable_sentence,
)
from mainstem.services.uploads.storage import Hashing
from mainstem.trace.context import TraceContext

if TYPE_CHECKING:
    from mainstem.services.uploads.reception import Reception

_logger = logging.getLogger(__name__)

_PAGE_RECORDS = 1000
_OUR_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_RETRY = {"Retry-After": "5"}


class Entry:
    """An upload in memory.

    Attributes:
        upload: What its records come to.
        hashing: The hash of its bytes so far.
        reception: The request that is writing to it, or ``None``.
        ending: Whether it is being terminated or expires at this moment.
        stale: Whether the log may know more of it than this does.
    """

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.hashing = Hashing()
        self.reception: Reception | None = None
        self.ending = False
        self.stale = False

    def __repr__(self) -> str:
        doing = "ending" if self.ending else "receiving" if self.reception else "idle"
        return f"<Entry {self.upload.id} {self.upload.phase} {self.upload.offset}/{self.upload.size_bytes}, {doing}>"

    @property
    def busy(self) -> bool:
        """Whether nobody else may write to it."""
        return self.reception is not None or self.ending


class Registry:
    """The uploads of one log.

    Args:
        log: The log.
        max_open: Most open uploads.
        max_open_bytes: Most bytes that the open uploads may come to, by their declared sizes.
    """

    def __init__(self, log: Log, *, max_open: int, max_open_bytes: int) -> None:
        self._log = log
        self._max_open = max_open
        self._max_open_bytes = max_open_bytes
        self._open: dict[str, Entry] = {}
        self._unreadable: set[str] = set()
        self._creating: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Registry of {len(self._open)} open uploads>"

    def open_entries(self) -> list[Entry]:
        """Return the open uploads."""
        return list(self._open.values())

    async def load(self) -> None:
        """Learn from the log which uploads are open. The ended ones are not kept in memory.

        One with a record that this version cannot read is set aside, and holds up no other.
        """
        after = 0
        uploads: dict[str, Upload] = {}
        strange: dict[str, None] = {}
        while page := await self._log.read(UPLOAD_PREFIX + ">", after, _PAGE_RECORDS):
            for stored in page:
                try:
                    upload = fold(uploads.get(stored.stream), stored)
                except NotDecodableError:
                    strange[stored.stream] = None  # looked at below, as a whole
                    continue
                if upload is None or upload.phase != "open":
                    uploads.pop(stored.stream, None)
                else:
                    uploads[stored.stream] = upload
            after = page[-1].position
        for stream in strange:
            try:
                await self._read(stream.removeprefix(UPLOAD_PREFIX))
            except UploadUnreadableError as error:
                _logger.error("%s", error.message)  # noqa: TRY400 (the sentence says it all)
                self._unreadable.add(stream.removeprefix(UPLOAD_PREFIX))
                uploads.pop(stream, None)
        for stream in [stream for stream, upload in uploads.items() if not _OUR_ID.fullmatch(upload.id)]:
            _logger.error("%s is the stream of no upload of ours: it is passed over", stream)
            del uploads[stream]
        self._open = {upload.id: Entry(upload) for upload in uploads.values()}

    def kept_ids(self) -> frozenset[str]:
        """Return the ids of the uploads whose bytes are to be kept: the open ones, and those that were set aside."""
        return frozenset(self._open) | self._unreadable

    async def get(self, upload_id: str) -> Entry:
        """Return an upload; an ended one is read from the log.

        Raises:
            UploadNotFoundError: There is none; a name that is not of our making never reaches the log.
            UploadUnreadableError: This version cannot read its records.
        """
        entry = self._open.get(upload_id)
        if entry is not None:
            return entry
        if not _OUR_ID.fullmatch(upload_id):
            raise UploadNotFoundError(f"{upload_id[:40]!r} is no upload's id.")
        upload = await self._read(upload_id)
        if upload is None:
            raise UploadNotFoundError(f"there is no upload {upload_id}.")
        if upload.phase == "open":
            # Forgotten after an append whose outcome was unknown, or just created: the first who asks brings it back.
            return self._open.setdefault(upload_id, Entry(upload))
        return Entry(upload)

    async def _read(self, upload_id: str) -> Upload | None:
        upload: Upload | None = None
        sentence = ""
        after = 0
        while page := await self._log.read(UPLOAD_PREFIX + upload_id, after, _PAGE_RECORDS):
            for stored in page:
                try:
                    upload = fold(upload, stored)
                except NotDecodableError as error:
                    sentence = sentence or unreadable_sentence(stored, error)
                if upload is not None and upload.phase != "open":
                    return upload  # what comes behind its end changes nothing
            after = page[-1].position
        if sentence:
            raise UploadUnreadableError(f"upload {upload_id} is set aside. {sentence}")
        return upload

    async def create(self, upload_id: str, created: Created, trace: TraceContext) -> Entry:
        """Record a new upload; return it once that is durable.

        Raises:
            UploadTooManyError: Too many uploads are open, or too many bytes are declared.
            UploadUnavailableError: The log takes nothing.
            UploadNoSpaceError: The log is full.
        """
        self._check_room(created.size_bytes)
        self._creating[upload_id] = created.size_bytes
        try:
            stream = UPLOAD_PREFIX + upload_id
            position = await self._commit([Append(stream, [_record(upload_id, created, trace)], 0)], use_reserve=False)
            upload = Upload(upload_id, created, trace, position, expires_ns=created.expires_ns)
            return self._open.setdefault(upload_id, Entry(upload))
        finally:
            del self._creating[upload_id]

    def _check_room(self, size_bytes: int) -> None:
        count = len(self._open) + len(self._creating)
        if count >= self._max_open:
            raise UploadTooManyError(
                f"{count} uploads are open, allowed are {self._max_open}. End one, or wait until one expires.",
                headers={"Retry-After": "60"},
            )
        declared = sum(entry.upload.size_bytes for entry in self._open.values()) + sum(self._creating.values())
        if declared + size_bytes > self._max_open_bytes:
            raise UploadTooManyError(
                f"the open uploads come to {declared} bytes, allowed are {self._max_open_bytes} with this one's "
                f"{size_bytes}. Finish or end one, or wait until one expires.",
                headers={"Retry-After": "60"},
            )

    async def progress(self, entry: Entry, record: Progressed, span: TraceContext) -> None:
        """Record how far an upload is. Errors as of :meth:`end`."""
        await self._append(entry, [record], span)

    async def finish(self, entry: Entry, last: Progressed, span: TraceContext, finished: Finished) -> None:
        """Record the last offset, the end and the event in one commit. Errors as of :meth:`end`."""
        upload = entry.upload
        event = Record(
            encode_record(upload.completed_event(finished.blob)),
            key=upload.id.encode(),
            headers={TRACEPARENT: upload.completed_span().traceparent, ABOUT: f"upload:{upload.id}"},
        )
        await self._append(entry, [last, finished], span, extra=[Append(UPLOAD_COMPLETED, [event])])

    async def end(self, entry: Entry, record: Terminated | Expired, span: TraceContext) -> None:
        """Record that an upload was given up. The log's reserve may be used: it frees space.

        Raises:
            UploadUnavailableError: The log takes nothing, or another writer was there.
            UploadNoSpaceError: The log is full.
        """
        await self._append(entry, [record], span, use_reserve=True)

    async def _append(
        self,
        entry: Entry,
        records: Sequence[Progressed | Finished | Terminated | Expired],
        span: TraceContext,
        *,
        extra: Sequence[Append] = (),
        use_reserve: bool = False,
    ) -> None:
        upload = entry.upload
        encoded = [_record(upload.id, record, span) for record in records]
        own = Append(UPLOAD_PREFIX + upload.id, encoded, upload.position)
        try:
            position = await self._commit([own, *extra], use_reserve=use_reserve)
        except UploadUnavailableError:
            # Whether the records are there is unknown, or another writer was there.
            entry.stale = True
            raise
        for record in records:
            upload = advance(upload, record, position)
        entry.upload = upload
        if upload.phase != "open":
            self._forget(entry)

    def release(self, entry: Entry) -> None:
        """Let others write to an upload again; one that may be out of date is read anew by the next who asks."""
        entry.reception = None
        entry.ending = False
        if entry.stale:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        if self._open.get(entry.upload.id) is entry:
            del self._open[entry.upload.id]

    async def _commit(self, appends: Sequence[Append], *, use_reserve: bool) -> int:
        """Append to the log; return the position of the last record of the first stream."""
        try:
            return (await self._log.append_many(appends, use_reserve=use_reserve))[0]
        except LogFullError as error:
            raise UploadNoSpaceError(f"the log is full: {error.message}", headers=_RETRY) from error
        except LogError as error:
            _logger.exception("uploads: the log did not take a record")
            written = "Nothing was written" if isinstance(error, NotWrittenError) else "Ask for the offset and go on"
            raise UploadUnavailableError(f"the log takes nothing at present. {written}.", headers=_RETRY) from error


def _record(upload_id: str, record: UploadRecord, span: TraceContext) -> Record:
    headers = {TRACEPARENT: span.traceparent, ABOUT: f"upload:{upload_id}"}
    return Record(encode_record(record), headers=headers)
