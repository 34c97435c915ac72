"""Media: a completed upload becomes adaptive video (HLS), durably; a broken one gets a clear answer.

::

    from mainstem import Mainstem
    from mainstem.services.media import Media
    from mainstem.services.uploads import Uploads

    ms = Mainstem("data", services=[Uploads(), Media(workers=2)])

    @ms.subscribe("video.ready")
    async def announce(event):
        print("watch it at /mainstem/" + event.value["playlist"])

The map: ``probe.py`` looks at a source in a child process and finds ``source.py``'s facts (``extent.py`` reads how long
a container says that it is); ``plan.py`` decides what is made of them; ``encode.py`` writes ffmpeg's arguments,
``chunks.py`` runs it and checks what came out; ``mp4.py`` reads and moves fragments; ``package.py`` joins, measures and
names them, ``playlist.py`` writes the playlists; ``work.py`` is the durable workflow around these, ``service.py`` and
``delivery.py`` serve the result, ``library.py`` knows what is published; ``panel.py`` shows it and what is under way,
as ``rows.py`` folds it; ``checker.py`` (with ``parse.py``) and ``verify.py`` look at the result with fresh eyes.

Needs the extra ``media`` (PyAV for probing, an ffmpeg binary that is under the GPL), or PyAV and an ffmpeg of the
system.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mainstem.services.media.checker import Finding, check_delivery, check_video, directory_resolver
    from mainstem.services.media.manifest import Manifest, PublishedFile, PublishedRendition
    from mainstem.services.media.package import materialise
    from mainstem.services.media.records import VideoReady, VideoRefused
    from mainstem.services.media.service import Media
    from mainstem.services.media.source import Limits, Refusal
    from mainstem.services.media.verify import VerifyReport, verify_video

_HOMES = {
    "checker": ("Finding", "check_delivery", "check_video", "directory_resolver"),
    "manifest": ("Manifest", "PublishedFile", "PublishedRendition"),
    "package": ("materialise",),
    "records": ("VideoReady", "VideoRefused"),
    "service": ("Media",),
    "source": ("Limits", "Refusal"),
    "verify": ("VerifyReport", "verify_video"),
}

__all__ = [
    "Finding",
    "Limits",
    "Manifest",
    "Media",
    "PublishedFile",
    "PublishedRendition",
    "Refusal",
    "VerifyReport",
    "VideoReady",
    "VideoRefused",
    "check_delivery",
    "check_video",
    "directory_resolver",
    "materialise",
    "verify_video",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the probe's child process imports this package and needs none of
    them.
    """
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
