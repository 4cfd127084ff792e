"""Raft snapshot files: their bytes, which of them a start takes, and what happens to damaged and old ones."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from core.raft.messages import ConfState, Snapshot, SnapshotMetadata
from core.types import Index, MemberId, Term
from wal.errors import DiskFull, WalFailed
from wal.filesystem import MemoryFileSystem
from wal.snapshots import Snapshots

FOLDER = Path("/data/snap")


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    """A snapshot with one voter."""
    return Snapshot(SnapshotMetadata(ConfState((MemberId(7),)), Index(index), Term(term)), data)


def at(*places: tuple[int, int]) -> set[tuple[Index, Term]]:
    """What a log tells of: (index, term) each."""
    return {(Index(index), Term(term)) for index, term in places}


@pytest.fixture
def fs() -> MemoryFileSystem:
    """A disk with an empty snap folder."""
    made = MemoryFileSystem()
    made.make_folder(FOLDER)
    return made


def damage(fs: MemoryFileSystem, name: str, offset: int, data: bytes) -> None:
    """Write over some bytes of a file."""
    file = fs.open(FOLDER / name)
    file.write_at(offset, data)
    file.close()


def test_a_snapshot_file_is_etcds(fs: MemoryFileSystem) -> None:
    """Name, checksum and content, byte by byte."""
    Snapshots(FOLDER, fs, 0).save(snapshot(0x1A, term=2, data=b"x"))
    name = "0000000000000002-000000000000001a.snap"
    assert fs.list(FOLDER) == [name]
    file = fs.open(FOLDER / name)
    content = bytes.fromhex("0a01 78 120a 0a04 0807 2800 101a 1802")
    expected = bytes.fromhex("08e5a6fe8609 120f") + content
    assert file.read_at(0, 1000) == expected


def test_the_newest_valid_snapshot_is_taken(fs: MemoryFileSystem) -> None:
    """Term counts before index, and what the log does not tell of is passed over and left alone."""
    snapshots = Snapshots(FOLDER, fs, 0)
    for one in (snapshot(30), snapshot(20, term=2), snapshot(25, term=2), snapshot(40)):
        snapshots.save(one)
    assert snapshots.newest(at((30, 1), (20, 2), (25, 2), (40, 1))) == snapshot(25, term=2)
    assert snapshots.newest(at((30, 1), (20, 2), (25, 1))) == snapshot(20, term=2)
    assert snapshots.newest(at((31, 1))) is None
    assert snapshots.newest(set()) is None
    assert len(fs.list(FOLDER)) == 4


@pytest.mark.parametrize("offset", [0, 3, 7, 20])
def test_a_damaged_snapshot_is_set_aside(fs: MemoryFileSystem, offset: int) -> None:
    """The one before it is taken, and the damaged file stays for whoever looks into it."""
    snapshots = Snapshots(FOLDER, fs, 0)
    snapshots.save(snapshot(10))
    snapshots.save(snapshot(20))
    name = "0000000000000001-0000000000000014.snap"
    damage(fs, name, offset, b"\xee")
    assert snapshots.newest(at((10, 1), (20, 1))) == snapshot(10)
    assert fs.list(FOLDER) == ["0000000000000001-000000000000000a.snap", f"{name}.broken"]


def test_a_snapshot_under_another_name_is_set_aside(fs: MemoryFileSystem) -> None:
    """A file that was renamed by hand is not what the log tells of."""
    snapshots = Snapshots(FOLDER, fs, 0)
    snapshots.save(snapshot(10))
    fs.rename(FOLDER / "0000000000000001-000000000000000a.snap", FOLDER / "0000000000000001-000000000000000b.snap")
    assert snapshots.newest(at((11, 1))) is None
    assert fs.list(FOLDER) == ["0000000000000001-000000000000000b.snap.broken"]


def test_purge_keeps_the_newest(fs: MemoryFileSystem) -> None:
    """Only this kind of file counts and goes; 0 keeps all."""
    fs.create(FOLDER / "db").close()
    fs.create(FOLDER / "0000000000000001.snap.db").close()
    snapshots = Snapshots(FOLDER, fs, 2)
    for index in range(1, 6):
        snapshots.save(snapshot(index))
    Snapshots(FOLDER, fs, 0).purge()
    assert len(fs.list(FOLDER)) == 7
    snapshots.purge()
    snapshots.purge()
    assert fs.list(FOLDER) == [
        "0000000000000001-0000000000000004.snap",
        "0000000000000001-0000000000000005.snap",
        "0000000000000001.snap.db",
        "db",
    ]


def test_saving_is_durable(fs: MemoryFileSystem) -> None:
    """The log's record of a snapshot promises that its file is there."""
    Snapshots(FOLDER, fs, 0).save(snapshot(10))
    fs.crash()
    assert Snapshots(FOLDER, fs, 0).newest(at((10, 1))) == snapshot(10)


def test_a_full_disk_leaves_no_half_snapshot(fs: MemoryFileSystem) -> None:
    """No file appears, the room is given back, and saving works when there is more."""
    snapshots = Snapshots(FOLDER, fs, 0)
    fs.capacity_bytes = 100
    large = snapshot(10, data=b"x" * 200)
    with pytest.raises(DiskFull, match=r"000a\.snap"):
        snapshots.save(large)
    assert fs.used_bytes() == 0
    assert snapshots.newest(at((10, 1))) is None
    fs.capacity_bytes = None
    snapshots.save(large)
    assert snapshots.newest(at((10, 1))) == large


def test_other_failures_are_final(fs: MemoryFileSystem) -> None:
    """Whatever else the disk refuses is told as a failure of the log."""
    snapshots = Snapshots(FOLDER, fs, 1)
    snapshots.save(snapshot(10))
    fs.next_sync_error = errno.EIO
    with pytest.raises(WalFailed, match="Input/output error"):
        snapshots.save(snapshot(20))
    snapshots.save(snapshot(30))
    damage(fs, "0000000000000001-000000000000001e.snap", 9, b"\xee")
    fs.changes_left = 0
    with pytest.raises(WalFailed, match="power failed"):
        snapshots.purge()
    with pytest.raises(WalFailed, match="power failed"):
        snapshots.newest(at((30, 1)))
