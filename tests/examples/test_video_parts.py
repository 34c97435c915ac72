"""The parts of the video example that need no server of ours."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from examples.video.fetch import fetch_video, playlist_uris
from examples.video.progress import Bar, Screen
from examples.video.proxy import CuttingProxy
from examples.video.report import Rendition, Report, Source, faults
from examples.video.run import command_name
from tests.support import run, until


async def swallow(received: list[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take in all that comes, and note how much it was."""
    index = len(received)
    received.append(0)
    try:
        while piece := await reader.read(1 << 16):
            received[index] += len(piece)
        writer.write(b"thanks")
        await writer.drain()
    except ConnectionError:
        received.append(-1)
        received.pop()
    finally:
        writer.close()


async def send(port: int, size_bytes: int) -> bytes:
    """Send bytes through the proxy; return the answer, or nothing where the line was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(bytes(size_bytes))
        await writer.drain()
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def test_the_proxy_cuts_at_byte_counts() -> None:
    """The line is cut exactly at the given counts, over connections, and whole connections pass after that."""

    async def cut_twice() -> tuple[list[int], list[bytes], int]:
        received: list[int] = []
        server = await asyncio.start_server(partial(swallow, received), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with CuttingProxy(port, [100_000, 250_000], rate_bytes_per_s=1e9) as proxy:
            answers = [await send(proxy.port, 200_000) for _turn in range(2)]
            answers.append(await send(proxy.port, 50_000))
            cuts = proxy.cuts
            assert proxy.forwarded_bytes == 300_000
        server.close()
        await server.wait_closed()
        return received, answers, cuts

    received, answers, cuts = run(cut_twice())
    assert cuts == 2
    assert answers[:2] == [b"", b""]
    assert received[2] == 50_000


def good_report() -> Report:
    """Return a report in which nothing is wrong."""
    return Report(cuts=2, kills=1, chunks=9, chunks_done_before_kill=2, chunks_encoded_again=2)


def test_a_good_report_has_no_faults() -> None:
    """Nothing is wrong where all conditions hold."""
    assert faults(good_report(), [], workers=2) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"playlist_findings": 1}, "checker"),
        ({"cuts": 1}, "cut"),
        ({"chunks": 5}, "chunks"),
        ({"kills": 0}, "not killed"),
        ({"chunks_done_before_kill": 0}, "no chunk was done"),
        ({"chunks_encoded_again": 3}, "encoded again"),
    ],
)
def test_each_fault_is_a_sentence(change: dict[str, int], word: str) -> None:
    """Each condition that does not hold is told in a sentence of its own."""
    report = msgspec.structs.replace(good_report(), **change)
    found = faults(report, [], workers=2)
    assert len(found) == 1
    assert word in found[0]


def test_renditions_that_differ_are_a_fault() -> None:
    """What the verification says against the renditions is a fault, whatever else is well."""
    assert faults(good_report(), ["640x360 has 9 frames, the source 10."], workers=2) == [
        "640x360 has 9 frames, the source 10."
    ]


def test_the_last_line_has_the_documented_keys() -> None:
    """The report's JSON has the keys of the documented last line, in that order."""
    report = msgspec.structs.replace(good_report(), source=Source(1, 2.0), renditions=[Rendition(2, 2, 1, 9)])
    keys = list(msgspec.json.decode(msgspec.json.encode(report)))
    assert " ".join(keys) == (
        "ok playlist source renditions cuts bytes_sent_again kills chunks chunks_done_before_kill chunks_encoded_again "
        "playlist_findings wall_s"
    )


def test_playlist_addresses() -> None:
    """Addresses are found in lines and in URI attributes, not in comments."""
    text = (
        '#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:4.0,\nseg1.m4s\n\n# note\n#EXT-X-MEDIA:TYPE=AUDIO,URI="a/b.m3u8"\n'
    )
    assert playlist_uris(text) == ["init.mp4", "seg1.m4s", "a/b.m3u8"]


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Serve a directory's files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_video_is_fetched_whole(tmp_path: Path) -> None:
    """The playlist, its playlists and their segments arrive, each once, at the same places relative to each other."""
    web = tmp_path / "web"
    (web / "v" / "1").mkdir(parents=True)
    (web / "v" / "1" / "main.m3u8").write_text("#EXTM3U\nlow.m3u8\n")
    (web / "v" / "1" / "low.m3u8").write_text('#EXTM3U\n#EXT-X-MAP:URI="../../b/i.mp4"\n../../b/s.m4s\n../../b/s.m4s\n')
    (web / "b").mkdir()
    (web / "b" / "i.mp4").write_bytes(b"init")
    (web / "b" / "s.m4s").write_bytes(b"segment")
    counts: list[int] = []
    with serving(web) as url:
        playlist = fetch_video(url + "v/1/main.m3u8", url, tmp_path / "out", counts.append)
    assert playlist == tmp_path / "out" / "v" / "1" / "main.m3u8"
    assert (tmp_path / "out" / "b" / "s.m4s").read_bytes() == b"segment"
    assert counts[-1] == 4


def test_a_playlist_cannot_lead_out(tmp_path: Path) -> None:
    """An address outside of the root is refused."""
    web = tmp_path / "web"
    (web / "v").mkdir(parents=True)
    (web / "v" / "main.m3u8").write_text("http://example.org/x.m4s\n")
    with serving(web) as url, pytest.raises(ValueError, match="leads out of"):
        fetch_video(url + "v/main.m3u8", url + "v/", tmp_path / "out")


def test_off_a_terminal_progress_is_a_few_lines() -> None:
    """Elsewhere than on a terminal a bar prints at most five lines, without control characters."""
    stream = io.StringIO()
    bar = Bar(Screen(stream), "upload", 1000, "MB")
    for done in range(1001):
        bar.update(done)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert "\x1b" not in stream.getvalue()
    assert "100 %" in lines[-1]


def test_on_a_terminal_progress_moves_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the bar redraws one line, and what is printed next stands below it."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    screen = Screen(stream)
    bar = Bar(screen, "encode", 8, "chunks")
    for done in (0, 3, 8):
        bar.update(done, note=f"{done} done")
    screen.line("next")
    text = stream.getvalue()
    assert 1 < text.count("\r\x1b[2K") <= 3
    assert "8 of 8 chunks" in text
    assert screen.aside("2 under way") == "2 under way"
    assert text.endswith("\nnext\n")


def test_a_bar_keeps_moving_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the clock beside a bar goes on by itself."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    bar = Bar(Screen(stream), "decode", 1)

    async def watch() -> None:
        moving = asyncio.ensure_future(bar.keep_moving())
        await until(lambda: stream.getvalue().count("decode") > 2)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)

    run(watch())


def test_the_command_is_named_as_it_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name where the shell finds this environment's; elsewhere by its path, from here where it is below."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    monkeypatch.setattr("sys.executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert command_name() == "mainstem"
    (programs / "mainstem").touch(mode=0o755)
    assert command_name() == str(programs / "mainstem")
    monkeypatch.chdir(tmp_path)
    assert command_name() == ".venv/bin/mainstem"
    monkeypatch.setenv("PATH", str(programs))
    assert command_name() == "mainstem"
