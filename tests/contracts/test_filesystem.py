"""What the log may rely on in a file system: one suite, run on the real one and on the fake."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path
from random import Random

import pytest

from wal.errors import WalLocked
from wal.filesystem import SECTOR_SIZE_BYTES, FileSystem, MemoryFileSystem, PosixFileSystem


@pytest.fixture(params=["memory", "posix"])
def fs(request: pytest.FixtureRequest) -> FileSystem:
    """Each implementation in turn."""
    return MemoryFileSystem() if request.param == "memory" else PosixFileSystem()


@pytest.fixture
def folder(fs: FileSystem, tmp_path: Path) -> Path:
    """An empty folder two levels below one that exists."""
    made = tmp_path / "data" / "wal"
    fs.make_folder(made)
    return made


def test_a_new_file_is_empty_and_listed(fs: FileSystem, folder: Path) -> None:
    """Creating a file gives it a name at once, and names come sorted."""
    for name in ("b", "a", "c"):
        fs.create(folder / name).close()
    assert fs.list(folder) == ["a", "b", "c"]
    assert fs.exists(folder / "a")
    assert not fs.exists(folder / "d")


def test_creating_a_file_again_empties_it(fs: FileSystem, folder: Path) -> None:
    """A spare left over by a crash must not show its old bytes."""
    file = fs.create(folder / "a")
    file.write_at(0, b"old")
    file.close()
    file = fs.create(folder / "a")
    assert file.size() == 0
    file.close()


def test_writes_land_where_they_are_put(fs: FileSystem, folder: Path) -> None:
    """Positions count from the start of the file, and a gap reads as zeros."""
    file = fs.create(folder / "a")
    file.write_at(4, b"world")
    file.write_at(0, b"he")
    assert file.read_at(0, 100) == b"he\0\0world"
    assert file.read_at(4, 3) == b"wor"
    assert file.read_at(9, 3) == b""
    assert file.size() == 9
    file.close()


def test_another_handle_sees_what_was_written(fs: FileSystem, folder: Path) -> None:
    """A reader need not wait for a sync."""
    writer = fs.create(folder / "a")
    writer.write_at(0, b"text")
    reader = fs.open(folder / "a")
    assert reader.read_at(0, 4) == b"text"
    writer.fdatasync()
    writer.close()
    reader.close()


def test_preallocation_reads_as_zeros_and_keeps_content(fs: FileSystem, folder: Path) -> None:
    """The reader of a log takes zeros for the end, so that is what reserved room must hold."""
    file = fs.create(folder / "a")
    file.write_at(0, b"text")
    assert file.preallocate(2000)
    assert file.size() == 2000
    assert file.read_at(0, 2000) == b"text".ljust(2000, b"\0")
    assert file.preallocate(10)
    assert file.size() == 2000
    file.close()


def test_truncated_bytes_come_back_as_zeros(fs: FileSystem, folder: Path) -> None:
    """What was cut off must not reappear when the file grows again."""
    file = fs.create(folder / "a")
    file.write_at(0, b"text" * 500)
    file.truncate(2)
    assert file.preallocate(2000)
    assert file.read_at(0, 2000) == b"te".ljust(2000, b"\0")
    file.close()


def test_rename_replaces(fs: FileSystem, folder: Path) -> None:
    """A finished file takes the place of another in one step, and open handles stay good."""
    for name in ("new", "old"):
        file = fs.create(folder / name)
        file.write_at(0, name.encode())
        file.close()
    handle = fs.open(folder / "new")
    fs.rename(folder / "new", folder / "old")
    fs.fsync_folder(folder)
    assert fs.list(folder) == ["old"]
    assert handle.read_at(0, 3) == b"new"
    handle.write_at(0, b"now")
    handle.close()
    file = fs.open(folder / "old")
    assert file.read_at(0, 3) == b"now"
    file.close()


def test_a_folder_is_renamed_with_all_in_it(fs: FileSystem, folder: Path) -> None:
    """That is how a new log appears."""
    fs.make_folder(folder / "wal.tmp")
    fs.create(folder / "wal.tmp" / "a").close()
    fs.rename(folder / "wal.tmp", folder / "wal")
    assert fs.list(folder / "wal") == ["a"]
    fs.remove_folder(folder / "wal")
    assert fs.list(folder) == []


@pytest.mark.parametrize("way", ["remove", "remove_in_pieces"])
def test_removed_files_are_gone(fs: FileSystem, folder: Path, way: str) -> None:
    """Old segments give their room back."""
    remove = getattr(fs, way)
    fs.create(folder / "a").close()
    remove(folder / "a")
    assert not fs.exists(folder / "a")
    with pytest.raises(FileNotFoundError):
        remove(folder / "a")


def test_what_is_not_there_cannot_be_opened(fs: FileSystem, folder: Path) -> None:
    """A missing file is an error and not an empty one."""
    with pytest.raises(FileNotFoundError):
        fs.open(folder / "a")
    with pytest.raises(FileNotFoundError):
        fs.list(folder / "b")
    with pytest.raises(FileNotFoundError):
        fs.create(folder / "b" / "a")


def test_a_file_is_locked_once(fs: FileSystem, folder: Path) -> None:
    """Not even the same process gets a second lock, and closing lets go of the first."""
    first = fs.create(folder / "a")
    first.lock()
    first.lock()
    second = fs.open(folder / "a")
    with pytest.raises(WalLocked, match="fileutil: file already locked"):
        second.lock()
    first.close()
    second.lock()
    second.close()


def test_a_lock_survives_a_rename(fs: FileSystem, folder: Path) -> None:
    """The spare is locked before it has a segment's name."""
    first = fs.create(folder / "a")
    first.lock()
    fs.rename(folder / "a", folder / "b")
    second = fs.open(folder / "b")
    with pytest.raises(WalLocked):
        second.lock()
    first.close()
    second.close()


def test_a_closed_file_is_of_no_use(fs: FileSystem, folder: Path) -> None:
    """A write after close is an error in our program that must show."""
    file = fs.create(folder / "a")
    file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.write_at(0, b"x")


def test_posix_modes_are_private(tmp_path: Path) -> None:
    """The log holds all keys and values: nobody else on the machine may read it."""
    fs = PosixFileSystem()
    fs.make_folder(tmp_path / "a" / "b")
    fs.create(tmp_path / "a" / "b" / "c").close()
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")]
    assert modes == [0o700, 0o700, 0o600]


def test_posix_reports_a_full_disk() -> None:
    """The errno that the log tells a full disk by is the operating system's."""
    file = PosixFileSystem().open(Path("/dev/full"))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.write_at(0, b"x")
    with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        file.preallocate(10)
    file.close()


def test_posix_says_what_it_cannot_preallocate(tmp_path: Path) -> None:
    """EINVAL is how some file systems refuse any preallocation; an empty one is refused so by all."""
    file = PosixFileSystem().create(tmp_path / "a")
    assert not file.preallocate(0)
    file.close()


def test_posix_writes_on_after_a_part(tmp_path: Path) -> None:
    """The operating system may take only part of a write: the rest is tried, and its error told."""
    file = PosixFileSystem().create(tmp_path / "a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            file.write_at(0, b"x" * 1500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_at(0, 2000) == b"x" * 1000
    file.close()


def test_posix_locking_tells_other_errors_apart(tmp_path: Path) -> None:
    """Only a lock that somebody holds is WalLocked."""
    file = PosixFileSystem().create(tmp_path / "a")
    file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.lock()


def memory_file(content: bytes) -> tuple[MemoryFileSystem, Path]:
    """A fake disk with one durable file."""
    fs = MemoryFileSystem()
    fs.make_folder(Path("/d"))
    path = Path("/d/a")
    file = fs.create(path)
    file.write_at(0, content)
    file.fdatasync()
    fs.fsync_folder(Path("/d"))
    file.close()
    return fs, path


def content_of(fs: MemoryFileSystem, path: Path) -> bytes:
    """All bytes of a file."""
    file = fs.open(path)
    return file.read_at(0, file.size())


def test_a_crash_loses_what_was_not_synced() -> None:
    """The fake must be as forgetful as a disk, or the tests above it prove nothing."""
    fs, path = memory_file(b"synced")
    file = fs.open(path)
    file.write_at(0, b"changed and longer")
    fs.create(Path("/d/b"))
    fs.crash()
    assert content_of(fs, path) == b"synced"
    assert fs.list(Path("/d")) == ["a"]
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.read_at(0, 1)


def test_a_crash_takes_back_a_truncation_that_was_not_synced() -> None:
    """Cutting a file is no more durable than writing one."""
    fs, path = memory_file(b"synced" * 300)
    fs.open(path).truncate(3)
    fs.crash()
    assert content_of(fs, path) == b"synced" * 300


def test_a_crash_tears_at_sectors() -> None:
    """Of an unsynced write any set of whole sectors may survive."""
    seen = set()
    for seed in range(40):
        fs, path = memory_file(b"o" * 3 * SECTOR_SIZE_BYTES)
        fs.open(path).write_at(0, b"n" * 3 * SECTOR_SIZE_BYTES)
        fs.crash(Random(seed))
        content = content_of(fs, path)
        sectors = [content[at : at + SECTOR_SIZE_BYTES] for at in range(0, len(content), SECTOR_SIZE_BYTES)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        seen.add(tuple(chr(sector[0]) for sector in sectors))
    assert len(seen) == 8


def test_a_failed_sync_is_not_made_good_by_the_next() -> None:
    """Linux drops what it could not write and calls the pages clean; whoever syncs again is told that all is well."""
    fs, path = memory_file(b"synced")
    file = fs.open(path)
    file.write_at(0, b"wrote!")
    fs.next_sync_error = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.fdatasync()
    file.fdatasync()
    assert content_of(fs, path) == b"wrote!"
    fs.crash()
    assert content_of(fs, path) == b"synced"


def test_a_full_disk_writes_what_fits() -> None:
    """ENOSPC leaves half a write behind, as a real file system may."""
    fs, path = memory_file(b"12345")
    fs.capacity_bytes = 8
    file = fs.open(path)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.write_at(4, b"abcdefgh")
    assert content_of(fs, path) == b"1234abcd"
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.preallocate(9)
    file.truncate(2)
    assert file.preallocate(8)


def test_a_disk_that_cannot_preallocate_says_so() -> None:
    """The log then goes on without reserved room."""
    fs, path = memory_file(b"")
    fs.preallocates = False
    assert not fs.open(path).preallocate(100)
    assert content_of(fs, path) == b""


def test_both_refuse_one_kind_for_the_other(tmp_path: Path) -> None:
    """A file in the place of a folder is refused by both alike."""
    for fs in (MemoryFileSystem(), PosixFileSystem()):
        fs.make_folder(tmp_path)
        fs.create(tmp_path / "file").close()
        with pytest.raises(NotADirectoryError):
            fs.list(tmp_path / "file")
        with pytest.raises(IsADirectoryError):
            fs.open(tmp_path)
        with pytest.raises(FileExistsError):
            fs.make_folder(tmp_path / "file")
