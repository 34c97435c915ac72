"""Appending: one call is one message or one atomic batch, sent until the server has answered it.

A call whose answer was lost is sent again under the same id, which the server remembers for the dedup window; so an
outage shorter than the engine's patience is not noticed by the caller. Where it lasts longer, the caller is told
whether anything had been sent.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec

from mainstem.base.errors import InvalidArgumentError
from mainstem.log.engines.nats import wire
from mainstem.log.engines.nats.address import NatsAddress
from mainstem.log.engines.nats.calls import Call
from mainstem.log.engines.nats.connection import NatsConnection, NoAnswerError, NotSentError
from mainstem.log.engines.nats.reading import Found, StreamReader
from mainstem.log.engines.nats.wire import Answer
from mainstem.log.errors import (
    AppendOutcomeUnknownError,
    LogClosedError,
    LogFullError,
    LogNotFoundError,
    LogUnreachableError,
    NotWrittenError,
    PositionConflictError,
    UnsupportedByEngineError,
)

_PAUSE_S = 0.02
_PAUSE_MAX_S = 1.0
_SCAN_RECORDS = 1000
_NO_SUCH_END = str((1 << 63) - 1)
_BATCH_NOT_ENABLED = 10174

_answer_decoder = msgspec.json.Decoder(wire.PublishAnswer)


class Appender:
    """Carries calls to the server; knows what its refusals mean."""

    def __init__(
        self,
        connection: NatsConnection,
        reader: StreamReader,
        address: NatsAddress,
        *,
        patience_s: float,
        answer_s: float,
        window_s: float,
        batches_max: int,
        singles_max: int,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._address = address
        self._patience_s = patience_s
        self._answer_s = answer_s
        self._window_s = window_s
        self._batches = asyncio.Semaphore(batches_max)
        self._singles = asyncio.Semaphore(singles_max)

    async def append(self, call: Call) -> Answer:
        """Send a call until it is answered; return its positions.

        Raises:
            PositionConflictError, LogFullError, InvalidArgumentError: It was refused; nothing was written.
            NotWrittenError: It could not be sent in time, or was refused for another reason; nothing was written.
            AppendOutcomeUnknownError: It was sent and not answered in time.
        """
        until_s = asyncio.get_running_loop().time() + self._patience_s
        places = self._singles if len(call.messages) == 1 else self._batches
        try:
            async with asyncio.timeout_at(until_s):
                await places.acquire()
        except TimeoutError:
            raise self._gave_up("other appends were in front of it", sent=False) from None
        try:
            return await self._persist(call, until_s)
        finally:
            places.release()

    async def _persist(self, call: Call, until_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        pause_s = _PAUSE_S
        sent = False
        while True:
            try:
                if await self._connection.wait(max(0.0, until_s - loop.time())):
                    answer = await self._once(call, sent=sent)
                    if isinstance(answer, tuple):
                        return answer
                    reason = answer
                else:
                    reason = self._connection.last_error
            except NotSentError as error:
                reason = str(error)
            except NoAnswerError as error:
                sent, reason = True, str(error)
            except (LogClosedError, LogNotFoundError, LogUnreachableError) as error:
                if sent:
                    raise self._gave_up(str(error), sent=True) from error
                raise
            if loop.time() + pause_s > until_s:
                raise self._gave_up(reason, sent=sent)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    def _gave_up(self, reason: str, *, sent: bool) -> NotWrittenError | AppendOutcomeUnknownError:
        where = f"{self._address}: an append had no answer for {self._patience_s:g} s: {reason}."
        if not sent:
            return LogUnreachableError(f"{where} It was never sent: nothing was written.")
        return AppendOutcomeUnknownError(
            f"{where} It was sent: its records are all there, or none of them. Retry with the same dedup_id within "
            f"{self._window_s:g} s of the first attempt."
        )

    async def _once(self, call: Call, *, sent: bool) -> Answer | str:
        """Send a call once; return its answer, or why it is to be sent again."""
        if call.contradicts:
            return await self._answer_conflict(call)
        answer = await self._send(call)
        if answer.error is None:
            return await self._accepted(call, answer)
        verdict = wire.judge(answer.error)
        if verdict == "conflict":
            return await self._answer_conflict(call)
        if verdict == "duplicate":
            return await self._find(call) or answer.error.description
        if verdict == "passing":
            return answer.error.description
        error = self._refusal(answer.error, verdict)
        if not sent or isinstance(error, AppendOutcomeUnknownError):
            raise error
        # The attempt before this one may be on its way still.
        raise AppendOutcomeUnknownError(
            f"{self._address}: an append was sent and not answered; sent again, it was refused: "
            f"{answer.error.description}. Its records may be there or not."
        )

    async def _send(self, call: Call) -> wire.PublishAnswer:
        prefix = self._address.subjects
        last = len(call.messages) - 1
        batch_id = uuid4().hex if last else ""
        async with self._connection.inbox() as inbox:
            for index, message in enumerate(call.messages):
                # What was sent of a batch without its last message is dropped by the server.
                await self._connection.send(
                    prefix + message.stream,
                    message.value,
                    reply=inbox.subject if index == last else "",
                    fields=call.fields(index, batch_id),
                )
            answer = await inbox.next(self._answer_s)
        if not answer.data:  # 503: nobody is there who takes it
            raise NotSentError("the server has no JetStream stream of this name that works at the moment")
        return _answer_decoder.decode(answer.data)

    async def _accepted(self, call: Call, answer: wire.PublishAnswer) -> Answer:
        if not answer.duplicate:
            first = answer.seq - len(call.messages) + 1
            return wire.positions_of(first, ",".join(map(str, call.counts)))
        found = await self._reader.at(answer.seq)
        if found is None:  # retention took it: of the same call, the answer follows from its shape
            return wire.positions_of(answer.seq, ",".join(map(str, call.counts)))
        return _answer_of(found)

    def _refusal(self, error: wire.ApiError, verdict: wire.Verdict) -> Exception:
        where = f"{self._address}: the append was refused: {error.description} (error {error.err_code})."
        if verdict == "full":
            return LogFullError(f"{where} Nothing was written.")
        if verdict == "invalid":
            return InvalidArgumentError(f"{where} The server's limits are lower than this. Nothing was written.")
        if verdict == "unknown":
            return AppendOutcomeUnknownError(f"{where} Its records may be there or not.")
        if error.err_code == _BATCH_NOT_ENABLED:
            return UnsupportedByEngineError(f"{where} Nothing was written. Set allow_atomic on the stream.")
        return NotWrittenError(f"{where} Nothing was written.")

    # ---- answers that have to be looked for

    async def _answer_conflict(self, call: Call) -> Answer | str:
        """A condition does not hold: the call's own earlier attempt may be why, and then that is the answer."""
        answer = await self._find_behind_conditions(call)
        if answer is None and call.named and await self._is_known(call):
            answer = await self._find(call)
        if answer is not None:
            return answer
        for stream, expected in call.expected:
            last = await self._reader.last(stream)
            actual = last.record.position if last is not None else 0
            if actual != expected:
                raise PositionConflictError(stream, expected, actual)
        if call.contradicts:
            # Both were found to hold: the stream moved in between, so that one of them does not any more.
            return "the stream moved while its last position was read"
        return "another append to the stream is on its way"

    async def _find_behind_conditions(self, call: Call) -> Answer | None:
        """Had the call been accepted, its record would be the first behind the position that it expected."""
        for stream, expected in call.expected:
            for found in await self._reader.page(stream, after=expected, limit=1):
                first = await self._first_of_call(found)
                if first is not None and first.fields.get(wire.MESSAGE_ID) == call.id:
                    return _answer_of(first)
        return None

    async def _first_of_call(self, found: Found) -> Found | None:
        number = int(found.fields.get(wire.BATCH_SEQUENCE, "1"))
        return found if number == 1 else await self._reader.at(found.record.position - number + 1)

    async def _is_known(self, call: Call) -> bool:
        """Ask whether the server remembers the call, without a chance of anything being written.

        A batch is looked up by its message id before its conditions are checked, as a single message is not; and no
        stream ends where this one is told to.
        """
        fields = {
            wire.MESSAGE_ID: call.id,
            wire.EXPECTED_END: _NO_SUCH_END,
            wire.BATCH_ID: uuid4().hex,
            wire.BATCH_SEQUENCE: "1",
            wire.BATCH_COMMIT: "1",
        }
        subject = self._address.subjects + call.messages[0].stream
        message = await self._connection.ask(subject, timeout_s=self._answer_s, fields=fields)
        error = _answer_decoder.decode(message.data).error
        return error is not None and wire.judge(error) == "duplicate"

    async def _find(self, call: Call) -> Answer | None:
        """Find a call that the server remembers, first in its own stream; ``None`` where it is only on its way."""
        answer = await self._find_behind_conditions(call)
        if answer is not None:
            return answer
        now = datetime.fromisoformat((await self._reader.info()).ts)
        since = (now - timedelta(seconds=self._window_s + 1)).isoformat()
        for pattern in (call.messages[0].stream, ">"):
            page = await self._reader.page(pattern, since=since, limit=_SCAN_RECORDS)
            while page:
                for found in page:
                    if found.fields.get(wire.MESSAGE_ID) == call.id:
                        return _answer_of(found)
                page = await self._reader.page(pattern, after=page[-1].record.position, limit=_SCAN_RECORDS)
        return None


def _answer_of(first: Found) -> Answer:
    return wire.positions_of(first.record.position, first.fields.get(wire.COUNTS, ""))
