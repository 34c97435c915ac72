"""The file of an unfinished upload, and the hash that follows it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstem.host.blobs import BlobStore
from mainstem.host.disk import SystemDisk
from mainstem.services.uploads.storage import PART_SUFFIX, BytesLostError, Hashing, PartFiles
from tests.support import run

DATA = os.urandom(10_000)


def files(tmp_path: Path) -> PartFiles:
    (tmp_path / "parts").mkdir(exist_ok=True)
    return PartFiles(tmp_path / "parts", SystemDisk(), BlobStore(tmp_path / "blobs"))


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from(["keep", "discard", "miss"])), max_size=12))
def test_hash_covers_all_bytes_or_says_that_it_does_not(steps: list[tuple[int, str]]) -> None:
    """After any bytes kept, taken back or missed, the hash is that of the file, or there is none."""
    hashing, kept, missed = Hashing(), b"", False
    for count, what in steps:
        hashing.resume(len(kept))
        piece = os.urandom(count)
        if what == "miss":
            kept, missed = kept + piece, True
            continue
        hashing.update(len(kept), [piece[:1], piece[1:]])
        if what == "keep":
            kept += piece
            hashing.mark(len(kept))
    hashing.resume(len(kept))
    digest = hashing.digest(len(kept))
    assert digest == (None if missed else hashlib.sha256(kept).hexdigest())


def test_file_follows_the_recorded_offset(tmp_path: Path) -> None:
    """Opening cuts off what is behind the recorded offset, and refuses a file that is shorter."""
    parts = files(tmp_path)
    part = parts.open("u", 0, Hashing())
    part.write(0, [DATA], sync=True)
    part.close(9000)
    assert parts.size_bytes("u") == 9000
    parts.open("u", 5000, Hashing()).close(None)
    assert parts.path("u").read_bytes() == DATA[:5000]
    for upload_id in ("u", "never seen"):
        with pytest.raises(BytesLostError):
            parts.open(upload_id, 5001, Hashing())
    assert "u.part" in repr(part)


def test_file_that_became_a_blob_is_not_written_to(tmp_path: Path) -> None:
    """A file that shares its bytes with a blob gets its own before anything is written to it."""
    parts, blobs = files(tmp_path), BlobStore(tmp_path / "blobs")
    part = parts.open("u", 0, Hashing())
    part.write(0, [DATA], sync=True)
    part.close(None)
    blob = run(blobs.put_file(parts.path("u")))
    run(parts.detach("u", 5000))
    part = parts.open("u", 5000, Hashing())
    part.write(5000, [b"other bytes"], sync=True)
    part.close(None)
    assert blobs.path(blob).read_bytes() == DATA
    assert parts.path("u").read_bytes() == DATA[:5000] + b"other bytes"
    run(parts.detach("nothing there", 0))


def test_others_are_removed(tmp_path: Path) -> None:
    """Files of uploads that are not open go; nothing else does."""
    parts = files(tmp_path)
    for name in ("a" + PART_SUFFIX, "b" + PART_SUFFIX, "else"):
        (tmp_path / "parts" / name).write_bytes(b"x")
    assert parts.remove_others(frozenset({"a"})) == 1
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["a.part", "else"]
    parts.remove("a")
    parts.remove("a")
    assert parts.size_bytes("a") == 0


class NotingDisk(SystemDisk):
    """A disk that notes which directories' names were made durable."""

    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_directory(self, path: Path) -> None:
        """Sync, and note it."""
        self.synced.append(path)
        super().sync_directory(path)


def test_a_name_that_was_found_is_made_durable(tmp_path: Path) -> None:
    """A file that an earlier process made and did not live to record gets its name synced with its first bytes."""
    disk = NotingDisk()
    parts = PartFiles(tmp_path, disk, BlobStore(tmp_path / "blobs"))
    parts.open("u", 0, Hashing()).close(None)  # whoever made it died here
    disk.synced.clear()
    for offset, expected in ((0, [tmp_path]), (10, [])):
        part = parts.open("u", offset, Hashing())
        part.write(offset, [DATA[:10]], sync=True)
        part.close(None)
        assert disk.synced == expected
        disk.synced.clear()
