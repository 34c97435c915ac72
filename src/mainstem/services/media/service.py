"""The service: what it declares, what it does at start and stop, how it serves."""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from mainstem.base.errors import InvalidArgumentError
from mainstem.flow.history import RunFold
from mainstem.flow.ids import check_run_id
from mainstem.flow.journal import JOURNAL_PREFIX
from mainstem.host.errors import BlobNotFoundError
from mainstem.services.media.chunks import UNFINISHED_PREFIX
from mainstem.services.media.delivery import deliver
from mainstem.services.media.encode import PRESET, PRESETS
from mainstem.services.media.errors import MediaError, VideoNotFoundError
from mainstem.services.media.library import Library
from mainstem.services.media.source import Limits
from mainstem.services.media.tools import find_ffmpeg
from mainstem.services.media.work import WorkSettings, Workshop, declare

if TYPE_CHECKING:
    from mainstem.bus import Bus
    from mainstem.flow import Flow
    from mainstem.services.contract import ServiceContext
    from mainstem.ui.panel import Panel

_PIECE_BYTES = 1 << 18
_PAGE_RECORDS = 1000


class Media:
    """Turns completed uploads into adaptive video (HLS), durably, and serves it.

    Args:
        workers: How many ffmpeg processes run at once; by default one for each core that this process may use.
        videos_at_once: How many videos are worked on at once; each has that many processes.
        preset: Preset of x264, ``"ultrafast"`` to ``"veryslow"``.
        limits: What a source may cost.

    Raises:
        InvalidArgumentError: A number or the preset is outside of its range.
    """

    def __init__(
        self, *, workers: int | None = None, videos_at_once: int = 1, preset: str = PRESET, limits: Limits | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidArgumentError(f"workers={workers}: expected at least 1, or None for one a core.")
        if videos_at_once < 1:
            raise InvalidArgumentError(f"videos_at_once={videos_at_once}: expected at least 1.")
        if preset not in PRESETS:
            raise InvalidArgumentError(f"preset={preset!r}: expected one of {', '.join(PRESETS)}.")
        self._settings = WorkSettings(
            workers=workers or len(os.sched_getaffinity(0)),
            videos_at_once=videos_at_once,
            preset=preset,
            limits=limits or Limits(),
        )
        self._shop: Workshop | None = None
        self._library: Library | None = None

    def __repr__(self) -> str:
        videos = f", {len(self._library)} videos" if self._library is not None else ""
        return f"<Media {self._settings.workers} workers, {self._settings.preset}{videos}>"

    @property
    def name(self) -> str:
        """``"media"``."""
        return "media"

    @property
    def workers(self) -> int:
        """How many encoding processes run at once."""
        return self._settings.workers

    @property
    def library(self) -> Library:
        """The published videos.

        Raises:
            MediaError: The application is not running.
        """
        if self._library is None:
            raise MediaError("The media service is not running. Nothing was done.", try_command="mainstem dev app.py")
        return self._library

    def register(self, flow: Flow, bus: Bus) -> None:
        """Declare the workflow ``video`` on ``upload.completed``, and its steps."""
        declare(flow, bus, self._settings, self._workshop)

    def _workshop(self) -> Workshop:
        if self._shop is None:
            raise MediaError("The media service is not running. Nothing was done.", try_command="mainstem dev app.py")
        return self._shop

    async def start(self, context: ServiceContext) -> None:
        """Read which videos there are, remove what a crash left, and begin to serve.

        Raises:
            MissingExtraError: There is no ffmpeg.
        """
        ffmpeg = await asyncio.to_thread(find_ffmpeg)
        library = Library(context.log, context.blobs)
        await library.start()
        try:
            await _sweep(context)
        except BaseException:
            await library.stop()  # what did not start is not stopped by anybody else
            raise
        self._library = library
        self._shop = Workshop(self._settings, context.log, context.flow, context.blobs, context.directory, ffmpeg)

    async def stop(self) -> None:
        """Follow the log no longer; the workflows are stopped before this. Idempotent."""
        library, shop, self._library, self._shop = self._library, self._shop, None, None
        if shop is not None:
            await shop.close()
        if library is not None:
            await library.stop()

    def routes(self) -> Sequence[BaseRoute]:
        """Return ``/videos/{video_id}/{name}``, for GET and HEAD."""
        return [Route("/videos/{video_id}/{name}", self._serve, methods=["GET", "HEAD"], name="video-file")]

    def panels(self) -> Sequence[Panel]:
        """Return the pages of videos."""
        from mainstem.services.media.panel import VideosPanel  # noqa: PLC0415 (only who has a dashboard needs it)

        return (VideosPanel(),)

    async def _serve(self, request: Request) -> Response:
        """Serve one file of a published video. Names are looked up in its manifest; they never become paths."""
        try:
            manifest = await self.library.manifest(request.path_params["video_id"])
            name = request.path_params["name"]
            file = manifest.files.get(name)
            if file is None:
                raise VideoNotFoundError(f"Video {manifest.video_id} has no file {name[:80]!r}.")
            path = self._workshop().blobs.path(file.sha256)
        except (VideoNotFoundError, BlobNotFoundError) as error:
            body = {"error": {"code": error.code, "message": error.message}}
            return JSONResponse(body, status_code=404, headers={"cache-control": "no-store"})
        delivery = deliver(name, file, request.headers)
        if delivery.gzip:
            compressed = await asyncio.to_thread(lambda: gzip.compress(path.read_bytes(), 6, mtime=0))
            return Response(compressed, delivery.status, delivery.headers)
        if request.method == "HEAD" or delivery.length == 0:
            return Response(None, delivery.status, delivery.headers)
        return StreamingResponse(_pieces(path, delivery.start, delivery.length), delivery.status, delivery.headers)


async def _pieces(path: Path, start: int, length: int) -> AsyncIterator[bytes]:
    """Yield a part of a file, read in threads."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        await asyncio.to_thread(file.seek, start)
        while length > 0 and (data := await asyncio.to_thread(file.read, min(length, _PIECE_BYTES))):
            length -= len(data)
            yield data
    finally:
        file.close()


async def _sweep(context: ServiceContext) -> None:
    """Remove the work directories of all runs but those that will go on, and what encoders left unfinished in these.

    The log says which these are: neither the age of a directory nor what became of the video before does.
    """
    for work in await asyncio.to_thread(lambda: [path for path in context.directory.iterdir() if path.is_dir()]):
        pattern = f"{UNFINISHED_PREFIX}*" if await _is_open(context, work.name) else ""
        await asyncio.to_thread(_remove, work, pattern)


def _remove(work: Path, pattern: str) -> None:
    """Remove a directory, or what is in it and fits a pattern."""
    for path in list(work.glob(pattern)) if pattern else [work]:
        shutil.rmtree(path)


async def _is_open(context: ServiceContext, run_id: str) -> bool:
    """Tell whether a run has begun and not ended; one whose journal this version cannot read has not."""
    try:
        fold = RunFold(check_run_id(run_id))
    except InvalidArgumentError:
        return False  # no run's directory
    position = 0
    while records := await context.log.read(JOURNAL_PREFIX + run_id, position, _PAGE_RECORDS):
        for record in records:
            fold.apply(record)
        position = records[-1].position
    return fold.is_open
