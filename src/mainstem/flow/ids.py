"""Ids of runs: chosen by a caller, or made of a function's name and of what started it; neither can be the other."""

from __future__ import annotations

import re

from mainstem.base.errors import InvalidArgumentError
from mainstem.base.ids import ID_MAX_CHARS, check_id

_MADE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*@[0-9a-f]+")


def made_id(name: str, place: str) -> str:
    """Return the id of a run that something of mainstem's starts: ``<name>@<place>``.

    An id that a caller chooses holds no ``@``, and a function's name holds none: so no two functions have the same
    ids, and nobody can have taken one before.

    Args:
        name: The function's name in histories.
        place: What started it, in decimal or hexadecimal digits: the position of an event, or what follows from the
            place of a call in a workflow.
    """
    return f"{name}@{place}"


def check_run_id(value: str) -> str:
    """Return ``value`` if a run can have this id: one that a caller may choose, or one of :func:`made_id`.

    Raises:
        InvalidArgumentError: It can be no run's.
    """
    if "@" not in value:
        return check_id(value, "run id")
    if len(value) > ID_MAX_CHARS or not _MADE.fullmatch(value):
        raise InvalidArgumentError(
            f"{value[:200]!r} is not a valid run id: expected 1 to {ID_MAX_CHARS} of the characters A-Z a-z 0-9 _ -, "
            "or a function's name, '@' and the position of the event that started the run."
        )
    return value
