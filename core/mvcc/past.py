"""A range as it was a little while ago: the live state, and over it what has been changed since.

Clients that read a long list page by page ask for the revision of the first page.  Walking all histories of the range
for each page would cost far more than looking at the few keys that have changed meanwhile.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from core.mvcc.keyspace import CURRENT, RECORDS, after, bounds, record_key, record_start
from core.mvcc.record import POINTER_TAG, key_of
from core.mvcc.staging import overlaid
from core.mvcc.view import covers

if TYPE_CHECKING:
    from core.mvcc.view import View

KEYS_PER_CHANGE = 2
"""Looking at a change costs about as much as walking the history of so many keys."""


class RecentPast:
    """[key, range_end) at an old revision of *view*, of which *changed* are the keys changed since."""

    def __init__(self, view: View, key: bytes, range_end: bytes, revision: int, changed: list[bytes]) -> None:
        self._view = view
        self._bounds = bounds(CURRENT, key, range_end)
        self._before = [(CURRENT + name, _record_at(view, name, revision)) for name in changed]

    def range(self, limit: int) -> list[bytes]:
        """Return the records in key order, at most *limit* unless that is 0."""
        live = self._view.reader.scan(*self._bounds)
        records = (record for _, record in overlaid(live, self._before, reverse=False))
        return self._view.resolved(list(islice(records, limit) if limit > 0 else records))

    def count(self, live_count: int) -> int:
        """Return how many keys there were, of which *live_count* are there now."""
        reader = self._view.reader
        there_before = sum(1 for _, record in self._before if record is not None)
        there_now = sum(1 for at, _ in self._before if reader.get(at) is not None)
        return live_count + there_before - there_now


def recent_past(view: View, key: bytes, range_end: bytes, revision: int, live_count: int) -> RecentPast | None:
    """Return the range at *revision*, or None where walking its histories costs less than looking at what changed.

    *live_count* is how many keys the range holds now.
    """
    changes_max = live_count // KEYS_PER_CHANGE
    if view.revision - revision > changes_max:
        return None
    changes = view.reader.scan_values(record_start(revision + 1), after(RECORDS))
    names = [key_of(kv) for kv in islice(changes, changes_max + 1)]
    if len(names) > changes_max:
        return None
    changed = sorted({name for name in names if covers(key, range_end, name)})
    return RecentPast(view, key, range_end, revision, changed)


def _record_at(view: View, key: bytes, revision: int) -> bytes | None:
    """Return the record that *key* had, as a pointer: most are not asked for."""
    change = view.last_change(key, revision)
    if change is None:
        return None
    main, sub, tombstone = change
    return None if tombstone else POINTER_TAG + record_key(main, sub)
