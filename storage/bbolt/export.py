"""A view of the store as the bbolt file that etcd would have at that moment.

The view does not change, so writes go on while the file is made.  Runs on whichever thread wants the file, a few
milliseconds at a time.  Buckets: those of etcd 3.5, all of them, empty ones too.
"""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from core.mvcc.keyspace import Bucket
from storage.bbolt.writer import BoltWriter, Unwritable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from core.mvcc.view import View

KEY_BUCKET = b"key"
STORAGE_VERSION = b"storageVersion"
FREE_BYTES_MIN = 256 << 20
"""A snapshot stops before less is free: the log and the store need room for what is written meanwhile."""
_TURNS_PER_STEP = 16
"""Stops of the writer that one build() runs through: some megabytes, some twenty milliseconds."""


def export(view: View, path: Path) -> int:
    """Write *view* to a new file at *path*, durably, and return its size in bytes; raises OSError, Unwritable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w+b") as file:
        steps = export_steps(view, file)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                os.fsync(descriptor)
                return int(stop.value)


def export_steps(view: View, file: BinaryIO) -> Generator[None, None, int]:
    """Write *view* to the empty *file*, stopping every few hundred KiB; the generator returns the size in bytes."""
    writer = BoltWriter(file)
    buckets: dict[bytes, Iterable[tuple[bytes, bytes]]] = {KEY_BUCKET: view.revisions()}
    for bucket in Bucket:
        buckets[bucket.bucket_name.encode()] = view.bucket_items(bucket)
    for name in sorted(buckets):
        yield from writer.bucket(name, buckets[name])
    return (yield from writer.finish())


class Export:
    """A snapshot that is built into a nameless file and then read from it; used by one thread at a time.

    The file has no name, so that nothing is left of it however the process ends.
    """

    def __init__(self, view: View, directory: Path, free_bytes_min: int = FREE_BYTES_MIN) -> None:
        """Prepare to write *view* to the file system of *directory*; touches no file yet."""
        self._free_bytes_min = free_bytes_min
        self._view: View | None = view
        self._directory = directory
        self._file: BinaryIO | None = None
        self._steps: Generator[None, None, int] | None = None
        self._left_bytes = 0
        self.size_bytes = 0
        """Known when it is built."""
        self.storage_version = (view.bucket_get(Bucket.META, STORAGE_VERSION) or b"").decode(errors="replace")
        """As etcd 3.6 and later note it, empty before."""

    def build(self) -> bool:
        """Write some more; True when the file is whole.  Raises OSError."""
        if self._steps is None:
            assert self._view is not None, "built already"
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="tmp-export-")  # noqa: SIM115
            self._steps = export_steps(self._view, self._file)
        self._check_space()
        try:
            for _ in range(_TURNS_PER_STEP):
                next(self._steps)
        except Unwritable as error:
            raise OSError(errno.EFBIG, str(error)) from error
        except StopIteration as stop:
            assert self._file is not None
            self._file.seek(0)
            self.size_bytes = self._left_bytes = int(stop.value)
            self._view = None  # lets go of LevelDB's snapshot
            return True
        return False

    def _check_space(self) -> None:
        place = os.statvfs(self._directory)
        if place.f_bavail * place.f_frsize < self._free_bytes_min:
            raise OSError(errno.ENOSPC, f"less than {self._free_bytes_min >> 20} MiB are free on the disk")

    def read(self, size_bytes: int) -> bytes:
        """Return up to so many of the next bytes, none at the end; raises OSError."""
        assert self._file is not None, "not built"
        data = self._file.read(min(size_bytes, self._left_bytes))
        self._left_bytes -= len(data)
        return data

    def close(self) -> None:
        """Give the file's space back; harmless when repeated."""
        self._view = self._steps = None
        if self._file is not None:
            self._file.close()
            self._file = None
