"""Files that pages need, under names that carry their digest: browsers keep them for ever.

A file is read when a page first names it, and compressed, once, when a browser first asks for it: all of them together
would take longer than the rest of a start.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mainstem.web.errors import NotFoundError

_TYPES: Final[Mapping[str, str]] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_STATIC: Final = Path(__file__).parent / "static"
_PLACES: Final[Mapping[str, Path]] = {
    "tokens.css": Path(__file__).parents[1] / "ui" / "tokens.css",
    "dashboard.css": _STATIC / "dashboard.css",
    "dashboard.js": _STATIC / "dashboard.js",
    "player.js": _STATIC / "player.js",
    "icon.svg": _STATIC / "icon.svg",
    "vendor/htmx.min.js": _STATIC / "vendor" / "htmx.min.js",
    "vendor/hx-sse.min.js": _STATIC / "vendor" / "hx-sse.min.js",
    "vendor/hls.min.js": _STATIC / "vendor" / "hls.min.js",
    "vendor/hls.worker.js": _STATIC / "vendor" / "hls.worker.js",
}
_GZIP: Final = 31  # zlib's window of 32 KiB, in gzip's frame; the module gzip would be one more to load
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class _File:
    """One file of the package, read when it is first wanted.

    Attributes:
        compressed: What a browser gets that understands gzip; ``None`` until the first one asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content_type = _TYPES[path.suffix[1:]]
        self.compressed: bytes | None = None

    @cached_property
    def content(self) -> bytes:
        return self._path.read_bytes()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]


class StaticFiles:
    """The files by their hashed names. Only what is in the list is found: no path of a stranger's reaches a disk."""

    def __init__(self) -> None:
        self._files = {name: _File(path) for name, path in _PLACES.items()}
        self._compressing = asyncio.Lock()

    def paths(self) -> Mapping[str, str]:
        """Return all files' paths below the dashboard's root, by name; each is made when it is asked for."""
        return _Paths(self)

    def path(self, name: str) -> str:
        """Return a file's path below the dashboard's root: ``static/3f2a…/dashboard.css``."""
        return f"static/{self._files[name].digest}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer a request for a file."""
        digest, _, name = request.path_params["name"].partition("/")
        file = self._files.get(name)
        if file is None or file.digest != digest:
            raise NotFoundError(
                "There is no such file. Its name carries its digest: a page loaded anew has the right one."
            )
        headers = {"cache-control": _FOR_EVER, "etag": f'"{file.digest}"', "vary": "accept-encoding"}
        if f'"{file.digest}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(await self._compressed(file), headers=headers, media_type=file.content_type)
        return Response(file.content, headers=headers, media_type=file.content_type)

    async def _compressed(self, file: _File) -> bytes:
        if file.compressed is None:
            async with self._compressing:  # whoever else wants it waits for it, instead of doing it too
                if file.compressed is None:
                    file.compressed = await asyncio.to_thread(zlib.compress, file.content, 9, _GZIP)
        return file.compressed


class _Paths(Mapping[str, str]):
    """The files' paths by name, as a page sees them."""

    def __init__(self, static_files: StaticFiles) -> None:
        self._static_files = static_files

    def __getitem__(self, name: str) -> str:
        return self._static_files.path(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)
