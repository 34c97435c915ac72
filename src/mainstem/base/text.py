"""Text from anywhere, made fit to be recorded: bounded, and without what UTF-8 cannot carry."""

from __future__ import annotations


def recordable(text: str, max_chars: int) -> str:
    """Return ``text`` cut to ``max_chars``, with lone surrogates written out in ASCII.

    >>> recordable("a" + chr(0xDCFF), 100) == "a" + chr(92) + "udcff"
    True
    """
    return text[:max_chars].encode("utf-8", "backslashreplace").decode()


def message_of(error: BaseException, max_chars: int) -> str:
    """Return an error's message as it can be recorded; never raises, though ``__str__`` of the error may.

    >>> message_of(ValueError("no"), 100)
    'no'
    """
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 (a user's __str__: anything may come)
        text = f"(its message cannot be shown: {type(broken).__name__} in __str__)"
    return recordable(text, max_chars)
