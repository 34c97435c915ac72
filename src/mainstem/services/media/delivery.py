"""How a file of a video is delivered over HTTP: which status, headers and bytes. Pure.

Sources: RFC 9110 (conditional requests, 13; range requests, 14), RFC 8246 (``immutable``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from mainstem.services.media.manifest import MULTIVARIANT_NAME, PLAYLIST_TYPE, PublishedFile

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_YEAR_S = 365 * 24 * 3600


class Delivery(msgspec.Struct, frozen=True):
    """The answer to a request for a file.

    Attributes:
        status: 200, 206, 304 or 416.
        headers: All headers, ``content-length`` included.
        start: First byte of the body within the file.
        length: Bytes of the body within the file; 0 for none.
        gzip: Whether the body is to be compressed; then ``content-length`` is missing and the body is the whole file.
    """

    status: int
    headers: Mapping[str, str]
    start: int
    length: int
    gzip: bool = False


def deliver(name: str, file: PublishedFile, request_headers: Mapping[str, str]) -> Delivery:
    """Decide how a file is delivered.

    Args:
        name: Its name within the video. All but ``main.m3u8`` are named by their content and may be kept for ever.
        file: What it is.
        request_headers: Of the request, names in lower case.
    """
    is_playlist = file.content_type == PLAYLIST_TYPE
    gzip = is_playlist and accepts_gzip(request_headers.get("accept-encoding", ""))
    etag = f'"{file.sha256}{"-gzip" if gzip else ""}"'
    headers = {
        "etag": etag,
        "cache-control": "no-cache" if name == MULTIVARIANT_NAME else f"public, max-age={_YEAR_S}, immutable",
        "x-content-type-options": "nosniff",
        **({"vary": "accept-encoding"} if is_playlist else {"accept-ranges": "bytes"}),
    }
    if _matches(request_headers.get("if-none-match", ""), etag):
        return Delivery(304, headers, 0, 0)
    headers["content-type"] = file.content_type
    if gzip:
        return Delivery(200, {**headers, "content-encoding": "gzip"}, 0, file.size_bytes, gzip=True)
    if_range = request_headers.get("if-range")
    wanted = None if is_playlist or (if_range is not None and if_range != etag) else request_headers.get("range")
    span = parse_range(wanted, file.size_bytes) if wanted else (0, file.size_bytes)
    if span is None:
        return Delivery(416, {**headers, "content-range": f"bytes */{file.size_bytes}", "content-length": "0"}, 0, 0)
    start, length = span
    headers["content-length"] = str(length)
    if length == file.size_bytes:
        return Delivery(200, headers, 0, length)
    headers["content-range"] = f"bytes {start}-{start + length - 1}/{file.size_bytes}"
    return Delivery(206, headers, start, length)


def parse_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Return (start, length) of the range that a header asks for; ``None`` where it lies outside of the file.

    What is no single range of bytes is disregarded, as RFC 9110 allows (14.2): the answer is the whole file.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return 0, size_bytes
    first, last = match.groups()
    if not first:
        length = min(int(last), size_bytes)
        return (size_bytes - length, length) if length else None
    start = int(first)
    end = min(int(last), size_bytes - 1) if last else size_bytes - 1
    if last and int(last) < start:
        return 0, size_bytes
    return (start, end - start + 1) if start < size_bytes else None


def accepts_gzip(header: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for offer in header.split(","):
        coding, _, parameter = offer.partition(";")
        name, _, value = parameter.partition("=")
        weights[coding.strip().lower()] = value.strip() if name.strip().lower() == "q" else "1"
    try:
        return float(weights.get("gzip", weights.get("*", "0"))) > 0
    except ValueError:
        return False


def _matches(if_none_match: str, etag: str) -> bool:
    """Compare weakly, as RFC 9110 wants it for If-None-Match (13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
