"""Hashes by which members find out that they differ: of the keys at a revision (HashKV) and of everything (Hash).

Both are CRC-32C over the bytes of etcd's buckets, so that an etcd member at the same state has the same hash.  They
read a View, in any one thread; the generators stop at short intervals so that the caller can give up or do other work.
The CRC function is handed in: crc32c(crc so far, data) -> crc.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from core.mvcc.compaction import finished_revision
from core.mvcc.keyspace import (
    FROM_KEY,
    RECORDS,
    TOMBSTONE,
    Bucket,
    history_key,
    history_prefix,
    history_revision,
    record_revision,
    record_start,
    revision_suffix,
    unescape,
)
from core.mvcc.record import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from core.mvcc.view import View

    Crc32c = Callable[[int, bytes], int]

COMPACTION_HASHES_MAX = 10
_RECORDS_PER_STEP = 500
_KEY_BUCKET = "key"
_CHANGES_MAX = 100_000
"""How many changes are read, and kept in some ten MiB, so as not to look up each key: a quarter of a second."""
_NOT_HASHED = frozenset({b"consistent_index", b"term", b"storageVersion"})
"""Keys of bucket meta that differ between equal members."""


class HashKv(NamedTuple):
    """A hash of the keys, and the two revisions that it depends on: comparable only where both are equal."""

    hash: int
    revision: int
    compact_revision: int


class CompactionHashes:
    """The hashes of the last compactions, which members compare without having to be at the same revision."""

    def __init__(self) -> None:
        self._hashes: deque[HashKv] = deque(maxlen=COMPACTION_HASHES_MAX)

    def add(self, made: HashKv) -> None:
        """Remember *made*; forgets the oldest of more than ten."""
        self._hashes.append(made)

    def find(self, revision: int) -> HashKv | None:
        """Return the hash of the compaction at *revision*, which may have been compacted since."""
        return next((made for made in self._hashes if made.revision == revision), None)

    def newest_first(self) -> list[HashKv]:
        """Return all, as corruption checks go through them."""
        return sorted(self._hashes, key=lambda made: made.revision, reverse=True)


def hash_kv(view: View, revision: int, crc32c: Crc32c) -> HashKv:
    """Return the hash of the keys at *revision* (0 or less: the view's).  Raises Compacted or FutureRevision."""
    return finish_hash(hash_kv_steps(view, revision, crc32c))


def hash_kv_steps(view: View, revision: int, crc32c: Crc32c) -> Generator[None, None, HashKv]:
    """Do what hash_kv() does, stopping every few hundred records; the hash is the generator's return value."""
    at = view.revision if view.is_current(revision) else revision
    return _hash(view, HashKv(0, at, view.compact_revision), crc32c, also_kept=())


def hash_compaction_steps(view: View, at: int, previous: int, crc32c: Crc32c) -> Generator[None, None, HashKv]:
    """Hash what a compaction *at* leaves, as hash_kv_steps() does, with *previous* as compact revision.

    The view must have been made after Store.begin_compaction() and before the first compaction_step().
    """
    tombstones = (key for key in view.reader.scan_keys(record_start(at), record_start(at + 1)) if key.endswith(b"t"))
    return _hash(view, HashKv(0, at, previous), crc32c, also_kept=tombstones)


def hash_all(view: View, crc32c: Crc32c) -> int:
    """Return the hash of all buckets: each one's name, keys and values, in the order of their names."""
    buckets: dict[str, Iterator[tuple[bytes, bytes]]] = {_KEY_BUCKET: view.revisions()}
    for bucket in Bucket:
        skipped = _NOT_HASHED if bucket is Bucket.META else frozenset()
        buckets[bucket.bucket_name] = _without(view.bucket_items(bucket), skipped)
    crc = 0
    for name in sorted(buckets):
        crc = crc32c(crc, name.encode())
        for key, value in buckets[name]:
            crc = crc32c(crc, key + value)
    return crc


def _without(items: Iterator[tuple[bytes, bytes]], skipped: frozenset[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return (item for item in items if item[0] not in skipped)


def finish_hash(steps: Generator[None, None, HashKv]) -> HashKv:
    """Run *steps* to their end and return the hash."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            made: HashKv = stop.value
            return made


def _hash(view: View, made: HashKv, crc32c: Crc32c, also_kept: Iterable[bytes]) -> Generator[None, None, HashKv]:
    """Walk the stored revisions up to made.revision; the rule is etcd's for HashKV.

    Those at or below the compact revision count only if a compaction at made.revision would keep them, so that it does
    not matter how far the removal in the background has come.  If it would keep nothing, etcd counts all that are
    there, which after its removal are those that the last compaction kept.  A tombstone at the compact revision never
    counts.  *also_kept* is not empty where the compaction keeps more than live revisions.
    """
    crc = crc32c(0, _KEY_BUCKET.encode())
    parts: list[bytes] = []
    keeps_any = made.compact_revision < 0 or _keeps_any(view, made.revision, also_kept)
    kept_at = made.revision if keeps_any else made.compact_revision
    newest = view.reader.finder()
    below = revision_suffix(kept_at + 1)
    changed = _changed_since(view, made.compact_revision, kept_at)
    for at, kv in view.reader.scan(record_start(0), record_start(made.revision + 1)):
        main, sub, tombstone = record_revision(at)
        if main <= made.compact_revision:
            if tombstone:
                continue
            key = key_of(kv)
            if changed is not None:
                if key in changed:
                    continue
            elif newest(history := history_prefix(key), history + below) != (history_key(key, main, sub), b""):
                continue
            if keeps_any and _follows_tombstone(view, key, main, sub, made.revision):
                continue
        parts.append(at[len(RECORDS) :])
        parts.append(kv)
        if len(parts) >= 2 * _RECORDS_PER_STEP:
            crc = crc32c(crc, b"".join(parts))
            parts.clear()
            yield
    return made._replace(hash=crc32c(crc, b"".join(parts)))


def _changed_since(view: View, compact_revision: int, revision: int) -> set[bytes] | None:
    """Return the keys that were changed after *compact_revision* and not after *revision*.

    Where the removal up to there has ended, any put from before it is its key's newest, unless the key is one of these.
    None where it has not, or where they are too many.
    """
    if compact_revision < 0 or finished_revision(view.reader) < compact_revision:
        return None
    changes = view.reader.scan_values(record_start(compact_revision + 1), record_start(revision + 1))
    changed = {key_of(kv) for kv in islice(changes, _CHANGES_MAX)}
    return changed if next(changes, None) is None else None


def _keeps_any(view: View, revision: int, also_kept: Iterable[bytes]) -> bool:
    for at in view.versions_at(b"", FROM_KEY, revision):
        main, sub = history_revision(at)
        if not _follows_tombstone(view, unescape(at[1:-12]), main, sub, revision):
            return True
    return any(True for _ in also_kept)


def _follows_tombstone(view: View, key: bytes, main: int, sub: int, revision: int) -> bool:
    """Tell whether the put is the second change of *key* at *revision* itself, after a delete.

    To etcd the key's life that the delete ended is then the one that counts, and the put is not in it.
    """
    if main != revision or sub == 0:
        return False
    prefix = history_prefix(key)
    before = view.reader.finder()(prefix, history_key(key, main, sub))
    return before is not None and before[1] == TOMBSTONE and history_revision(before[0])[0] == main
