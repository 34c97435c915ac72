"""One ffmpeg command on all threads: what our pipeline makes of the clip, as far as stock ffmpeg makes it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from bench.child import Task, check_count, cpu_s, linger, read_task, report
from bench.clips import FRAME_RATE, HEIGHT, WIDTH, clip, ffmpeg_program
from mainstem.services.media.encode import PRESET
from mainstem.services.media.plan import AUDIO_RATE_HZ, GROUP_S, SEGMENT_S, Rendition, plan_renditions


def command(program: str, source: Path, renditions: Sequence[Rendition]) -> list[str]:
    """Return the command; it writes into its working directory.

    Args:
        program: ffmpeg.
        source: The clip.
        renditions: Sizes and rate control, as our own plan has them.
    """
    count = len(renditions)
    scales = [
        f"[s{number}]scale={item.width}:{item.height}:flags=bicubic,setsar=1,format=yuv420p[v{number}]"
        for number, item in enumerate(renditions)
    ]
    split = f"[0:v]split={count}{''.join(f'[s{number}]' for number in range(count))}"
    arguments = [
        program,
        "-nostdin",
        "-v",
        "error",
        "-y",
        "-i",
        str(source),
        "-filter_complex",
        ";".join([split, *scales]),
    ]
    for number, item in enumerate(renditions):
        arguments += ["-map", f"[v{number}]", f"-crf:v:{number}", str(item.crf)]
        arguments += [f"-maxrate:v:{number}", str(item.max_bps), f"-bufsize:v:{number}", str(item.buffer_bits)]
    group = str(FRAME_RATE * GROUP_S)
    arguments += ["-c:v", "libx264", "-preset", PRESET, "-profile:v", "high", "-flags:v", "+cgop"]
    arguments += ["-g", group, "-keyint_min", group, "-sc_threshold", "0"]
    arguments += ["-map", "0:a", "-c:a", "aac", "-b:a", "128000", "-ac", "2", "-ar", str(AUDIO_RATE_HZ)]
    streams = " ".join([*(f"v:{number},agroup:sound" for number in range(count)), "a:0,agroup:sound"])
    arguments += ["-f", "hls", "-hls_segment_type", "fmp4", "-hls_time", str(SEGMENT_S), "-hls_playlist_type", "vod"]
    arguments += ["-hls_flags", "independent_segments", "-master_pl_name", "index.m3u8", "-var_stream_map", streams]
    return [*arguments, "-hls_segment_filename", "%v-%d.m4s", "%v.m3u8"]


def main(task: Task) -> None:
    """Encode the clip once and report how long it took."""
    source = clip(task["seconds"])
    directory = Path(task["directory"]) / "out"
    directory.mkdir()
    renditions = plan_renditions(Fraction(WIDTH), Fraction(HEIGHT), Fraction(FRAME_RATE))
    argv = command(ffmpeg_program(), source, renditions)
    began_s, cpu_began_s = time.perf_counter(), cpu_s()
    subprocess.run(argv, cwd=directory, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wall_s, used_s = time.perf_counter() - began_s, cpu_s() - cpu_began_s
    playlists = list(directory.glob("*.m3u8"))
    check_count(len(playlists), len(renditions) + 2, "the output")
    size_bytes = sum(path.stat().st_size for path in directory.iterdir())
    sizes = [f"{item.width}x{item.height}" for item in renditions]
    report(wall_s, renditions=sizes, preset=PRESET, size_bytes=size_bytes, cpu_s=round(used_s, 2))
    linger()


if __name__ == "__main__":
    main(read_task())
