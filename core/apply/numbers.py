"""What the state machine counts of its work: changes, and how long the store takes for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.metrics import COMPACTION_BOUNDS_MS, PAUSE_BOUNDS_MS, SYNC_BOUNDS_S, Histogram, Sample
from core.mvcc.event import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from core.mvcc.event import Revised


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
            Sample("etcd_debugging_mvcc_db_compaction_last", self._compaction_last_s),
            Sample("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", self._pauses.distribution()),
            Sample(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", self._compaction_times.distribution()
            ),
        ]
