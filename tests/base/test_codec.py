"""Values as JSON by annotation."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import pytest

from mainstem.base.codec import NotDecodableError, NotJsonError, decode, digest, encode, encode_canonical


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


@dataclass
class Inner:
    """A dataclass."""

    when: datetime
    tags: set[str]


class Outer(msgspec.Struct):
    """A struct."""

    id: UUID
    price: Decimal
    colour: Colour
    inner: Inner
    raw: bytes
    path: PurePosixPath


class Model:
    """Looks like a pydantic model."""

    def __init__(self, x: int) -> None:
        self.x = x

    def model_dump(self, *, mode: str) -> dict[str, int]:
        """Return plain values."""
        assert mode == "json"
        return {"x": self.x}

    @classmethod
    def model_validate(cls, value: dict[str, int]) -> Model:
        """Return an instance."""
        return cls(value["x"])


def test_values_come_back_by_annotation() -> None:
    """Structs, dataclasses, enums, times, ids, decimals, sets, bytes and paths survive the way through JSON."""
    value = Outer(
        UUID(int=7),
        Decimal("1.10"),
        Colour.RED,
        Inner(datetime(2026, 1, 2, tzinfo=UTC), {"a"}),
        b"\x00\xff",
        PurePosixPath("a/b"),
    )
    assert decode(encode(value), Outer) == value


def test_models_are_taken_by_their_methods() -> None:
    """What has ``model_dump`` and ``model_validate`` is written and read with them, without importing pydantic."""
    assert encode([Model(3)]) == b'[{"x":3}]'
    assert decode(b'[{"x":3}]', list[Model])[0].x == 3


def test_the_error_names_the_place_and_the_type() -> None:
    """A part without a JSON form is found, however deep it is."""
    with pytest.raises(NotJsonError) as caught:
        encode({"items": [1, {"owner": object()}]})
    assert (caught.value.path, caught.value.type_name) == ("$.items[1].owner", "object")
    with pytest.raises(NotJsonError, match=r"\$\.when\.0 is of type object|\$\.when"):
        encode(Inner(object(), set()))  # type: ignore[arg-type]


def test_canonical_bytes_do_not_depend_on_order() -> None:
    """Equal dictionaries and sets have one canonical form, and so one digest."""
    assert encode_canonical({"b": 1, "a": {3, 1, 2}}) == encode_canonical({"a": {2, 3, 1}, "b": 1})
    assert digest(b"x") == digest(b"x") != digest(b"y")
    assert len(digest(b"")) == 16


@pytest.mark.parametrize(("data", "annotation"), [(b"{", Any), (b'"x"', int), (b'{"x": 1}', Outer)])
def test_what_does_not_fit_is_refused(data: bytes, annotation: Any) -> None:
    """Bytes that are no JSON, or not of the type, raise ``NotDecodableError``."""
    with pytest.raises(NotDecodableError, match="expected JSON of type"):
        decode(data, annotation)


def test_object_is_any_json() -> None:
    """A value annotated as ``object`` is whatever the JSON holds, at any depth."""
    assert decode(b'{"a": 1}', object) == {"a": 1}
    assert decode(b'{"a": {"b": [1]}}', dict[str, object]) == {"a": {"b": [1]}}


@pytest.mark.parametrize("data", [b"[" * 5000 + b"]" * 5000, b'"\xff"', b"{", b""])
def test_whatever_bytes_say_is_one_error(data: bytes) -> None:
    """JSON that is nested too deeply, is no UTF-8 or no JSON at all is refused by one and the same error."""
    with pytest.raises(NotDecodableError):
        decode(data)
