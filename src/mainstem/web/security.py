"""Who is let in, and what a browser may do with what it gets.

Without a token only this machine is let in: the connection must end on a loopback address, the host name must be a
loopback one (another site's name that was made to point here, "DNS rebinding", is refused), and no proxy may stand in
between that shows itself: by a header, or by HTTP/1.0, which nginx speaks by default to what is behind it. A proxy that
does neither looks like this machine: behind a proxy an application is given a token. With a token every request needs
it: as ``Authorization: Bearer``, or as a cookie, which ``?token=`` sets once. A request that changes something must
come from a page of this origin, and carry a header that a form cannot send.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainstem.web.answers import error_response
from mainstem.web.errors import ForbiddenError, TokenNeededError, WebError
from mainstem.web.identity import check_token, host_name, is_loopback

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob:; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load and do: everything from its own origin, nothing inline, nothing evaluated."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""Headers of every answer."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PROXY_PREFIXES: Final = ("x-forwarded-", "x-original-", "x-envoy-")
_PROXY_HEADERS: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "fly-client-ip",
    }
)


class Gate:
    """ASGI middleware that lets in whom it should and adds :data:`HEADERS`.

    Args:
        app: What is behind it.
        token: What every request needs; ``None`` lets in this machine alone.
        services: Names of the services behind it. Which other sites may use a service is for that service to say,
            and a browser's question beforehand (:func:`is_preflight`), which carries no token, reaches it.

    Raises:
        InvalidArgumentError: The token is too short to be one.
    """

    def __init__(self, app: ASGIApp, token: str | None, services: Collection[str] = ()) -> None:
        if token is not None:
            check_token(token)
        self._app = app
        self._token = token
        self._services = frozenset(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._check(HTTPConnection(scope))
        except WebError as error:
            answer = error_response(error, Headers(scope=scope))
        await (answer or self._app)(scope, receive, send_with_headers)

    def _check(self, request: HTTPConnection) -> Response | None:
        method = request.scope["method"]
        is_of_service = _first_part(request.scope) in self._services
        if method not in _SAFE_METHODS and not is_of_service:
            check_same_origin(request.headers)
        if self._token is None:
            check_local(request.scope, request.headers)
            return None
        if is_of_service and is_preflight(method, request.headers):
            return None
        return self._check_token(request, self._token)

    def _check_token(self, request: HTTPConnection, token: str) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), token):
            return None
        if _same(request.cookies.get(cookie_name(token), ""), cookie_value(token)):
            return None
        query = parse_qsl(request.url.query, keep_blank_values=True)
        if request.scope["method"] == "GET" and any(name == "token" and _same(value, token) for name, value in query):
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            # The token does not stay in the address, where histories and logs would keep it.
            answer = RedirectResponse(request.url.path + (f"?{rest}" if rest else ""), status_code=303)
            answer.set_cookie(
                cookie_name(token),
                cookie_value(token),
                path=request.scope.get("root_path") or "/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )
            return answer
        raise TokenNeededError(
            "This address demands a token: send it as 'Authorization: Bearer …', or open the page once with ?token=… "
            "behind its address, which sets a cookie. Nothing was read or changed."
        )


def _first_part(scope: Scope) -> str:
    """Return the first part of a request's path below the mount."""
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")).rstrip("/"))
    return path.strip("/").partition("/")[0]


def cookie_name(token: str) -> str:
    """Return what the cookie is called: a name for each token, as one host's cookies are those of all its ports."""
    return "mainstem_" + hashlib.sha256(b"mainstem cookie name\0" + token.encode()).hexdigest()[:16]


def cookie_value(token: str) -> str:
    """Return what the cookie holds: proof of the token, not the token."""
    return hashlib.sha256(b"mainstem cookie\0" + token.encode()).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def check_local(scope: Scope, headers: Headers) -> None:
    """Let in this machine alone.

    Raises:
        ForbiddenError: The connection, the host name or a proxy's header shows someone else.
    """
    server = scope.get("server")
    host = ", ".join(headers.getlist("host"))  # of two, which is none, either may be what a proxy went by
    proxy = _sign_of_proxy(scope, headers)
    if server and server[1] is not None and not is_loopback(str(server[0])):
        what = f"the address {server[0]} can be reached from other machines"
    elif not is_loopback(host_name(host)):
        what = f"the host name {host[:100]!r} is not this machine's own"
    elif proxy:
        what = f"a proxy stands in between ({proxy})"
    else:
        return
    raise ForbiddenError(
        f"Without a token only this machine is let in, and {what}. Nothing was read or changed.",
        try_command='Mainstem("data", token=…), or MAINSTEM_TOKEN=… mainstem dev app.py',
    )


def _sign_of_proxy(scope: Scope, headers: Headers) -> str:
    """Return what shows that a proxy has sent a request on; ``""`` where nothing does."""
    if scope.get("http_version") in {"0.9", "1.0"}:
        return f"HTTP/{scope['http_version']}"
    return next((name for name in headers if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES)), "")


def check_same_origin(headers: Headers) -> None:
    """Refuse what another site's page sends in its visitor's name.

    Raises:
        ForbiddenError: The browser says that the request comes from elsewhere.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    if site not in {"same-origin", "none"} or (origin is not None and _host_of(origin) != headers.get("host", "")):
        raise ForbiddenError("The request comes from another site's page. Nothing was changed.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # brackets that do not close: nobody's origin
        return None


def is_preflight(method: str, headers: Headers) -> bool:
    """Tell whether a request is a browser's question beforehand (Fetch, "CORS-preflight"), and nothing else besides.

    One that names another method which is to be performed instead is no question.
    """
    return (
        method == "OPTIONS" and "access-control-request-method" in headers and "x-http-method-override" not in headers
    )


def check_intended(headers: Headers) -> None:
    """Demand a header that a plain form cannot send: htmx's own, or a body that says it is JSON.

    Raises:
        ForbiddenError: There is none.
    """
    is_json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    if headers.get("hx-request") != "true" and not is_json:
        raise ForbiddenError(
            "A request that changes something is sent as JSON (content-type: application/json). Nothing was changed."
        )
