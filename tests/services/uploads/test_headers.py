"""Header fields from strangers: what is understood, what is refused, and that nothing else gets through."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.services.uploads.errors import (
    UploadContentTypeError,
    UploadError,
    UploadMetadataTooLargeError,
    UploadRequestError,
    UploadTooLargeError,
    UploadVersionError,
)
from mainstem.services.uploads.headers import (
    CHECKSUM_ALGORITHMS,
    EXTENSIONS,
    FILENAME_MAX_CHARS,
    METADATA_MAX_BYTES,
    OFFSET_CONTENT_TYPE,
    TUS_VERSION,
    Checksum,
    Creation,
    Metadata,
    Patch,
    body_length,
    check_version,
    display_name,
    effective_method,
    http_date,
    parse_creation,
    parse_metadata,
    parse_patch,
    relative_location,
)

TYPE = {"content-type": OFFSET_CONTENT_TYPE}


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def test_extensions_and_algorithms() -> None:
    """What is announced is what is here; sha1 is among the checksums, as the protocol demands."""
    assert EXTENSIONS.split(",") == ["creation", "creation-with-upload", "checksum", "termination", "expiration"]
    assert {name: hashlib.new(name).digest_size for name in CHECKSUM_ALGORITHMS} == dict(CHECKSUM_ALGORITHMS)
    assert "sha1" in CHECKSUM_ALGORITHMS


@pytest.mark.parametrize("version", [None, "", "0.2.2", "1.0.1", "x" * 1000])
def test_other_versions_are_refused_with_ours(version: str | None) -> None:
    """A missing or other version is refused, and the refusal names the one that is spoken."""
    with pytest.raises(UploadVersionError) as caught:
        check_version({} if version is None else {"tus-resumable": version})
    assert caught.value.headers == {"Tus-Version": TUS_VERSION}
    check_version({"tus-resumable": TUS_VERSION})


def test_method_override() -> None:
    """The override rules; one that the protocol does not know is refused."""
    assert effective_method("POST", {}) == "POST"
    assert effective_method("POST", {"x-http-method-override": "patch"}) == "PATCH"
    with pytest.raises(UploadRequestError):
        effective_method("POST", {"x-http-method-override": "TRACE"})


@pytest.mark.parametrize("override", ["POST", "PATCH", "HEAD", "DELETE"])
def test_a_question_is_never_more(override: str) -> None:
    """An actual OPTIONS, which passes a gate without credentials, stays one whatever the override says."""
    assert effective_method("OPTIONS", {"x-http-method-override": override}) == "OPTIONS"


def test_creation() -> None:
    """A POST is understood: size, metadata, body."""
    headers = {
        "upload-length": "10",
        "upload-metadata": f"filename {encoded('x.mp4')}",
        "content-length": "4",
        "upload-checksum": f"sha1 {encoded(b'x' * 20)}",
        **TYPE,
    }
    raw = headers["upload-metadata"]
    assert parse_creation(headers, 10) == Creation(
        10, Metadata(raw, {"filename": "x.mp4"}, "x.mp4"), 4, Checksum("sha1", b"x" * 20)
    )
    assert parse_creation({"upload-length": "0"}, 10) == Creation(0, Metadata(), 0, None)


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "1e3", "0x10", " ", "1_0", "٣", "9" * 19, "1,1"])
def test_numbers_are_digits(value: str) -> None:
    """Only a plain, not too long decimal number is one."""
    with pytest.raises(UploadRequestError):
        parse_creation({"upload-length": value}, 10)
    with pytest.raises(UploadRequestError):
        parse_patch({"upload-offset": value, **TYPE})
    with pytest.raises(UploadRequestError):
        body_length({"content-length": value})


def test_creation_refuses() -> None:
    """Too large, without a length, with extensions that are not offered, with a body of another type or too long."""
    with pytest.raises(UploadTooLargeError) as caught:
        parse_creation({"upload-length": "11"}, 10)
    assert caught.value.headers == {"Tus-Max-Size": "10"}
    for headers in ({}, {"upload-defer-length": "1"}, {"upload-length": "1", "upload-concat": "partial"}):
        with pytest.raises(UploadRequestError):
            parse_creation(headers, 10)
    with pytest.raises(UploadContentTypeError):
        parse_creation({"upload-length": "5", "content-length": "5"}, 10)
    with pytest.raises(UploadTooLargeError):
        parse_creation({"upload-length": "5", "content-length": "6", **TYPE}, 10)


def test_patch() -> None:
    """A PATCH is understood, with a length or without; another type is refused."""
    assert parse_patch({"upload-offset": "7", "content-length": "3", **TYPE}) == Patch(7, 3, None)
    assert parse_patch({"upload-offset": "7", "transfer-encoding": "chunked", **TYPE}) == Patch(7, None, None)
    for kind in ("", "application/octet-stream", "text/plain"):
        with pytest.raises(UploadContentTypeError):
            parse_patch({"upload-offset": "7", "content-type": kind})


@pytest.mark.parametrize(
    "value", ["md5 AAAA", "sha1", "sha1 !!!", f"sha1 {encoded(b'x' * 19)}", "", f"SHA1 {encoded(b'x' * 20)}"]
)
def test_checksums_that_are_refused(value: str) -> None:
    """An unknown algorithm, or what is no digest of it, is refused."""
    with pytest.raises(UploadRequestError):
        parse_patch({"upload-offset": "0", "upload-checksum": value, **TYPE})


def test_metadata() -> None:
    """Pairs are decoded; a value may be empty, with or without its space; bytes that are no text do no harm."""
    raw = f"filename {encoded('näme.bin')}, filetype {encoded('Video/MP4; codecs=x')},flag,empty ,"
    raw += f"raw {encoded(bytes([255, 0]))}"
    parsed = parse_metadata(raw)
    assert parsed.values == {
        "filename": "näme.bin",
        "filetype": "Video/MP4; codecs=x",
        "flag": "",
        "empty": "",
        "raw": "\ufffd\0",
    }
    assert (parsed.filename, parsed.content_type) == ("näme.bin", "video/mp4")
    assert parse_metadata(parsed.raw) == parsed


@pytest.mark.parametrize("raw", ["a b c", "k !!", f"k {encoded('1')},k {encoded('2')}", ",", "ключ eA==", "k eA==,"])
def test_malformed_metadata_is_refused(raw: str) -> None:
    """No Base64, a key that comes twice, an empty key, characters that no header has: all refused."""
    with pytest.raises(UploadRequestError):
        parse_metadata(raw)


def test_long_metadata_is_refused() -> None:
    """Metadata have a limit."""
    with pytest.raises(UploadMetadataTooLargeError):
        parse_metadata("k " + "A" * METADATA_MAX_BYTES)


@given(st.text(alphabet=st.characters(codec="latin-1"), max_size=300))
def test_any_metadata(raw: str) -> None:
    """Whatever comes is understood or refused, and what HEAD answers holds no character that could end a header."""
    try:
        parsed = parse_metadata(raw)
    except UploadError:
        return  # refused: that is right too
    assert all(" " <= character <= "~" for character in parsed.raw)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\film.mp4", "film.mp4"),
        ("..", ""),
        ("a\0b\r\nc", "abc"),
        ("\u202egpj.exe", "gpj.exe"),
        ("  spaced   name ", "spaced name"),
        ("n" * 999, "n" * FILENAME_MAX_CHARS),
    ],
)
def test_display_name(name: str, shown: str) -> None:
    """A stranger's name is cut down to what can be shown."""
    assert display_name(name) == shown


@given(st.text())
def test_any_name(name: str) -> None:
    """Whatever the name, what is shown is short and has no separator, control or direction character."""
    shown = display_name(name)
    assert len(shown) <= FILENAME_MAX_CHARS
    assert not set(shown) & set("/\\\0\n\r\u202e\u2066")


def test_dates_and_addresses() -> None:
    """Dates are as HTTP has them; an upload's address is relative to the one that created it."""
    assert http_date(784_111_777_000_000_000) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert relative_location("/any/prefix/files", "x") == "files/x"
    assert relative_location("/any/prefix/files/", "x") == "x"
