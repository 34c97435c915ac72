"""Reading HLS playlists (RFC 8216), as far as the checker needs them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from mainstem.services.media.errors import PlaylistError

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s]+)(?:,|$)')
_PLAYLIST_MAX_BYTES = 16 << 20


class Entry(msgspec.Struct, frozen=True):
    """A segment of a media playlist: address, declared seconds, and length and offset where it is a byte range."""

    uri: str
    duration_s: float
    range: tuple[int, int] | None


class MediaPlaylist(msgspec.Struct, frozen=True, kw_only=True):
    """A media playlist: its tags (name to value, the first of each) and its segments."""

    tags: Mapping[str, str]
    entries: Sequence[Entry]

    @property
    def map_uri(self) -> str:
        """Address of the initialisation segment; empty where there is none."""
        return unquote(parse_attributes(self.tags.get("EXT-X-MAP", "")).get("URI", ""))


class Stream(msgspec.Struct, frozen=True):
    """An EXT-X-STREAM-INF, EXT-X-I-FRAME-STREAM-INF or EXT-X-MEDIA tag with its address."""

    uri: str
    attributes: Mapping[str, str]


class MultivariantPlaylist(msgspec.Struct, frozen=True, kw_only=True):
    """A multivariant playlist."""

    tags: Mapping[str, str]
    variants: Sequence[Stream]
    iframes: Sequence[Stream]
    media: Sequence[Stream]


def parse_attributes(text: str) -> dict[str, str]:
    """Return an attribute list (RFC 8216, 4.2) as it is written, quotes included.

    Raises:
        PlaylistError: It is malformed.
    """
    attributes: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _ATTRIBUTE.match(text, at)
        if match is None:
            raise PlaylistError(f"attribute list {text!r} is malformed at character {at}.")
        attributes[match[1]] = match[2]
        at = match.end()
    return attributes


def unquote(value: str) -> str:
    """Return a quoted string's content; other values as they are."""
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _tags(data: bytes) -> list[tuple[str, str]]:
    """Return lines as (tag, value); an address has the tag ``""``."""
    if len(data) > _PLAYLIST_MAX_BYTES:
        raise PlaylistError(f"the playlist has {len(data):,} bytes: expected at most {_PLAYLIST_MAX_BYTES:,}.")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise PlaylistError(f"the playlist is not UTF-8 (RFC 8216, 4.1): byte {error.start}.") from None
    if not lines or lines[0] != "#EXTM3U":
        raise PlaylistError("the playlist does not begin with #EXTM3U (RFC 8216, 4.3.1.1).")
    tags: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("#EXT"):
            name, _, value = line[1:].partition(":")
            tags.append((name, value))
        elif line.strip() and not line.startswith("#"):
            tags.append(("", line.strip()))
    return tags


def is_multivariant(data: bytes) -> bool:
    """Tell whether a playlist is a multivariant one.

    Raises:
        PlaylistError: It is no playlist.
    """
    return any(name == "EXT-X-STREAM-INF" for name, _value in _tags(data))


def parse_multivariant(data: bytes) -> MultivariantPlaylist:
    """Read a multivariant playlist.

    Raises:
        PlaylistError: It is malformed.
    """
    variants: list[Stream] = []
    iframes: list[Stream] = []
    media: list[Stream] = []
    first: dict[str, str] = {}
    pending: dict[str, str] | None = None
    for name, value in _tags(data):
        first.setdefault(name, value)
        if name == "EXT-X-STREAM-INF":
            pending = parse_attributes(value)
        elif name == "" and pending is not None:
            variants.append(Stream(value, pending))
            pending = None
        elif name in ("EXT-X-I-FRAME-STREAM-INF", "EXT-X-MEDIA"):
            attributes = parse_attributes(value)
            into = media if name == "EXT-X-MEDIA" else iframes
            into.append(Stream(unquote(attributes.get("URI", "")), attributes))
    return MultivariantPlaylist(tags=first, variants=variants, iframes=iframes, media=media)


def parse_media(data: bytes) -> MediaPlaylist:
    """Read a media playlist.

    Raises:
        PlaylistError: It is malformed.
    """
    entries: list[Entry] = []
    first: dict[str, str] = {}
    duration_s = -1.0
    byte_range: tuple[int, int] | None = None
    range_end = 0
    for name, value in _tags(data):
        first.setdefault(name, value)
        if name == "EXTINF":
            duration_s = _number(value.split(",")[0])
        elif name == "EXT-X-BYTERANGE":
            length, _, offset = value.partition("@")
            byte_range = (int(_number(length)), int(_number(offset)) if offset else range_end)
            range_end = sum(byte_range)
        elif name == "":
            if duration_s < 0:
                raise PlaylistError(f"segment {value!r} has no EXTINF (RFC 8216, 4.3.2.1).")
            entries.append(Entry(value, duration_s, byte_range))
            duration_s, byte_range = -1.0, None
    return MediaPlaylist(tags=first, entries=entries)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PlaylistError(f"{text!r} is not a number.") from None
