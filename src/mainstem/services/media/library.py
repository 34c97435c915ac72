"""The published videos: which there are, and what they consist of. A projection of ``video.ready``."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from mainstem.base.codec import NotDecodableError, decode
from mainstem.base.errors import InvalidArgumentError
from mainstem.host.blobs import BlobStore, check_sha256
from mainstem.log.contract import Log, StoredRecord
from mainstem.services.media.errors import VideoNotFoundError
from mainstem.services.media.manifest import Manifest
from mainstem.services.media.records import VIDEO_READY, VideoReady

_logger = logging.getLogger(__name__)

_MANIFESTS_MAX = 64
_BATCH = 1000


class Library:
    """Answers from memory which videos are published; manifests are read when asked for, the latest 64 are kept.

    Args:
        log: Where the events are.
        blobs: Where the manifests are.
    """

    def __init__(self, log: Log, blobs: BlobStore) -> None:
        self._log = log
        self._blobs = blobs
        self._manifests: dict[str, str] = {}
        self._read: OrderedDict[str, Manifest] = OrderedDict()
        self._follower: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._manifests)

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifests)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._manifests

    async def start(self) -> None:
        """Read what was published, then follow."""
        position = 0
        while records := await self._log.read(VIDEO_READY, position, _BATCH):
            self._take(records)
            position = records[-1].position
        self._follower = asyncio.create_task(self._follow(position), name="mainstem media library")

    async def stop(self) -> None:
        """Follow no longer. Idempotent."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def _follow(self, position: int) -> None:
        async for records in self._log.tail(VIDEO_READY, position):
            self._take(records)

    def _take(self, records: Sequence[StoredRecord]) -> None:
        for record in records:
            try:
                ready: VideoReady = decode(record.value, VideoReady)
                check_sha256(ready.manifest)
            except (NotDecodableError, InvalidArgumentError) as error:
                # The stream is the application's too: what somebody else wrote there is not a video of ours.
                _logger.warning("record %d of %s is no VideoReady: %s", record.position, record.stream, error)
                continue
            self._manifests[ready.video_id] = ready.manifest

    async def manifest(self, video_id: str) -> Manifest:
        """Return the manifest of a published video.

        Raises:
            VideoNotFoundError: None of that id is published.
            BlobNotFoundError: The manifest is gone from the blob store.
        """
        blob = self._manifests.get(video_id)
        if blob is None:
            raise VideoNotFoundError(f"There is no published video {video_id[:80]!r}.")
        manifest = self._read.get(blob)
        if manifest is None:
            data = await asyncio.to_thread(self._blobs.path(blob).read_bytes)
            manifest = decode(data, Manifest)
            self._read[blob] = manifest
            while len(self._read) > _MANIFESTS_MAX:
                self._read.popitem(last=False)
        else:
            self._read.move_to_end(blob)
        return manifest
