"""The storage port on LevelDB (plyvel).

LevelDB's own log is written unsynced in the hot path: the raft log is the truth, and storage/leveldb_repair.py makes
whatever a power loss left of LevelDB's log a clean prefix again before it is opened.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import plyvel

from storage.leveldb_repair import cut_torn_logs
from storage.schema import StorageError, check_layout
from storage.second_names import SecondNames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from core.mvcc.backend import Find, Reader

WRITE_BUFFER_SIZE_BYTES = 4 << 20
"""It is written and synced in one piece, behind which the raft log's syncs wait: with four times as much, puts stood
still for up to 117 ms while a store was compacted.  Also bounds what opening has to read again after a crash."""
BLOCK_CACHE_SIZE_BYTES = 32 << 20
BLOOM_FILTER_BITS_PER_KEY = 10
"""One false positive in a hundred; a put of a new key then reads no table at all."""
OPEN_FILES_MAX = 512

_FIRST_KEY = b""
_BEHIND_LAST_KEY = b"\xff" * 8


class LevelDbReader:
    """A LevelDB snapshot, or the database itself, as a Reader."""

    def __init__(self, source: plyvel.DB) -> None:
        self._source = source
        self.get = source.get
        """Return the value of a key, or None."""

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See Reader."""
        found: Iterator[tuple[bytes, bytes]] = self._source.iterator(start=start, stop=stop, reverse=reverse)
        return found

    def scan_keys(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[bytes]:
        """See Reader."""
        found: Iterator[bytes] = self._source.iterator(start=start, stop=stop, reverse=reverse, include_value=False)
        return found

    def scan_values(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """See Reader."""
        found: Iterator[bytes] = self._source.iterator(start=start, stop=stop, include_key=False)
        return found

    def finder(self) -> Find:
        """See Reader.  Each has one iterator, which costs as much to make as to move."""
        iterator = self._source.raw_iterator()

        def last(start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
            iterator.seek(stop)
            if iterator.valid():
                iterator.prev()
            else:
                iterator.seek_to_last()
            if not iterator.valid():
                return None
            found: tuple[bytes, bytes] = iterator.item()
            return found if start <= found[0] < stop else None

        return last


class LevelDbBackend(LevelDbReader):
    """One LevelDB database.  Make it with open_leveldb()."""

    def __init__(self, database: plyvel.DB, directory: Path) -> None:
        super().__init__(database)
        self._directory = directory
        self._second_names = SecondNames(directory)
        self._second_names.clear()
        self.keep_house = self._second_names.update
        """See Backend."""
        self._snapshot = database.snapshot

    def snapshot(self) -> Reader:
        """See Backend."""
        return LevelDbReader(self._snapshot())

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        """See Backend."""
        batch = self._source.write_batch(sync=sync)
        put = batch.put
        delete = batch.delete
        for key, value in changes:
            if value is None:
                delete(key)
            else:
                put(key, value)
        batch.write()
        if sync:
            self.sync()

    def size_bytes(self) -> int:
        """See Backend."""
        return sum(_size_bytes(entry) for entry in os.scandir(self._directory) if entry.is_file(follow_symlinks=False))

    def size_in_use_bytes(self) -> int:
        """See Backend.  What LevelDB has not yet put into tables counts in full."""
        logs = sum(_size_bytes(entry) for entry in os.scandir(self._directory) if entry.name.endswith(".log"))
        tables: int = self._source.approximate_size(_FIRST_KEY, _BEHIND_LAST_KEY)
        return min(tables + logs, self.size_bytes())

    def compact(self, start: bytes | None = None, stop: bytes | None = None) -> None:
        """See Backend.  May be called from another thread than write()."""
        self._source.compact_range(start=start, stop=stop)

    def close(self) -> None:
        """See Backend."""
        self._source.close()
        self._second_names.clear()

    def sync(self) -> None:
        """See Backend.  Syncs every log file, and the names of all files.

        LevelDB's synced write covers only the log it is in.  When it has just begun a new one, the one before is
        needed until its content is in a table, and nobody has synced that.
        """
        for entry in os.scandir(self._directory):
            if entry.name.endswith(".log"):
                _sync(entry.path)
        _sync(str(self._directory))


def open_leveldb(directory: Path) -> LevelDbBackend:
    """Open the database in *directory*, making it if there is none, after cutting what a power loss left torn.

    Raises StorageError with a sentence for the operator where it cannot be opened.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    cut_torn_logs(directory)
    try:
        database = plyvel.DB(
            str(directory),
            create_if_missing=True,
            paranoid_checks=True,
            write_buffer_size=WRITE_BUFFER_SIZE_BYTES,
            lru_cache_size=BLOCK_CACHE_SIZE_BYTES,
            bloom_filter_bits=BLOOM_FILTER_BITS_PER_KEY,
            max_open_files=OPEN_FILES_MAX,
        )
    except plyvel.Error as error:
        raise StorageError(f"the store in {directory} cannot be opened: {error}") from error
    backend = LevelDbBackend(database, directory)
    try:
        check_layout(backend, str(directory))
    except StorageError:
        backend.close()
        raise
    except plyvel.Error as error:
        backend.close()
        raise StorageError(f"the store in {directory} is damaged: {error}; restore it from a snapshot") from error
    return backend


def _size_bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # LevelDB removed it meanwhile
        return 0


def _sync(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # its content is in a table now, which LevelDB has synced
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
