"""Answers: JSON in one shape, and errors as JSON or as a page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

from mainstem.base.errors import MainstemError
from mainstem.ui.html import el
from mainstem.web.errors import WebError

NO_STORE: Mapping[str, str] = {"cache-control": "no-store"}
"""What changes is not kept by browsers."""


def json_response(value: object, *, status: int = 200) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, headers=NO_STORE, media_type="application/json")


def html_response(document: bytes, *, status: int = 200) -> Response:
    """Return a document."""
    return Response(document, status, headers=NO_STORE, media_type="text/html; charset=utf-8")


def error_response(error: MainstemError, headers: Headers) -> Response:
    """Return an error: as a page for a browser, else as ``{"error": {"code", "message", "try"}}``."""
    status = error.status if isinstance(error, WebError) else 500
    if wants_html(headers):
        return html_response(_plain_page(error), status=status)
    return json_response(
        {"error": {"code": error.code, "message": error.message, "try": error.try_command}}, status=status
    )


def wants_html(headers: Headers) -> bool:
    """Tell whether a request is a browser's for a page."""
    return "text/html" in headers.get("accept", "") and headers.get("hx-request") != "true"


def _plain_page(error: MainstemError) -> bytes:
    """Return a page that needs nothing else: who is not let in cannot load styles either."""
    return (
        b"<!doctype html>"
        + el(
            "html",
            el(
                "head",
                el("meta", charset="utf-8"),
                el("title", "mainstem"),
                el("meta", name="viewport", content="width=device-width, initial-scale=1"),
                el("meta", name="color-scheme", content="light dark"),
            ),
            el(
                "body",
                el(
                    "main",
                    el("h1", "mainstem"),
                    el("p", error.message),
                    el("p", el("code", error.try_command)) if error.try_command else None,
                ),
            ),
            lang="en",
        ).encode()
    )
