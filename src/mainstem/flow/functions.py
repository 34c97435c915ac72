"""Functions whose calls are recorded: their names, their arguments as JSON, their results by annotation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mainstem.base.codec import NotDecodableError, decode, decoder, encode, encode_canonical
from mainstem.base.errors import InvalidArgumentError
from mainstem.base.hints import resolve_hints

_NAME = re.compile(r"(?=.{1,100}\Z)[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")


TIMEOUT_MAX_S = 100 * 365 * 86_400.0
"""Longest time limit: a hundred years."""


class _Arguments(msgspec.Struct, frozen=True):
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class _RawArguments(msgspec.Struct, frozen=True):
    args: list[msgspec.Raw]
    kwargs: dict[str, msgspec.Raw]


_ARGUMENTS_DEPTH = 2
"""The levels that hold a call's arguments."""

NO_ARGUMENTS = encode_canonical(_Arguments((), {}))
"""The arguments of a call that has none."""


def encode_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Return a call's arguments as canonical JSON: ``{"args": [...], "kwargs": {...}}``.

    Raises:
        NotJsonError: One cannot be written as JSON.
    """
    return encode_canonical(_Arguments(args, kwargs), around=_ARGUMENTS_DEPTH) if args or kwargs else NO_ARGUMENTS


def arguments_of_raw(value: bytes | msgspec.Raw) -> bytes:
    """Return the arguments of a call with one positional argument that is JSON already."""
    return b'{"args":[' + bytes(value) + b'],"kwargs":{}}'


class RecordedFunction:
    """A function of the user's, with what is needed to record its calls.

    Attributes:
        function: The function itself.
        name: Its name in histories: letters, digits, ``_``, ``-`` and dots between them, up to 100.
        is_async: Whether it is a coroutine function.
    """

    def __init__(self, function: Callable[..., Any], name: str | None) -> None:
        self.function = function
        self.name = check_name(name or function.__name__)
        self.is_async = inspect.iscoroutinefunction(function)
        self._hints: dict[str, Any] | None = None
        self._signature: inspect.Signature | None = None
        self._result: msgspec.json.Decoder[Any] | None = None
        self.where = f"{function.__module__}.{function.__qualname__}"

    def __repr__(self) -> str:
        return f"<{self.where} as {self.name}>"

    @property
    def hints(self) -> dict[str, Any]:
        """The function's annotations, resolved."""
        if self._hints is None:
            self._hints = resolve_hints(self.function)
        return self._hints

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature, looked at once."""
        if self._signature is None:
            self._signature = inspect.signature(self.function)
        return self._signature

    def decode_result(self, data: bytes | msgspec.Raw) -> Any:
        """Return a result from its JSON, by the return annotation; the same live and on replay."""
        if self._result is None:
            annotation = self.hints.get("return", Any)
            try:
                self._result = decoder(annotation)
            except TypeError as error:
                raise InvalidArgumentError(
                    f"{self.where} -> {annotation}: results of this type cannot be read back: {error}"
                ) from error
        try:
            return self._result.decode(data)
        except (msgspec.MsgspecError, TypeError, ValueError):
            return decode(data, self.hints.get("return", Any))  # raises with an explanation

    def round_trip(self, result: Any) -> tuple[bytes, Any]:
        """Return a result's JSON, and what reading it back gives: that is what the caller gets, live as on replay."""
        if result is None:
            return b"null", None
        data = encode(result)
        return data, self.decode_result(data)

    def decode_arguments(self, data: bytes | msgspec.Raw) -> tuple[list[Any], dict[str, Any]]:
        """Return a call's arguments from their JSON, by the parameters' annotations.

        Raises:
            NotDecodableError: One does not fit.
        """
        raw = decode(data, _RawArguments)
        names = self._positional_names(len(raw.args))
        args = [self._decode_argument(name, value) for name, value in zip(names, raw.args, strict=True)]
        return args, {name: self._decode_argument(name, value) for name, value in raw.kwargs.items()}

    def _positional_names(self, count: int) -> list[str]:
        """Return the names of the parameters that take so many positional arguments; empty where none does."""
        names = []
        rest = ""
        for parameter in self.signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                rest = parameter.name
            elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.kind is not parameter.VAR_KEYWORD:
                names.append(parameter.name)
        return names[:count] + [rest] * (count - len(names))

    def _decode_argument(self, name: str, value: msgspec.Raw) -> Any:
        try:
            return decode(value, self.hints.get(name, Any))
        except NotDecodableError as error:
            raise NotDecodableError(f"{self.where}: {name}: {error}") from error

    def checked_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return a call's arguments as JSON; refuse those that the function's signature does not take, and those that
        do not read back as what its annotations say.

        Raises:
            InvalidArgumentError: They do not fit.
        """
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArgumentError(f"{self.where}: {error}. Nothing was started.") from error
        arguments = encode_arguments(args, kwargs)
        try:
            self.decode_arguments(arguments)
        except NotDecodableError as error:
            raise InvalidArgumentError(f"{error}. Nothing was started.") from error
        return arguments

    def check_timeout(self, timeout_s: float | None) -> float | None:
        """Return a time limit of the function if it is one.

        Raises:
            InvalidArgumentError: It is not positive, no number, or longer than a hundred years.
        """
        if timeout_s is not None and not 0.0 < timeout_s <= TIMEOUT_MAX_S:
            raise InvalidArgumentError(
                f"{self.where}: timeout_s={timeout_s}: expected more than 0 and at most {TIMEOUT_MAX_S:.0f} (a hundred "
                "years), or None for no limit."
            )
        return timeout_s

    def refuse_parameters(self, *reserved: str) -> None:
        """Refuse a function whose parameters have names that ``start`` and ``enqueue`` need themselves.

        Raises:
            InvalidArgumentError: It has one.
        """
        for name in reserved:
            if name in self.signature.parameters:
                raise InvalidArgumentError(
                    f"{self.where}: the parameter {name!r} has the name of an option of starting it. Rename the "
                    f"parameter, for instance {name}_ or {self.name}_{name}."
                )


def check_name(name: str) -> str:
    """Return ``name`` if it can name a step, workflow or job.

    Raises:
        InvalidArgumentError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} cannot name a step, workflow or job: expected a letter or '_', then letters, digits, '_', '-' "
            "and dots between them, 100 at most. Give it one with name='...'."
        )
    return name
