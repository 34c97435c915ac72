"""The protocol's requests, answered in this process: what a client sees, what is recorded, what is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from mainstem.services.uploads.protocol import Created, Finished, Progressed
from tests.services.uploads.helpers import FILES, OFFSET_TYPE, metadata, serving, sha256
from tests.support import run

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


def test_creation_with_upload(tmp_path: Path) -> None:
    """A POST with a body creates the upload and brings its bytes; all of them finish it."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            answer = await desk.client.post(
                FILES, content=DATA, headers={"Upload-Length": str(len(DATA)), **OFFSET_TYPE}
            )
            assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(len(DATA)))
            assert len(await desk.completed()) == 1

    run(body())
