"""Values as JSON, by type annotation: what is written to the log and read back. Never pickle.

JSON's own types, dataclasses, msgspec structs, named tuples, enums, ``datetime``, ``date``, ``time``, ``timedelta``,
``UUID``, ``Decimal``, sets, tuples, bytes (base64), paths, and models with ``model_dump`` and ``model_validate``
(pydantic) are understood. Not-a-number and the infinities become ``null``, since JSON has none.

Values are nested at most :data:`DEPTH_MAX` deep. What can be written can so be read back wherever that is: Python's own
limit depends on how deep the caller's stack is at the moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from mainstem.base.errors import InvalidArgumentError, MainstemError

DEPTH_MAX = 200
"""How deep arrays and objects are nested at most in a value; ``[]`` is 1 deep."""

_AROUND_MAX = 16
"""So many levels mainstem puts around a value at most: the arguments of a call, a dead letter."""


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


def encode(value: object, *, around: int = 0) -> bytes:
    """Return ``value`` as JSON.

    Args:
        value: What to write.
        around: So many of its levels are mainstem's own, around a value of at most :data:`DEPTH_MAX`.

    Raises:
        NotJsonError: A part of it has no JSON form, or it is nested too deeply; the error names the place and the type.
    """
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _explained(value, error) from error
    if _is_deeper(data, DEPTH_MAX + around):
        raise _too_deep(value)
    return data


def encode_canonical(value: object, *, around: int = 0) -> bytes:
    """Return ``value`` as JSON with sorted keys and sets: equal values give equal bytes, in every process.

    Args:
        value: As for :func:`encode`.
        around: As for :func:`encode`.

    Raises:
        NotJsonError: As for :func:`encode`.
    """
    try:
        data = _canonical.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _explained(value, error) from error
    if _is_deeper(data, DEPTH_MAX + around):
        raise _too_deep(value)
    return data


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
    if _is_deeper(data, DEPTH_MAX + _AROUND_MAX):
        raise NotDecodableError(f"expected JSON that is nested at most {DEPTH_MAX} deep")
    try:
        return decoder(annotation).decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        name = getattr(annotation, "__name__", str(annotation))
        raise NotDecodableError(f"expected JSON of type {name}: {error}") from error


_TO_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[{]}"')


def _is_deeper(data: bytes | msgspec.Raw, depth_max: int) -> bool:
    """Tell whether JSON is nested deeper than that; of what is no JSON, the answer means nothing.

    It costs little where it is short or has few brackets, and else some nanoseconds a byte: no loop here is Python's.
    """
    if type(data) is not bytes:
        data = bytes(data)
    if len(data) <= 2 * depth_max or data.count(b"[") + data.count(b"{") <= depth_max:
        return False
    if b"\\" in data:  # an escaped quote ends no string
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = data.translate(_TO_STEPS, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:  # there are brackets within strings: what is outside is every other part
        marks = b"".join(marks.split(b'"')[::2])
    return max(itertools.accumulate(memoryview(marks).cast("b")), default=0) > depth_max


def _too_deep(value: object) -> NotJsonError:
    return NotJsonError("$", type(value).__name__, f"it is nested more than {DEPTH_MAX} deep")


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
