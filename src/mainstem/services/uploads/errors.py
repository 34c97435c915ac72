"""Why an upload's request is refused. Each has the status of the answer; its message goes to the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mainstem.base.errors import MainstemError


class UploadError(MainstemError):
    """Base of all refusals of the uploads service.

    Attributes:
        status: Status code of the answer.
        headers: Header fields that belong to the answer.
    """

    code = "upload"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class UploadRequestError(UploadError):
    """A header field is missing or malformed, or asks for what this server does not offer; nothing was done."""

    code = "upload-request"


class UploadVersionError(UploadError):
    """The client does not speak tus 1.0.0; nothing was done."""

    code = "upload-version"
    status = 412


class UploadMetadataTooLargeError(UploadError):
    """``Upload-Metadata`` is longer than allowed (RFC 6585, section 5); nothing was created."""

    code = "upload-metadata-too-large"
    status = 431


class UploadNotFoundError(UploadError):
    """There never was an upload of that id."""

    code = "upload-not-found"
    status = 404


class UploadGoneError(UploadError):
    """The upload was terminated or has expired; its bytes are removed."""

    code = "upload-gone"
    status = 410


class UploadUnreadableError(UploadError):
    """The upload's records cannot be read by this version; they and its bytes are left as they are."""

    code = "upload-unreadable"
    status = 410


class UploadFinishedError(UploadError):
    """The upload is complete: its bytes belong to the application now, and are not removed through this address."""

    code = "upload-finished"
    status = 409


class UploadOffsetError(UploadError):
    """The client's offset is not the server's; nothing was changed."""

    code = "upload-offset"
    status = 409


class UploadTooLargeError(UploadError):
    """More bytes than allowed, or than the upload was declared to have."""

    code = "upload-too-large"
    status = 413


class UploadContentTypeError(UploadError):
    """The body is not of the type ``application/offset+octet-stream``; nothing was changed."""

    code = "upload-content-type"
    status = 415


class UploadChecksumError(UploadError):
    """The bytes do not have the checksum that came with them; they were discarded and the offset is unchanged."""

    code = "upload-checksum"
    status = 460


class UploadLockedError(UploadError):
    """Another request is writing to this upload, or took it over from this one."""

    code = "upload-locked"
    status = 423


class UploadTooManyError(UploadError):
    """Too many uploads are open, or one came in too many pieces."""

    code = "upload-too-many"
    status = 429


class UploadUnavailableError(UploadError):
    """The server is stopping, or its log takes nothing at present. What was acknowledged stays."""

    code = "upload-unavailable"
    status = 503


class UploadNoSpaceError(UploadError):
    """The disk is full. The offset stays at what was acknowledged; the upload can go on once there is room."""

    code = "upload-no-space"
    status = 507
