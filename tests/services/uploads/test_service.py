"""The protocol's requests, answered in this process: what a client sees, what is recorded, what is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.services.uploads import UPLOAD_PREFIX, Uploads
from mainstem.services.uploads.protocol import Created, Finished, Progressed, Terminated
from mainstem.trace.context import parse_traceparent
from tests.services.uploads.helpers import (
    FILES,
    OFFSET_TYPE,
    TUS,
    Slow,
    begin_patch,
    checksum,
    code_of,
    id_of,
    metadata,
    serving,
    sha256,
    until_busy,
)
from tests.support import run, until

DATA = os.urandom(300_000)


def test_upload_in_two_requests_becomes_a_blob_and_one_event(tmp_path: Path) -> None:
    """Two PATCHes make a finished upload: a blob of the same bytes, one event, no file left."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA), metadata(filename="a film.mp4", filetype="video/mp4", note=""))
            first = await desk.patch(url, 0, DATA[:100_000])
            assert (first.status_code, first.headers["upload-offset"]) == (204, "100000")
            assert "upload-expires" in first.headers
            assert await desk.offset(url) == 100_000
            last = await desk.patch(url, 100_000, DATA[100_000:])
            assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(DATA)))
            assert "upload-expires" not in last.headers
            [event] = await desk.completed()
            assert desk.blobs.path(event.blob).read_bytes() == DATA
            assert event.blob == sha256(DATA)
            assert (event.filename, event.content_type, event.size_bytes) == ("a film.mp4", "video/mp4", len(DATA))
            assert event.metadata == {"filename": "a film.mp4", "filetype": "video/mp4", "note": ""}
            assert [type(record) for record in await desk.records(url)] == [Created, Progressed, Progressed, Finished]
            assert desk.parts() == []

    run(body())


def test_options_tell_what_is_offered(tmp_path: Path) -> None:
    """OPTIONS answers without a version: versions, extensions, size limit, checksums."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(max_size_bytes=1000)) as desk:
            answer = await desk.client.options(FILES, headers={"Tus-Resumable": "9"})
            assert answer.status_code == 204
            assert answer.headers["tus-version"] == "1.0.0"
            assert answer.headers["tus-max-size"] == "1000"
            assert "sha1" in answer.headers["tus-checksum-algorithm"]
            assert "creation-with-upload" in answer.headers["tus-extension"]

    run(body())


def test_head_tells_what_was_said(tmp_path: Path) -> None:
    """HEAD answers offset, length, expiry and the metadata as they came, and must not be cached."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            said = metadata(filename="x", other="y")
            url = await desk.create(10, said)
            answer = await desk.client.head(url)
            assert answer.headers["upload-metadata"] == said["Upload-Metadata"]
            assert (answer.headers["upload-length"], answer.headers["upload-offset"]) == ("10", "0")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["tus-resumable"] == "1.0.0"
            assert answer.headers["upload-expires"].endswith("GMT")

    run(body())


@pytest.mark.parametrize("size", [0, 1, len(DATA)])
def test_creation_with_upload(tmp_path: Path, size: int) -> None:
    """A POST with all bytes, or for none, creates and finishes the upload at once."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            headers = {"Upload-Length": str(size), **OFFSET_TYPE}
            answer = await desk.client.post(FILES, content=DATA[:size], headers=headers)
            assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(size))
            [event] = await desk.completed()
            assert desk.blobs.path(event.blob).read_bytes() == DATA[:size]
            assert await desk.offset(str(answer.url.join(answer.headers["location"]))) == size

    run(body())


def test_creation_with_a_part(tmp_path: Path) -> None:
    """A POST with some bytes creates the upload and says how many it took; a PATCH goes on."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            headers = {"Upload-Length": str(len(DATA)), **OFFSET_TYPE}
            answer = await desk.client.post(FILES + "/", content=DATA[:1000], headers=headers)
            assert (answer.status_code, answer.headers["upload-offset"]) == (201, "1000")
            url = str(answer.url.join(answer.headers["location"]))
            assert (await desk.patch(url, 1000, DATA[1000:])).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]

    run(body())


def test_wrong_offset_is_409(tmp_path: Path) -> None:
    """A PATCH at another offset changes nothing, and is told the right one."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(100)
            answer = await desk.patch(url, 7, b"x")
            assert (answer.status_code, code_of(answer)) == (409, "upload-offset")
            assert answer.headers["upload-offset"] == "0"
            assert await desk.offset(url) == 0

    run(body())


def test_other_versions_are_412(tmp_path: Path) -> None:
    """Every request but OPTIONS must name the version; otherwise it is not processed."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(100)
            for method, address in (("POST", FILES), ("HEAD", url), ("PATCH", url), ("DELETE", url)):
                answer = await desk.client.request(
                    method, address, headers={"Tus-Resumable": "0.9", "Upload-Length": "1"}
                )
                assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
            assert len(await desk.records(url)) == 1

    run(body())


def test_too_large_is_413(tmp_path: Path) -> None:
    """An upload over the limit, and a body over the upload's size, told before or only by its bytes, are refused."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(max_size_bytes=1000)) as desk:
            for size in ("1001", "9" * 18):
                answer = await desk.client.post(FILES, headers={"Upload-Length": size})
                assert (answer.status_code, answer.headers["tus-max-size"]) == (413, "1000")
            url = await desk.create(100)
            assert (await desk.patch(url, 0, b"x" * 101)).status_code == 413
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(b"y" * 60)
            slow.send(b"z" * 41)
            slow.send(None)
            answer = await request
            assert (answer.status_code, answer.headers["upload-offset"]) == (413, "0")
            assert await desk.offset(url) == 0
            assert (await desk.patch(url, 0, DATA[:100])).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA[:100])]

    run(body())


def test_other_types_are_415(tmp_path: Path) -> None:
    """A PATCH of another content type changes nothing."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(100)
            answer = await desk.patch(url, 0, b"x", {"Content-Type": "application/octet-stream"})
            assert (answer.status_code, code_of(answer)) == (415, "upload-content-type")
            assert await desk.offset(url) == 0

    run(body())


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_wrong_checksum_is_460(tmp_path: Path, algorithm: str) -> None:
    """Bytes with another checksum are discarded, the offset stays; the right ones are taken, and the blob is right."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(checkpoint_bytes=1000)) as desk:
            url = await desk.create(len(DATA))
            half = DATA[:150_000]
            assert (await desk.patch(url, 0, half[:50_000])).status_code == 204
            piece = half[50_000:]
            answer = await desk.patch(url, 50_000, piece[:-1] + b"!", checksum(piece, algorithm))
            assert (answer.status_code, code_of(answer)) == (460, "upload-checksum")
            assert await desk.offset(url) == 50_000
            assert (await desk.patch(url, 50_000, piece, checksum(piece, algorithm))).status_code == 204
            assert (await desk.patch(url, 150_000, DATA[150_000:])).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]
            outcomes = [record.outcome for record in await desk.records(url) if isinstance(record, Progressed)]
            assert outcomes.count("checksum_mismatch") == 1

    run(body())


def test_two_requests_at_once(tmp_path: Path) -> None:
    """While one PATCH writes another is answered 423, and the first goes on undisturbed."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:100])
            await until_busy(desk)
            other = await desk.patch(url, 0, DATA)
            assert (other.status_code, code_of(other)) == (423, "upload-locked")
            slow.send(DATA[100:])
            slow.send(None)
            assert (await request).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]

    run(body())


def test_asking_for_the_offset_ends_a_stale_request(tmp_path: Path) -> None:
    """A HEAD makes a PATCH that hangs let go: what it brought is kept, it is told 423, and the next PATCH goes on."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:100_000])
            await until_busy(desk)
            await until(lambda: desk.parts() and (desk.directory / desk.parts()[0]).stat().st_size == 100_000)
            assert await desk.offset(url) == 100_000
            slow.send(None)
            assert (await request).status_code == 423
            assert (await desk.patch(url, 100_000, DATA[100_000:])).status_code == 204
            assert [event.blob for event in await desk.completed()] == [sha256(DATA)]
            outcomes = [record.outcome for record in await desk.records(url) if isinstance(record, Progressed)]
            assert outcomes == ["superseded", "ok"]

    run(body())


def test_progress_is_recorded_on_the_way(tmp_path: Path) -> None:
    """A long request leaves records while it goes on, so that a kill loses little."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(checkpoint_bytes=50_000)) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:60_000])

            async def recorded() -> int:
                records = await desk.records(url)
                return records[-1].offset if isinstance(records[-1], Progressed) else 0

            assert await until(recorded) == 60_000
            slow.send(DATA[60_000:])
            slow.send(None)
            assert (await request).status_code == 204
            progress = [record for record in await desk.records(url) if isinstance(record, Progressed)]
            assert [record.outcome for record in progress] == ["receiving", "ok"]
            assert {record.request for record in progress} == {1}
            assert all(record.started_ns <= record.ended_ns for record in progress)

    run(body())


def test_termination(tmp_path: Path) -> None:
    """DELETE removes an unfinished upload, also one that is being written to; afterwards it is gone (410)."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(len(DATA))
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(DATA[:1000])
            await until_busy(desk)
            assert (await desk.client.delete(url)).status_code == 204
            slow.send(None)
            assert (await request).status_code == 423
            assert desk.parts() == []
            assert isinstance((await desk.records(url))[-1], Terminated)
            for answer in (await desk.client.head(url), await desk.patch(url, 0, b"x"), await desk.client.delete(url)):
                assert answer.status_code == 410

    run(body())


def test_finished_upload_stays(tmp_path: Path) -> None:
    """A finished upload cannot be removed; it tells its offset, and a last PATCH without bytes may be repeated."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(10)
            assert (await desk.patch(url, 0, DATA[:10])).status_code == 204
            answer = await desk.client.delete(url)
            assert (answer.status_code, code_of(answer)) == (409, "upload-finished")
            assert await desk.offset(url) == 10
            assert (await desk.patch(url, 10, b"")).status_code == 204
            assert (await desk.patch(url, 0, DATA[:10])).status_code == 409
            assert (await desk.patch(url, 10, b"x")).status_code == 413
            assert len(await desk.completed()) == 1

    run(body())


@pytest.mark.parametrize(
    "name", ["x", "0" * 26, "u" * 26, "%2e%2e", "%2e%2e%2fetc", "..%2f..%2fetc%2fpasswd", "a" * 5000, "%00"]
)
def test_ids_of_strangers_are_404(tmp_path: Path, name: str) -> None:
    """A name that is no upload's is not found, whatever it looks like, and never reaches the file system."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            for method in ("HEAD", "PATCH", "DELETE"):
                headers = {"Upload-Offset": "0", **OFFSET_TYPE}
                answer = await desk.client.request(method, f"http://here{FILES}/{name}", headers=headers, content=b"")
                assert answer.status_code == 404
            assert desk.parts() == []

    run(body())


def test_hostile_names_stay_words(tmp_path: Path) -> None:
    """A file name with directories is only shown, cut to its last part; nothing is written outside."""

    async def body() -> None:
        async with serving(tmp_path / "data") as desk:
            url = await desk.create(3, metadata(filename="../../../../evil.sh", filetype="<script>"))
            assert (await desk.patch(url, 0, b"abc")).status_code == 204
            [event] = await desk.completed()
            assert (event.filename, event.content_type) == ("evil.sh", "application/octet-stream")
            assert event.metadata["filename"] == "../../../../evil.sh"

    run(body())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upload-Length": "x"}, 400),
        ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "k !"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "k " + "A" * 5000}, 431),
    ],
)
def test_bad_creations(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """A malformed creation creates nothing."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            assert (await desk.client.post(FILES, headers=headers)).status_code == status
            assert await desk.log.read(UPLOAD_PREFIX + ">") == []

    run(body())


def test_method_override(tmp_path: Path) -> None:
    """A POST that says it is a PATCH is one; a method that an address does not have is 405."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(3)
            headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": "0", **OFFSET_TYPE}
            assert (await desk.client.post(url, content=b"abc", headers=headers)).status_code == 204
            answer = await desk.client.get(url)
            assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, HEAD, PATCH, DELETE")
            assert (await desk.client.put(FILES)).status_code == 405

    run(body())


def test_number_of_open_uploads_is_limited(tmp_path: Path) -> None:
    """Too many open uploads, or too many declared bytes, are refused until others end."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(max_open=2, max_open_bytes=100)) as desk:
            first = await desk.create(50)
            answer = await desk.client.post(FILES, headers={"Upload-Length": "51"})
            assert answer.status_code == 429 and code_of(answer) == "upload-too-many"
            await desk.create(50)
            answer = await desk.client.post(FILES, headers={"Upload-Length": "0"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
            await desk.client.delete(first)
            await desk.create(1)

    run(body())


def test_number_of_writers_is_limited(tmp_path: Path) -> None:
    """Too many requests that bring bytes at a time are told to come again."""

    async def body() -> None:
        async with serving(tmp_path, Uploads(max_active=1)) as desk:
            url, other = await desk.create(10), await desk.create(10)
            slow = Slow()
            request = begin_patch(desk, url, 0, slow)
            slow.send(b"x")
            await until_busy(desk)
            assert (await desk.patch(other, 0, b"y")).status_code == 503
            slow.send(None)
            assert (await request).status_code == 204
            assert (await desk.patch(other, 0, b"y")).status_code == 204

    run(body())


def test_traces_and_entities_are_on_the_records(tmp_path: Path) -> None:
    """Records are in the client's trace, the event in that of the creation, and all are about the upload."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            creation, other = f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'c' * 32}-{'d' * 16}-01"
            url = await desk.create(10, {"traceparent": creation})
            await desk.patch(url, 0, b"12345")
            await desk.patch(url, 5, b"67890", {"traceparent": other})
            stored = await desk.stored(url)
            traces = [parse_traceparent(record.headers["traceparent"]) for record in stored]
            assert [trace.trace_id[0] for trace in traces if trace is not None] == ["a", "a", "c", "c"]
            [event] = await desk.log.read("upload.completed")
            assert event.headers["traceparent"].startswith(f"00-{'a' * 32}-")
            assert event.key == id_of(url).encode()
            assert {record.headers["about"] for record in [*stored, event]} == {f"upload:{id_of(url)}"}
            first, last = (record for record in await desk.records(url) if isinstance(record, Progressed))
            assert (first.parent_span, last.parent_span) == ("", "d" * 16)

    run(body())


def test_pages_of_other_origins(tmp_path: Path) -> None:
    """No other origin may read an answer, unless it is allowed by name."""

    async def body() -> None:
        ask = {"Access-Control-Request-Method": "POST"}
        async with serving(tmp_path / "1") as desk:
            answer = await desk.client.options(FILES, headers={"Origin": "https://evil.example", **ask})
            assert not [name for name in answer.headers if name.startswith("access-control")]
        async with serving(tmp_path / "2", Uploads(allowed_origins=["https://shop.example"])) as desk:
            answer = await desk.client.options(FILES, headers={"Origin": "https://shop.example", **ask})
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            assert "Upload-Offset" in answer.headers["access-control-allow-headers"]
            answer = await desk.client.options(FILES, headers={"Origin": "https://evil.example", **ask})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "Origin"

    run(body())


def test_limits_must_be_positive() -> None:
    """A limit that is no positive number is refused where it is given."""
    for name in ("max_size_bytes", "max_open", "checkpoint_s"):
        with pytest.raises(InvalidArgumentError, match=name):
            Uploads(**{name: 0})  # type: ignore[arg-type]
    assert repr(Uploads()) == "<Uploads stopped>"
    assert TUS == {"Tus-Resumable": "1.0.0"}
