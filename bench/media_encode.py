"""``media.encode``: a clip becomes adaptive video, wall time.

Ours is the whole pipeline in a running application: the upload's event, probing, planning, a durable step for each
chunk, sound, packaging, playlists, publishing. The peer is one ffmpeg command: one decode, the same three renditions
with the same encoder settings, key-frame distance and rate control, on all threads, written as fragmented MP4 with
playlists. It makes neither I-frame playlists nor content-addressed names, survives no kill, and has no limit set by the
machine that would mean anything.
"""

from __future__ import annotations

from bench.model import Bench, Contender

_MODULES = "bench.contenders"

MEDIA_ENCODE = (
    Bench(
        name="media.encode",
        unit="s",
        better="lower",
        contenders=(
            Contender("ours", "mainstem", f"{_MODULES}.media_mainstem"),
            Contender("peer", "ffmpeg-one-command", f"{_MODULES}.media_ffmpeg"),
        ),
        work={},
        settings={
            "work": "a clip of --seconds, 1280x720 at 25 frames/s with sound, to three renditions as fMP4 HLS",
            "ours": "from the upload's event until the playlist is published, in a running application",
            "ffmpeg": "the same scaling, preset, GOP and rate control, all threads, one process",
        },
        seconds=60.0,
        timeout_s=1200.0,
    ),
)
