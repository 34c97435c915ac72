"""Starts, stops, expiry, sick disks and other writers: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainstem.base.ids import new_id
from mainstem.host.disk import Buffer, File, SystemDisk
from mainstem.log import Log, LogFullError, LogSettings, Record, open_log
from mainstem.services.uploads import Uploads
from mainstem.services.uploads.protocol import Created, Expired, Finished, Progressed, Terminated, creation_trace
from mainstem.testing import SimulatedClock, SimulatedDisk
from mainstem.trace.context import new_trace
from tests.services.uploads.helpers import (
    FILES,
    Slow,
    begin_patch,
    code_of,
    id_of,
    metadata,
    serving,
    sha256,
    until_busy,
)
from tests.support import run, until

DATA = os.urandom(300_000)


def test_cancelled_request_leaves_no_lock(tmp_path: Path) -> None:
    """When the task of a request is cancelled, what came is recorded and the upload can go on."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:1000])
            await until_busy(desk)
            await until(lambda: desk.parts() and (desk.directory / desk.parts()[0]).stat().st_size == 1000)
            request.cancel()
            await asyncio.wait([request])
            assert await desk.offset(url) == 1000
            assert (await desk.patch(url, 1000, DATA[1000:])).status_code == 204

    run(body())


def test_silent_client_holds_nothing(tmp_path: Path) -> None:
    """A request without a byte for too long is ended: its bytes are kept, its place is free, its upload expires."""

    async def body() -> None:
        clock = SimulatedClock()
        uploads = Uploads(max_active=1, idle_max_s=60, expire_after_s=1000)
        async with serving(tmp_path, uploads, clock=clock) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:1000])
            await until(lambda: desk.parts() and (desk.directory / desk.parts()[0]).stat().st_size == 1000)
            await until(lambda: clock.sleepers == 2)
            clock.advance(60)  # bytes came in this time
            await until(lambda: clock.sleepers == 2)
            assert not request.done()
            clock.advance(60)  # none in this
            answer = await request
            assert (answer.status_code, answer.headers["upload-offset"]) == (400, "1000")
            [*_, last] = await desk.records(url)
            assert isinstance(last, Progressed) and last.outcome == "disconnected"
            assert "0 receiving" in repr(uploads)
            await clock.run_for(1100)

            async def gone() -> bool:
                return (await desk.client.head(url)).status_code == 410

            await until(gone)

    run(body())


def test_cancelled_creation_and_termination_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is cancelled in the middle leaves no half: what it began comes to its end."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            append_many = desk.log.append_many
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def slowly(*arguments: object, **options: object) -> object:
                begun.set()
                await go_on.wait()
                return await append_many(*arguments, **options)  # type: ignore[arg-type]

            async def cancelled(method: str, url: str, headers: dict[str, str]) -> None:
                begun.clear()
                go_on.clear()
                request = asyncio.create_task(desk.client.request(method, url, headers=headers))
                await begun.wait()
                request.cancel()
                await asyncio.wait([request])
                go_on.set()

            url = await desk.create(10)
            await desk.patch(url, 0, b"x")
            monkeypatch.setattr(desk.log, "append_many", slowly)
            await cancelled("DELETE", url, {})
            await until(lambda: desk.parts() == [])
            assert (await desk.client.head(url)).status_code == 410
            await cancelled("POST", FILES, {"Upload-Length": "5"})
            await until(lambda: desk.uploads._tools and len(desk.uploads._tools.registry.open_entries()) == 1)

    run(body())


@pytest.mark.parametrize("first", ["DELETE", "PATCH"])
def test_terminated_and_completed_exclude_each_other(tmp_path: Path, first: str) -> None:
    """Of a DELETE and a last PATCH in one turn of the loop only one succeeds, and the records say what it did."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(10)
            works = [desk.client.delete(url), desk.patch(url, 0, b"0123456789")]
            answers = await asyncio.gather(*(works if first == "DELETE" else reversed(works)))
            statuses = {answer.request.method: answer.status_code for answer in answers}
            events, [_created, *records] = await desk.completed(), await desk.records(url)
            kinds = [type(record) for record in records]
            if statuses["DELETE"] == 204:
                assert statuses["PATCH"] == 423 and events == [] and kinds == [Terminated]
            else:
                assert statuses == {"DELETE": 409, "PATCH": 204} and kinds == [Progressed, Finished]
                assert [event.upload_id for event in events] == [id_of(url)]
            assert desk.parts() == []

    run(body())


def test_empty_upload_is_complete_only_with_its_event(tmp_path: Path) -> None:
    """An upload of no bytes is not created while nothing can be taken in; one that was is finished by who asks."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(max_active=1)) as desk:
            url = await desk.create(10)
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            await until_busy(desk)
            refused = await desk.client.post(FILES, headers={"Upload-Length": "0"})
            assert refused.status_code == 503 and "location" not in refused.headers
            slow.send(None)
            await request
            assert desk.uploads._tools is not None
            now_ns = desk.uploads._tools.clock.time_ns()
            upload_id = new_id(now_ns)
            trace = creation_trace(upload_id, None, new_trace())
            await desk.uploads._tools.registry.create(upload_id, Created(0, now_ns, now_ns + 10**12), trace)
            answer = await desk.client.head(f"{FILES}/{upload_id}")
            assert (answer.status_code, answer.headers["upload-length"]) == (200, "0")
            assert "upload-expires" not in answer.headers
            assert [event.upload_id for event in await desk.completed()] == [upload_id]

    run(body())


def test_expiration(tmp_path: Path) -> None:
    """An upload that nobody goes on with expires, measured from its last request, and its bytes are removed."""

    async def body() -> None:
        clock = SimulatedClock()
        async with serving(tmp_path, Uploads(expire_after_s=100), clock=clock) as desk:
            url = await desk.create(10)
            await clock.run_for(80)
            assert (await desk.patch(url, 0, b"x")).status_code == 204
            await clock.run_for(80)
            assert await desk.offset(url) == 1
            await until(lambda: clock.sleepers == 1)
            clock.advance(60)

            async def gone() -> bool:
                return (await desk.client.head(url)).status_code == 410 and desk.parts() == []

            await until(gone)
            assert isinstance((await desk.records(url))[-1], Expired)

    run(body())


def test_restart_knows_what_was(tmp_path: Path) -> None:
    """A new process goes on with open uploads, ends overdue ones and removes the files of all others."""

    async def body() -> None:
        clock = SimulatedClock()
        async with serving(tmp_path, Uploads(expire_after_s=100), clock=clock) as desk:
            old = await desk.create(10)
            await desk.patch(old, 0, b"x")
            clock.advance(90)
            young = await desk.create(len(DATA), metadata(filename="f"))
            await desk.patch(young, 0, DATA[:1000])
        (desk.directory / "stranger.part").write_bytes(b"x")
        with (desk.directory / f"{id_of(young)}.part").open("ab") as file:
            file.write(b"bytes behind the recorded offset")
        clock.advance(20)
        async with serving(tmp_path, Uploads(expire_after_s=100), clock=clock) as desk:
            assert desk.parts() == [f"{id_of(young)}.part"]
            assert (await desk.client.head(old)).status_code == 410
            assert await desk.offset(young) == 1000
            assert (await desk.patch(young, 1000, DATA[1000:])).status_code == 204
            [event] = await desk.completed()
            assert (event.blob, event.filename) == (sha256(DATA), "f")
            assert desk.blobs.path(event.blob).read_bytes() == DATA

    run(body())


def test_lost_bytes_end_an_upload(tmp_path: Path) -> None:
    """When a file is shorter than what was recorded, the upload is gone, at a start or later: never wrong bytes."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            first, second = await desk.create(10), await desk.create(10)
            for url in (first, second):
                await desk.patch(url, 0, b"12345")
            os.truncate(desk.directory / f"{id_of(first)}.part", 3)
            assert (await desk.patch(first, 5, b"67890")).status_code == 410
        (desk.directory / f"{id_of(second)}.part").unlink()
        async with serving(tmp_path) as desk:
            assert (await desk.client.head(second)).status_code == 410
            assert await desk.completed() == []
            for url in (first, second):
                end = (await desk.records(url))[-1]
                assert isinstance(end, Terminated)
                assert end.reason == "bytes_lost"

    run(body())


class SickDisk(SystemDisk):
    """A disk whose files fail as long as the test says."""

    def __init__(self) -> None:
        self.error = 0
        self.only_sync = False

    def open(self, path: Path, *, write: bool = False) -> File:  # type: ignore[override]
        """Open."""
        return SickFile(self, super().open(path, write=write))

    def create(self, path: Path) -> File:  # type: ignore[override]
        """Create."""
        return SickFile(self, super().create(path))


class SickFile:
    """A file of a :class:`SickDisk`."""

    def __init__(self, disk: SickDisk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.read_at = file.read_at
        self.truncate = file.truncate
        self.size = file.size
        self.close = file.close

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Write, or fail half-way."""
        if self._disk.error and not self._disk.only_sync:
            self._file.write_at(offset, [bytes(b"".join(buffers))[:100]])
            raise OSError(self._disk.error, "sick")
        return self._file.write_at(offset, buffers)

    def sync(self) -> None:
        """Sync, or fail."""
        if self._disk.error:
            raise OSError(self._disk.error, "sick")
        self._file.sync()


@pytest.mark.parametrize(("error", "status", "outcome"), [(errno.ENOSPC, 507, "no_space"), (errno.EIO, 503, "failed")])
@pytest.mark.parametrize("only_sync", [False, True])
def test_failing_disk_loses_nothing(tmp_path: Path, error: int, status: int, outcome: str, only_sync: bool) -> None:
    """A full disk is 507, a broken one 503; the offset stays, and the upload goes on once the disk is well."""

    async def body() -> None:
        disk = SickDisk()
        async with serving(tmp_path, Uploads(disk=disk)) as desk:
            url = await desk.create(len(DATA))
            assert (await desk.patch(url, 0, DATA[:1000])).status_code == 204
            disk.error, disk.only_sync = error, only_sync
            answer = await desk.patch(url, 1000, DATA[1000:])
            assert (answer.status_code, answer.headers["retry-after"]) == (status, "60")
            assert await desk.offset(url) == 1000
            disk.error = 0
            assert (await desk.patch(url, 1000, DATA[1000:])).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]
            outcomes = [record.outcome for record in await desk.records(url) if isinstance(record, Progressed)]
            assert outcomes == ["ok", outcome, "ok"]

    run(body())


class ForgetfulDisk(SickDisk):
    """A disk of which one sync fails; what it was to write is taken for clean then, as Linux does it, and is lost."""

    def __init__(self, failing_sync: int) -> None:
        super().__init__()
        self.failing_sync = failing_sync
        self.synced_bytes = 0
        self.lost_from = 1 << 62

    def synced(self, size_bytes: int) -> None:
        """Take in that a file of that size is to be made durable."""
        self.failing_sync -= 1
        if self.failing_sync == 0:
            self.lost_from = self.synced_bytes
            raise OSError(errno.ENOSPC, "no room for what was put off")
        self.synced_bytes = size_bytes

    def create(self, path: Path) -> File:  # type: ignore[override]
        """Create."""
        file = super().create(path)
        sync = file.sync

        def noted() -> None:
            self.synced(file.size())
            sync()

        file.sync = noted  # type: ignore[method-assign]
        return file


@pytest.mark.parametrize("good_syncs", [0, 1])
def test_a_failed_sync_is_never_believed(tmp_path: Path, good_syncs: int) -> None:
    """After a sync that failed for want of room no byte behind the last good one is acknowledged by another sync."""

    async def body() -> None:
        disk = ForgetfulDisk(failing_sync=good_syncs + 1)
        async with serving(tmp_path, Uploads(disk=disk, checkpoint_bytes=200_000)) as desk:
            url = await desk.create(1_000_000)
            part = desk.directory / f"{id_of(url)}.part"
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            sent = 0
            for number, count in enumerate([210_000] * good_syncs + [150_000, 100_000]):
                slow.send(bytes([number]) * count)
                sent += count
                await until(lambda: request.done() or (part.exists() and part.stat().st_size == sent))  # noqa: B023
            answer = await request
            assert answer.status_code == 507
            offset = await desk.offset(url)
            assert offset == disk.lost_from == 210_000 * good_syncs
            recorded = [record.offset for record in await desk.records(url) if isinstance(record, Progressed)]
            assert max(recorded) == offset

    run(body())


def test_full_log_is_507(tmp_path: Path) -> None:
    """When the log takes nothing, nothing is acknowledged; the same request goes through once there is room."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(1000)
            append_many = desk.log.append_many

            async def full(*_arguments: object, **_options: object) -> tuple[int, ...]:
                raise LogFullError("no room")

            desk.log.append_many = full  # type: ignore[method-assign]
            assert (await desk.client.post(FILES, headers={"Upload-Length": "1"})).status_code == 507
            answer = await desk.patch(url, 0, DATA[:1000])
            assert (answer.status_code, code_of(answer)) == (507, "upload-no-space")
            desk.log.append_many = append_many  # type: ignore[method-assign]
            assert await desk.offset(url) == 0
            assert (await desk.patch(url, 0, DATA[:1000])).status_code == 204
            [event] = await desk.completed()
            assert desk.blobs.path(event.blob).read_bytes() == DATA[:1000]

    run(body())


async def fill(log: Log) -> None:
    """Append small records until there is no room for another."""
    with contextlib.suppress(LogFullError):  # that is when it is full
        while True:
            await log.append("of.others", [Record(b"x")])


def test_an_upload_can_be_given_up_on_a_full_disk(tmp_path: Path) -> None:
    """When the log is full for new uploads and bytes, its reserve still takes the end of one, which frees its bytes."""

    async def body() -> None:
        disk = SimulatedDisk()
        settings = LogSettings(first_segment_bytes=16 << 10, segment_max_bytes=16 << 10, reserve_bytes=4 << 10)
        log = await open_log(Path("/log"), disk=disk, settings=settings)
        async with serving(tmp_path, log=log) as desk:
            url = await desk.create(1000)
            assert (await desk.patch(url, 0, DATA[:500])).status_code == 204
            disk.capacity_bytes = disk.used_bytes()
            await fill(log)
            assert (await desk.client.post(FILES, headers={"Upload-Length": "1"})).status_code == 507
            assert (await desk.patch(url, 500, DATA[500:1000])).status_code == 507
            assert (await desk.client.delete(url)).status_code == 204
            assert (await desk.client.head(url)).status_code == 410 and desk.parts() == []
        await log.close()

    run(body())


def test_another_writer_is_noticed(tmp_path: Path) -> None:
    """When somebody else wrote to an upload, nothing is written over it, and the next request sees what is true."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(10)
            [created] = await desk.stored(url)
            async with serving(tmp_path, log=desk.log) as other:
                assert (await other.patch(url, 0, b"12345")).status_code == 204
            assert (await desk.patch(url, 0, b"abcde")).status_code == 503
            assert await desk.offset(url) == 5
            assert created.position < (await desk.stored(url))[-1].position

    run(body())


def test_stop_keeps_what_came(tmp_path: Path) -> None:
    """A server that stops ends its requests, and records what they brought; afterwards it answers 503."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:1000])
            await until_busy(desk)
            await until(lambda: desk.parts() and (desk.directory / desk.parts()[0]).stat().st_size == 1000)
            await desk.uploads.stop()
            slow.send(None)
            assert (await request).status_code == 503
            assert (await desk.client.head(url)).status_code == 503
            await desk.uploads.stop()
        async with serving(tmp_path) as desk:
            assert await desk.offset(url) == 1000

    run(body())


def test_events_of_finished_uploads_outlive_them(tmp_path: Path) -> None:
    """After a restart a finished upload is still known, complete, and has its one event."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(3)
            await desk.patch(url, 0, b"abc")
        async with serving(tmp_path) as desk:
            assert await desk.offset(url) == 3
            assert len(await desk.completed()) == 1
            assert isinstance((await desk.records(url))[-1], Finished)

    run(body())
