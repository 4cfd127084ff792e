"""One write transaction: the changes of one entry, which share a main revision.

This is the hottest code of the store: a put makes one read and stages three records (four with a lease).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.mvcc.event import Event, EventType, Revised
from core.mvcc.keyspace import CURRENT, TOMBSTONE, attached_key, history_key, record_key
from core.mvcc.record import (
    INLINE_SIZE_BYTES_MAX,
    POINTER_TAG,
    RECORD_TAG,
    encode_deleted,
    encode_key_only,
    encode_kv,
    key_of,
    mod_revision_of,
    succession,
    tagged,
    untagged,
)
from core.mvcc.varint import varint
from core.mvcc.view import View
from core.tuples import make_tuple

if TYPE_CHECKING:
    from core.mvcc.store import LeaseAttachments, Store


_PUT = EventType.PUT


class WriteTransaction:
    """Changes at revision + 1.  Reads see the changes made so far."""

    __slots__ = (
        "_current",
        "_encoded_main",
        "_events",
        "_history",
        "_leases",
        "_main",
        "_others",
        "_staging",
        "_store",
    )

    def __init__(self, store: Store, leases: LeaseAttachments) -> None:
        self._store = store
        self._leases = leases
        staging = store.staging
        self._staging = staging
        self._current = staging.current
        self._history = staging.history
        self._others = staging.others
        self._main = store.revision + 1
        self._encoded_main = varint(self._main)
        self._events: list[Event] = []

    @property
    def revision(self) -> int:
        """The revision that a read sees now: one higher once a key was changed."""
        return self._main if self._events else self._main - 1

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused."""
        return self._store.compact_revision

    @property
    def write_revision(self) -> int:
        """The revision that changes get."""
        return self._main

    def view(self) -> View:
        """Return the state with the changes so far; only until the next change."""
        store = self._store
        return View(self._staging, self.revision, store.compact_revision, store.applied_index, store.applied_term)

    def count(self, key: bytes, range_end: bytes) -> int:
        """Return the number of live keys in [key, range_end), with the changes so far."""
        return self._store.count(key, range_end)

    def get(self, key: bytes) -> bytes | None:
        """Return the live KeyValue of *key* in wire form, or None."""
        record = self._staging.get_current(CURRENT + key)
        if record is None:
            return None
        if record[0] == RECORD_TAG:
            return untagged(record)
        kv = self._staging.get(record[1:])
        assert kv is not None, record
        return kv

    def range(self, key: bytes, range_end: bytes, revision: int = 0, limit: int = 0) -> list[bytes]:
        """Return records as View.range() does, with the changes so far."""
        return self.view().range(key, range_end, revision, limit)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> bytes | None:
        """Set *key*; return the KeyValue that it replaces, or None.  A lease of 0 detaches the key from its lease."""
        before = self.get(key)
        if before is None:
            create_revision = self._encoded_main
            version = 1
            old_lease = 0
            self._store.ranks.created(key)
        else:
            create_revision, version, old_lease = succession(before, key)
            version += 1
        kv = encode_kv(key, create_revision, self._encoded_main, version, value, lease)
        main = self._main
        events = self._events
        sub = len(events)
        at = record_key(main, sub)
        history = self._history
        history[at] = kv
        history[history_key(key, main, sub)] = b""
        self._current[CURRENT + key] = tagged(kv) if len(kv) <= INLINE_SIZE_BYTES_MAX else POINTER_TAG + at
        if lease != old_lease:
            self._move(key, old_lease, lease)
        prev_kv = self._before_main(key, before) if events and before is not None else before
        events.append(make_tuple(Event, (_PUT, key, kv, prev_kv)))
        return before

    def delete_range(self, key: bytes, range_end: bytes) -> list[tuple[bytes, bytes]]:
        """Delete the keys of [key, range_end); return key and replaced KeyValue of each, in key order."""
        if not range_end:
            before = self.get(key)
            deleted = [] if before is None else [(key, before)]
        else:
            deleted = []
            count = self.count(key, range_end)  # what was deleted before, behind the last one, is not walked through
            for record in self.range(key, range_end, 0, count) if count else []:
                before = untagged(record)
                deleted.append((key_of(before), before))
        for doomed, before in deleted:
            self._delete(doomed, before)
        return deleted

    def end(self) -> Revised | None:
        """Finish: move the store's revision on if something changed, and return what did."""
        if not self._events:
            return None
        self._store.revision = self._main
        return make_tuple(Revised, (self._main, self._events))

    def _delete(self, key: bytes, before: bytes) -> None:
        main = self._main
        sub = len(self._events)
        self._history[record_key(main, sub) + TOMBSTONE] = encode_key_only(key)
        self._history[history_key(key, main, sub)] = TOMBSTONE
        self._current[CURRENT + key] = None
        self._store.ranks.deleted(key)
        _, _, lease = succession(before, key)
        if lease:
            self._move(key, lease, 0)
        kv = encode_deleted(key, self._encoded_main)
        prev_kv = self._before_main(key, before) if self._events else before
        self._events.append(Event(EventType.DELETE, key, kv, prev_kv))

    def _move(self, key: bytes, old_lease: int, lease: int) -> None:
        if old_lease:
            self._others[attached_key(old_lease, key)] = None
            self._leases.detach(old_lease, key)
        if lease:
            self._others[attached_key(lease, key)] = b""
            self._leases.attach(lease, key)

    def _before_main(self, key: bytes, before: bytes) -> bytes | None:
        """Return the key's KeyValue before this transaction, of which *before* may be a change already."""
        events = self._events
        if mod_revision_of(before) != self._main:
            return before
        return next(event.prev_kv for event in events if event.key == key)
