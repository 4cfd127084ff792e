"""A snapshot that another member sends: its file as it comes, and the store that is replaced by it.

The file gets its name only when all of it is there, durable and sound.  A store whose replacement was cut short is
known by its applied index, which is lower than that of the snapshot: the file is still there then, and is taken again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from core.mvcc.keyspace import LAYOUT, Bucket
from storage.bbolt.load import import_into
from storage.bbolt.pages import BoltError
from storage.bbolt.status import read_status
from wal.removal import remove_in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from core.membership.member import Member
    from core.mvcc.backend import Backend

_APPLIED_INDEX = Bucket.META.prefix + b"consistent_index"
_CONF_STATE = Bucket.META.prefix + b"confState"
_DELETED_PER_BATCH = 10_000


class UnsoundSnapshot(Exception):  # noqa: N818 - named for what is wrong
    """A file that was received is no database of etcd, or is damaged."""


def snapshot_path(folder: Path, index: int) -> Path:
    """Return where the file of the snapshot at *index* is kept until the store has taken it over (etcd's name)."""
    return folder / f"{index:016x}.snap.db"


class IncomingFile:
    """A file that is being received; one thread at a time."""

    def __init__(self, folder: Path, index: int, number: int) -> None:
        """Begin a file in *folder*; *number* tells apart those that are being received at once.  OSError."""
        self._final = snapshot_path(folder, index)
        self._path = folder / f"tmp-incoming-{index:016x}-{number}"
        self._file = self._path.open("wb")

    def write(self, piece: bytes) -> None:
        """Take the next piece; OSError."""
        self._file.write(piece)

    def finish(self) -> None:
        """Note that nothing follows; `keep` has to be called then."""

    def discard(self) -> None:
        """Remove what has come so far."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def keep(self) -> None:
        """Make the complete file durable under its name, if it is sound; takes long.  OSError, UnsoundSnapshot."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        try:
            read_status(self._path)
        except BoltError as error:
            self.discard()
            raise UnsoundSnapshot(str(error)) from error
        self._path.rename(self._final)
        descriptor = os.open(self._final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_store(path: Path, backend: Backend, conf_state: bytes, members: Iterable[Member] = ()) -> None:
    """Have *backend* hold what the file at *path* does and nothing else, durably, and remove the file.

    *conf_state* is stored where the file has none, *members* in place of what the file says of them.  Takes long;
    nobody else may write meanwhile.  Raises BoltError and OSError, and leaves a store that has applied nothing.
    """
    backend.write([(_APPLIED_INDEX, None)], sync=True)
    batch: list[tuple[bytes, bytes | None]] = []
    for key in backend.scan_keys(b"", b"\xff" * 16):
        if key.startswith(LAYOUT):
            continue  # what describes the store itself
        batch.append((key, None))
        if len(batch) == _DELETED_PER_BATCH:
            backend.write(batch)
            batch = []
    backend.write(batch)
    import_into(path, backend)
    told: list[tuple[bytes, bytes | None]] = [
        (Bucket.MEMBERS.prefix + member.hex_id.encode(), member.to_json()) for member in members
    ]
    if backend.get(_CONF_STATE) is None:
        told.append((_CONF_STATE, conf_state))
    if told:
        backend.write(told, sync=True)
    remove_in_pieces(path)
