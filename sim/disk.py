"""One member's disk: the log's files and the store, and what is left of them after a crash.

Syncs take virtual time.  A kill loses nothing that was written; a power failure keeps, of what was not synced, any
sectors of the log's files and any prefix of the store's writes (LevelDB writes its log in order).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from sortedcontainers import SortedDict

from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import HISTORY, LAYOUT, RECORDS, Bucket
from wal.filesystem import MemoryFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from random import Random

    from wal.filesystem import File

    Changes = list[tuple[bytes, bytes | None]]

APPLIED_INDEX = Bucket.META.prefix + b"consistent_index"
_OWN_PROGRESS = Bucket.META.prefix + b"finishedCompactRev"
"""How far this member is with removing what a compaction dropped: not the same everywhere at the same index."""


class StoreWatcher(Protocol):
    """Told what a store has written."""

    def wrote(self, changes: Changes, digest: int) -> None:
        """Take note of one batch; *digest* stands for everything that must be equal at equal index."""


class SimBackend(MemoryBackend):
    """A store whose unsynced writes are lost from some point on when the power fails."""

    def __init__(self) -> None:
        super().__init__()
        self.watcher: StoreWatcher | None = None
        self._journal: list[Changes] = []
        self._digest = 0

    def write(self, changes: Iterable[tuple[bytes, bytes | None]], *, sync: bool = False) -> None:
        """See Backend."""
        listed = list(changes)
        for key, value in listed:
            if is_shared(key):
                self._digest ^= item_digest(key, self.get(key)) ^ item_digest(key, value)
        super().write(listed)
        self._journal.append(listed)
        if self.watcher is not None:
            self.watcher.wrote(listed, self._digest)
        if sync:
            self.sync()

    def sync(self) -> None:
        """See Backend."""
        super().sync()
        self._journal = []

    def fail_power(self, random: Random) -> None:
        """Lose the writes after the last sync, from some point on."""
        kept = self._journal[: random.randrange(len(self._journal) + 1)]
        self.crash()
        self._items = SortedDict(self._items)
        for changes in kept:
            super().write(changes)
        self.sync()
        self._digest = 0
        for key, value in self._items.items():
            if is_shared(key):
                self._digest ^= item_digest(key, value)

    def digest_now(self) -> int:
        """Return what stands for everything that must be equal at equal index."""
        return self._digest


def is_shared(key: bytes) -> bool:
    """Tell whether what is under *key* follows from the log alone.  Records are compared one by one elsewhere."""
    return key[:1] not in {RECORDS, HISTORY, LAYOUT} and key != _OWN_PROGRESS


def item_digest(key: bytes, value: bytes | None) -> int:
    """Return a number for one item; 0 for none."""
    if value is None:
        return 0
    return int.from_bytes(blake2b(value, key=key[:64], digest_size=8, salt=len(key).to_bytes(8, "big")).digest())


class SimFile:
    """A file whose syncs take time."""

    def __init__(self, file: File, descriptor: int, spend: Callable[[], None]) -> None:
        self.file = file
        self.descriptor = descriptor
        """See File."""
        self._spend = spend

    def size(self) -> int:
        """See File."""
        return self.file.size()

    def read_at(self, offset: int, size: int) -> bytes:
        """See File."""
        return self.file.read_at(offset, size)

    def write_at(self, offset: int, data: bytes) -> None:
        """See File."""
        self.file.write_at(offset, data)

    def truncate(self, size: int) -> None:
        """See File."""
        self.file.truncate(size)

    def preallocate(self, size: int) -> bool:
        """See File."""
        return self.file.preallocate(size)

    def fdatasync(self) -> None:
        """See File."""
        self._spend()
        self.file.fdatasync()

    def lock(self) -> None:
        """See File."""
        self.file.lock()

    def close(self) -> None:
        """See File."""
        self.file.close()


class SimFileSystem(MemoryFileSystem):
    """Files whose syncs take time; *spend* lets it pass."""

    def __init__(self, spend: Callable[[], None]) -> None:
        super().__init__()
        self._spend = spend
        self._files: list[SimFile] = []

    def create(self, path: Path) -> SimFile:  # type: ignore[override]  # a File, which is all that callers ask for
        """See FileSystem."""
        return self._numbered(super().create(path))

    def open(self, path: Path) -> SimFile:  # type: ignore[override]  # a File, which is all that callers ask for
        """See FileSystem."""
        return self._numbered(super().open(path))

    def described(self, descriptor: int) -> File:
        """Return the file with this descriptor; its syncs take no time."""
        return self._files[descriptor].file

    def _numbered(self, file: File) -> SimFile:
        made = SimFile(file, len(self._files), self._spend)
        self._files.append(made)
        return made


class SimBackgroundSync:
    """Syncs beside the actors, in one life of a member; see BackgroundSync."""

    def __init__(self, fs: SimFileSystem, later: Callable[[Callable[[], None]], None]) -> None:
        """*later* calls when a sync that begins now has ended, if the process is still there then."""
        self.busy = False
        self.ended: Callable[[OSError | None], None]
        self._fs = fs
        self._later = later

    def watch(self, ended: Callable[[OSError | None], None]) -> None:
        """See BackgroundSync."""
        self.ended = ended

    def begin(self, descriptor: int) -> None:
        """See BackgroundSync."""
        assert not self.busy, "one at a time"
        self.busy = True
        file = self._fs.described(descriptor)

        def end() -> None:
            self.busy = False
            try:
                file.fdatasync()
            except OSError as error:
                self.ended(error)
            else:
                self.ended(None)

        self._later(end)

    def look(self) -> None:
        """Do nothing: ends are told as they come."""
