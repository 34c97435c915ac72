"""The demonstration's acts, in order, on a server that is a process of its own. What is true is read from its log."""

from __future__ import annotations

import asyncio
import mimetypes
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from examples.video.app import media
from examples.video.fetch import fetch_video
from examples.video.progress import Bar, Screen
from examples.video.proxy import CuttingProxy
from examples.video.report import CUTS, Rendition, Report, Source
from examples.video.server import Server, ServerError
from examples.video.tus import TusUpload, UploadError
from examples.video.watch import VideoWatch
from mainstem import MainstemError
from mainstem.cli.output import format_count
from mainstem.cli.trace import find_traces, load_traces, trace_lines
from mainstem.log import open_reader
from mainstem.services.media import VideoReady, verify_video
from mainstem.ui.format import format_bytes

_UPLOAD_TAKES_S = 2.0
_SILENCE_MAX_S = 300.0


class DemonstrationError(Exception):
    """The demonstration cannot go on: what is wrong, in a sentence."""


def command_name() -> str:
    """Return how ``mainstem`` is called from here: by its name, or by its path where the shell would not find it."""
    program = Path(sys.executable).with_name("mainstem")
    found = shutil.which("mainstem")
    if not program.exists() or (found is not None and Path(found).samefile(program)):
        return "mainstem"
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))


class Demonstration:
    """One run of the whole; call :meth:`run` once, and :meth:`close` at the end.

    Args:
        screen: Where it is shown.
        clip: The clip.
        directory: An empty directory for the data, the server's output and the fetched video.
        report: Filled with what is found.

    Attributes:
        report: The same.
        workers: How many chunks are encoded at the same time.
        problems: Sentences about what the renditions are not, compared with the clip.
    """

    def __init__(self, screen: Screen, clip: Path, directory: Path, report: Report) -> None:
        self._screen = screen
        self._clip = clip
        self._directory = directory
        self._data = directory / "data"
        self._server = Server(Path(__file__).with_name("app.py"), directory / "server.log", {"DATA": str(self._data)})
        self._watch = VideoWatch()
        self.report = report
        self.workers = media.workers
        self.problems: list[str] = []

    async def run(self) -> None:
        """Do everything, filling the report.

        Raises:
            DemonstrationError: It cannot go on.
        """
        try:
            await self._start_server()
            await self._upload()
            await self._kill_in_mid_encode()
            video = await self._await_video()
            await self._verify(video)
            await self._show_trace()
            self._show_addresses(video)
        except (ServerError, UploadError, MainstemError, OSError, ValueError) as error:
            raise DemonstrationError(str(error)) from error

    async def close(self) -> None:
        """End the server."""
        await self._server.stop()

    async def serve_until_interrupted(self) -> None:
        """Go on serving until Ctrl-C.

        Raises:
            DemonstrationError: The server ended by itself.
        """
        self._screen.line("\nServing until Ctrl-C.")
        await self._server.wait()
        raise DemonstrationError("the server ended by itself")

    # ---- the acts

    async def _start_server(self) -> None:
        self._screen.heading("A server, and a log in an empty directory")
        await self._server.start()
        self._tell("clip", f"{self._clip}  ({format_bytes(self._clip.stat().st_size)})")
        self._tell("server", f"{self._server.url}  (process {self._server.pid})")

    async def _upload(self) -> None:
        """Upload the clip through a line that is cut after a third and after two thirds of its bytes."""
        self._screen.heading(f"Upload over a connection that is cut {CUTS} times")
        size = self._clip.stat().st_size
        bar = Bar(self._screen, "upload", size, "MB")
        cuts = [size * (number + 1) // (CUTS + 1) for number in range(CUTS) if size > CUTS]
        rate_bytes_per_s = max(1.0, size / _UPLOAD_TAKES_S)
        async with CuttingProxy(self._server.port, cuts, rate_bytes_per_s) as proxy:
            upload = TusUpload(
                f"http://127.0.0.1:{proxy.port}{urlsplit(self._server.url).path}uploads/files",
                self._clip,
                content_type=mimetypes.guess_type(self._clip.name)[0] or "application/octet-stream",
                on_progress=bar.update,
                on_break=lambda offset: self._tell("cut", f"{offset:,} bytes are safe; it goes on from there"),
            )
            self._watch.upload_id = await upload.run()
            self.report.cuts = proxy.cuts
        self.report.bytes_sent_again = upload.bytes_sent_again
        self._tell("sent again", f"{upload.bytes_sent_again:,} of {size:,} bytes")

    async def _kill_in_mid_encode(self) -> None:
        """Kill the server once a chunk's result is durable and another chunk has begun, both as its log has them."""
        self._screen.heading("Encode, and kill -9 in the middle")
        watch = self._watch
        await self._follow(lambda: watch.ready is not None or (watch.done >= 1 and watch.under_way >= 1))
        if watch.ready is not None:
            self._tell("kill -9", "not done: the video was ready before one chunk was done and another under way")
            return
        await self._server.kill()
        self.report.kills += 1
        await self._catch_up()
        self.report.chunks_done_before_kill = watch.done
        what = f"{format_count(watch.done, 'chunk')} durable, {watch.under_way} under way"
        self._tell("kill -9", f"process {self._server.pid} is gone: {what}")
        await self._server.start()
        self._tell("again", f"process {self._server.pid} takes over where the log ends")

    async def _await_video(self) -> VideoReady:
        watch = self._watch
        await self._follow(lambda: watch.ready is not None)
        assert watch.ready is not None
        self.report.chunks = watch.ready.chunks
        self.report.chunks_encoded_again = watch.encoded_again
        self._tell("encoded", f"{format_count(watch.ready.chunks, 'chunk')}, {watch.encoded_again} of them again")
        return watch.ready

    async def _verify(self, video: VideoReady) -> None:
        """Fetch the video as a player does, decode all of it, compare it with the clip, and check its playlists."""
        self._screen.heading("Verify: fetch it, decode all of it, compare it with the clip, check the playlists")
        root = urljoin(self._server.url, video.playlist.rpartition("/")[0] + "/")
        url = urljoin(self._server.url, video.playlist)
        playlist = await asyncio.to_thread(fetch_video, url, root, self._directory / "hls")
        self.report.playlist = str(playlist)
        checking = Bar(self._screen, "decode", 1, "")
        moving = asyncio.ensure_future(checking.keep_moving())
        try:
            found = await verify_video(playlist, self._clip)
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
        checking.update(1)
        self.report.source = Source(found.source_frames, round(found.source_duration_s, 3))
        self.report.renditions = [
            Rendition(one.width, one.height, one.frames, one.bandwidth) for one in found.renditions
        ]
        self.report.playlist_findings = len(found.violations)
        self.problems = list(found.problems)
        self._tell("source", f"{found.source_frames} frames, {found.source_duration_s:.2f} s")
        for one in found.renditions:
            size = f"{one.width}x{one.height}"
            likeness = f"PSNR {one.psnr_mean_db:.1f} dB, at least {one.psnr_min_db:.1f} dB"
            repeated = f"{len(one.misplaced)} repeated"
            figures = f"{one.frames} frames, {repeated}  {one.bandwidth / 1e6:5.2f} Mbit/s"
            self._tell("rendition", f"{size:<9}  {figures}  {likeness}")
        self._tell("playlists", f"{format_count(len(found.findings), 'finding')} of the checker")
        for finding in found.findings:
            self._tell("", str(finding))

    async def _show_trace(self) -> None:
        self._screen.heading("What became of it, from the first byte to the last segment")
        reader = await open_reader(self._data / "log")
        try:
            trace_ids = await find_traces(reader, self._watch.upload_id)
            for trace in await load_traces(reader, trace_ids):
                for line in trace_lines(trace, self._screen.width):
                    self._screen.line(line)
        finally:
            await reader.close()

    def _show_addresses(self, video: VideoReady) -> None:
        self._screen.heading("Look at it")
        self._tell("player", urljoin(self._server.url, f"videos/{video.video_id}"))
        self._tell("dashboard", self._server.url)
        self._tell("trace", f"{command_name()} trace {self._watch.upload_id} --data {self._data}")
        self._tell("playlist", self.report.playlist)

    # ---- reading the log

    async def _follow(self, done: Callable[[], bool]) -> None:
        """Read the log as it grows until ``done``.

        Raises:
            ServerError: The server ended meanwhile.
            DemonstrationError: Nothing happened for too long, or no video will come of the upload.
        """
        bar = Bar(self._screen, "encode", self._watch.total or 1, "chunks")
        reading = asyncio.ensure_future(self._read_until(done, bar))
        ending = asyncio.ensure_future(self._server.wait())
        moving = asyncio.ensure_future(bar.keep_moving())
        try:
            await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return await reading
            self._server.check()
        finally:
            for task in (reading, ending, moving):
                task.cancel()
            await asyncio.gather(reading, ending, moving, return_exceptions=True)

    async def _read_until(self, done: Callable[[], bool], bar: Bar) -> None:
        reader = await open_reader(self._data / "log")
        batches = aiter(reader.tail(">", self._watch.position))
        try:
            while not done():
                async with asyncio.timeout(_SILENCE_MAX_S):
                    records = await anext(batches)
                self._watch.add(records)
                if self._watch.failure:
                    raise DemonstrationError(self._watch.failure)
                if self._watch.total:
                    bar.total = self._watch.total
                    bar.update(self._watch.done, self._screen.aside(f"{self._watch.under_way} under way"))
        except TimeoutError:
            raise DemonstrationError(
                f"nothing happened for {_SILENCE_MAX_S:.0f} s; {command_name()} runs --data {self._data} shows where "
                "it stands"
            ) from None
        finally:
            await reader.close()

    async def _catch_up(self) -> None:
        """Take in what the killed server left in the log, without owning it."""
        reader = await open_reader(self._data / "log")
        try:
            while records := await reader.read(">", self._watch.position, 1000):
                self._watch.add(records)
        finally:
            await reader.close()

    def _tell(self, what: str, text: str) -> None:
        self._screen.line(f"  {what:<12} {text}")
