"""Everything that can be derived from the records: histories, live state, attachments to leases.

etcd's database has records only, so a store that was taken over from one gets the rest here.  The backend must hold no
other key of these spaces.  Two passes, and each writes its space as sorted as it can be: LevelDB then has little to
merge.  Spaces: core/mvcc/keyspace.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mvcc.keyspace import (
    CURRENT,
    HISTORY,
    RECORDS,
    REVISION_SIZE_BYTES,
    TOMBSTONE,
    after,
    attached_key,
    history_key,
    record_key_of_history,
    record_revision,
    record_start,
    unescape,
)
from core.mvcc.record import INLINE_SIZE_BYTES_MAX, POINTER_TAG, decode_kv, key_of, tagged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.mvcc.backend import Backend

BATCH_SIZE_BYTES = 1 << 20
"""Written at once: enough to make the cost of a batch vanish."""


def rebuild(backend: Backend) -> Iterator[tuple[str, int]]:
    """Write what the records in *backend* imply; yields now and then what the pass deals with and how many are done."""
    yield from _rebuild_histories(backend)
    yield from _rebuild_current(backend)


def _rebuild_histories(backend: Backend) -> Iterator[tuple[str, int]]:
    batch: list[tuple[bytes, bytes | None]] = []
    size_bytes = count = 0
    for at, kv in backend.scan(record_start(0), after(RECORDS)):
        main, sub, tombstone = record_revision(at)
        history = history_key(key_of(kv), main, sub)
        batch.append((history, TOMBSTONE if tombstone else b""))
        size_bytes += len(history)
        count += 1
        if size_bytes > BATCH_SIZE_BYTES:
            backend.write(batch)
            batch.clear()
            size_bytes = 0
            yield "history entries", count
    backend.write(batch)
    yield "history entries", count


def _rebuild_current(backend: Backend) -> Iterator[tuple[str, int]]:
    live: list[tuple[bytes, bytes | None]] = []
    attached: list[tuple[bytes, bytes | None]] = []
    size_bytes = count = 0
    for newest in _newest_puts(backend):
        at = record_key_of_history(newest)
        kv = backend.get(at)
        assert kv is not None, at
        key = unescape(newest[len(HISTORY) : -REVISION_SIZE_BYTES])
        record = tagged(kv) if len(kv) <= INLINE_SIZE_BYTES_MAX else POINTER_TAG + at
        live.append((CURRENT + key, record))
        lease = decode_kv(kv).lease if kv else 0
        if lease:
            attached.append((attached_key(lease, key), b""))
        size_bytes += len(key) + len(record)
        count += 1
        if size_bytes > BATCH_SIZE_BYTES:
            backend.write(live + attached)
            live.clear()
            attached.clear()
            size_bytes = 0
            yield "live keys", count
    backend.write(live + attached)
    yield "live keys", count


def _newest_puts(backend: Backend) -> Iterator[bytes]:
    """Return the last history key of each user key, unless it is a tombstone's."""
    newest = b""
    live = False
    for at, mark in backend.scan(HISTORY, after(HISTORY)):
        if live and at[:-REVISION_SIZE_BYTES] != newest[:-REVISION_SIZE_BYTES]:
            yield newest
        newest = at
        live = mark != TOMBSTONE
    if live:
        yield newest
