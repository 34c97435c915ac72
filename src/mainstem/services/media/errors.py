"""Errors of the media service."""

from __future__ import annotations

from mainstem.base.errors import MainstemError


class MediaError(MainstemError):
    """Base of the media service's errors."""

    code = "media"


class Mp4Error(MediaError):
    """Bytes are not the fragmented MP4 that was expected; nothing was changed."""

    code = "media-mp4"


class PlaylistError(MediaError):
    """A playlist cannot be read as one (RFC 8216); nothing was changed."""

    code = "media-playlist"


class EncodeError(MediaError):
    """ffmpeg failed, or wrote something else than planned. Nothing was kept; the step may be tried again."""

    code = "media-encode"


class NoRoomError(EncodeError):
    """The disk was full while ffmpeg wrote. Nothing was kept; the step is tried again for some minutes."""

    code = "media-no-room"


class SourceDamagedError(MediaError):
    """The source cannot be decoded as its container promises, however often it is tried."""

    code = "media-source-damaged"


class PackageError(MediaError):
    """The encoded chunks do not fit together; nothing was published."""

    code = "media-package"


class VideoNotFoundError(MediaError):
    """There is no published video of that id."""

    code = "media-video-not-found"
