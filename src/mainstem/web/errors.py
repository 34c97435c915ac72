"""Errors of the dashboard and its API."""

from __future__ import annotations

from typing import Self

from mainstem.base.errors import MainstemError


class WebError(MainstemError):
    """Base of the errors that a request is answered with.

    Attributes:
        status: The HTTP status of the answer.
    """

    code = "web"
    status = 500


class NotFoundError(WebError):
    """There is no such page, run or trace."""

    code = "web-not-found"
    status = 404


class ForbiddenError(WebError):
    """The request is not let in: no token, a foreign host name, or another site's page behind it."""

    code = "web-forbidden"
    status = 403


class TokenNeededError(WebError):
    """The address demands a token and the request has none, or a wrong one."""

    code = "web-token-needed"
    status = 401


class BadRequestError(WebError):
    """The request is malformed."""

    code = "web-bad-request"
    status = 400


class UnavailableError(WebError):
    """The application does not run here, or the page state is not ready; nothing was changed."""

    code = "web-unavailable"
    status = 503

    @classmethod
    def behind(cls, what: str, position: int, end_position: int) -> Self:
        """Return the error that something is not in a page state that has not reached the log's end."""
        return cls(
            f"The page state knows of no {what} yet: it shows the log up to position {position} of {end_position}, and "
            "follows as fast as it can. Ask again in a moment."
        )
