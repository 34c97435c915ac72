"""How a command finds the running application: ``server.json`` in the data directory, readable by its owner only.

``mainstem dev`` writes it once it answers and removes it when it ends in order. After a kill it stays, and its port may
be anyone's by then: it counts only where the process that wrote it holds the log's lock. Under any other server the
file is not there: the lock tells that a process runs on the directory, and whoever knows its address names it.
"""

from __future__ import annotations

import os
import urllib.parse
from contextlib import suppress
from pathlib import Path

import msgspec

from mainstem.base.codec import NotDecodableError, decode
from mainstem.cli.errors import ApplicationNeededError, ApplicationRefusedError, NotFoundError, UsageError
from mainstem.log import owner_pid as log_owner_pid
from mainstem.log.engines.state import state_owner_pid
from mainstem.web.identity import is_sendable

SERVER_FILE = "server.json"
"""Name of the file within the data directory."""

_ANSWER_MAX_BYTES = 1 << 20
_ANSWER_WITHIN_S = 30.0


class RunningServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a running application is.

    Attributes:
        url: Address of the dashboard, without a final slash: ``http://127.0.0.1:8000/mainstem``.
        pid: The server's process; 0 when it is not known.
        token: What its API demands, where it demands one.
    """

    url: str
    pid: int
    token: str = ""


class Wished(msgspec.Struct, frozen=True):
    """The application's answer that a wish is written down.

    Attributes:
        run_id: The run.
        wish: ``"cancel"`` or ``"resume"``.
        position: The wish's position in the log.
    """

    run_id: str
    wish: str
    position: int


def write_server(data: Path, server: RunningServer) -> None:
    """Write ``server.json`` (mode 0600), replacing one that a killed server left.

    Raises:
        OSError: It was not written; one of before may be there, and nothing else is.
    """
    new = data / f"{SERVER_FILE}.{server.pid}.new"
    with suppress(FileNotFoundError):  # a namesake of an earlier process with our id; O_EXCL keeps the mode ours
        new.unlink()
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(server) + b"\n")
        new.replace(data / SERVER_FILE)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def remove_server(data: Path, pid: int) -> None:
    """Remove ``server.json`` if it is still ours."""
    server = read_server(data)
    if server is not None and server.pid == pid:
        (data / SERVER_FILE).unlink(missing_ok=True)


def read_server(data: Path) -> RunningServer | None:
    """Return where the application of a data directory said that it is; ``None`` where that makes no sense."""
    try:
        server: RunningServer = decode((data / SERVER_FILE).read_bytes()[: 1 << 16], RunningServer)
    except (OSError, NotDecodableError):
        return None
    return server if _web_address(server.url) and is_sendable(server.token) else None


def named_server(url: str, token: str | None) -> RunningServer:
    """Return the server at an address that someone named: of the dashboard, as a browser has it.

    Args:
        url: ``http://127.0.0.1:8000/mainstem``; a ``?token=`` in it counts.
        token: What it demands; by default what is in the address, or else in ``$MAINSTEM_TOKEN``.

    Raises:
        UsageError: It is no address of the web, or the token is nothing that can be sent.
    """
    from mainstem.cli.arguments import TOKEN_VARIABLE  # noqa: PLC0415 (brings argparse, which a server does not need)

    parts = _web_address(url)
    if parts is None:
        raise UsageError(
            f"--url {url}: expected the dashboard's address, http://HOST:PORT/PREFIX. Nothing was changed.",
            try_command="--url http://127.0.0.1:8000/mainstem",
        )
    in_url = dict(urllib.parse.parse_qsl(parts.query)).get("token", "")
    place = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    token = token or in_url or os.environ.get(TOKEN_VARIABLE, "")
    if not is_sendable(token):
        raise UsageError(
            "the token has characters that no header can carry: expected visible ASCII. Nothing was changed."
        )
    return RunningServer(place, 0, token)


def _web_address(url: str) -> urllib.parse.SplitResult | None:
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:  # brackets that do not close, or a port that is no number below 65,536
        return None


def owner_pid(data: Path) -> int:
    """Return the id of the process that runs on a data directory, however it was started; 0 when none does."""
    return log_owner_pid(data / "log") or log_owner_pid(data) or state_owner_pid(data)


def running_server(data: Path) -> RunningServer:
    """Return where the application of a data directory is, if it is the one that runs there and has said so.

    Raises:
        ApplicationNeededError: No application runs there, or it has not said where it is; nothing was changed.
    """
    server, owner = read_server(data), owner_pid(data)
    if server is not None and owner and owner == server.pid:
        return server
    if owner:
        raise ApplicationNeededError(
            f"this changes something, and process {owner} runs on {data}, but it was not started by mainstem dev: its "
            "address is not known here. Nothing was changed.",
            try_command="its dashboard, or --url http://127.0.0.1:8000/mainstem, where its dashboard is",
        )
    gone = f" (process {server.pid}, which was at {server.url}, is gone)" if server is not None else ""
    raise ApplicationNeededError(
        f"this changes something, and no application runs on {data}{gone}. Nothing was changed.",
        try_command="mainstem dev app.py",
    )


def wish_for(server: RunningServer, run_id: str, wish: str, reason: str) -> Wished:
    """Ask a running application to change a run; return its answer, which it gives when the wish is written down.

    Args:
        server: Where the application is.
        run_id: The run.
        wish: ``"cancel"`` or ``"resume"``.
        reason: Why; it is kept with the run.

    Raises:
        ApplicationNeededError: Nobody answers there; nothing was changed.
        NotFoundError: It does not know the run.
        ApplicationRefusedError: It refused, or what answers is no mainstem.
    """
    status, body = _post(server, f"/api/runs/{run_id}/{wish}", msgspec.json.encode({"reason": reason}))
    if status >= 300:
        message = _message_of(body)
        if not message:
            raise ApplicationRefusedError(f"the application at {server.url} answered {status}. Nothing was changed.")
        raise ApplicationRefusedError(message) if status != 404 else NotFoundError(message, try_command="mainstem runs")
    with suppress(NotDecodableError):  # told below, like an answer to something else
        answer: Wished = decode(body, Wished)
        if (answer.run_id, answer.wish) == (run_id, wish):
            return answer
    raise ApplicationRefusedError(
        f"what answers at {server.url} is no mainstem: it does not say that it noted the wish to {wish} {run_id}."
    )


def _post(server: RunningServer, path: str, body: bytes) -> tuple[int, bytes]:
    """Send a request; return the answer's status and body. Proxies and redirects would take the token elsewhere."""
    # Imported by the command that calls, and not by the server, which only writes where it is.
    import http.client  # noqa: PLC0415

    parts = urllib.parse.urlsplit(server.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc.rpartition("@")[2], timeout=_ANSWER_WITHIN_S)
    headers = {"content-type": "application/json", "accept": "application/json"}
    if server.token:
        headers["authorization"] = f"Bearer {server.token}"
    try:
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # a name that no resolver takes is a UnicodeError
            raise ApplicationNeededError(
                f"this changes something, and nobody answers at {server.url} ({error}). Nothing was changed.",
                try_command="the dashboard, once it answers, or mainstem dev app.py",
            ) from error
        connection.request("POST", parts.path + path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise ApplicationRefusedError(
            f"what answers at {server.url} is no mainstem, or ended: it gave no answer that can be read "
            f"({type(error).__name__}). Whether it noted the wish is not known."
        ) from error
    finally:
        connection.close()


def _message_of(body: bytes) -> str:
    """Return the sentence in an error answer of the API (``{"error": {"message": …}}``); ``""`` where there is none."""
    with suppress(NotDecodableError):  # whoever answered is no mainstem
        answer = decode(body)
        if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict):
            return str(error.get("message", ""))
    return ""
