"""PostgreSQL as Debian ships it, on a cluster of its own, with its durable defaults."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.model import BenchError, Work
from bench.workspace import socket_directory

_DATABASE = "bench"
_START_S = 60


@contextlib.contextmanager
def postgres_server(directory: Path) -> Iterator[Work]:
    """Run a PostgreSQL server for a turn, with an empty database; yields ``{"postgres_url": SQLAlchemy's URL}``.

    PostgreSQL refuses to run as root; root runs it as the user ``postgres``, whom Debian's package makes.

    Raises:
        BenchError: PostgreSQL is not installed, or the cluster could not be made or started.
    """
    programs, user = _programs(), _user()
    with socket_directory() as sockets, _cluster_directory(directory, user) as cluster:
        if user is not None:
            shutil.chown(sockets, user)
        _run([programs / "initdb", "-D", cluster, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-locale"], user)
        # A Unix socket only, in a directory that nobody else may enter; the durable defaults, said aloud.
        options = f"-c listen_addresses='' -c unix_socket_directories='{sockets}' -c fsync=on -c synchronous_commit=on"
        control: list[str | Path] = [programs / "pg_ctl", "-D", cluster, "-w", "-t", str(_START_S)]
        _run([*control, "-l", cluster / "server.log", "-o", options, "start"], user)
        try:
            _run([programs / "createdb", "-h", sockets, "-U", "bench", _DATABASE], user)
            yield {"postgres_url": f"postgresql+psycopg://bench@/{_DATABASE}?host={sockets}"}
        finally:
            _run([*control, "-m", "fast", "stop"], user)


@contextlib.contextmanager
def _cluster_directory(directory: Path, user: str | None) -> Iterator[Path]:
    """Make the cluster's directory, where its user can reach it and on the file system of the turn's directory."""
    parent = directory
    if user is not None:
        directory.chmod(0o711)
        if not all(path.stat().st_mode & 0o001 for path in directory.parents):  # for example below /root
            parent = Path(directory.anchor, "var", "tmp")
            if parent.stat().st_dev != directory.stat().st_dev:
                raise BenchError(
                    f"the user {user} can reach neither {directory} nor another directory of the same file system; "
                    "move the project to where everyone may enter, or run as an ordinary user"
                )
    cluster = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent))
    try:
        if user is not None:
            shutil.chown(cluster, user)
        yield cluster
    finally:
        shutil.rmtree(cluster)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise BenchError("PostgreSQL is not installed (Debian's package postgresql)")
    return found[-1].parent


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError as error:
        raise BenchError("PostgreSQL cannot run as root and there is no user postgres to run it as") from error


def _run(argv: Sequence[str | Path], user: str | None) -> None:
    # pg_ctl's server would keep a captured pipe open for ever, so what it prints goes to its log.
    result = subprocess.run(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if "start" in argv else subprocess.PIPE,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
        check=False,
    )
    if result.returncode:
        said = (result.stderr or b"").decode(errors="replace")[-2000:]
        raise BenchError(f"{argv[0]} ended with {result.returncode}: {said}")
