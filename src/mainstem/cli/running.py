"""How a command finds the running application: ``server.json`` in the data directory, readable by its owner only.

The server writes it once it answers and removes it when it ends in order. After a kill it stays; then nobody answers
at the address in it (or the process id in it is gone), and that is what a command reports.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path

import msgspec

from mainstem.cli.errors import ApplicationNeededError, ApplicationRefusedError, NotFoundError

SERVER_FILE = "server.json"
"""Name of the file within the data directory."""

_ANSWER_MAX_BYTES = 1 << 20


class RunningServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a running application is.

    Attributes:
        url: Address of the dashboard, without a final slash: ``http://127.0.0.1:8000/mainstem``.
        pid: The server's process.
        token: What its API demands, where it demands one.
    """

    url: str
    pid: int
    token: str = ""


def write_server(data: Path, server: RunningServer) -> None:
    """Write ``server.json`` (mode 0600), replacing one that a killed server left."""
    new = data / f"{SERVER_FILE}.{server.pid}.new"
    with suppress(FileNotFoundError):  # a namesake of an earlier process with our id; O_EXCL keeps the mode ours
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(server) + b"\n")
    new.replace(data / SERVER_FILE)


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
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def call_application(data: Path, path: str, body: object) -> object:
    """POST ``body`` as JSON to the running application's API and return its answer, decoded.

    Args:
        data: The data directory.
        path: Path below the dashboard's address, beginning with a slash.
        body: Anything that is JSON.

    Raises:
        ApplicationNeededError: No application runs on this directory, or it does not answer; nothing was changed.
        NotFoundError: It does not know what was named.
        ApplicationRefusedError: It refused.
    """
    server = read_server(data)
    if server is None:
        raise ApplicationNeededError(
            f"this changes something, and no application runs on {data} ({data / SERVER_FILE} is not there). "
            "Nothing was changed.",
            try_command="mainstem dev app.py",
        )
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
    except urllib.error.HTTPError as error:
        with error:
            message = _message_of(error.read(_ANSWER_MAX_BYTES), error.code)
        if error.code == 404:
            raise NotFoundError(message, try_command=f"mainstem runs --data {data}") from None
        raise ApplicationRefusedError(message) from None
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ApplicationNeededError(
            f"this changes something, and the application on {data} does not answer at {server.url} ({reason}); it was "
            f"process {server.pid}. Nothing was changed.",
            try_command="mainstem dev app.py",
        ) from error


def _message_of(body: bytes, status: int) -> str:
    """Return the sentence in an error answer of the API (``{"error": {"message": …}}``)."""
    with suppress(msgspec.DecodeError):  # whoever answered is no mainstem: its status is all that is told
        answer = msgspec.json.decode(body)
        if isinstance(answer, dict) and isinstance(error := answer.get("error"), dict) and "message" in error:
            return str(error["message"])
    return f"the application answered {status}. Nothing was changed."
