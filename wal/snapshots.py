"""Raft snapshot files: ``<term>-<index>.snap``, a raftpb.Snapshot with its checksum.

Owns these files in the snap folder and no others there.  Which of them may be started from is told by the log's
records; what a snapshot's data means is not known here.  Format: docs/internals/wal-format.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from google_crc32c import value as checksum

from core.types import Index, Term
from wal.codec import decode_snapshot, decode_snapshot_file, encode_snapshot, encode_snapshot_file
from wal.errors import failure

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from core.raft.messages import Snapshot
    from wal.filesystem import FileSystem

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.snap")
_UNFINISHED = "tmp-raft-snapshot"
"""What is being written; etcd and actcd remove ``tmp*`` here when they start."""


class _SnapshotName(NamedTuple):
    term: Term
    snapshot_index: Index

    def __str__(self) -> str:
        return f"{self.term:016x}-{self.snapshot_index:016x}.snap"


class Snapshots:
    """The snapshot files in *folder*, of which `purge` keeps the newest *max_snapshots* (0 for all)."""

    def __init__(self, folder: Path, fs: FileSystem, max_snapshots: int) -> None:
        self._folder = folder
        self._fs = fs
        self._max_snapshots = max_snapshots

    def save(self, snapshot: Snapshot) -> None:
        """Write the snapshot's file durably: it appears whole or not at all.  Raises DiskFull, WalFailed."""
        content = encode_snapshot(snapshot)
        name = _SnapshotName(snapshot.metadata.term, snapshot.metadata.index)
        unfinished = self._folder / _UNFINISHED
        try:
            self._write(unfinished, encode_snapshot_file(content, checksum(content)))
            self._fs.rename(unfinished, self._folder / str(name))
            self._fs.fsync_folder(self._folder)
        except OSError as error:
            raise failure(str(self._folder / str(name)), error) from error

    def newest(self, valid: AbstractSet[tuple[Index, Term]]) -> Snapshot | None:
        """Return the newest snapshot among the *valid* (index, term) that can be read, None if there is none.

        A file that is damaged is renamed to ``<file>.broken`` on the way.  Raises WalFailed, DiskFull.
        """
        for name in reversed(self._names()):
            if (name.snapshot_index, name.term) not in valid:
                continue
            path = self._folder / str(name)
            try:
                snapshot = self._read(path, name)
                if snapshot is not None:
                    return snapshot
                self._fs.rename(path, path.with_name(f"{path.name}.broken"))
            except OSError as error:
                raise failure(str(path), error) from error
        return None

    def purge(self) -> None:
        """Remove the oldest files beyond *max_snapshots*.  Only once the log has a record of the newest."""
        if not self._max_snapshots:
            return
        for name in self._names()[: -self._max_snapshots]:
            path = self._folder / str(name)
            try:
                self._fs.remove(path)
            except OSError as error:
                raise failure(str(path), error) from error

    def _names(self) -> list[_SnapshotName]:
        matches = (_NAME.fullmatch(name) for name in self._fs.list(self._folder))
        return [_SnapshotName(Term(int(match[1], 16)), Index(int(match[2], 16))) for match in matches if match]

    def _write(self, path: Path, data: bytes) -> None:
        file = self._fs.create(path)
        try:
            file.write_at(0, data)
            file.fdatasync()
        except OSError:
            # A full disk must not stay full for the sake of half a snapshot.
            file.truncate(0)
            raise
        finally:
            file.close()

    def _read(self, path: Path, name: _SnapshotName) -> Snapshot | None:
        """Return the snapshot in a file, None where its bytes are not what its name and checksum promise."""
        file = self._fs.open(path)
        try:
            data = file.read_at(0, file.size())
        finally:
            file.close()
        try:
            content, crc = decode_snapshot_file(data)
            snapshot = decode_snapshot(content)
        except ValueError:
            return None
        sound = content and crc == checksum(content)
        return snapshot if sound and (snapshot.metadata.term, snapshot.metadata.index) == name else None
