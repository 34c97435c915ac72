"""Clips of at most two seconds, made by ffmpeg when a test asks for them, each once in a run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from mainstem.services.media.tools import find_ffmpeg

PICTURES = "testsrc2=size=320x180:rate=25:duration=2"
TONE = "sine=frequency=440:sample_rate=44100:duration=2"
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac", "-b:a", "96k")


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg to its end; its complaint is the test's failure."""
    command = [str(find_ffmpeg()), "-nostdin", "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def lavfi(graph: str) -> list[str]:
    """Return the arguments of a synthetic input."""
    return ["-f", "lavfi", "-i", graph]


class Clips:
    """Clips by name, in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, name: str) -> Path:
        """Return a clip: the name of one of this module's ``make_…`` functions, with the suffix of its format."""
        path = self._directory / name
        if not path.exists():
            unfinished = self._directory / f"unfinished-{name}"
            MAKERS[name](self, unfinished)
            unfinished.rename(path)
        return path


def _plain(_clips: Clips, path: Path) -> None:
    # B-frames, one key frame only, pictures and sound
    ffmpeg(
        *lavfi(PICTURES),
        *lavfi(TONE),
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "250",
        *AAC,
        path,
    )


def _open_groups(_clips: Clips, path: Path) -> None:
    x264 = (
        "-c:v",
        "libx264",
        "-preset",
        "medium",
        "-pix_fmt",
        "yuv420p",
        "-x264-params",
        "open-gop=1:keyint=12:min-keyint=12:scenecut=0",
    )
    ffmpeg(*lavfi(PICTURES), *lavfi(TONE), *x264, *AAC, "-output_ts_offset", "7.5", path)


def _transport_stream(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi(PICTURES), *lavfi(TONE), *H264, "-bf", "2", "-g", "20", *AAC, path)


def _ntsc(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi("testsrc2=size=320x180:rate=30000/1001:duration=2"), *H264, "-g", "15", path)


def _cut_with_edit_list(clips: Clips, path: Path) -> None:
    # a cut without encoding: what precedes the cut is in the file, and an edit list hides it
    ffmpeg("-ss", "0.9", "-i", clips.get("plain.mp4"), "-c", "copy", path)


def _large(_clips: Clips, path: Path) -> None:
    # takes a while to encode, so that there is time to kill what encodes it
    ffmpeg(*lavfi("testsrc2=size=1280x720:rate=25:duration=2"), *lavfi(TONE), *H264, *AAC, path)


def _silent(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi(PICTURES), *H264, path)


def _sound_only(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi(TONE), *AAC, path)


def _portrait(clips: Clips, path: Path) -> None:
    ffmpeg("-display_rotation", "90", "-i", clips.get("plain.mp4"), "-c", "copy", path)


def _odd_size(_clips: Clips, path: Path) -> None:
    ffmpeg(
        *lavfi("testsrc2=size=321x181:rate=25:duration=1"), *lavfi(TONE), "-t", "1", *H264[:-1], "yuv444p", *AAC, path
    )


def _anamorphic(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi("testsrc2=size=352x288:rate=25:duration=1,setsar=16/11"), *H264, path)


def _tiny(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi("testsrc2=size=96x64:rate=10:duration=2"), *H264, path)


def _variable_rate(_clips: Clips, path: Path) -> None:
    # every third frame is missing, and there is a gap of 0.4 s
    keep = r"select=mod(n\,3)*not(between(n\,30\,39))"
    ffmpeg(*lavfi(f"{PICTURES},{keep}"), *lavfi(TONE), *H264, *AAC, "-fps_mode", "passthrough", path)


def _lost_frame(_clips: Clips, path: Path) -> None:
    # the last frame of a group is missing, and all the others of that group last equally long
    codec = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8") if path.suffix == ".webm" else H264
    ffmpeg(*lavfi(f"{PICTURES},select=not(eq(n\\,24))"), *codec, "-fps_mode", "passthrough", path)


def _pause(_clips: Clips, path: Path) -> None:
    # even frames, then nothing for a second, then even frames
    ffmpeg(*lavfi(f"{PICTURES},setpts='PTS+if(gte(N,25),1/TB,0)'"), *H264, "-fps_mode", "passthrough", path)


def _fast(_clips: Clips, path: Path) -> None:
    # more frames a second than anybody is shown, as many as the name says
    rate = path.stem.rpartition("_")[2]
    ffmpeg(*lavfi(f"testsrc2=size=192x108:rate={rate}:duration=1"), *H264, "-g", "20", "-bf", "2", path)


def _fast_variable(_clips: Clips, path: Path) -> None:
    # 200 frames a second, of which every seventh and a tenth of a second are missing
    keep = r"select='not(eq(mod(n\,7)\,6)+between(n\,40\,60))'"
    ffmpeg(*lavfi(f"testsrc2=size=192x108:rate=200:duration=1,{keep}"), *H264, "-fps_mode", "passthrough", path)


def _far_apart(_clips: Clips, path: Path) -> None:
    # three frames, 7,000 s from one to the next
    ffmpeg(*lavfi("testsrc2=size=96x64:rate=1/7000:duration=21000"), *H264, path)


def _doubled(clips: Clips, path: Path) -> None:
    # as many frames as the plain clip, but frame 20 is shown in the place of frame 21 as well
    ffmpeg(
        "-i",
        clips.get("silent.mp4"),
        "-vf",
        "select=not(eq(n\\,21)),setpts=N/25/TB,loop=1:1:20,setpts=N/25/TB",
        *H264,
        path,
    )


def _one_frame_less(clips: Clips, path: Path) -> None:
    ffmpeg("-i", clips.get("silent.mp4"), "-vf", "trim=end_frame=49", *H264, path)


def _late_sound(_clips: Clips, path: Path) -> None:
    # a click at 1.0 s of the sound, which begins 0.5 s after the pictures
    click = "aevalsrc=if(between(t\\,0.5\\,0.51)\\,sin(2*PI*1000*t)\\,0):s=48000:d=1.4"
    ffmpeg(*lavfi(PICTURES), "-itsoffset", "0.5", *lavfi(click), *H264, "-c:a", "pcm_s16le", path)


def _single_frame(_clips: Clips, path: Path) -> None:
    ffmpeg(*lavfi("testsrc2=size=320x180:rate=25:duration=0.04"), *H264, path)


def _truncated(clips: Clips, path: Path) -> None:
    # the index is at the front, the end of the frames is missing
    whole = clips.get("fast_start.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])


def _fast_start(clips: Clips, path: Path) -> None:
    ffmpeg("-i", clips.get("plain.mp4"), "-c", "copy", "-movflags", "+faststart", path)


def _no_index(clips: Clips, path: Path) -> None:
    whole = clips.get("plain.mp4").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _cut_off(clips: Clips, path: Path) -> None:
    # whole but for its last third
    whole = clips.get(path.name.removeprefix("unfinished-").replace("truncated_", "whole_")).read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])


def _whole(_clips: Clips, path: Path) -> None:
    codec = {".webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"), ".avi": ("-c:v", "mpeg4")}
    sound = ("-c:a", "libopus" if path.suffix == ".webm" else "libmp3lame")
    ffmpeg(*lavfi(PICTURES), *lavfi(TONE), *codec.get(path.suffix, H264), "-g", "5", *sound, path)


def _live(_clips: Clips, path: Path) -> None:
    # as it comes from a camera: it says neither how long it is nor how long it lasts
    ffmpeg(*lavfi(PICTURES), *lavfi(TONE), *H264, "-g", "5", *AAC, "-live", "1", "-cluster_time_limit", "100", path)


def _truncated_live(clips: Clips, path: Path) -> None:
    whole = clips.get("live.mkv").read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])


def _damaged(clips: Clips, path: Path) -> None:
    # the middle of the frames is overwritten; container and index are whole
    whole = bytearray(clips.get("plain.mp4").read_bytes())
    start = len(whole) // 4
    whole[start : start + len(whole) // 3] = b"\xff" * (len(whole) // 3)
    path.write_bytes(whole)


def _empty(_clips: Clips, path: Path) -> None:
    path.write_bytes(b"")


def _text(_clips: Clips, path: Path) -> None:
    path.write_text("This is not a video. " * 200)


def _playlist(_clips: Clips, path: Path) -> None:
    # would make a naive reader open another file of the server
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def _concatenation(_clips: Clips, path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/passwd\n")


MAKERS: dict[str, Callable[[Clips, Path], None]] = {
    "plain.mp4": _plain,
    "open_groups.mkv": _open_groups,
    "transport_stream.ts": _transport_stream,
    "ntsc.mp4": _ntsc,
    "cut_with_edit_list.mp4": _cut_with_edit_list,
    "large.mp4": _large,
    "silent.mp4": _silent,
    "sound_only.m4a": _sound_only,
    "portrait.mp4": _portrait,
    "odd_size.mp4": _odd_size,
    "anamorphic.mp4": _anamorphic,
    "tiny.mp4": _tiny,
    "variable_rate.mp4": _variable_rate,
    "doubled.mp4": _doubled,
    "lost_frame.mkv": _lost_frame,
    "lost_frame.ts": _lost_frame,
    "lost_frame.webm": _lost_frame,
    "pause.mkv": _pause,
    "fast_90.mp4": _fast,
    "fast_90.mkv": _fast,
    "fast_100.ts": _fast,
    "fast_240.mp4": _fast,
    "fast_variable.mkv": _fast_variable,
    "far_apart.mp4": _far_apart,
    "one_frame_less.mp4": _one_frame_less,
    "late_sound.mkv": _late_sound,
    "single_frame.mp4": _single_frame,
    "fast_start.mp4": _fast_start,
    "truncated.mp4": _truncated,
    "no_index.mp4": _no_index,
    "whole_matroska.mkv": _whole,
    "whole_web.webm": _whole,
    "whole_avi.avi": _whole,
    "whole_flash.flv": _whole,
    "truncated_matroska.mkv": _cut_off,
    "truncated_web.webm": _cut_off,
    "truncated_avi.avi": _cut_off,
    "truncated_flash.flv": _cut_off,
    "live.mkv": _live,
    "truncated_live.mkv": _truncated_live,
    "damaged.mp4": _damaged,
    "empty.mp4": _empty,
    "text.mp4": _text,
    "playlist.mp4": _playlist,
    "concatenation.mp4": _concatenation,
}
"""What makes each clip."""
