"""Records in ``$upload.>`` that are none of ours: they hold up no start and no other upload, and it is said which."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from mainstem import Mainstem, Uploads
from mainstem.log import Record
from mainstem.services.uploads.protocol import Terminated, encode_record
from tests.app.test_unreadable import UNREADABLE
from tests.services.uploads.helpers import code_of, id_of, serving
from tests.support import run

HOSTILE = {
    **UNREADABLE,
    "a huge size": b'{"type":"created","size_bytes":%d,"started_ns":1,"expires_ns":1}' % 10**30,
    "a negative offset": b'{"type":"progressed","offset":-5,"request":1,"received_bytes":1,"started_ns":1,'
    b'"ended_ns":1,"outcome":"ok","expires_ns":1}',
}
OVERDUE = b'{"type":"created","size_bytes":5,"started_ns":1,"expires_ns":1}'


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_unreadable_upload_is_set_aside(value: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start goes on, the upload is 410 with the record's place, its bytes stay, and the others are served."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            odd, other = await desk.create(10), await desk.create(10)
            for url in (odd, other):
                await desk.patch(url, 0, b"12345")
            stream = f"$upload.{id_of(odd)}"
            position = await desk.log.append(stream, [Record(value)])
            await desk.log.append("$upload.never", [Record(value)])
            assert (await desk.patch(odd, 5, b"67890")).status_code == 503, "another writer was there"
            answer = await desk.patch(odd, 5, b"67890")
            assert (answer.status_code, code_of(answer)) == (410, "upload-unreadable")
        for _start in range(2):
            caplog.clear()
            async with serving(tmp_path) as desk:
                assert f"This version cannot read {stream} position {position}:" in caplog.text
                assert (await desk.client.head(odd)).status_code == 410
                assert f"{id_of(odd)}.part" in desk.parts()
                assert await desk.offset(other) == 5
        async with serving(tmp_path) as desk:
            assert (await desk.patch(other, 5, b"67890")).status_code == 204
            await desk.log.append(stream, [Record(encode_record(Terminated("client", 1)))])
        async with serving(tmp_path) as desk:
            assert desk.parts() == [], "an end that is on record counts"
            assert code_of(await desk.patch(odd, 5, b"67890")) == "upload-gone"

    run(body())


def test_what_comes_behind_the_end_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A finished upload stays finished, whatever is written to its stream."""

    async def body() -> None:
        async with serving(tmp_path) as desk:
            url = await desk.create(5)
            await desk.patch(url, 0, b"12345")
            await desk.log.append(f"$upload.{id_of(url)}", [Record(b"nonsense")])
            assert await desk.offset(url) == 5
        async with serving(tmp_path) as desk:
            assert await desk.offset(url) == 5
            assert "set aside" not in caplog.text

    run(body())


def test_a_stream_of_no_upload_of_ours_touches_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An upload whose id is not of our making, and might be a path, is passed over."""
    victim = tmp_path / "victim.part"
    victim.write_bytes(b"12345")

    async def body() -> None:
        stream = f"$upload.{victim.with_suffix('')}"
        async with serving(tmp_path / "data") as desk:
            await desk.log.append(stream, [Record(OVERDUE)])
        async with serving(tmp_path / "data") as desk:
            assert f"{stream} is the stream of no upload of ours" in caplog.text
            assert len(await desk.log.read(stream)) == 1
        assert victim.read_bytes() == b"12345"

    run(body())


def test_the_page_says_which_record(tmp_path: Path) -> None:
    """The upload's page and the list show it as paused; the page has the record's place."""

    async def body() -> None:
        async with serving(tmp_path / "scratch") as desk:
            created = (await desk.log.read(f"$upload.{id_of(await desk.create(10))}"))[0]
        ms = Mainstem(tmp_path / "data", services=[Uploads()])
        async with ms:
            await ms.log.append(created.stream, [Record(value) for value in (created.value, *HOSTILE.values())])
            await ms.log.append("$upload.never", [Record(value) for value in (OVERDUE, *HOSTILE.values())])
        ms = Mainstem(tmp_path / "data", services=[Uploads()])
        async with (
            ms,
            httpx.AsyncClient(transport=httpx.ASGITransport(app=ms.asgi), base_url="http://localhost") as client,
        ):
            page = await client.get(f"/{created.stream[1:].replace('.', 's/')}", headers={"accept": "text/html"})
            assert page.status_code == 200
            assert f"This version cannot read {created.stream} position 2:" in page.text
            listed = await client.get("/uploads", headers={"accept": "text/html"})
            assert listed.text.count("paused") >= 2

    run(body())
