"""Files that pages need, under names that carry their digest: browsers keep them for ever; compressed once."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mainstem.web.errors import NotFoundError

_TYPES: Final[Mapping[str, str]] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "tokens.css": ("mainstem.ui", "tokens.css"),
    "dashboard.css": ("mainstem.web", "static/dashboard.css"),
    "dashboard.js": ("mainstem.web", "static/dashboard.js"),
    "player.js": ("mainstem.web", "static/player.js"),
    "icon.svg": ("mainstem.web", "static/icon.svg"),
    "vendor/htmx.min.js": ("mainstem.web", "static/vendor/htmx.min.js"),
    "vendor/hx-sse.min.js": ("mainstem.web", "static/vendor/hx-sse.min.js"),
    "vendor/hls.min.js": ("mainstem.web", "static/vendor/hls.min.js"),
    "vendor/hls.worker.js": ("mainstem.web", "static/vendor/hls.worker.js"),
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class _File(msgspec.Struct, frozen=True):
    content: bytes
    compressed: bytes
    content_type: str
    digest: str


class StaticFiles:
    """The files by their hashed names. Only what is in the list is found: no path of a stranger's reaches a disk."""

    def __init__(self) -> None:
        self._files = {name: _load(*place) for name, place in _PLACES.items()}
        self._by_path = {self.path(name): file for name, file in self._files.items()}

    def paths(self) -> Mapping[str, str]:
        """Return all files' paths below the dashboard's root, by name."""
        return {name: self.path(name) for name in self._files}

    def path(self, name: str) -> str:
        """Return a file's path below the dashboard's root: ``static/3f2a…/dashboard.css``."""
        return f"static/{self._files[name].digest}/{name}"

    async def serve(self, request: Request) -> Response:
        """Answer a request for a file."""
        file = self._by_path.get("static/" + request.path_params["name"])
        if file is None:
            raise NotFoundError(
                "There is no such file. Its name carries its digest: a page loaded anew has the right one."
            )
        headers = {"cache-control": _FOR_EVER, "etag": f'"{file.digest}"', "vary": "accept-encoding"}
        if f'"{file.digest}"' in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                file.compressed, headers={**headers, "content-encoding": "gzip"}, media_type=file.content_type
            )
        return Response(file.content, headers=headers, media_type=file.content_type)


def _load(package: str, path: str) -> _File:
    content = files(package).joinpath(*path.split("/")).read_bytes()
    content_type = _TYPES[path.rpartition(".")[2]]
    return _File(content, gzip.compress(content, 9, mtime=0), content_type, hashlib.sha256(content).hexdigest()[:16])
