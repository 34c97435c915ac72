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
from hypothesis import given
from hypothesis import strategies as st

from mainstem.base.codec import DEPTH_MAX, NotDecodableError, NotJsonError, decode, digest, encode, encode_canonical


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


def _nested(depth: int) -> Any:
    value: Any = []
    for _level in range(depth - 1):
        value = [value]
    return value


def test_nesting_is_bounded_on_both_ways() -> None:
    """A value is nested at most 200 deep, whatever the stack is at the moment; what is written can be read, with some
    levels around it.
    """
    assert decode(encode(_nested(DEPTH_MAX))) == _nested(DEPTH_MAX)
    assert encode_canonical({"args": [_nested(DEPTH_MAX)]}, around=2)
    assert decode(b'{"args":[' + encode(_nested(DEPTH_MAX)) + b"]}")
    for way in (encode, encode_canonical):
        with pytest.raises(NotJsonError, match="nested more than 200 deep"):
            way(_nested(DEPTH_MAX + 1))
    for data in (b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300):
        for given_as in (data, msgspec.Raw(data)):
            with pytest.raises(NotDecodableError, match="at most 200 deep"):
                decode(given_as)


def test_brackets_in_strings_do_not_count() -> None:
    """Neither opening brackets in text make a value deep, nor do closing ones hide how deep it is."""
    for text in ("[" * 500, ']"[' * 300, "\\" * 301 + "{" * 500, '\\"' * 300 + "[" * 300):
        assert decode(encode([text, {text: text}])) == [text, {text: text}]
    value: Any = "x"
    for _level in range(DEPTH_MAX + 1):
        value = ['\\"]]', value]
    with pytest.raises(NotJsonError, match="nested"):
        encode(value)
    wide = [{"a": [index, "[", '"']} for index in range(1000)]
    assert decode(encode(wide)) == wide


_LEAVES = st.text('[]{}"\\ab') | st.integers() | st.none()
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]"\\'), inner))


@given(_VALUES, st.integers(0, 8))
def test_depth_is_told_from_the_bytes(value: Any, depth: int) -> None:
    """What is counted in the bytes is how deep the value is."""

    def depth_of(part: Any) -> int:
        if isinstance(part, dict):
            part = list(part.values())
        return 1 + max(map(depth_of, part), default=0) if isinstance(part, list) else 0

    padded = [value, *[[]] * 20]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mainstem.base.codec.DEPTH_MAX", depth)
        if depth_of(padded) > depth:
            with pytest.raises(NotJsonError):
                encode(padded)
        else:
            assert decode(encode(padded)) == padded
