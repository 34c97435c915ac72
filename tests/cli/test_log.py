"""``mainstem log verify``, ``mainstem log repair`` and ``mainstem log stats``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from mainstem.cli.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK
from mainstem.log import open_log
from tests.cli.conftest import Invoke


def damage(data: Path) -> int:
    """Flip one bit in the middle of the records; return its offset."""
    path = data / "log" / "0000000001-000001.wal"
    content = bytearray(path.read_bytes())
    at = content.index(b'{"id": 3}') + 2
    content[at] ^= 1
    path.write_bytes(content)
    return at


def test_a_sound_log(invoke: Invoke, orders: Path) -> None:
    """A sound log is called sound, with what was read, and the exit code is 0."""
    result = invoke("log", "verify", orders)
    assert result.code == EXIT_OK
    assert result.out.startswith("sound")
    assert "12 records" in result.out


def test_damage_is_named(invoke: Invoke, orders: Path) -> None:
    """A flipped bit is reported with file, byte and position, and the exit code is 1."""
    at = damage(orders)
    result = invoke("log", "verify", orders)
    assert result.code == EXIT_FAILED
    assert "0000000001-000001.wal byte " in result.out
    frame_offset = int(result.out.split("0000000001-000001.wal byte ")[1].split(":")[0])
    assert frame_offset < at < frame_offset + 512
    assert "position 4" in result.out


def test_damage_as_json(invoke: Invoke, orders: Path) -> None:
    """The same as a JSON document: not sound, one finding, and the number of records before it."""
    damage(orders)
    result = invoke("log", "verify", orders, "--json")
    assert result.code == EXIT_FAILED
    assert result.json["sound"] is False
    assert len(result.json["findings"]) == 1  # type: ignore[arg-type]


def test_an_unfinished_write_is_no_damage(invoke: Invoke, orders: Path) -> None:
    """Bytes of a write that a crash cut short are reported, and the log is sound all the same."""
    path = orders / "log" / "0000000001-000001.wal"
    content = bytearray(path.read_bytes())
    end = len(bytes(content).rstrip(b"\0"))
    torn_at = (end + 63) // 64 * 64
    content[torn_at : torn_at + 4] = b"MSF1"
    path.write_bytes(content)
    result = invoke("log", "verify", orders)
    assert result.code == EXIT_OK
    assert result.out.startswith("unfinished")
    assert "a crash cut it short" in result.out


def test_verify_needs_a_log(invoke: Invoke, tmp_path: Path) -> None:
    """A directory without a log ends with exit code 3."""
    assert invoke("log", "verify", tmp_path).code == EXIT_NOT_FOUND


def test_a_lost_meta_file_is_damage(invoke: Invoke, orders: Path) -> None:
    """A log without its meta file is damaged, not absent; a repair makes the file anew, and nothing is gone."""
    (orders / "log" / "log.meta").unlink()
    result = invoke("log", "verify", orders)
    assert result.code == EXIT_FAILED and "log.meta is missing" in result.out
    assert invoke("log", "repair", orders, "--yes").code == EXIT_OK
    assert "12 records" not in result.out and "13 records" in invoke("log", "verify", orders).out


def test_repair_says_first_what_it_would_do(invoke: Invoke, orders: Path) -> None:
    """Without ``--yes`` it names damage, gone positions and the files to be kept aside, and changes nothing."""
    damage(orders)
    before = {path: path.read_bytes() for path in (orders / "log").iterdir()}
    result = invoke("log", "repair", orders)
    assert result.code == EXIT_FAILED
    assert "gone  position 4\n" in result.out and "11 records, with gaps" in result.out
    assert f"mainstem log repair {orders / 'log'} --yes" in result.out
    assert {path: path.read_bytes() for path in (orders / "log").iterdir()} == before


def test_repair(invoke: Invoke, orders: Path) -> None:
    """With ``--yes`` the log is sound again, the damaged file is kept aside, and verify goes on naming what is gone."""
    damage(orders)
    damaged = (orders / "log" / "0000000001-000001.wal").read_bytes()
    result = invoke("log", "repair", orders, "--yes")
    assert result.code == EXIT_OK and "repaired" in result.out and "Nothing was changed" not in result.out
    copies = [path.read_bytes() for path in (orders / "log" / "set-aside").iterdir()]
    assert damaged in copies
    verified = invoke("log", "verify", orders)
    assert verified.code == EXIT_OK and "gone  positions 4 to 4" in verified.out
    assert "$log.repaired" in invoke("tail", "$log.>", "--data", orders, "--no-follow").out
    again = invoke("log", "repair", orders, "--yes")
    assert again.code == EXIT_OK and "nothing to repair" in again.out


def test_repair_as_json(invoke: Invoke, orders: Path) -> None:
    """The same as a JSON document, before and behind."""
    damage(orders)
    told = invoke("log", "repair", orders, "--json")
    assert told.code == EXIT_FAILED
    assert (told.json["sound"], told.json["done"]) == (False, False)
    assert told.json["gone"] == [{"first_position": 4, "last_position": 4, "is_certain": True}]
    done = invoke("log", "repair", orders, "--yes", "--json")
    assert done.code == EXIT_OK
    assert (done.json["done"], done.json["records"], done.json["next_position"]) == (True, 11, 13)


def test_repair_tells_of_files_under_other_names(invoke: Invoke, orders: Path) -> None:
    """A segment that was renamed is found by its content, put in its place, and told of."""
    log = orders / "log"
    (log / "0000000001-000001.wal").rename(log / "0000000002-000001.wal")
    result = invoke("log", "repair", orders, "--yes")
    assert result.code == EXIT_OK
    assert "found  0000000002-000001.wal holds another segment" in result.out
    assert "13 records" in invoke("log", "verify", orders).out


def test_repair_beside_an_owner_is_refused(invoke: Invoke, orders: Path) -> None:
    """While an application runs on the log, nothing is repaired."""

    async def beside() -> int:
        log = await open_log(orders / "log")
        try:
            return (await asyncio.to_thread(invoke, "log", "repair", orders, "--yes")).code
        finally:
            await log.close()

    assert asyncio.run(beside()) == EXIT_FAILED


def test_repair_needs_a_log(invoke: Invoke, tmp_path: Path) -> None:
    """A directory without a log ends with exit code 3."""
    assert invoke("log", "repair", tmp_path, "--yes").code == EXIT_NOT_FOUND


def test_the_log_directory_itself_will_do(invoke: Invoke, orders: Path) -> None:
    """Both the data directory and the log directory within can be named."""
    assert invoke("log", "stats", orders / "log").out == invoke("log", "stats", orders).out


def test_stats(invoke: Invoke, orders: Path) -> None:
    """Stats tell records, streams, files, times, and that nobody runs."""
    result = invoke("log", "stats", orders)
    assert result.code == EXIT_OK
    assert "12 in 3 streams" in result.out
    assert "nobody runs on it" in result.out


def test_stats_by_stream(invoke: Invoke, orders: Path) -> None:
    """``--streams`` lists the largest streams, the system's put together by kind."""
    result = invoke("log", "stats", orders, "--streams", 5, "--json")
    streams = {entry["stream"]: entry for entry in result.json["streams"]}  # type: ignore[attr-defined]
    assert set(streams) == {"orders.created", "orders.paid", "$odd.>"}
    assert streams["orders.created"]["records"] == 6
    assert "$odd.> (1 stream)" in invoke("log", "stats", orders, "--streams", 5).out


def test_stats_beside_an_owner(invoke: Invoke, orders: Path) -> None:
    """Beside a running owner, stats name its process."""

    async def beside() -> str:
        log = await open_log(orders / "log")
        try:
            return (await asyncio.to_thread(invoke, "log", "stats", orders)).out
        finally:
            await log.close()

    assert f"process {os.getpid()}" in asyncio.run(beside())
