"""How a command finds the running application: ``server.json`` in the data directory, readable by its owner only.

``mainstem dev`` writes it once it answers and removes it when it ends in order. After a kill it stays; then nobody
answers at the address in it, and that is what a command reports. Under any other server the file is not there: the
log's lock tells that a process runs on the directory, and whoever knows its address names it.
"""

from __future__ import annotations

import os
import urllib.parse
from contextlib import suppress
from pathlib import Path

import msgspec

from mainstem.cli.errors import ApplicationNeededError, ApplicationRefusedError, NotFoundError, UsageError
from mainstem.log import owner_pid as log_owner_pid

SERVER_FILE = "server.json"
"""Name of the file within the data directory."""

_ANSWER_MAX_BYTES = 1 << 20


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
    """Return where the application of a data directory said that it is; ``None`` without a readable word of it."""
    try:
        text = (data / SERVER_FILE).read_bytes()[: 1 << 16]
        return msgspec.json.decode(text, type=RunningServer)
    except (OSError, msgspec.MsgspecError):
        return None


def named_server(url: str, token: str | None) -> RunningServer:
    """Return the server at an address that someone named: of the dashboard, as a browser has it.

    Args:
        url: ``http://127.0.0.1:8000/mainstem``; a ``?token=`` in it counts.
        token: What it demands; by default what is in the address, or else in ``$MAINSTEM_TOKEN``.

    Raises:
        UsageError: It is no address of the web.
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
    return RunningServer(place, 0, token or in_url or os.environ.get(TOKEN_VARIABLE, ""))


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
    return log_owner_pid(data / "log") or log_owner_pid(data)


def call_application(data: Path, path: str, body: object, server: RunningServer | None = None) -> object:
    """POST ``body`` as JSON to the running application's API and return its answer, decoded.

    Args:
        data: The data directory.
        path: Path below the dashboard's address, beginning with a slash.
        body: Anything that is JSON.
        server: Where the application is; by default where ``server.json`` says.

    Raises:
        ApplicationNeededError: No application runs on this directory, or it does not answer; nothing was changed.
        NotFoundError: It does not know what was named.
        ApplicationRefusedError: It refused, or what answers is no mainstem.
    """
    # Imported by the command that calls, and not by the server, which only writes where it is.
    import urllib.error  # noqa: PLC0415
    import urllib.request  # noqa: PLC0415

    server = server or read_server(data)
    if server is None:
        raise _needed(data, f"no application runs on {data} ({data / SERVER_FILE} is not there)")
    headers = {"content-type": "application/json", "accept": "application/json"}
    if server.token:
        headers["authorization"] = f"Bearer {server.token}"
    request = urllib.request.Request(server.url + path, msgspec.json.encode(body), headers, method="POST")  # noqa: S310
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # the application is here, never behind a proxy
    try:
        with opener.open(request, timeout=30) as response:
            return msgspec.json.decode(response.read(_ANSWER_MAX_BYTES))
    except msgspec.DecodeError:
        raise ApplicationRefusedError(f"what answers at {server.url} is no mainstem: its answer is no JSON.") from None
    except urllib.error.HTTPError as error:
        with error:
            message = _message_of(error.read(_ANSWER_MAX_BYTES), error.code)
        if error.code == 404:
            raise NotFoundError(message, try_command=f"mainstem runs --data {data}") from None
        raise ApplicationRefusedError(message) from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        was = f"; it was process {server.pid}" if server.pid else ""
        raise _needed(data, f"the application on {data} does not answer at {server.url} ({reason}){was}") from error


def _needed(data: Path, what: str) -> ApplicationNeededError:
    """Return the error that no application was reached, which tells of one that runs where the command cannot see."""
    owner = owner_pid(data)
    if not owner:
        return ApplicationNeededError(
            f"this changes something, and {what}. Nothing was changed.", try_command="mainstem dev app.py"
        )
    server = read_server(data)
    if server is not None and server.pid == owner:
        return ApplicationNeededError(
            f"this changes something, and {what}. Process {owner} runs on it. Nothing was changed.",
            try_command="the dashboard, once it answers",
        )
    return ApplicationNeededError(
        f"this changes something, and process {owner} runs on {data}, but it was not started by mainstem dev: its "
        "address is not known here. Nothing was changed.",
        try_command="its dashboard, or --url http://127.0.0.1:8000/mainstem, where its dashboard is",
    )


def _message_of(body: bytes, status: int) -> str:
    """Return the sentence in an error answer of the API (``{"error": {"message": …}}``)."""
    with suppress(msgspec.DecodeError):  # whoever answered is no mainstem: its status is all that is told
        answer = msgspec.json.decode(body)
        if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict) and "message" in error:
            return str(error["message"])
    return f"the application answered {status}. Nothing was changed."
