"""One file of the log: its name, its preallocation, and writes that happen whole or not at all.

Knows the file system port and positions in the file; what the bytes mean is for wal/record.py and wal/log.py.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from core.tuples import make_tuple
from core.types import Index
from wal.errors import DISK_FULL_ERRNOS, DiskFull, WalCorrupt, WalFailed, failure

if TYPE_CHECKING:
    from pathlib import Path

    from wal.filesystem import File, FileSystem

SEGMENT_SIZE_BYTES = 64_000_000
"""Where a segment ends and the next begins, as in etcd; the record that passes it stays whole."""

_SUFFIX = ".wal"
_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.wal")


class SegmentName(NamedTuple):
    """A segment's place in the chain, and the index that its first entry was expected to have."""

    sequence: int
    first_index: Index

    def __str__(self) -> str:
        return f"{self.sequence:016x}-{self.first_index:016x}{_SUFFIX}"


def segment_names(folder: Path, fs: FileSystem) -> list[SegmentName]:
    """Return the names of the segments in *folder* in their order; other files there are none of ours."""
    matches = (_NAME.fullmatch(name) for name in fs.list(folder))
    return [SegmentName(int(match[1], 16), Index(int(match[2], 16))) for match in matches if match]


def expect_consecutive(names: list[SegmentName]) -> None:
    """Raise WalCorrupt where a segment is missing between others."""
    for before, name in pairwise(names):
        if name.sequence != before.sequence + 1:
            raise WalCorrupt(
                str(name), 0, expected=f"segment {before.sequence + 1:016x}", found=f"segment {name.sequence:016x}"
            )


class Position(NamedTuple):
    """An end of what was written, and the chain's value there."""

    offset: int
    crc: int


class Segment:
    """A locked, open segment.

    *end* is where the next write goes.  A write or sync that fails for want of room leaves the file as it was before
    and raises DiskFull; any other failure raises WalFailed, and whoever gets that must not go on.
    """

    def __init__(self, file: File, name: SegmentName, end: Position) -> None:
        self.name = name
        self.end = end
        self._file = file
        self._durable = end

    def write(self, frames: bytes, crc: int) -> None:
        """Write *frames*, at whose end the chain has the value *crc*."""
        offset = self.end.offset
        try:
            self._file.write_at(offset, frames)
        except OSError as error:
            raise self._taken_back(self.end, error) from error
        self.end = make_tuple(Position, (offset + len(frames), crc))

    @property
    def is_durable(self) -> bool:
        """Whether all that was written is synced."""
        return self.end is self._durable

    @property
    def descriptor(self) -> int:
        """Of the file, for who syncs it by other means and tells synced() of it; -1 where that cannot be."""
        return self._file.descriptor

    def sync(self) -> None:
        """Make all that was written durable.  DiskFull takes back everything since the last sync that worked."""
        try:
            self._file.fdatasync()
        except OSError as error:
            self.synced(error)
        else:
            self.synced(None)

    def synced(self, error: OSError | None) -> None:
        """Take note of a sync of all that was written, and of what went wrong with it; raises what sync() does."""
        if error is not None:
            raise self._taken_back(self._durable, error) from error
        self._durable = self.end

    def trim(self) -> None:
        """Give back what is preallocated behind the end, and sync; for a segment that takes no more."""
        try:
            self._file.truncate(self.end.offset)
            self._file.fdatasync()
        except OSError as error:
            raise WalFailed(str(self.name), str(error)) from error

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()

    def _taken_back(self, end: Position, error: OSError) -> DiskFull | WalFailed:
        """Cut the file to *end* and return what to raise for *error*."""
        if error.errno not in DISK_FULL_ERRNOS:
            return WalFailed(str(self.name), str(error))
        try:
            self._file.truncate(end.offset)
        except OSError as second:
            return WalFailed(str(self.name), str(second))
        self.end = end
        return DiskFull(str(self.name))


def reserve(file: File, size: int) -> None:
    """Preallocate *size* bytes if there is room for them and the file system can; a log works without.

    Raises WalFailed for other failures.
    """
    try:
        file.preallocate(size)
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise WalFailed("preallocation", str(error)) from error


class Spare:
    """The file that becomes the next segment, made and reserved before it is needed.

    Its names take turns, so that a new spare never meets the file that was a spare before.
    """

    def __init__(self, folder: Path, fs: FileSystem, size: int) -> None:
        self._folder = folder
        self._fs = fs
        self._size = size
        self._count = 0
        self._file: File | None = None

    @property
    def path(self) -> Path:
        """Where the present spare is, or the next one will be."""
        return self._folder / f"{self._count % 2}.tmp"

    def prepare(self) -> File:
        """Return the spare, making it where there is none.  DiskFull if there is no room, WalFailed otherwise."""
        if self._file is None:
            try:
                file = self._fs.create(self.path)
            except OSError as error:
                raise failure(str(self.path), error) from error
            self._file = file
            try:
                file.lock()
                file.preallocate(self._size)
            except OSError as error:
                self.discard()
                raise failure(str(self.path), error) from error
        return self._file

    def used(self) -> None:
        """Forget the spare: it is a segment now."""
        self._file = None
        self._count += 1

    def discard(self) -> None:
        """Remove the spare, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with suppress(OSError):  # The next log here empties what is left over.
                self._fs.remove(self.path)
