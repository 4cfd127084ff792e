"""What the LevelDB backend owes beyond the contract: syncing, layout version, refusals an operator can act on."""

from __future__ import annotations

import os
from pathlib import Path

import plyvel
import pytest

from core.mvcc.keyspace import LAYOUT
from storage.leveldb import open_leveldb
from storage.schema import LAYOUT_VERSION, StorageError


def test_a_sync_covers_every_log_and_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LevelDB syncs only the log it writes to; the raft log is released by what this sync covers."""
    backend = open_leveldb(tmp_path / "db")
    synced: set[Path] = set()
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    backend.write([(b"r", bytes(100))])
    assert not synced
    backend.write([(b"r2", b"")], sync=True)
    logs = set((tmp_path / "db").glob("*.log"))
    assert logs
    assert synced == logs | {tmp_path / "db"}
    synced.clear()
    backend.sync()
    assert synced == logs | {tmp_path / "db"}
    backend.close()


def test_a_newer_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Reading a layout by guess would corrupt it; the operator must learn that a newer version wrote it."""
    backend = open_leveldb(tmp_path)
    backend.write([(LAYOUT + b"version", b"%d" % (LAYOUT_VERSION + 1))])
    backend.close()
    with pytest.raises(StorageError, match=r"newer actcd wrote.*run the newer version"):
        open_leveldb(tmp_path)
    with pytest.raises(StorageError):  # and it was closed properly, so the answer stays the same
        open_leveldb(tmp_path)


def test_a_damaged_layout_version_is_refused(tmp_path: Path) -> None:
    """Bytes from a file may be anything."""
    backend = open_leveldb(tmp_path)
    backend.write([(LAYOUT + b"version", b"one")])
    backend.close()
    with pytest.raises(StorageError, match="damaged"):
        open_leveldb(tmp_path)


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """A data directory of another program must stay as it is."""
    database = plyvel.DB(str(tmp_path), create_if_missing=True)
    database.put(b"somebody's", b"data")
    database.close()
    with pytest.raises(StorageError, match="not written by actcd"):
        open_leveldb(tmp_path)


def test_a_locked_database_is_refused_with_its_path(tmp_path: Path) -> None:
    """A second process on one data directory is the commonest operating mistake."""
    backend = open_leveldb(tmp_path)
    with pytest.raises(StorageError, match=f"{tmp_path.name} cannot be opened"):
        open_leveldb(tmp_path)
    backend.close()


def test_files_of_the_database_are_private(tmp_path: Path) -> None:
    """User data must not be readable by others on the machine, whatever the umask."""
    backend = open_leveldb(tmp_path / "db")
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o700
    backend.close()
