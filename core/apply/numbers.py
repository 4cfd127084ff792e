"""What the state machine counts of its work: changes, and how long the store takes for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from core.metrics import APPLY_BOUNDS_S, COMPACTION_BOUNDS_MS, PAUSE_BOUNDS_MS, SYNC_BOUNDS_S, Histogram, Sample
from core.mvcc.event import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.errors import EtcdError
    from core.mvcc.event import Revised
    from core.raft.messages import Entry
    from core.types import RequestId


OPERATIONS: Final = {
    b"\x1a": "Range",
    b"\x22": "Put",
    b"\x2a": "DeleteRange",
    b"\x32": "Txn",
    b"\x3a": "Compaction",
    b"\x42": "LeaseGrant",
    b"\x4a": "LeaseRevoke",
    b"\x52": "Alarm",
    b"\x5a": "LeaseCheckpoint",
}
"""Kinds of requests by how their entries begin, where this server has made them: with the request's field."""

OTHER: Final = "Other"
"""Administration of users and roles, versions, and whatever another server has put together."""


class ApplyNumbers:
    """Belongs to ApplyActor.  Times are monotonic seconds unless they say otherwise."""

    def __init__(self) -> None:
        self.slow_count = 0
        """Batches that took longer than they should."""
        self.commit_times = Histogram(SYNC_BOUNDS_S)
        self.compaction_began_s: float | None = None
        self._put_count = 0
        self._delete_count = 0
        self._txn_count = 0
        self._put_bytes = 0
        self._compaction_last_s = 0
        self._pauses = Histogram(PAUSE_BOUNDS_MS)
        self._compaction_times = Histogram(COMPACTION_BOUNDS_MS)
        self._apply_times: dict[tuple[str, str, str], Histogram] = {}

    def count(self, changes: Iterable[Revised]) -> None:
        """Count the changes of a batch."""
        puts = deletes = size_bytes = 0
        put = EventType.PUT
        for _, events in changes:
            if len(events) > 1:
                self._txn_count += 1
            for event in events:
                if event.type is put:
                    puts += 1
                    size_bytes += len(event.kv)
                else:
                    deletes += 1
        self._put_count += puts
        self._delete_count += deletes
        self._put_bytes += size_bytes

    def applied(
        self, entries: Sequence[Entry], outcomes: Sequence[tuple[RequestId, bytes | EtcdError]], took_s: float
    ) -> None:
        """Count a batch that was applied within *took_s*: each entry took its share.

        Entries are applied one by one too quickly to look at a clock in between.
        """
        share_s = took_s / len(entries)
        requests = [entry.data[:1] for entry in entries if entry.data]
        if not requests:
            return
        refused = []
        if len(outcomes) == len(requests):  # else some changed the members, or were applied before
            refused = [at for at, (_, outcome) in enumerate(outcomes) if type(outcome) is not bytes]
        if not refused and requests.count(requests[0]) == len(requests):  # as most batches are
            self._apply_times_of(requests[0], "true").observe(share_s, len(requests))
            return
        counts = Counter(requests)
        for kind, count in Counter([requests[at] for at in refused]).items():
            counts[kind] -= count
            self._apply_times_of(kind, "false").observe(share_s, count)
        for kind, count in counts.items():
            if count:
                self._apply_times_of(kind, "true").observe(share_s, count)

    def _apply_times_of(self, kind: bytes, success: str) -> Histogram:
        labels = ("v3", OPERATIONS.get(kind, OTHER), success)
        times = self._apply_times.get(labels)
        if times is None:
            times = self._apply_times[labels] = Histogram(APPLY_BOUNDS_S)
        return times

    def compaction_step(self, took_s: float, now_s: float, wall_s: float, *, finished: bool) -> None:
        """Count one step of the compaction that is under way."""
        assert self.compaction_began_s is not None, "no compaction has begun"
        self._pauses.observe(took_s * 1000.0)
        if finished:
            self._compaction_times.observe((now_s - self.compaction_began_s) * 1000.0)
            self._compaction_last_s = int(wall_s)
            self.compaction_began_s = None

    def samples(self) -> list[Sample]:
        """Return the counts so far."""
        return [
            Sample("etcd_mvcc_put_total", self._put_count),
            Sample("etcd_mvcc_delete_total", self._delete_count),
            Sample("etcd_mvcc_txn_total", self._txn_count),
            Sample("etcd_debugging_mvcc_total_put_size_in_bytes", self._put_bytes),
            Sample("etcd_server_slow_apply_total", self.slow_count),
            Sample("etcd_disk_backend_commit_duration_seconds", self.commit_times.distribution()),
            Sample("etcd_debugging_disk_backend_commit_write_duration_seconds", self.commit_times.distribution()),
            *(
                Sample("etcd_server_apply_duration_seconds", times.distribution(), labels)
                for labels, times in self._apply_times.items()
            ),
            Sample("etcd_debugging_mvcc_db_compaction_last", self._compaction_last_s),
            Sample("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", self._pauses.distribution()),
            Sample(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", self._compaction_times.distribution()
            ),
        ]
