"""The type annotations of a function, resolved when they are needed: names may be defined below the function."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from mainstem.base.errors import InvalidArgumentError


def resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's annotations by parameter name, and ``"return"``.

    Raises:
        InvalidArgumentError: An annotation names something that does not exist where the function was defined.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        where = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
        raise InvalidArgumentError(
            f"{where}: an annotation cannot be resolved ({error}). Values are read back from JSON by annotation, so "
            "its types have to be names of the module, not imported under TYPE_CHECKING only nor defined inside "
            "another function."
        ) from error
