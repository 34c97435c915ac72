"""Finding ffmpeg: the application's choice, the extra's, the system's."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

from mainstem.base.errors import MissingExtraError

FFMPEG_VARIABLE = "MAINSTEM_FFMPEG"
"""Environment variable that names the ffmpeg to use."""


def find_ffmpeg() -> Path:
    """Return the path of ffmpeg: what ``MAINSTEM_FFMPEG`` names, else that of PyPI's ``imageio-ffmpeg``, else the first
    in PATH.

    The program of ``imageio-ffmpeg`` is under the GPL; it is run, never linked.

    Raises:
        MissingExtraError: There is none.
    """
    chosen = os.environ.get(FFMPEG_VARIABLE)
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise MissingExtraError("media", f"{FFMPEG_VARIABLE}={chosen} names no program. Encoding video")
        return Path(found)
    try:
        return Path(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")  # the package is not there, or has no program for this system
        if found is None:
            raise MissingExtraError("media", "Encoding video (ffmpeg)") from None
        return Path(found)
