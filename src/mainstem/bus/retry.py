"""When a failed attempt is tried again: exponential back-off with jitter, a pure function."""

from __future__ import annotations

import random

import msgspec

from mainstem.base.errors import InvalidArgumentError

_DELAY_MAX_S = 100 * 365 * 86_400.0


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often, when, and for which errors something is tried again.

    The delay after the n-th failed attempt is ``base_s * 2 ** (n - 1)``, at most ``max_s``, shortened by a random part
    of up to ``jitter`` of it ("equal jitter" for 0.5; M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015).

    Attributes:
        max_attempts: Attempts in all, the first included; 1 to 1,000.
        base_s: Delay after the first failed attempt, in seconds.
        max_s: Longest delay, in seconds; a hundred years at most.
        jitter: From 0 (none) to 1 (anything between no delay and the whole one).
        retry_on: Only errors of these types (a tuple of them) are tried again.
        never_on: Errors of these types are not, whatever ``retry_on`` says.
    """

    max_attempts: int = 5
    base_s: float = 0.5
    max_s: float = 60.0
    jitter: float = 0.5
    retry_on: tuple[type[Exception], ...] = (Exception,)
    never_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if not (
            1 <= self.max_attempts <= 1000 and 0 <= self.base_s <= self.max_s <= _DELAY_MAX_S and 0 <= self.jitter <= 1
        ):
            raise InvalidArgumentError(
                f"{self!r}: expected 1 <= max_attempts <= 1000, 0 <= base_s <= max_s <= {_DELAY_MAX_S:.0f} (a hundred "
                "years) and 0 <= jitter <= 1."
            )
        _check_types("retry_on", self.retry_on)
        _check_types("never_on", self.never_on)

    def retries(self, error: BaseException, attempt: int) -> bool:
        """Tell whether there is another attempt after attempt number ``attempt`` (from 1) ended with ``error``."""
        return attempt < self.max_attempts and isinstance(error, self.retry_on) and not isinstance(error, self.never_on)

    def delay_s(self, attempt: int, random_source: random.Random) -> float:
        """Return the seconds between the end of failed attempt number ``attempt`` (from 1) and the next one."""
        full_s: float = min(self.max_s, self.base_s * 2.0 ** min(attempt - 1, 60))
        return full_s * (1.0 - self.jitter * random_source.random())


def _check_types(field: str, types: object) -> None:
    """Refuse what ``isinstance`` would refuse when the first error is there."""
    if not (
        isinstance(types, tuple) and all(isinstance(one, type) and issubclass(one, BaseException) for one in types)
    ):
        raise InvalidArgumentError(
            f"{field}={types!r}: expected a tuple of exception types, such as {field}=(OSError, ValueError)."
        )


NO_RETRY = Retry(max_attempts=1)
"""One attempt only."""
