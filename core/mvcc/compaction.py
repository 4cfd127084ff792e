"""Forgetting history: which stored revisions a compaction removes, and removing them a few at a time.

A revision is removed when a newer one of its key is at or below the compact revision, and so is a tombstone below the
compact revision; a tombstone exactly at it stays until the next compaction, so that a watcher starting there sees it.
Removal walks only the revisions between the previous compact revision and the new one: each removes its predecessor.
Nothing that a read at or above the compact revision can reach is ever removed, so steps need not be atomic together.

Marks in bucket meta are etcd's: scheduledCompactRev before removal, finishedCompactRev behind it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from core.errors import Compacted, FutureRevision
from core.mvcc.keyspace import (
    RECORDS,
    TOMBSTONE,
    Bucket,
    history_key,
    history_prefix,
    record_key,
    record_key_of_history,
    record_revision,
    record_start,
)
from core.mvcc.record import key_of, succession

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.mvcc.backend import Find, Reader
    from core.mvcc.staging import Staging

NEVER = -1
"""The compact revision of a store that was never compacted."""
_SCHEDULED = Bucket.META.prefix + b"scheduledCompactRev"
_FINISHED = Bucket.META.prefix + b"finishedCompactRev"
_WALKED_PER_LOOK = 32
"""Revisions read between two looks at the time, half a millisecond: a step gets so far even where others have the
processor most of the time."""


class Compaction:
    """The compact revision, and what is left to remove.  Belongs to the store's thread."""

    __slots__ = ("_cursor", "_finished", "_staging", "_targets", "removed_count", "revision")

    def __init__(self, staging: Staging) -> None:
        """Read the marks; a removal that a crash cut short is taken up again."""
        self._staging = staging
        self.removed_count = 0
        """Revisions removed since the start."""
        scheduled = _read_mark(staging, _SCHEDULED)
        self._finished = finished_revision(staging)
        self.revision = max(scheduled, self._finished)
        self._targets: deque[int] = deque([scheduled] if scheduled > self._finished else [])
        self._cursor = record_start(max(self._finished, 0))

    @property
    def running(self) -> bool:
        """Tell whether step() has something left to do."""
        return bool(self._targets)

    def begin(self, revision: int, store_revision: int) -> None:
        """Move the compact revision to *revision* and stage the mark; see Store.begin_compaction()."""
        if revision <= self.revision:
            raise Compacted
        if revision > store_revision:
            raise FutureRevision
        self.revision = revision
        self._targets.append(revision)
        self._staging.others[_SCHEDULED] = _mark(revision)

    def step(self, limit: int, spent: Callable[[], bool]) -> bool:
        """Remove at most *limit* revisions, as a batch of its own; True when nothing is left.

        It ends early soon after *spent* says that its time is up.  The mark must have been flushed: history may only go
        after the store knows that it is gone.
        """
        assert not self._staging, len(self._staging)
        if not self._targets:
            return True
        backend = self._staging.backend
        target = self._targets[0]
        removed: dict[bytes, bytes | None] = {}
        superseded = _Superseded(backend.finder(), target)
        walk = backend.scan(self._cursor, record_start(target + 1))
        for walked_count, (at, kv) in enumerate(walk, 1):
            doomed = superseded.by(at, kv)
            if removed and len(removed) + len(doomed) > 2 * limit:  # two records a revision
                break
            removed.update(doomed)
            self.removed_count += len(doomed) // 2
            self._cursor = at + b"\x00"
            if walked_count % _WALKED_PER_LOOK == 0 and spent():
                break
        else:
            self._finish(removed)
        if removed:
            backend.write(removed.items())
        return not self._targets

    def _finish(self, removed: dict[bytes, bytes | None]) -> None:
        self._finished = self._targets.popleft()
        self._cursor = record_start(self._finished)
        removed[_FINISHED] = _mark(self._finished)


def finished_revision(reader: Reader) -> int:
    """Return up to which compact revision everything has been removed that may go."""
    return _read_mark(reader, _FINISHED)


class _Superseded:
    """What the records of one walk, shown in their order, make superfluous at *target*.

    A revision's predecessor is looked up at most once for each key: from then on it is the one shown before.
    """

    __slots__ = ("_find", "_newest", "_target")

    def __init__(self, find: Find, target: int) -> None:
        self._find = find
        self._target = target
        self._newest: dict[bytes, bytes] = {}
        """The history key of each key's newest change, where that is a put."""

    def by(self, at: bytes, kv: bytes) -> dict[bytes, None]:
        """Return all that may go because of the record *at*: the put before it, and itself if a tombstone."""
        if not kv:  # etcd's tools mark a raised revision so: it is nobody's change
            return {}
        main, sub, tombstone = record_revision(at)
        key = key_of(kv)
        own = history_key(key, main, sub)
        doomed: dict[bytes, None] = {}
        before = self._newest.pop(key, None)
        if before is None and (tombstone or _version(kv, key) > 1):
            found = self._find(history_prefix(key), own)
            before = None if found is None or found[1] == TOMBSTONE else found[0]
        if before is not None:
            doomed[before] = doomed[record_key_of_history(before)] = None
        if not tombstone:
            self._newest[key] = own
        elif main < self._target:
            doomed[own] = doomed[at] = None
        return doomed


def _version(kv: bytes, key: bytes) -> int:
    _, version, _ = succession(kv, key)
    return version


def _mark(revision: int) -> bytes:
    return record_key(revision, 0)[len(RECORDS) :]


def _read_mark(reader: Reader, key: bytes) -> int:
    mark = reader.get(key)
    return NEVER if mark is None else int.from_bytes(mark[:8], "big")
