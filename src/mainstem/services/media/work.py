"""The durable workflow of one video: inspect, plan, encode, package, publish.

Steps take and return only what is JSON; files go through the run's work directory (chunks) and the blob store (what is
published). A work directory has its run's id as its name, and is there as long as the run is open and no longer.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainstem.base.ids import check_id
from mainstem.bus import Retry
from mainstem.flow.branch import current_run
from mainstem.flow.errors import FlowError, RunCancelledError, RunFailedError
from mainstem.flow.ids import check_run_id
from mainstem.host.errors import ProcessNotStartedError
from mainstem.log.contract import TRACEPARENT, Log, Record
from mainstem.log.errors import LogError, LogFullError
from mainstem.services.media.chunks import (
    ChunkFiles,
    Encoder,
    WorkFile,
    encode_audio,
    encode_chunk,
    remove_work,
)
from mainstem.services.media.errors import MediaError, NoRoomError, PackageError, SourceDamagedError
from mainstem.services.media.manifest import MULTIVARIANT_NAME, Manifest
from mainstem.services.media.package import package
from mainstem.services.media.plan import AudioPlan, Chunk, Picture, Plan, Rendition, Timing, make_plan
from mainstem.services.media.probe import probe_source
from mainstem.services.media.records import (
    MEDIA_PREFIX,
    UPLOAD_COMPLETED,
    VIDEO_READY,
    VIDEO_REFUSED,
    WORKFLOW,
    ChunkEncoded,
    Planned,
    Progress,
    SoundEncoded,
    UploadCompleted,
    VideoOutcome,
    VideoReady,
    VideoRefused,
)
from mainstem.services.media.source import Limits, Refusal
from mainstem.trace.context import current_trace

if TYPE_CHECKING:
    from mainstem.bus import Bus
    from mainstem.flow import Flow
    from mainstem.host.blobs import BlobStore

_logger = logging.getLogger(__name__)

_SHORT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_ATTEMPTS_MAX = 3


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error is the machine's want of room, descriptors or processes, which passes, and no fault of a
    source.
    """
    if isinstance(error, OSError):
        return error.errno in _SHORT
    return isinstance(error, NoRoomError | LogFullError | ProcessNotStartedError)


class WorkRetry(Retry, frozen=True, kw_only=True):
    """The rule of the steps: three attempts, and for a shortage (:func:`is_shortage`) ``max_attempts``."""

    def retries(self, error: BaseException, attempt: int) -> bool:
        """Tell whether there is another attempt after attempt number ``attempt`` (from 1) ended with ``error``."""
        return super().retries(error, attempt) and (attempt < _ATTEMPTS_MAX or is_shortage(error))


_RETRY = WorkRetry(max_attempts=12, base_s=1.0, max_s=60.0, never_on=(PackageError,))
"""A video outlives some five minutes of a full disk."""


class Video(msgspec.Struct, frozen=True):
    """Which video is worked on: its id, its source, and what the uploader calls it."""

    video_id: str
    source_blob: str
    filename: str


class ChunkWork(msgspec.Struct, frozen=True, kw_only=True, tag="chunk"):
    """The argument of the step that encodes a chunk."""

    video: Video
    preset: str
    picture: Picture
    timing: Timing
    renditions: tuple[Rendition, ...]
    chunk: Chunk
    chunks_total: int


class SoundWork(msgspec.Struct, frozen=True, kw_only=True, tag="sound"):
    """The argument of the step that encodes the sound."""

    video: Video
    demuxer: str
    audio: AudioPlan


class WorkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the application chose.

    Attributes:
        workers: How many encoding processes run at once.
        videos_at_once: How many videos are worked on at once.
        preset: Preset of x264.
        limits: What a source may cost.
    """

    workers: int
    videos_at_once: int
    preset: str
    limits: Limits


class Workshop:
    """What the steps work with while the application runs."""

    def __init__(
        self, settings: WorkSettings, log: Log, flow: Flow, blobs: BlobStore, directory: Path, ffmpeg: Path
    ) -> None:
        self.settings = settings
        self.log = log
        self.flow = flow
        self.blobs = blobs
        self.directory = directory
        self.ffmpeg = ffmpeg
        self.damaged: dict[str, Refusal] = {}
        self._tidying: set[asyncio.Task[None]] = set()

    @property
    def run_id(self) -> str:
        """Id of the run whose step is being carried out.

        Raises:
            MediaError: None is.
        """
        run = current_run()
        if run is None:
            raise MediaError("A step of the workflow of videos was called outside of it. Nothing was done.")
        return run.run_id

    def work_directory(self, run_id: str = "") -> Path:
        """Return the directory of a run's unfinished files (of the one being carried out), without creating it."""
        return self.directory / check_run_id(run_id or self.run_id)

    async def remove_work(self, run_id: str = "") -> None:
        """Remove a run's unfinished files (of the one being carried out), and forget it."""
        run_id = run_id or self.run_id
        self.damaged.pop(run_id, None)
        await asyncio.to_thread(remove_work, self.work_directory(run_id))

    def tidy_up(self) -> None:
        """Remove the files of the run being carried out, whose code was broken off, once its end is on record.

        Where the application stops, or the run waits for a decision, it will go on, and needs its files. The code that
        was broken off cannot do this itself: it does not know why it was, and gets no further step.
        """
        work = self._tidy_up_after(self.run_id)
        # A context of its own: the wait is no part of the run.
        task = asyncio.create_task(work, name="tidy up after a video", context=contextvars.Context())
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)

    async def _tidy_up_after(self, run_id: str) -> None:
        try:
            await self.flow.handle(run_id).result()
        except (RunFailedError, RunCancelledError):
            await self.remove_work(run_id)
        except (FlowError, LogError) as error:
            # It stays open, or nobody can tell: the next start asks the log again, and removes what no run needs.
            _logger.info("the files of run %s are kept: %s", run_id, error)

    async def close(self) -> None:
        """Wait until what is being removed is gone. The workflows are stopped before this."""
        if self._tidying:
            await asyncio.wait(self._tidying)

    def encoder(self, video: Video) -> Encoder:
        """Return what encoding of a video needs; creates the run's directory."""
        work = self.work_directory()
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Encoder(
            ffmpeg=self.ffmpeg,
            source=self.blobs.path(video.source_blob),
            work=work,
            preset=self.settings.preset,
            limits=self.settings.limits,
        )

    async def note(self, video: Video, progress: Progress) -> None:
        """Write a record of progress."""
        headers = {"about": f"video:{video.video_id}", **trace_variables(TRACEPARENT)}
        await self.log.append(MEDIA_PREFIX + video.video_id, [Record(msgspec.json.encode(progress), headers=headers)])


def trace_variables(name: str = "TRACEPARENT") -> dict[str, str]:
    """Return the running trace context as a variable for child processes (or as a header of that name)."""
    trace = current_trace()
    return {name: trace.traceparent} if trace is not None else {}


Workshops = Callable[[], Workshop]
"""Gives the workshop; raises while the application is not running."""


async def inspect(shop: Workshop, video: Video) -> Plan | Refusal:
    """Look at a source and plan what is made of it."""
    path = shop.blobs.path(video.source_blob)
    facts = await probe_source(path, shop.settings.limits, env=trace_variables())
    if isinstance(facts, Refusal):
        _logger.info("refused: %s (%s)", facts.message, facts.reason)
        return facts
    plan = msgspec.structs.replace(await asyncio.to_thread(make_plan, facts), preset=shop.settings.preset)
    _logger.info(
        "%d frames, %.3f s, %s: %d chunks of %s",
        *(plan.frames, plan.duration_s, facts.codec, len(plan.chunks)),
        ", ".join(f"{one.width}x{one.height}" for one in plan.renditions),
    )
    if plan.picture.thinning is not None:
        shown = plan.timing.rate[0] / plan.timing.rate[1]
        _logger.info("%.4g frames a second in the source, shown at %.4g", plan.source_frame_rate, shown)
    await shop.note(
        video,
        Planned(
            chunks_total=len(plan.chunks),
            frames=plan.frames,
            duration_s=plan.duration_s,
            renditions=[one.name for one in plan.renditions],
            filename=video.filename,
        ),
    )
    return plan


async def do_chunk(shop: Workshop, work: ChunkWork) -> ChunkFiles | Refusal:
    """Encode one chunk; a source that turns out to be damaged is refused, and its other chunks are not begun."""
    video = work.video
    if shop.run_id in shop.damaged:
        return shop.damaged[shop.run_id]
    started_s = time.monotonic()
    encoder = msgspec.structs.replace(shop.encoder(video), preset=work.preset)
    try:
        result = await encode_chunk(
            encoder, work.picture, work.timing, work.renditions, work.chunk, env=trace_variables()
        )
    except SourceDamagedError as error:
        refusal = Refusal("damaged", error.message)
        shop.damaged[shop.run_id] = refusal
        return refusal
    seconds = time.monotonic() - started_s
    size_bytes = sum(file.size_bytes for file in result.files)
    _logger.info(
        "chunk %d of %d: %d frames in %.2f s", work.chunk.index + 1, work.chunks_total, work.chunk.frames, seconds
    )
    await shop.note(
        video,
        ChunkEncoded(
            index=work.chunk.index,
            chunks_total=work.chunks_total,
            frames=work.chunk.frames,
            size_bytes=size_bytes,
            seconds=round(seconds, 3),
        ),
    )
    return result


async def do_sound(shop: Workshop, work: SoundWork) -> WorkFile:
    """Encode all of the sound."""
    started_s = time.monotonic()
    file = await encode_audio(shop.encoder(work.video), work.demuxer, work.audio, env=trace_variables())
    seconds = time.monotonic() - started_s
    _logger.info("sound: %d bytes in %.2f s", file.size_bytes, seconds)
    await shop.note(work.video, SoundEncoded(size_bytes=file.size_bytes, seconds=round(seconds, 3)))
    return file


async def do_package(
    shop: Workshop, video: Video, plan: Plan, chunks: list[ChunkFiles], sound: WorkFile | None
) -> tuple[str, Manifest]:
    """Put everything that is to be published into the blob store; return the manifest and its blob."""
    manifest = await package(shop.blobs, shop.work_directory(), video.video_id, video.source_blob, plan, chunks, sound)
    blob = await shop.blobs.put_bytes(msgspec.json.encode(manifest))
    _logger.info("packaged: %d files", len(manifest.files))
    return blob, manifest


def declare(flow: Flow, bus: Bus, settings: WorkSettings, workshop: Workshops) -> None:
    """Declare the workflow ``video`` and its steps."""

    @flow.step(name="inspect_video", retry=_RETRY)
    async def inspect_video(video: Video) -> Plan | Refusal:
        return await inspect(workshop(), video)

    @flow.step(name="encode_chunk", retry=_RETRY, record_start=True)
    async def encode_chunk_step(work: ChunkWork) -> ChunkFiles | Refusal:
        return await do_chunk(workshop(), work)

    @flow.step(name="encode_sound", retry=_RETRY, record_start=True)
    async def encode_sound(work: SoundWork) -> WorkFile:
        return await do_sound(workshop(), work)

    @flow.step(name="package_video", retry=_RETRY)
    async def package_video(video: Video, plan: Plan, chunks: list[ChunkFiles], sound: WorkFile | None) -> VideoReady:
        blob, manifest = await do_package(workshop(), video, plan, chunks, sound)
        return _ready(video, plan, blob, manifest)

    @flow.step(name="remove_work_files", retry=_RETRY)
    async def remove_work_files() -> None:
        await workshop().remove_work()

    def encode(work: ChunkWork | SoundWork) -> Awaitable[ChunkFiles | WorkFile | Refusal]:
        return encode_sound(work) if isinstance(work, SoundWork) else encode_chunk_step(work)

    async def make(video: Video) -> VideoReady | Refusal:
        plan = await inspect_video(video)
        if isinstance(plan, Refusal):
            return plan
        results = await flow.map(encode, _works(video, plan), max_concurrency=settings.workers)
        refusal = next((result for result in results if isinstance(result, Refusal)), None)
        if refusal is not None:
            return refusal
        chunks = [result for result in results if isinstance(result, ChunkFiles)]
        sound = next((result for result in results if isinstance(result, WorkFile)), None)
        return await package_video(video, plan, chunks, sound)

    @flow.workflow(on=UPLOAD_COMPLETED, name=WORKFLOW, concurrency=settings.videos_at_once)
    async def video_workflow(upload: UploadCompleted) -> VideoOutcome:
        video = Video(check_id(upload.upload_id, "upload id"), upload.blob, upload.filename[:255])
        try:
            outcome = await _announce(bus, video, await make(video))
            await remove_work_files()
        except BaseException:
            workshop().tidy_up()  # nothing of a run that failed is left behind; its journal and the source remain
            raise
        return outcome


async def _announce(bus: Bus, video: Video, made: VideoReady | Refusal) -> VideoOutcome:
    about = [f"upload:{video.video_id}", f"video:{video.video_id}"]
    if isinstance(made, Refusal):
        await bus.publish(VIDEO_REFUSED, _refused(video, made), about=about, durable=True)
        return VideoOutcome(outcome="refused", video_id=video.video_id, message=made.message)
    await bus.publish(VIDEO_READY, made, about=about, durable=True)
    return VideoOutcome(outcome="ready", video_id=video.video_id)


def _works(video: Video, plan: Plan) -> list[ChunkWork | SoundWork]:
    """Return what is to be encoded, the sound first: it takes longest, and nothing waits for it alone at the end."""
    chunks = [
        ChunkWork(
            video=video,
            preset=plan.preset,
            picture=plan.picture,
            timing=plan.timing,
            renditions=tuple(plan.renditions),
            chunk=chunk,
            chunks_total=len(plan.chunks),
        )
        for chunk in plan.chunks
    ]
    if plan.audio is None:
        return list(chunks)
    return [SoundWork(video=video, demuxer=plan.picture.demuxer, audio=plan.audio), *chunks]


def _refused(video: Video, refusal: Refusal) -> VideoRefused:
    return VideoRefused(
        video_id=video.video_id,
        upload_id=video.video_id,
        source_blob=video.source_blob,
        filename=video.filename,
        reason=refusal.reason,
        message=refusal.message,
    )


def _ready(video: Video, plan: Plan, blob: str, manifest: Manifest) -> VideoReady:
    return VideoReady(
        video_id=video.video_id,
        upload_id=video.video_id,
        source_blob=video.source_blob,
        filename=video.filename,
        playlist=f"media/videos/{video.video_id}/{MULTIVARIANT_NAME}",
        manifest=blob,
        duration_s=manifest.duration_s,
        frames=manifest.frames,
        frame_rate=manifest.frame_rate,
        has_audio=manifest.has_audio,
        chunks=len(plan.chunks),
        renditions=manifest.renditions,
        source_frame_rate=manifest.source_frame_rate,
    )
