"""The multi-version store: applied state, revision counter, and what one raft entry does to them.

Store belongs to one thread.  Changes are staged and reach the backend in one batch per flush(), together with the
index of the last entry whose effect they are, so that a crash leaves the state after some entry and never half of one.
Opening reads a handful of records whatever the size.  It must not know requests or answers (core/apply does), nor
leases beyond whom to tell which key is attached.  Layout: docs/internals/mvcc.md.  Revisions: an empty store is at
revision 1, each transaction that changes a key adds one, its changes have sub revisions from 0.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from core.mvcc.compaction import Compaction
from core.mvcc.keyspace import CURRENT, RECORDS, Bucket, after, record_revision, record_start
from core.mvcc.ranks import Ranks
from core.mvcc.staging import Staging
from core.mvcc.view import View
from core.mvcc.write import WriteTransaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from core.mvcc.backend import Backend

EMPTY_REVISION: Final = 1
_APPLIED_INDEX: Final = Bucket.META.prefix + b"consistent_index"
_APPLIED_TERM: Final = Bucket.META.prefix + b"term"


def never() -> bool:
    """Say that there is time enough."""
    return False


class LeaseAttachments(Protocol):
    """Who keeps which live keys hang on which lease."""

    def attach(self, lease_id: int, key: bytes, /) -> None:
        """Note that *key* now has this lease."""

    def detach(self, lease_id: int, key: bytes, /) -> None:
        """Note that *key* no longer has this lease."""


class NoLeases:
    """For transactions whose keys' leases nobody follows."""

    def attach(self, lease_id: int, key: bytes, /) -> None:
        """Do nothing."""

    def detach(self, lease_id: int, key: bytes, /) -> None:
        """Do nothing."""


_NO_LEASES: Final = NoLeases()


class Store:
    """The applied state.  Make it with open()."""

    def __init__(self, backend: Backend, revision: int, applied_index: int, applied_term: int) -> None:
        """For open(), which reads these."""
        self.backend = backend
        self.staging = Staging(backend)
        self.ranks = Ranks()
        self.compaction = Compaction(self.staging)
        self.revision = max(revision, self.compaction.revision, EMPTY_REVISION)
        self.applied_index = applied_index
        self.applied_term = applied_term
        self._flushed_index = applied_index

    @classmethod
    def open(cls, backend: Backend) -> Store:
        """Return the store that *backend* holds; one without any record is empty."""
        newest = next(backend.scan_keys(record_start(0), after(RECORDS), reverse=True), None)
        return cls(
            backend,
            revision=0 if newest is None else record_revision(newest)[0],
            applied_index=int.from_bytes(backend.get(_APPLIED_INDEX) or b""),
            applied_term=int.from_bytes(backend.get(_APPLIED_TERM) or b""),
        )

    @property
    def compact_revision(self) -> int:
        """Reads below it are refused; -1 before the first compaction."""
        return self.compaction.revision

    @property
    def staged_count(self) -> int:
        """How many records the next flush() writes; scans inside a transaction get slower with it."""
        return len(self.staging)

    def transaction(self, leases: LeaseAttachments = _NO_LEASES) -> WriteTransaction:
        """Return a transaction for one entry; call its end() before anything else is done to the store."""
        return WriteTransaction(self, leases)

    def advance(self, index: int, term: int) -> None:
        """Note that all staged changes are the effect of entries up to *index*."""
        assert index > self.applied_index, (index, self.applied_index)
        self.applied_index = index
        self.applied_term = term

    def flush(self, *, sync: bool = False) -> None:
        """Write all that was staged, and the applied index, as one batch; with *sync*, durably."""
        if self.applied_index == self._flushed_index and not self.staging and not sync:
            return
        others = self.staging.others
        others[_APPLIED_INDEX] = self.applied_index.to_bytes(8, "big")
        others[_APPLIED_TERM] = self.applied_term.to_bytes(8, "big")
        self.staging.write(sync=sync)
        self._flushed_index = self.applied_index

    def view(self) -> View:
        """Return a view of the flushed state, for any thread; all must have been flushed."""
        assert not self.staging, len(self.staging)
        return View(
            self.backend.snapshot(), self.revision, self.compact_revision, self.applied_index, self.applied_term
        )

    def live_view(self) -> View:
        """Return a view of the state with what is staged; only for this thread and until the next change."""
        return View(self.staging, self.revision, self.compact_revision, self.applied_index, self.applied_term)

    def count(self, key: bytes, range_end: bytes) -> int:
        """Return the number of live keys in [key, range_end) now: by rank, by walking while ranks are being built."""
        if self.ranks.frontier is None:
            return self.ranks.count(key, range_end)
        return self.live_view().count(key, range_end)

    def counter_for(self, view: View) -> Callable[[bytes, bytes], int] | None:
        """Return count if it says of live keys what *view* would, else None.  Valid until the next change."""
        if self.ranks.frontier is None and view.revision == self.revision:
            return self.ranks.count
        return None

    def build_ranks_step(self, limit: int) -> bool:
        """Read up to *limit* more keys into the count index; True when it is complete."""
        frontier = self.ranks.frontier
        if frontier is None:
            return True
        keys = [key[1:] for key in islice(self.staging.scan_keys(CURRENT + frontier, after(CURRENT)), limit)]
        self.ranks.extend(keys, last=len(keys) < limit)
        return self.ranks.frontier is None

    def begin_compaction(self, revision: int) -> None:
        """Compact at *revision*: reads below it fail from now on, removal is left to compaction_step().

        Raises Compacted or FutureRevision, and then changes nothing.
        """
        self.compaction.begin(revision, self.revision)

    def compaction_step(self, limit: int, spent: Callable[[], bool] = never) -> bool:
        """Remove at most *limit* superseded revisions; True when nothing is left.  Call it between flushes.

        It ends early soon after *spent* says that its time is up.
        """
        return self.compaction.step(limit, spent)

    def bucket_get(self, bucket: Bucket, key: bytes) -> bytes | None:
        """Return what *bucket* holds under *key*, or None."""
        return self.staging.get(bucket.prefix + key)

    def bucket_put(self, bucket: Bucket, key: bytes, value: bytes) -> None:
        """Set *key* in *bucket*."""
        self.staging.others[bucket.prefix + key] = value

    def bucket_delete(self, bucket: Bucket, key: bytes) -> None:
        """Remove *key* from *bucket*, if it is there."""
        self.staging.others[bucket.prefix + key] = None

    def bucket_items(self, bucket: Bucket) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values of *bucket* in order."""
        return self.live_view().bucket_items(bucket)

    def attached_keys(self) -> Iterator[tuple[int, bytes]]:
        """Return (lease id, key) of every live key that has a lease: what a lease book starts from."""
        return self.live_view().attached()
