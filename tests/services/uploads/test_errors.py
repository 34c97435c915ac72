"""Refusals and their status codes."""

from __future__ import annotations

from mainstem.services.uploads import errors


def test_every_refusal_has_its_status() -> None:
    """Each refusal is answered with the status that the protocol, or HTTP, has for it, and all have one base."""
    statuses: dict[type[errors.UploadError], int] = {
        errors.UploadRequestError: 400,
        errors.UploadVersionError: 412,
        errors.UploadMetadataTooLargeError: 431,
        errors.UploadNotFoundError: 404,
        errors.UploadGoneError: 410,
        errors.UploadUnreadableError: 410,
        errors.UploadFinishedError: 409,
        errors.UploadOffsetError: 409,
        errors.UploadTooLargeError: 413,
        errors.UploadContentTypeError: 415,
        errors.UploadChecksumError: 460,
        errors.UploadLockedError: 423,
        errors.UploadTooManyError: 429,
        errors.UploadUnavailableError: 503,
        errors.UploadNoSpaceError: 507,
    }
    assert {kind: kind.status for kind in statuses} == statuses
    assert set(errors.UploadError.__subclasses__()) == set(statuses)
    assert len({kind.code for kind in statuses}) == len(statuses)
    assert errors.UploadGoneError("gone", headers={"A": "b"}).headers == {"A": "b"}
