"""Header fields of requests and answers: bounded, checked, pure.

Source: tus resumable upload protocol 1.0.0, https://tus.io/protocols/resumable-upload ("tus" below).
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from email.utils import formatdate

import msgspec

from mainstem.services.uploads.errors import (
    UploadContentTypeError,
    UploadMetadataTooLargeError,
    UploadRequestError,
    UploadTooLargeError,
    UploadVersionError,
)

TUS_VERSION = "1.0.0"
"""The protocol's only version that is spoken."""

EXTENSIONS = "creation,creation-with-upload,checksum,termination,expiration"
"""Value of ``Tus-Extension``."""

CHECKSUM_ALGORITHMS: Mapping[str, int] = {"sha1": 20, "sha256": 32}
"""What ``Upload-Checksum`` may name, each with the length of its digest in bytes."""

OFFSET_CONTENT_TYPE = "application/offset+octet-stream"
"""The type of a body with an upload's bytes."""

METADATA_MAX_BYTES = 4096
"""Longest ``Upload-Metadata``."""

FILENAME_MAX_CHARS = 200
"""Longest file name that is shown."""

_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}")
_METADATA_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_METHODS = ("HEAD", "PATCH", "DELETE", "POST", "OPTIONS")


class Checksum(msgspec.Struct, frozen=True):
    """What ``Upload-Checksum`` announces: a name of :data:`CHECKSUM_ALGORITHMS` and the body's digest."""

    algorithm: str
    digest: bytes


class Metadata(msgspec.Struct, frozen=True):
    """What ``Upload-Metadata`` says.

    Attributes:
        raw: The field as it came, but for needless spaces: what HEAD answers.
        values: Its pairs; bytes that are no UTF-8 are replaced.
        filename: A name to be shown, without directories and control characters; may be empty.
        content_type: A well-formed media type.
    """

    raw: str = ""
    values: Mapping[str, str] = {}
    filename: str = ""
    content_type: str = "application/octet-stream"


class Creation(msgspec.Struct, frozen=True):
    """A POST that creates an upload. ``body_bytes`` is 0 without a body, ``None`` when its length is not told."""

    size_bytes: int
    metadata: Metadata
    body_bytes: int | None
    checksum: Checksum | None


class Patch(msgspec.Struct, frozen=True):
    """A PATCH that brings bytes. ``body_bytes`` is ``None`` when their number is not told."""

    offset: int
    body_bytes: int | None
    checksum: Checksum | None


def effective_method(method: str, headers: Mapping[str, str]) -> str:
    """Return the method that is meant.

    tus, X-HTTP-Method-Override: "MUST be a string which MUST be interpreted as the request's method by the Server, if
    the header is presented. The actual method of the request MUST be ignored." An actual OPTIONS stays one all the
    same: browsers ask with it without credentials, so it must never come to do anything.

    Raises:
        UploadRequestError: The override is none of the protocol's methods.
    """
    override = headers.get("x-http-method-override")
    if override is None or method == "OPTIONS":
        return method
    if override.upper() not in _METHODS:
        raise UploadRequestError(f"X-HTTP-Method-Override is {override[:20]!r}, expected one of {', '.join(_METHODS)}.")
    return override.upper()


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse a client of another version.

    Raises:
        UploadVersionError: tus, Tus-Version: "If the version specified by the Client is not supported by the Server, it
            MUST respond with the 412 Precondition Failed status and MUST include the Tus-Version header into the
            response. In addition, the Server MUST NOT process the request."
    """
    version = headers.get("tus-resumable")
    if version != TUS_VERSION:
        got = "missing" if version is None else repr(version[:20])
        raise UploadVersionError(
            f"Tus-Resumable is {got}, expected {TUS_VERSION!r}. The request was not processed.",
            headers={"Tus-Version": TUS_VERSION},
        )


def parse_creation(headers: Mapping[str, str], size_max_bytes: int) -> Creation:
    """Return what a POST asks for.

    Raises:
        UploadRequestError: A field is missing or malformed, or names an extension that is not offered.
        UploadTooLargeError: tus, Creation: "If the length of the upload exceeds the maximum, which MAY be specified
            using the Tus-Max-Size header, the Server MUST respond with the 413 Request Entity Too Large status."
        UploadContentTypeError: There is a body of another type.
        UploadMetadataTooLargeError: The metadata are too long.
    """
    for name in ("Upload-Defer-Length", "Upload-Concat"):
        if name.lower() in headers:
            raise UploadRequestError(
                f"{name} is not offered here; the extensions are {EXTENSIONS}. Nothing was created."
            )
    size_bytes = _number(headers, "Upload-Length")
    if size_bytes > size_max_bytes:
        raise UploadTooLargeError(
            f"Upload-Length is {size_bytes}, allowed are {size_max_bytes} bytes. Nothing was created.",
            headers={"Tus-Max-Size": str(size_max_bytes)},
        )
    body_bytes = body_length(headers)
    if body_bytes != 0:
        _check_content_type(headers)
        if body_bytes is not None and body_bytes > size_bytes:
            raise UploadTooLargeError(f"the body has {body_bytes} bytes, the upload {size_bytes}. Nothing was created.")
    metadata = parse_metadata(headers.get("upload-metadata", ""))
    return Creation(size_bytes, metadata, body_bytes, _checksum(headers))


def parse_patch(headers: Mapping[str, str]) -> Patch:
    """Return what a PATCH asks for.

    Raises:
        UploadContentTypeError: tus, PATCH: "All PATCH requests MUST use Content-Type: application/offset+octet-stream,
            otherwise the server SHOULD return a 415 Unsupported Media Type status."
        UploadRequestError: A field is missing or malformed.
    """
    _check_content_type(headers)
    return Patch(_number(headers, "Upload-Offset"), body_length(headers), _checksum(headers))


def body_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of a request's body in bytes; 0 for none, ``None`` when it is not told.

    Raises:
        UploadRequestError: ``Content-Length`` is no number.
    """
    if "transfer-encoding" in headers:
        return None
    return _number(headers, "Content-Length") if "content-length" in headers else 0


def parse_metadata(raw: str) -> Metadata:
    """Return what ``Upload-Metadata`` says.

    tus, Upload-Metadata: "The key MUST NOT contain spaces and commas and MUST NOT be empty. The key SHOULD be ASCII
    encoded and the value MUST be Base64 encoded. All keys MUST be unique. The value MAY be empty. In these cases, the
    space, which would normally separate the key and the value, MAY be left out."

    Raises:
        UploadMetadataTooLargeError: It is longer than :data:`METADATA_MAX_BYTES`.
        UploadRequestError: It is malformed.
    """
    if len(raw) > METADATA_MAX_BYTES:
        raise UploadMetadataTooLargeError(
            f"Upload-Metadata has {len(raw)} bytes, allowed are {METADATA_MAX_BYTES}. Nothing was created."
        )
    if not raw.strip():
        return Metadata()
    values: dict[str, str] = {}
    pairs: list[str] = []
    for pair in raw.split(","):
        key, _space, encoded = pair.strip().partition(" ")
        if not _METADATA_KEY.fullmatch(key) or key in values:
            raise UploadRequestError(f"Upload-Metadata: {key[:40]!r} is no key, or comes twice. Nothing was created.")
        encoded = encoded.strip()
        try:
            values[key] = base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            raise UploadRequestError(
                f"Upload-Metadata: the value of {key[:40]!r} is not Base64. Nothing was created."
            ) from None
        pairs.append(f"{key} {encoded}".rstrip())
    name = next((values[key] for key in ("filename", "name") if values.get(key)), "")
    kind = next((values[key] for key in ("filetype", "type", "contentType") if values.get(key)), "")
    kind = kind.partition(";")[0].strip()
    return Metadata(
        ",".join(pairs),
        values,
        display_name(name),
        kind.lower() if _CONTENT_TYPE.fullmatch(kind) else "application/octet-stream",
    )


def display_name(name: str) -> str:
    """Return a stranger's file name fit to be shown: its last part, without control characters, shortened."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(
        character
        for character in last
        if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    )
    shown = " ".join(shown.split())
    return "" if shown in (".", "..") else shown[:FILENAME_MAX_CHARS]


def http_date(time_ns: int) -> str:
    """Return a time as RFC 9110 writes it (section 5.6.7), for ``Upload-Expires``."""
    return formatdate(time_ns // 1_000_000_000, usegmt=True)


def relative_location(path: str, upload_id: str) -> str:
    """Return the address of an upload, relative to the one that created it (RFC 9110, section 10.2.2).

    So it holds under any prefix and behind any proxy: nobody here needs to know the address that the client used.
    """
    last = path.rpartition("/")[2]
    return f"{last}/{upload_id}" if last else upload_id


def _number(headers: Mapping[str, str], name: str) -> int:
    value = headers.get(name.lower())
    if value is None:
        raise UploadRequestError(f"{name} is missing, expected a number of bytes. Nothing was changed.")
    if not _NUMBER.fullmatch(value.strip()):
        raise UploadRequestError(f"{name} is {value[:40]!r}, expected a number of bytes. Nothing was changed.")
    return int(value)


def _check_content_type(headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != OFFSET_CONTENT_TYPE:
        raise UploadContentTypeError(
            f"Content-Type is {kind[:80]!r}, expected {OFFSET_CONTENT_TYPE!r}. Nothing was changed."
        )


def _checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return the announced checksum.

    tus, Checksum: "400 Bad Request if the checksum algorithm is not supported by the server".
    """
    value = headers.get("upload-checksum")
    if value is None:
        return None
    algorithm, _space, encoded = value.strip().partition(" ")
    size_bytes = CHECKSUM_ALGORITHMS.get(algorithm)
    if size_bytes is None:
        raise UploadRequestError(
            f"Upload-Checksum names {algorithm[:20]!r}, offered are {', '.join(CHECKSUM_ALGORITHMS)}. Nothing was "
            "changed."
        )
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != size_bytes:
        raise UploadRequestError(
            f"Upload-Checksum: expected the Base64 of {size_bytes} bytes for {algorithm}. Nothing was changed."
        )
    return Checksum(algorithm, digest)
