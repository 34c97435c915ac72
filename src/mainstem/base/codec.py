"""Values as JSON, by type annotation: what is written to the log and read back. Never pickle.

JSON's own types, dataclasses, msgspec structs, named tuples, enums, ``datetime``, ``date``, ``time``, ``timedelta``,
``UUID``, ``Decimal``, sets, tuples, bytes (base64), paths, and models with ``model_dump`` and ``model_validate``
(pydantic) are understood. Not-a-number and the infinities become ``null``, since JSON has none.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from mainstem.base.errors import InvalidArgumentError, MainstemError


class NotJsonError(InvalidArgumentError, TypeError):
    """A value cannot be written as JSON; it was not written (a step whose result it is has been carried out).

    Attributes:
        path: Where in the value it is, such as ``$.items[3].owner``.
        type_name: The type that JSON has no form for.
    """

    code = "not-json"

    def __init__(self, path: str, type_name: str, reason: str = "") -> None:
        detail = f" ({reason})" if reason else ""
        super().__init__(
            f"{path} is of type {type_name}, which cannot be written as JSON{detail}. Expected JSON's own types, "
            "dataclasses, msgspec structs, pydantic models, datetimes, UUIDs, Decimals, enums, sets, tuples or bytes. "
            "It was not written."
        )
        self.path = path
        self.type_name = type_name


class NotDecodableError(MainstemError, ValueError):
    """Bytes are no JSON, or their JSON does not fit the annotated type."""

    code = "not-decodable"


def _plain(value: object) -> object:
    """Return something that JSON has a form for, in place of ``value``."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"type {type(value).__name__}")


def _revive(annotation: type, value: object) -> object:
    """Return the instance of a type that msgspec does not know, from its JSON form."""
    if annotation is object:
        return value
    validate = getattr(annotation, "model_validate", None)
    if validate is not None:
        return validate(value)
    if issubclass(annotation, PurePath) and isinstance(value, str):
        return annotation(value)
    raise TypeError(f"{annotation.__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_canonical = msgspec.json.Encoder(enc_hook=_plain, order="deterministic")
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_DECODERS_MAX = 4096


def encode(value: object) -> bytes:
    """Return ``value`` as JSON.

    Raises:
        NotJsonError: A part of it has no JSON form; the error names the place and the type.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _explained(value, error) from error


def encode_canonical(value: object) -> bytes:
    """Return ``value`` as JSON with sorted keys and sets: equal values give equal bytes, in every process.

    Raises:
        NotJsonError: As for :func:`encode`.
    """
    try:
        return _canonical.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _explained(value, error) from error


def decoder(annotation: Any) -> msgspec.json.Decoder[Any]:
    """Return the (cached) decoder of a type annotation.

    Raises:
        TypeError: Values of that type cannot be told from JSON, such as a union of two structs without tags.
    """
    try:
        found = _decoders.get(annotation)
    except TypeError:  # an annotation that cannot be hashed is not cached
        return msgspec.json.Decoder(annotation, dec_hook=_revive)
    if found is None:
        if len(_decoders) >= _DECODERS_MAX:
            _decoders.clear()
        found = _decoders[annotation] = msgspec.json.Decoder(annotation, dec_hook=_revive)
    return found


def decode(data: bytes | msgspec.Raw, annotation: Any = Any) -> Any:
    """Return the value of some JSON as the annotated type; ``Any`` gives JSON's own types.

    Raises:
        NotDecodableError: It is no JSON, is nested too deeply, or does not fit; the message names the place.
    """
    try:
        return decoder(annotation).decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        name = getattr(annotation, "__name__", str(annotation))
        raise NotDecodableError(f"expected JSON of type {name}: {error}") from error


def digest(data: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of some bytes, which should be canonical JSON."""
    return hashlib.sha256(data).hexdigest()[:16]


def _explained(value: object, cause: Exception) -> NotJsonError:
    found = _find_culprit(value, "$", 0)
    if found is None:
        return NotJsonError("$", type(value).__name__, str(cause))
    path, culprit = found
    return NotJsonError(path, type(culprit).__name__, "" if isinstance(cause, TypeError) else str(cause))


_SEARCH_DEPTH_MAX = 64


def _find_culprit(value: object, path: str, depth: int) -> tuple[str, object] | None:
    """Return the innermost part that does not encode, with its path; slow, for error messages only."""
    with contextlib.suppress(
        TypeError, ValueError, OverflowError, RecursionError
    ):  # as for encode(): here is the place
        _encoder.encode(value)
        return None
    if depth < _SEARCH_DEPTH_MAX:
        for name, part in _parts(value):
            found = _find_culprit(part, path + name, depth + 1)
            if found is not None:
                return found
    return path, value


def _parts(value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(f".{key}", part) for key, part in value.items()]
    if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (str, bytes, bytearray)):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    return [(f".{name}", getattr(value, name, None)) for name in fields or ()]
