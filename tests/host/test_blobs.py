"""The blob store's promises, on the real disk."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mainstem.base.errors import InvalidArgumentError
from mainstem.host import blobs as blobs_module
from mainstem.host.blobs import BlobStore, check_sha256
from mainstem.host.disk import SystemDisk
from mainstem.host.errors import BlobChangedError, BlobNotFoundError

DATA = os.urandom(3 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()


def refuse_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system refuse hard links, as one without them does."""

    def link(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "no links here")

    monkeypatch.setattr("mainstem.host.blobs.os.link", link)


def a_file(tmp_path: Path, data: bytes = DATA) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


def test_file_is_put_by_a_link(tmp_path: Path) -> None:
    """A file's bytes are shared with the blob, and the blob stays when the file's name goes."""
    store = BlobStore(tmp_path / "blobs")
    source = a_file(tmp_path)
    assert asyncio.run(store.put_file(source)) == SHA256
    assert store.path(SHA256).stat().st_ino == source.stat().st_ino
    source.unlink()
    assert store.path(SHA256).read_bytes() == DATA
    assert store.size_bytes(SHA256) == len(DATA)
    assert store.exists(SHA256)
    assert "blobs" in repr(store)


def test_file_is_copied_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hard links the blob is a copy of its own, and nothing unfinished is left."""
    refuse_links(monkeypatch)
    store = BlobStore(tmp_path / "blobs")
    source = a_file(tmp_path)
    assert asyncio.run(store.put_file(source)) == SHA256
    source.write_bytes(b"changed afterwards")
    assert store.path(SHA256).read_bytes() == DATA
    assert list((tmp_path / "blobs" / "unfinished").iterdir()) == []


def test_file_that_changed_meanwhile_makes_no_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy whose bytes do not have the hash that was announced never gets a name."""
    refuse_links(monkeypatch)
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(BlobChangedError, match="no blob was made"):
        asyncio.run(store.put_file(a_file(tmp_path, b"other bytes"), sha256=SHA256))
    assert not store.exists(SHA256)
    assert list((tmp_path / "blobs" / "unfinished").iterdir()) == []


def test_putting_twice_is_putting_once(tmp_path: Path) -> None:
    """Bytes that are there already are not written again, whichever way they come."""
    store = BlobStore(tmp_path / "blobs")
    asyncio.run(store.put_bytes(DATA))
    inode = store.path(SHA256).stat().st_ino
    assert asyncio.run(store.put_file(a_file(tmp_path))) == SHA256
    assert asyncio.run(store.put_bytes(DATA)) == SHA256
    assert store.path(SHA256).stat().st_ino == inode


def test_damaged_blob_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A blob with the wrong size is replaced by the right bytes, and the log says so."""
    store = BlobStore(tmp_path / "blobs")
    asyncio.run(store.put_bytes(DATA))
    store.path(SHA256).write_bytes(DATA[:100])
    asyncio.run(store.put_file(a_file(tmp_path)))
    assert store.path(SHA256).read_bytes() == DATA
    assert "is replaced" in caplog.text


@pytest.mark.parametrize("by_file", [True, False])
def test_blob_damaged_at_equal_size_is_replaced(
    by_file: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A blob of the right size with a wrong byte is not trusted when its bytes are put again."""
    store = BlobStore(tmp_path / "blobs")
    asyncio.run(store.put_bytes(DATA))
    store.path(SHA256).write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    asyncio.run(store.put_file(a_file(tmp_path)) if by_file else store.put_bytes(DATA))
    assert store.path(SHA256).read_bytes() == DATA
    assert "is replaced" in caplog.text


def order_of_a_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a file; return what was asked of the disk from the first sync of its bytes on, in order."""
    store = BlobStore(tmp_path / "blobs")
    source = a_file(tmp_path)
    asyncio.run(store.put_bytes(b"other"))
    target = tmp_path / "blobs" / SHA256[:2]
    asked: list[str] = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor: int) -> None:
        what = Path(f"/proc/self/fd/{descriptor}").resolve()
        asked.append({source: "sync file", target: "sync directory"}.get(what, "sync other"))
        fsync(descriptor)

    def noted_link(old: Path, new: Path) -> None:
        asked.append("link")
        link(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted_fsync)
        patch.setattr(os, "link", noted_link)
        asyncio.run(store.put_file(source))
    return asked[asked.index("sync file") if "sync file" in asked else 0 :]


def test_bytes_before_name_before_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put file is synced before it is linked, and the directory after."""
    assert order_of_a_put(tmp_path, monkeypatch) == ["sync file", "link", "sync directory"]


def file_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a put file are left to the system's own time."""
    monkeypatch.setattr(blobs_module, "_sync_file", lambda _path: None)


def directory_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a put file is left to the system's own time."""
    monkeypatch.setattr(SystemDisk, "sync_directory", lambda _self, _path: None)


@pytest.mark.parametrize("mutant", [file_not_synced, directory_not_synced])
def test_a_missing_sync_is_noticed(
    mutant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code without one of the syncs does not keep the order, and the check sees it."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        test_bytes_before_name_before_directory(tmp_path, monkeypatch)


def test_two_puts_at_once_make_one_blob(tmp_path: Path) -> None:
    """Two files of the same bytes, put at the same time, end as one blob."""
    store = BlobStore(tmp_path / "blobs")
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(DATA)
    second.write_bytes(DATA)

    async def all_three() -> set[str]:
        return set(await asyncio.gather(store.put_file(first), store.put_file(second), store.put_bytes(DATA)))

    assert asyncio.run(all_three()) == {SHA256}
    assert store.path(SHA256).read_bytes() == DATA


def test_missing_blob_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Asking for a blob that is not there raises, for its path and for its size."""
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(BlobNotFoundError, match=SHA256) as caught:
        store.path(SHA256)
    assert caught.value.sha256 == SHA256
    with pytest.raises(BlobNotFoundError):
        store.size_bytes(SHA256)
    assert not store.exists(SHA256)


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 63 + "\n", "a" * 64 + "\n"]
)
def test_only_a_hash_is_a_name(tmp_path: Path, name: str) -> None:
    """Nothing but 64 lower-case hexadecimal digits reaches the file system."""
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(InvalidArgumentError):
        check_sha256(name)
    with pytest.raises(InvalidArgumentError):
        store.path(name)
    with pytest.raises(InvalidArgumentError):
        store.exists(name)
    with pytest.raises(InvalidArgumentError):
        asyncio.run(store.remove(name))


def test_removing_is_idempotent(tmp_path: Path) -> None:
    """A blob is gone after it is removed, and removing it again does nothing."""
    store = BlobStore(tmp_path / "blobs")
    asyncio.run(store.put_bytes(DATA))
    asyncio.run(store.remove(SHA256))
    assert not store.exists(SHA256)
    asyncio.run(store.remove(SHA256))


def test_detached_file_can_be_written_to(tmp_path: Path) -> None:
    """A file that shares its bytes with a blob gets bytes of its own before it is changed; the blob stays as it was."""
    store = BlobStore(tmp_path / "blobs")
    source = a_file(tmp_path)
    assert not asyncio.run(store.detach(source, 10))
    asyncio.run(store.put_file(source))
    assert asyncio.run(store.detach(source, 1000))
    assert source.read_bytes() == DATA[:1000]
    source.write_bytes(b"new")
    assert store.path(SHA256).read_bytes() == DATA


def test_leftovers_of_the_dead_go(tmp_path: Path) -> None:
    """What a process left unfinished a day ago is removed with the first put; what may still be under way stays."""
    unfinished = tmp_path / "blobs" / "unfinished"
    unfinished.mkdir(parents=True)
    old, young = unfinished / "old", unfinished / "young"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (0, 0))
    asyncio.run(BlobStore(tmp_path / "blobs").put_bytes(DATA))
    assert sorted(path.name for path in unfinished.iterdir()) == ["young"]


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails, the error comes out, no blob is named and nothing unfinished is left."""
    store = BlobStore(tmp_path / "blobs")

    def pwritev(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("mainstem.host.disk.os.pwritev", pwritev)
    with pytest.raises(OSError, match="full"):
        asyncio.run(store.put_bytes(DATA))
    assert not store.exists(SHA256)
    assert list((tmp_path / "blobs" / "unfinished").iterdir()) == []
