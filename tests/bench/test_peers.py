"""The servers of peers, and the command that our pipeline is compared with."""

from __future__ import annotations

import shutil
import socket
from fractions import Fraction
from pathlib import Path

import pytest

from bench.contenders.media_ffmpeg import command
from bench.model import BenchError
from bench.peers import postgres, redis_server
from mainstem.services.media.plan import plan_renditions


def ask_redis(path: str, *words: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(f"{' '.join(words)}\r\n".encode())
        return client.recv(4096).decode()


def test_redis_is_durable_and_ends(tmp_path: Path) -> None:
    """The Redis of a turn syncs its file before each answer, and is gone after the turn."""
    with redis_server.redis_server(tmp_path) as address:
        path = str(address["redis_socket"])
        assert "always" in ask_redis(path, "CONFIG", "GET", "appendfsync")
        assert "yes" in ask_redis(path, "CONFIG", "GET", "appendonly")
        assert (tmp_path / "redis" / "appendonlydir").is_dir()
    assert not Path(path).exists()


def test_missing_redis_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis the bench cannot be run, and says which package brings it."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="package redis-server"), redis_server.redis_server(tmp_path):
        pass


def test_redis_that_does_not_come_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that ends at once is an error."""
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    with pytest.raises(BenchError, match="exit code 1"), redis_server.redis_server(tmp_path):
        pass


def test_missing_postgresql_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PostgreSQL the bench cannot be run, and says which package brings it."""
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    with pytest.raises(BenchError, match="package postgresql"), postgres.postgres_server(tmp_path):
        pass


def test_ffmpeg_gets_our_own_settings() -> None:
    """The one command has the sizes and the rate control of our plan, and is not held to one thread."""
    renditions = plan_renditions(Fraction(1280), Fraction(720), Fraction(25))
    argv = command("ffmpeg", Path("clip.mp4"), renditions)
    (graph,) = (argument for argument in argv if "split=" in argument)
    for number, rendition in enumerate(renditions):
        assert f"scale={rendition.width}:{rendition.height}:" in graph
        assert argv[argv.index(f"-maxrate:v:{number}") + 1] == str(rendition.max_bps)
        assert argv[argv.index(f"-bufsize:v:{number}") + 1] == str(rendition.buffer_bits)
        assert argv[argv.index(f"-crf:v:{number}") + 1] == str(rendition.crf)
    assert "-threads" not in argv
