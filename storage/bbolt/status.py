"""What a snapshot file holds, in a few numbers, and whether it is what was sent.

The hash is etcdutl's: CRC-32C over names, keys and values of all buckets, so that two tools can be compared.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from core.mvcc.record import key_of
from storage.bbolt.export import KEY_BUCKET, STORAGE_VERSION
from storage.bbolt.load import NotAStore, record_fault
from storage.bbolt.pages import SECTOR_SIZE_BYTES, TRAILER_SIZE_BYTES, BoltError, has_trailer
from storage.bbolt.reader import BoltFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_READ_SIZE_BYTES = 1 << 20
_HASHED_AT_ONCE = 1000
_REVISION_SIZE_BYTES = 17


def _say_nothing(_what: str, _count: int, _total: int) -> None:
    """Tell nobody."""


class Status(NamedTuple):
    """What `snapshot status` shows."""

    hash: int
    revision: int
    key_count: int
    """Live keys."""
    size_bytes: int
    version: str
    """The storage version, which etcd notes since 3.6; empty in older files."""


class BadTrailer(BoltError):  # noqa: N818 - named for what was found
    """A snapshot's SHA-256 is missing, or is not that of its content."""


def read_status(path: Path, progress: Callable[[str, int, int], None] = _say_nothing) -> Status:
    """Read the whole file at *path*, with its trailer if there is one; raises BoltError, OSError.

    *progress* is told, now and then, how many bytes of how many are read.
    """
    if has_trailer(path.stat().st_size):
        check_trailer(path)
    crc = revision = read_bytes = 0
    version = b""
    live: set[bytes] = set()
    with BoltFile(path) as file:
        for name in file.buckets:
            pieces = [name]
            for key, value, at in file.located_items(name):
                pieces += (key, value)
                if len(pieces) > _HASHED_AT_ONCE:
                    joined = b"".join(pieces)
                    crc = google_crc32c.extend(crc, joined)
                    pieces.clear()
                    read_bytes += len(joined)
                    progress("bytes", read_bytes, file.size_bytes)
                if name == KEY_BUCKET:
                    fault = record_fault(key, value)
                    if fault:
                        raise NotAStore(f"{path} holds a bad record at offset {at}: {fault}")
                    revision = int.from_bytes(key[:8], "big")
                    (live.add if len(key) == _REVISION_SIZE_BYTES else live.discard)(key_of(value))
                elif key == STORAGE_VERSION:
                    version = value
            crc = google_crc32c.extend(crc, b"".join(pieces))
        return Status(crc, revision, len(live), file.size_bytes, version.decode(errors="replace"))


def check_trailer(path: Path) -> None:
    """Hold the file at *path* against the SHA-256 behind it; raises BadTrailer, OSError."""
    size_bytes = path.stat().st_size
    if not has_trailer(size_bytes):
        raise BadTrailer(
            f"{path} has no hash behind it: expected a size of {TRAILER_SIZE_BYTES} modulo {SECTOR_SIZE_BYTES}, found "
            f"{size_bytes} bytes. A file copied from a data directory has none: use --skip-hash-check"
        )
    digest = sha256()
    with path.open("rb") as file:
        left_bytes = size_bytes - TRAILER_SIZE_BYTES
        while chunk := file.read(min(left_bytes, _READ_SIZE_BYTES)):
            digest.update(chunk)
            left_bytes -= len(chunk)
        stored = file.read(TRAILER_SIZE_BYTES)
    if digest.digest() != stored:
        raise BadTrailer(
            f"{path} is damaged: expected sha256 {stored.hex()}, as its last {TRAILER_SIZE_BYTES} bytes say, found "
            f"{digest.hexdigest()}"
        )
