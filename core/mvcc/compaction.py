"""Forgetting history: which stored revisions a compaction removes, and removing them a few at a time.

A revision is removed when a newer one of its key is at or below the compact revision, and so is a tombstone below the
compact revision; a tombstone exactly at it stays until the next compaction, so that a watcher starting there sees it.
Removal walks only the revisions between the previous compact revision and the new one: each removes its predecessor.
Nothing that a read at or above the compact revision can reach is ever removed, so steps need not be atomic together.

Marks in bucket meta are etcd's: scheduledCompactRev before removal, finishedCompactRev behind it.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from core.errors import Compacted, FutureRevision
from core.mvcc.keyspace import (
    RECORDS,
    TOMBSTONE,
    Bucket,
    history_key,
    history_prefix,
    history_revision,
    record_key,
    record_key_of_history,
    record_revision,
    record_start,
)
from core.mvcc.record import key_of

if TYPE_CHECKING:
    from core.mvcc.backend import Reader
    from core.mvcc.staging import Staging

NEVER = -1
"""The compact revision of a store that was never compacted."""
_SCHEDULED = Bucket.META.prefix + b"scheduledCompactRev"
_FINISHED = Bucket.META.prefix + b"finishedCompactRev"
_WALKED_PER_REMOVED = 4
"""A step also ends after reading so many times its limit, where there is little to remove."""


class Compaction:
    """The compact revision, and what is left to remove.  Belongs to the store's thread."""

    __slots__ = ("_cursor", "_finished", "_staging", "_targets", "removed_count", "revision")

    def __init__(self, staging: Staging) -> None:
        """Read the marks; a removal that a crash cut short is taken up again."""
        self._staging = staging
        self.removed_count = 0
        """Revisions removed since the start."""
        scheduled = _read_mark(staging, _SCHEDULED)
        self._finished = _read_mark(staging, _FINISHED)
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

    def step(self, limit: int) -> bool:
        """Remove at most *limit* revisions, as a batch of its own; True when nothing is left.

        The mark must have been flushed: history may only go after the store knows that it is gone.
        """
        assert not self._staging, len(self._staging)
        if not self._targets:
            return True
        backend = self._staging.backend
        target = self._targets[0]
        removed: dict[bytes, bytes | None] = {}
        walk = backend.scan(self._cursor, record_start(target + 1))
        for at, kv in islice(walk, limit * _WALKED_PER_REMOVED):
            doomed = _superseded_by(backend, at, kv, target)
            if removed and len(removed) + len(doomed) > 2 * limit:  # two records a revision
                break
            removed.update(doomed)
            self.removed_count += len(doomed) // 2
            self._cursor = at + b"\x00"
        else:
            if next(walk, None) is None:
                self._finish(removed)
        if removed:
            backend.write(removed.items())
        return not self._targets

    def _finish(self, removed: dict[bytes, bytes | None]) -> None:
        self._finished = self._targets.popleft()
        self._cursor = record_start(self._finished)
        removed[_FINISHED] = _mark(self._finished)


def _superseded_by(reader: Reader, at: bytes, kv: bytes, target: int) -> dict[bytes, None]:
    """Return all that may go because of the record *at*: its predecessor, and itself if a tombstone below *target*."""
    main, sub, tombstone = record_revision(at)
    key = key_of(kv)
    own = history_key(key, main, sub)
    doomed: dict[bytes, None] = {}
    before = next(reader.scan(history_prefix(key), own, reverse=True), None)
    if before is not None:
        history, mark = before
        if mark != TOMBSTONE:
            doomed[history] = doomed[record_key_of_history(history)] = None
        elif history_revision(history)[0] < target:
            doomed[history] = doomed[record_key_of_history(history) + TOMBSTONE] = None
    if tombstone and main < target:
        doomed[own] = doomed[at] = None
    return doomed


def _mark(revision: int) -> bytes:
    return record_key(revision, 0)[len(RECORDS) :]


def _read_mark(reader: Reader, key: bytes) -> int:
    mark = reader.get(key)
    return NEVER if mark is None else int.from_bytes(mark[:8], "big")
