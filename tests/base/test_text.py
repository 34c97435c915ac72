"""Text made fit to be recorded."""

from __future__ import annotations

import msgspec

from mainstem.base.text import message_of, recordable


class RudeError(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_text_is_bounded_and_encodable() -> None:
    """Lone surrogates are written out, and nothing is longer than asked for before that."""
    assert recordable("a\udcffb" + "c" * 100, 4) == "a\\udcffbc"
    msgspec.json.encode(recordable("\ud800", 10))


def test_message_of_never_raises() -> None:
    """An error whose message cannot be had is described all the same."""
    assert "RuntimeError" in message_of(RudeError(), 100)
    assert message_of(ValueError("\udcff"), 100) == "\\udcff"
