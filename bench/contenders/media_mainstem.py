"""Our media service in a running application: from the upload's event until the playlist is published."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.child import Task, check_count, cpu_s, linger, report, run
from bench.clips import FRAME_RATE, clip
from mainstem import Mainstem
from mainstem.services.media import Media


async def main(task: Task) -> None:
    """Make a video of the clip once and report how long it took."""
    directory = Path(task["directory"])
    source = shutil.copyfile(clip(task["seconds"]), directory / "clip.mp4")
    async with Mainstem(directory / "data", services=[Media()]) as ms:
        blob = await ms.blobs.put_file(source)
        upload = {"upload_id": "bench", "blob": blob, "filename": source.name}
        outcomes = ms.log.tail("video.*")
        began_s, cpu_began_s = time.perf_counter(), cpu_s()
        await ms.publish("upload.completed", upload, about=["upload:bench"])
        batch = await anext(outcomes)
        wall_s, used_s = time.perf_counter() - began_s, cpu_s() - cpu_began_s
        outcome = batch[0]
        if outcome.stream != "video.ready":
            raise RuntimeError(f"the clip did not become a video: {outcome.value!r}")
        video = msgspec.json.decode(outcome.value)
        check_count(
            min(item["frames"] for item in video["renditions"]), round(task["seconds"] * FRAME_RATE), "the video"
        )
        details = [msgspec.json.decode(record.value) for record in await ms.log.read("$media.*")]
        size_bytes = sum(path.stat().st_size for path in (directory / "data" / "blobs").rglob("*") if path.is_file())
    report(wall_s, **_summary(video, details), cpu_s=round(used_s, 2), size_bytes=size_bytes - source.stat().st_size)
    linger()


def _summary(video: dict[str, Any], progress: list[dict[str, Any]]) -> dict[str, Any]:
    """What the pipeline says of itself: sizes, chunks, and how long its parts took."""
    seconds = {
        kind: round(sum(item["seconds"] for item in progress if item["type"] == kind), 2) for kind in ("chunk", "sound")
    }
    return {
        "renditions": [f"{item['width']}x{item['height']}" for item in video["renditions"]],
        "chunks": video["chunks"],
        "chunks_process_s": seconds["chunk"],
        "sound_process_s": seconds["sound"],
    }


if __name__ == "__main__":
    run(main)
