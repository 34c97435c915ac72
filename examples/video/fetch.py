"""Fetching a published video over HTTP, as a player does, into files that any player opens."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

_URI_ATTRIBUTE = re.compile(r'URI="([^"]+)"')
_FILES_MAX = 100_000
_TIMEOUT_S = 30


def fetch_video(url: str, root: str, target: Path, on_file: Callable[[int], None] = lambda _count: None) -> Path:
    """Fetch a multivariant playlist and all that it leads to; return the playlist's path.

    Files keep their places relative to each other, so the playlists need no change.

    Args:
        url: Address of the multivariant playlist.
        root: Address below which everything must be; what leads elsewhere is refused.
        target: Directory for the files; ``root`` corresponds to it.
        on_file: Called with the number of files that are there.

    Raises:
        ValueError: Something leads out of ``root``, or there are too many files.
        OSError: The server did not answer as expected.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server is on this machine
    waiting, seen = [url], {url}
    while waiting:
        address = waiting.pop(0)
        path = _place(address, root, target)
        with opener.open(address, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if path.suffix == ".m3u8":
            found = [urljoin(address, uri) for uri in playlist_uris(content.decode())]
            waiting += [uri for uri in dict.fromkeys(found) if uri not in seen]
            seen.update(found)
        if len(seen) > _FILES_MAX:
            raise ValueError(f"{url} leads to more than {_FILES_MAX} files")
        on_file(len(seen) - len(waiting))
    return _place(url, root, target)


def playlist_uris(text: str) -> list[str]:
    """Return the addresses in a playlist: lines that are no comment, and ``URI`` attributes."""
    uris: list[str] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("#"):
            uris += _URI_ATTRIBUTE.findall(line)
        elif line:
            uris.append(line)
    return uris


def _place(address: str, root: str, target: Path) -> Path:
    if not address.startswith(root):
        raise ValueError(f"{address} leads out of {root}")
    path = (target / unquote(urlsplit(address[len(root) :]).path)).resolve()
    if not path.is_relative_to(target.resolve()):
        raise ValueError(f"{address} leads out of {target}")
    return path
