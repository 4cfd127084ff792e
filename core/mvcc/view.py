"""Reading the store at one moment: live and historic ranges, history for watchers, buckets.

A View made by Store.view() is immutable and may be read by any one thread at a time, however long that takes.  The
same class over staged changes is what a write transaction reads.  Ranges return records (core/mvcc/record.py) as they
stand in an answer, so that nothing is taken apart that need not be.

What walks a store is a generator function, never a generator expression: compiled, that would be a list of it all.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from core.errors import Compacted, FutureRevision
from core.mvcc.event import Event, EventType, Revised
from core.mvcc.keyspace import (
    CURRENT,
    FROM_KEY,
    HISTORY,
    RECORDS,
    REVISION_SIZE_BYTES,
    TOMBSTONE,
    after,
    attached_parts,
    bounds,
    history_bounds,
    history_prefix,
    record_key_of_history,
    record_revision,
    record_start,
    revision_suffix,
)
from core.mvcc.record import RECORD_TAG, decode_kv, encode_deleted, key_of, mod_revision_of, tagged, untagged
from core.mvcc.varint import varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.mvcc.backend import Reader
    from core.mvcc.keyspace import Bucket


HISTORY_SIZE_BYTES_MAX = 8 << 20
"""What one read of history takes into memory, but for a single revision that is larger."""


class View:
    """The store at *revision*, as of *applied_index*."""

    __slots__ = ("applied_index", "applied_term", "compact_revision", "reader", "revision")

    def __init__(
        self, reader: Reader, revision: int, compact_revision: int, applied_index: int, applied_term: int
    ) -> None:
        self.reader = reader
        self.revision = revision
        self.compact_revision = compact_revision
        self.applied_index = applied_index
        self.applied_term = applied_term

    def is_current(self, revision: int) -> bool:
        """Tell whether a read at *revision* (0 or less: the newest) reads the live state.

        Raises FutureRevision or Compacted where it cannot be read at all.
        """
        if revision <= 0 or revision == self.revision:
            return True
        if revision > self.revision:
            raise FutureRevision
        if revision < self.compact_revision:
            raise Compacted
        return False

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        """Return the KeyValue of *key* in wire form, or None."""
        current = self.is_current(revision)
        record = self.reader.get(CURRENT + key)
        if record is not None:
            kv = untagged(record) if record[0] == RECORD_TAG else self._follow(record)
            if current or mod_revision_of(kv) <= revision:
                return kv
        return None if current else self._get_at(key, revision)

    def range(self, key: bytes, range_end: bytes, revision: int = 0, limit: int = 0) -> list[bytes]:
        """Return the records of [key, range_end) in key order, at most *limit* unless that is 0."""
        if not self.is_current(revision):
            found = self.versions_at(key, range_end, revision)
            reader = self.reader
            return [tagged(_stored(reader, at)) for at in (islice(found, limit) if limit > 0 else found)]
        if not range_end:
            record = self.reader.get(CURRENT + key)
            records = [] if record is None else [record]
        else:
            values = self.reader.scan_values(*bounds(CURRENT, key, range_end))
            records = list(islice(values, limit) if limit > 0 else values)
        return self.resolved(records)

    def walk(self, key: bytes, range_end: bytes, revision: int = 0) -> Iterator[bytes]:
        """Return the records of [key, range_end) one by one, for whoever stops by their size."""
        if not self.is_current(revision):
            return self._records_of(self.versions_at(key, range_end, revision))
        if not range_end:
            return iter(self.range(key, b""))
        return self._followed(self.reader.scan_values(*bounds(CURRENT, key, range_end)))

    def resolved(self, records: list[bytes]) -> list[bytes]:
        """Return *records* with each pointer replaced by what it points to."""
        return [record if record[0] == RECORD_TAG else tagged(self._follow(record)) for record in records]

    def count(self, key: bytes, range_end: bytes, revision: int = 0) -> int:
        """Return how many keys range() without a limit would return, by walking them."""
        if not self.is_current(revision):
            return sum(1 for _ in self.versions_at(key, range_end, revision))
        return sum(1 for _ in self.reader.scan_keys(*bounds(CURRENT, key, range_end)))

    def history(
        self,
        start_revision: int,
        revisions_max: int,
        *,
        prev_kv: bool = False,
        size_bytes_max: int = HISTORY_SIZE_BYTES_MAX,
    ) -> list[Revised]:
        """Return all changes from *start_revision* on, oldest first, by whole revisions.

        At most *revisions_max* revisions, and no further one once KeyValues come to more than *size_bytes_max*.  Raises
        Compacted.  Events have prev_kv only when asked for: the KeyValue at mod_revision - 1, None for a create and
        where that revision is compacted.
        """
        if start_revision < self.compact_revision:
            raise Compacted
        history: list[Revised] = []
        events: list[Event] = []
        last = 0
        size_bytes = 0
        for at, kv in self.reader.scan(record_start(max(start_revision, 0)), after(RECORDS)):
            if not kv:  # etcd's tools mark a raised revision so: it is nobody's change
                continue
            main, _, tombstone = record_revision(at)
            if main != last:
                if len(history) == revisions_max or size_bytes > size_bytes_max:
                    break
                events = []
                history.append(Revised(main, events))
                last = main
            event = self._event(kv, main, tombstone=tombstone, prev_kv=prev_kv)
            events.append(event)
            size_bytes += len(kv) + len(event.prev_kv or b"")
        return history

    def revisions(self, start_revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Return what etcd's bucket "key" holds from *start_revision* on: its very keys and values, in order."""
        return _unprefixed(self.reader.scan(record_start(start_revision), after(RECORDS)))

    def bucket_get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return what *bucket* holds under *key*, or None."""
        return self.reader.get(bucket.prefix + key)

    def bucket_items(self, bucket: Bucket) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values of *bucket* in order."""
        prefix = bucket.prefix
        return _unprefixed(self.reader.scan(prefix, after(prefix)))

    def attached(self) -> Iterator[tuple[int, bytes]]:
        """Return (lease id, key) of every live key that has a lease."""
        return map(attached_parts, self.reader.scan_keys(b"a", b"b"))

    def versions_at(self, key: bytes, range_end: bytes, revision: int) -> Iterator[bytes]:
        """Return the history keys of the versions that were live at *revision*, in key order of their keys."""
        start, stop = history_bounds(key, range_end)
        below = revision_suffix(revision + 1)
        newest = b""
        live = False
        escaped = HISTORY
        for at, mark in self.reader.scan(start, stop):
            if at[:-REVISION_SIZE_BYTES] != escaped:
                if live:
                    yield newest
                escaped = at[:-REVISION_SIZE_BYTES]
                live = False
            if at[-REVISION_SIZE_BYTES:] < below:
                newest = at
                live = mark != TOMBSTONE
        if live:
            yield newest

    def last_change(self, key: bytes, revision: int) -> tuple[int, int, bool] | None:
        """Return main, sub and whether a tombstone, of the newest stored change of *key* at or below *revision*."""
        found = self._newest(history_prefix(key), revision + 1)
        if found is None:
            return None
        at, mark = found
        return *record_revision(record_key_of_history(at))[:2], mark == TOMBSTONE

    def _records_of(self, versions: Iterator[bytes]) -> Iterator[bytes]:
        reader = self.reader
        for at in versions:
            yield tagged(_stored(reader, at))

    def _followed(self, records: Iterator[bytes]) -> Iterator[bytes]:
        for record in records:
            yield record if record[0] == RECORD_TAG else tagged(self._follow(record))

    def _event(self, kv: bytes, main: int, *, tombstone: bool, prev_kv: bool) -> Event:
        key = key_of(kv)
        before = None
        if prev_kv and main - 1 >= self.compact_revision and (tombstone or not _is_create(kv, main)):
            before = self._get_at(key, main - 1)
        if tombstone:
            return Event(EventType.DELETE, key, encode_deleted(key, varint(main)), before)
        return Event(EventType.PUT, key, kv, before)

    def _get_at(self, key: bytes, revision: int) -> bytes | None:
        found = self._newest(history_prefix(key), revision + 1)
        if found is None or found[1] == TOMBSTONE:
            return None
        return _stored(self.reader, found[0])

    def _newest(self, prefix: bytes, below: int) -> tuple[bytes, bytes] | None:
        """Return the history entry under *prefix* of the highest revision with main below *below*."""
        return self.reader.finder()(prefix, prefix + revision_suffix(below))

    def _follow(self, pointer: bytes) -> bytes:
        kv = self.reader.get(pointer[1:])
        assert kv is not None, pointer
        return kv


def covers(key: bytes, range_end: bytes, tested: bytes) -> bool:
    """Tell whether *tested* lies in [key, range_end), with the special meanings of range_end."""
    if not range_end:
        return tested == key
    return tested >= key and (range_end == FROM_KEY or tested < range_end)


def _unprefixed(items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in items:
        yield key[1:], value


def _stored(reader: Reader, history_key: bytes) -> bytes:
    kv = reader.get(record_key_of_history(history_key))
    assert kv is not None, history_key
    return kv


def _is_create(kv: bytes, main: int) -> bool:
    return decode_kv(kv).create_revision == main
