"""The demonstration's acts, in order, on a server that is a process of its own. What is true is read from its log."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urljoin

import msgspec

from examples.video.chunks import ChunkJournal
from examples.video.fetch import fetch_video
from examples.video.progress import Bar, Screen
from examples.video.proxy import CuttingProxy
from examples.video.report import CUTS, Rendition, Report, Source
from examples.video.server import Server, ServerError
from examples.video.tus import TusUpload, UploadError
from mainstem.base.errors import MainstemError
from mainstem.cli.trace import trace_lines
from mainstem.log import ReadableLog, StoredRecord, open_reader

_UPLOAD_TAKES_S = 2.0
_SILENCE_MAX_S = 300.0


class DemonstrationError(Exception):
    """The demonstration cannot go on: what is wrong, in a sentence."""


class Demonstration:
    """One run of the whole; call :meth:`run` once, and :meth:`close` at the end.

    Args:
        screen: Where it is shown.
        clip: The clip.
        directory: An empty directory for the data, the server's output and the fetched video.

    Attributes:
        report: What was found so far.
        verified: Whether every rendition decoded in full and shows the clip's frames.
    """

    def __init__(self, screen: Screen, clip: Path, directory: Path) -> None:
        self._screen = screen
        self._clip = clip
        self._directory = directory
        self._data = directory / "data"
        self._server = Server(Path(__file__).with_name("app.py"), directory / "server.log", {"DATA": str(self._data)})
        self._chunks = ChunkJournal()
        self._upload_id = ""
        self.report = Report()
        self.verified = False

    async def run(self) -> None:
        """Do everything, filling the report.

        Raises:
            DemonstrationError: It cannot go on.
        """
        try:
            await self._start_server()
            await self._upload()
            await self._kill_in_mid_encode()
            await self._await_video()
            await self._verify()
            await self._show_trace()
            self._show_addresses()
        except (ServerError, UploadError, MainstemError, OSError, ValueError) as error:
            raise DemonstrationError(str(error)) from error

    async def close(self) -> None:
        """End the server."""
        await self._server.stop()
