"""The log's one door to the disk: a port, the POSIX way through it, and a fake that forgets what was not synced.

Knows folders, files and locks, and nothing of what is in them.  Both sides pass the same tests
(tests/contracts/test_filesystem.py).  Paths are absolute or relative strings as the operating system takes them;
every error is an OSError, except for WalLocked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
from typing import TYPE_CHECKING, Protocol

from wal.errors import WalLocked
from wal.removal import remove_in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_PREALLOCATION_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_WHOLE_FILE_WRITE_LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
SECTOR_SIZE_BYTES = 512
"""What a disk writes as a whole or not at all."""


class File(Protocol):
    """An open file, read and written by position."""

    @property
    def descriptor(self) -> int:
        """What the system knows the file by; -1 where it knows of none."""

    def size(self) -> int:
        """Return the size in bytes, preallocated ones included."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return *size* bytes, or fewer where the file ends."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of *data*; after an error any part of it may be in the file."""

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes."""

    def preallocate(self, size: int) -> bool:
        """Grow the file to *size* bytes of zeros that are sure to have room; False where that is not supported."""

    def fdatasync(self) -> None:
        """Make the content durable.  After an error what is on the disk is unknown, and stays so when tried again."""

    def lock(self) -> None:
        """Keep other handles of this and any process from locking the file; WalLocked where one has."""

    def close(self) -> None:
        """Let go of the file and its lock."""


class FileSystem(Protocol):
    """Folders and the files in them."""

    def make_folder(self, folder: Path) -> None:
        """Make the folder (mode 0700) and those above it, where missing."""

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or folder."""

    def list(self, folder: Path) -> list[str]:
        """Return the names in *folder*, sorted."""

    def create(self, path: Path) -> File:
        """Open an empty file (mode 0600), emptying one that is there."""

    def open(self, path: Path) -> File:
        """Open a file that is there, for reading and writing."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder another name in the same folder, replacing a file there."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def remove_in_pieces(self, path: Path) -> None:
        """Remove a large file that nobody reads, so that no sync waits for it; that takes long."""

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder and all in it."""

    def fsync_folder(self, folder: Path) -> None:
        """Make the names in *folder* durable."""


class PosixFile:
    """A file descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:  # noqa: D102 - File says it, here and below
        return self._descriptor

    def size(self) -> int:  # noqa: D102
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:  # noqa: D102
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size:
            return data
        parts = [data]
        while data:
            offset, size = offset + len(data), size - len(data)
            data = os.pread(self._descriptor, size, offset)
            parts.append(data)
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:  # noqa: D102
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    def truncate(self, size: int) -> None:  # noqa: D102
        os.ftruncate(self._descriptor, size)

    def preallocate(self, size: int) -> bool:  # noqa: D102
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError as error:
            if error.errno in _PREALLOCATION_UNSUPPORTED:
                return False
            raise
        return True

    def fdatasync(self) -> None:  # noqa: D102
        os.fdatasync(self._descriptor)

    def lock(self) -> None:  # noqa: D102
        try:
            # etcd's own locks are of this kind, and a flock would not notice them.
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE_WRITE_LOCK)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise WalLocked(str(self._path)) from error
            raise

    def close(self) -> None:  # noqa: D102
        os.close(self._descriptor)


class PosixFileSystem:
    """The operating system's files."""

    def make_folder(self, folder: Path) -> None:  # noqa: D102
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(_FOLDER_MODE, exist_ok=True)
            self.fsync_folder(path.parent)

    def exists(self, path: Path) -> bool:  # noqa: D102
        return path.exists()

    def list(self, folder: Path) -> list[str]:  # noqa: D102
        return sorted(path.name for path in folder.iterdir())

    def create(self, path: Path) -> PosixFile:  # noqa: D102
        return PosixFile(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE))

    def open(self, path: Path) -> PosixFile:  # noqa: D102
        return PosixFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def rename(self, old: Path, new: Path) -> None:  # noqa: D102
        old.rename(new)

    def remove(self, path: Path) -> None:  # noqa: D102
        path.unlink()

    def remove_in_pieces(self, path: Path) -> None:  # noqa: D102
        remove_in_pieces(path)

    def remove_folder(self, folder: Path) -> None:  # noqa: D102
        shutil.rmtree(folder)

    def fsync_folder(self, folder: Path) -> None:  # noqa: D102
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _MemoryContent:
    """What a file holds, and what a disk would hold of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced_size = 0
        self.unsynced: dict[int, bytes] = {}
        self.lost: dict[int, bytes] = {}
        self.locked_by: MemoryFile | None = None

    def touch(self, start: int, end: int) -> None:
        """Remember what the disk holds of the sectors in a range that is about to change."""
        for sector in range(start // SECTOR_SIZE_BYTES, -(-end // SECTOR_SIZE_BYTES)):
            if sector not in self.unsynced:
                at = sector * SECTOR_SIZE_BYTES
                now = bytes(self.data[at : at + SECTOR_SIZE_BYTES])
                self.unsynced[sector] = self.lost.pop(sector, now)

    def resize(self, size: int) -> None:
        if size < len(self.data):
            self.touch(size, len(self.data))
            del self.data[size:]
        else:
            self.data.extend(bytes(size - len(self.data)))

    def crash(self, random: Random | None) -> None:
        """Take back what was not synced: all of it, or what *random* picks, sector by sector."""
        if random is None or random.random() < 0.5:
            self.data[self.synced_size :] = bytes(max(0, self.synced_size - len(self.data)))
        for sector, before in sorted((self.unsynced | self.lost).items()):
            at = sector * SECTOR_SIZE_BYTES
            if sector in self.lost or random is None or random.random() < 0.5:
                end = min(at + SECTOR_SIZE_BYTES, len(self.data))
                self.data[at:end] = before.ljust(SECTOR_SIZE_BYTES, b"\0")[: max(0, end - at)]
        self.synced_size, self.unsynced, self.lost, self.locked_by = len(self.data), {}, {}, None

    def unlock(self) -> None:
        self.locked_by = None


class _MemoryFolder:
    """Names, those that a disk would have, and the changes between the two in their order."""

    def __init__(self) -> None:
        self.entries: dict[str, _MemoryContent | _MemoryFolder] = {}
        self.durable: dict[str, _MemoryContent | _MemoryFolder] = {}
        self.history: list[dict[str, _MemoryContent | _MemoryFolder]] = []

    def change(self, entries: dict[str, _MemoryContent | _MemoryFolder]) -> None:
        self.entries = entries
        self.history.append(entries)

    def crash(self, random: Random | None) -> None:
        """Fall back to the durable names, or to some point between then and now."""
        states = [self.durable, *self.history]
        self.durable = states[0 if random is None else random.randrange(len(states))]
        self.entries, self.history = self.durable, []
        for name in sorted(self.entries):
            self.entries[name].crash(random)

    def unlock(self) -> None:
        for entry in self.entries.values():
            entry.unlock()


class MemoryFile:
    """A handle; a crash of its file system makes it useless."""

    def __init__(self, system: MemoryFileSystem, path: Path, content: _MemoryContent) -> None:
        self._system = system
        self._path = path
        self._content = content
        self._boot = system.boots
        self._open = True

    @property
    def descriptor(self) -> int:  # noqa: D102
        return -1

    def size(self) -> int:  # noqa: D102
        return len(self._checked().data)

    def read_at(self, offset: int, size: int) -> bytes:  # noqa: D102
        return bytes(self._checked().data[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:  # noqa: D102
        content = self._checked()
        self._system.note_change(self._path)
        self._system.writes += 1
        room = self._system.room_for(len(content.data))
        fitting = data if room is None else data[: max(0, room - offset)]
        content.touch(min(offset, len(content.data)), offset + len(fitting))
        if offset > len(content.data):
            content.resize(offset)
        content.data[offset : offset + len(fitting)] = fitting
        if len(fitting) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def truncate(self, size: int) -> None:  # noqa: D102
        content = self._checked()
        self._system.note_change(self._path)
        content.resize(size)

    def preallocate(self, size: int) -> bool:  # noqa: D102
        content = self._checked()
        self._system.note_change(self._path)
        if not self._system.preallocates:
            return False
        room = self._system.room_for(len(content.data))
        if room is not None and size > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        content.resize(max(size, len(content.data)))
        return True

    def fdatasync(self) -> None:  # noqa: D102
        content = self._checked()
        self._system.note_change(self._path)
        self._system.syncs += 1
        if self._system.on_sync is not None:
            self._system.on_sync()
        error_number, self._system.next_sync_error = self._system.next_sync_error, None
        if error_number is not None:
            # As Linux does: what could not be written counts as clean, and no later sync tries it again.
            content.lost.update(content.unsynced)
            content.unsynced = {}
            raise OSError(error_number, os.strerror(error_number), str(self._path))
        content.unsynced, content.synced_size = {}, len(content.data)

    def lock(self) -> None:  # noqa: D102
        content = self._checked()
        if content.locked_by not in {None, self}:
            raise WalLocked(str(self._path))
        content.locked_by = self

    def close(self) -> None:  # noqa: D102
        self._open = False
        if self._content.locked_by is self:
            self._content.locked_by = None

    def _checked(self) -> _MemoryContent:
        if not self._open or self._boot != self._system.boots:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self._path))
        return self._content


class MemoryFileSystem:
    """A disk in memory that can fill up, fail a sync, and lose or tear whatever was not synced.

    *capacity_bytes* bounds the sizes of all files together; None is boundless.  *next_sync_error* is the errno that the
    next fdatasync fails with.  *changes_left* is how many changes of any kind work before the power fails, after which
    only `crash` is left.  *preallocates* False is a disk that cannot reserve.  *writes* and *syncs* count calls.
    *on_sync* is called by each fdatasync, which takes as long as that does.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.preallocates = True
        self.next_sync_error: int | None = None
        self.on_sync: Callable[[], None] | None = None
        self.changes_left: int | None = None
        self.writes = 0
        self.syncs = 0
        self.boots = 0
        self._root = _MemoryFolder()

    def crash(self, random: Random | None = None) -> None:
        """Lose all that was not synced; with *random*, keep some of it, down to single sectors and names."""
        self.boots += 1
        self.next_sync_error = self.changes_left = None
        self._root.crash(random)

    def end_process(self) -> None:
        """Make every handle useless and its lock void; what was written stays, as in the cache of a machine."""
        self.boots += 1
        self.next_sync_error = self.changes_left = None
        self._root.unlock()

    def note_change(self, path: Path) -> None:
        """Count a change that is about to be made, or fail it for want of power."""
        if self.changes_left is None:
            return
        if self.changes_left == 0:
            raise OSError(errno.EIO, "power failed", str(path))
        self.changes_left -= 1

    def room_for(self, size: int) -> int | None:
        """Return how large a file of *size* bytes may become."""
        if self.capacity_bytes is None:
            return None
        return size + self.capacity_bytes - self.used_bytes()

    def used_bytes(self) -> int:
        """Return the sizes of all files together."""
        return self._used(self._root)

    def make_folder(self, folder: Path) -> None:  # noqa: D102
        self.note_change(folder)
        at = self._root
        for part in folder.parts:
            below = at.entries.get(part)
            if below is None:
                below = _MemoryFolder()
                at.change({**at.entries, part: below})
                at.durable, at.history = at.entries, []
            if not isinstance(below, _MemoryFolder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
            at = below

    def exists(self, path: Path) -> bool:  # noqa: D102
        try:
            self._find(path)
        except OSError:
            return False
        return True

    def list(self, folder: Path) -> list[str]:  # noqa: D102
        return sorted(self._folder(folder).entries)

    def create(self, path: Path) -> MemoryFile:  # noqa: D102
        self.note_change(path)
        folder = self._folder(path.parent)
        content = folder.entries.get(path.name)
        if isinstance(content, _MemoryContent):
            content.resize(0)
        else:
            content = _MemoryContent()
            folder.change({**folder.entries, path.name: content})
        return MemoryFile(self, path, content)

    def open(self, path: Path) -> MemoryFile:  # noqa: D102
        content = self._find(path)
        if not isinstance(content, _MemoryContent):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return MemoryFile(self, path, content)

    def rename(self, old: Path, new: Path) -> None:  # noqa: D102
        self.note_change(new)
        assert old.parent == new.parent, (old, new)
        folder = self._folder(old.parent)
        renamed = self._find(old)
        others = {name: entry for name, entry in folder.entries.items() if name not in {old.name, new.name}}
        folder.change({**others, new.name: renamed})

    def remove(self, path: Path) -> None:  # noqa: D102
        self.note_change(path)
        self._find(path)
        folder = self._folder(path.parent)
        folder.change({name: entry for name, entry in folder.entries.items() if name != path.name})

    def remove_in_pieces(self, path: Path) -> None:  # noqa: D102
        self.remove(path)

    def remove_folder(self, folder: Path) -> None:  # noqa: D102
        self.remove(folder)

    def fsync_folder(self, folder: Path) -> None:  # noqa: D102
        self.note_change(folder)
        found = self._folder(folder)
        found.durable, found.history = found.entries, []

    def _find(self, path: Path) -> _MemoryContent | _MemoryFolder:
        at: _MemoryContent | _MemoryFolder = self._root
        for part in path.parts:
            below = at.entries.get(part) if isinstance(at, _MemoryFolder) else None
            if below is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            at = below
        return at

    def _folder(self, path: Path) -> _MemoryFolder:
        found = self._find(path)
        if not isinstance(found, _MemoryFolder):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return found

    def _used(self, at: _MemoryContent | _MemoryFolder) -> int:
        if isinstance(at, _MemoryContent):
            return len(at.data)
        return sum(self._used(entry) for entry in at.entries.values())
