"""The base of all errors."""

from __future__ import annotations

from mainstem.base.errors import InvalidArgumentError, MainstemError, MissingExtraError


def test_message_and_command() -> None:
    """The text of an error ends with the command to try, where there is one."""
    assert str(MainstemError("it broke")) == "it broke"
    assert str(MainstemError("it broke", try_command="mend it")) == "it broke\n  try: mend it"


def test_python_callers_may_catch_what_they_know() -> None:
    """A bad argument is a ``ValueError`` and a missing extra an ``ImportError`` that names the install command."""
    assert isinstance(InvalidArgumentError("x"), ValueError)
    error = MissingExtraError("media", "probing a video")
    assert isinstance(error, ImportError)
    assert "pip install 'mainstem[media]'" in str(error)
