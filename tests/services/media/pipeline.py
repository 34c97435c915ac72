"""The pipeline without the durable workflow around it: from a file to a directory that a player could read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from mainstem.host.blobs import BlobStore
from mainstem.services.media.chunks import ChunkFiles, Encoder, WorkFile, encode_audio, encode_chunk
from mainstem.services.media.manifest import Manifest
from mainstem.services.media.package import materialise, package
from mainstem.services.media.plan import Chunk, Plan, make_plan
from mainstem.services.media.probe import probe_source
from mainstem.services.media.source import Limits, Refusal
from mainstem.services.media.tools import find_ffmpeg


class Published(msgspec.Struct, frozen=True):
    """A source that became a video."""

    plan: Plan
    manifest: Manifest
    directory: Path
    playlist: Path
    work: Path


def encoder_for(source: Path, work: Path, limits: Limits | None = None) -> Encoder:
    """Return an encoder with the fastest preset."""
    work.mkdir(parents=True, exist_ok=True)
    return Encoder(ffmpeg=find_ffmpeg(), source=source, work=work, preset="ultrafast", limits=limits or Limits())


async def publish(source: Path, directory: Path, *, workers: int = 2) -> Published | Refusal:
    """Do with a source all that the workflow does."""
    facts = await probe_source(source, Limits())
    if isinstance(facts, Refusal):
        return facts
    plan = make_plan(facts)
    encoder = encoder_for(source, directory / "work")
    room = asyncio.Semaphore(workers)

    async def chunk_files(chunk: Chunk) -> ChunkFiles:
        async with room:
            return await encode_chunk(encoder, plan.picture, plan.timing, plan.renditions, chunk)

    async def sound_file() -> WorkFile | None:
        if plan.audio is None:
            return None
        async with room:
            return await encode_audio(encoder, plan.picture.demuxer, plan.audio)

    sound, *chunks = await asyncio.gather(sound_file(), *map(chunk_files, plan.chunks))
    files = [chunk for chunk in chunks if isinstance(chunk, ChunkFiles)]
    blobs = BlobStore(directory / "blobs")
    manifest = await package(
        blobs, encoder.work, "video-1", "0" * 64, plan, files, sound if isinstance(sound, WorkFile) else None
    )
    playlist = materialise(blobs, manifest.files, directory / "published")
    return Published(plan, manifest, playlist.parent, playlist, encoder.work)
