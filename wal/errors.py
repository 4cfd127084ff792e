"""What can go wrong with the log on disk, one class each.

Nothing else leaves this package for bad bytes, a full disk or a lock held by somebody else.  None of them reaches a
client, hence none is an EtcdError.
"""

from __future__ import annotations

import errno

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The failures that pass when somebody makes room."""


class WalError(Exception):
    """Any trouble with the log on disk."""


class WalCorrupt(WalError):
    """A file does not hold what was written to it; a person has to decide what to do."""

    def __init__(self, file: str, offset: int, *, expected: str, found: str) -> None:
        super().__init__(f"wal: {file} is corrupt at offset {offset}: expected {expected}, found {found}")
        self.file = file
        self.offset = offset
        self.expected = expected
        self.found = found


class WalLocked(WalError):
    """Another process, or another handle of this one, holds the file."""

    def __init__(self, file: str) -> None:
        super().__init__(f"fileutil: file already locked: {file}")
        self.file = file


class SnapshotNotFound(WalError):
    """The log has no record of the snapshot that it should be read from."""

    def __init__(self, index: int, term: int, reason: str) -> None:
        super().__init__(f"wal: snapshot not found: index {index}, term {term}: {reason}")
        self.index = index
        self.term = term


class DiskFull(WalError):
    """There was no room; the log is as it was before the call and may be used again when there is."""

    def __init__(self, file: str) -> None:
        super().__init__(f"wal: no space left on device for {file}")
        self.file = file


class WalFailed(WalError):
    """A write or a sync failed, so what the disk holds is unknown until the log is opened again."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"wal: {file} failed: {reason}")
        self.file = file
        self.reason = reason


def failure(file: str, error: OSError) -> DiskFull | WalFailed:
    """Return what a failed operation on *file* means to the caller of the log."""
    if error.errno in DISK_FULL_ERRNOS:
        return DiskFull(file)
    return WalFailed(file, str(error))
