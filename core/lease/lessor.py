"""When leases end: the primary lessor's timing.

Every member has one, told of each lease as it is granted and revoked; only on the leader, after `promote`, does time
pass for the leases.  It knows neither keys nor raft: what it says has expired is revoked by a proposal of its owner,
LeaseActor, and disappears from here when that revoke is applied.

Time is handed in as monotonic seconds.  Behaviour: section Lease of the etcd v3 API; a lease may live longer than its
TTL after a change of leader, never shorter.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

from core.errors import NotPrimaryLessor

if TYPE_CHECKING:
    from core.types import LeaseId

EXPIRIES_PER_S_MAX = 750
"""A promoted lessor lets no more than this many leases end within a second; etcd revokes at most 1000 a second."""

_STALE_ENTRIES_MAX = 1000
"""How far a heap may outgrow the leases before it is built anew."""


class Checkpoint(NamedTuple):
    """What is left of a lease's TTL, in whole seconds, to be told to every member."""

    lease_id: LeaseId
    remaining_s: int


class _Lease:
    """One lease's times.  `queued_s` and `checkpoint_queued_s` name its valid heap entries; other entries are stale."""

    __slots__ = ("checkpoint_due_s", "checkpoint_queued_s", "expiry_s", "queued_s", "remaining_s", "ttl_s")

    def __init__(self, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self.remaining_s = 0
        self.expiry_s = inf
        self.queued_s = inf
        self.checkpoint_due_s = inf
        self.checkpoint_queued_s = inf


class Lessor:
    """The clockwork of the leases.  Belongs to LeaseActor.

    Each heap holds one valid entry a lease, due no later than the lease is.  Postponing a lease, which is what every
    renewal does, leaves its entry alone; the entry is put off when it comes up.
    """

    def __init__(self, *, retry_s: float, in_flight_max: int, checkpoint_interval_s: float = inf) -> None:
        """Make a lessor that is not primary.

        A lease handed out by `expired` and still here after *retry_s* is handed out again; at most *in_flight_max* are
        out at a time.  *checkpoint_interval_s* is infinite where checkpoints are switched off.
        """
        self._retry_s = retry_s
        self._in_flight_max = in_flight_max
        self._checkpoint_interval_s = checkpoint_interval_s
        self._primary = False
        self._leases: dict[LeaseId, _Lease] = {}
        self._heap: list[tuple[float, LeaseId]] = []
        self._checkpoint_heap: list[tuple[float, LeaseId]] = []
        # When to try again; in insertion order, which is also the order of the times.
        self._in_flight: dict[LeaseId, float] = {}

    @property
    def primary(self) -> bool:
        """Whether time passes for the leases here."""
        return self._primary

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease_id: LeaseId) -> bool:
        return lease_id in self._leases

    def granted(self, lease_id: LeaseId, ttl_s: int, now_s: float) -> None:
        """Note a lease that was granted, or that was in the store when it was opened."""
        lease = self._leases[lease_id] = _Lease(ttl_s)
        if self._primary:
            lease.expiry_s = now_s + ttl_s
            self._queue(lease_id, lease)
            self._schedule_checkpoint(lease_id, lease, now_s)

    def revoked(self, lease_id: LeaseId) -> None:
        """Forget a lease; an unknown one changes nothing."""
        self._leases.pop(lease_id, None)
        self._in_flight.pop(lease_id, None)

    def checkpoint(self, lease_id: LeaseId, remaining_s: int) -> None:
        """Note a checkpoint that was applied: a later promote gives the lease only this much; 0 means its whole TTL."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.remaining_s = remaining_s

    def checkpointed(self, lease_id: LeaseId) -> bool:
        """Return whether a checkpoint of 0 must be applied before a renewal of this lease may be acknowledged.

        Without it the next leader would take up the remainder from before the renewal and end the lease early.
        """
        lease = self._leases.get(lease_id)
        return lease is not None and lease.remaining_s > 0

    def renew(self, lease_id: LeaseId, now_s: float) -> int | None:
        """Start the lease's TTL anew and return it; None if the lease is unknown or has expired.  NotPrimaryLessor."""
        if not self._primary:
            raise NotPrimaryLessor
        lease = self._leases.get(lease_id)
        if lease is None or lease.expiry_s <= now_s:
            return None
        lease.expiry_s = now_s + lease.ttl_s
        if lease.expiry_s < lease.queued_s:  # after a promote, which gives more than the TTL
            self._queue(lease_id, lease)
        if lease.checkpoint_due_s == inf:
            self._schedule_checkpoint(lease_id, lease, now_s)
        else:
            lease.checkpoint_due_s = now_s + self._checkpoint_interval_s
        return lease.ttl_s

    def remaining_s(self, lease_id: LeaseId, now_s: float) -> float | None:
        """Return the seconds left to the lease; None if it is unknown or has expired.  NotPrimaryLessor."""
        if not self._primary:
            raise NotPrimaryLessor
        lease = self._leases.get(lease_id)
        if lease is None or lease.expiry_s <= now_s:
            return None
        return lease.expiry_s - now_s

    def ttl_s(self, lease_id: LeaseId) -> int | None:
        """Return the granted TTL; None if the lease is unknown."""
        lease = self._leases.get(lease_id)
        return None if lease is None else lease.ttl_s

    def expired(self, now_s: float, limit: int) -> list[LeaseId]:
        """Return up to *limit* leases to revoke now, the one that expired first in front; none when not primary.

        Each counts as in flight until it is revoked or its time to try again has come.
        """
        self._requeue_unanswered(now_s)
        limit = min(limit, self._in_flight_max - len(self._in_flight))
        due: list[LeaseId] = []
        while self._heap and self._heap[0][0] <= now_s and len(due) < limit:
            queued_s, lease_id = heappop(self._heap)
            lease = self._leases.get(lease_id)
            if lease is None or lease.queued_s != queued_s:
                continue
            lease.queued_s = inf
            if lease.expiry_s > now_s:
                self._queue(lease_id, lease)
            else:
                due.append(lease_id)
                self._in_flight[lease_id] = now_s + self._retry_s
        return due

    def due_checkpoints(self, now_s: float, limit: int) -> list[Checkpoint]:
        """Return up to *limit* checkpoints to propose now.

        A lease longer than the interval gets one an interval, counted from its last renewal.
        """
        due: list[Checkpoint] = []
        while self._checkpoint_heap and self._checkpoint_heap[0][0] <= now_s and len(due) < limit:
            queued_s, lease_id = heappop(self._checkpoint_heap)
            lease = self._leases.get(lease_id)
            if lease is None or lease.checkpoint_queued_s != queued_s:
                continue
            if lease.checkpoint_due_s > now_s:
                self._queue_checkpoint(lease_id, lease)
            elif lease.expiry_s > now_s:
                remaining_s = ceil(lease.expiry_s - now_s)
                if remaining_s < lease.ttl_s:
                    due.append(Checkpoint(lease_id, remaining_s))
                    # It counts from now on: whoever renews before it is applied must clear it all the same.
                    lease.remaining_s = remaining_s
                self._schedule_checkpoint(lease_id, lease, now_s)
        return due

    def promote(self, now_s: float, extend_s: float) -> None:
        """Become primary: each lease ends its remainder or TTL from now, plus *extend_s*.

        The extension makes up for renewals that the former leader acknowledged without this member knowing.
        """
        self._primary = True
        self._in_flight.clear()
        starts = sorted((lease.remaining_s or lease.ttl_s, lease_id) for lease_id, lease in self._leases.items())
        ends: list[tuple[float, LeaseId]] = []
        for position, (length_s, lease_id) in enumerate(starts):
            expiry_s = now_s + extend_s + length_s
            if position >= EXPIRIES_PER_S_MAX:
                expiry_s = max(expiry_s, ends[position - EXPIRIES_PER_S_MAX][0] + 1)
            ends.append((expiry_s, lease_id))
            lease = self._leases[lease_id]
            lease.expiry_s = lease.queued_s = expiry_s
            lease.checkpoint_due_s = lease.checkpoint_queued_s = inf
        self._heap = ends  # ascending, hence a heap
        self._checkpoint_heap = []
        for lease_id, lease in self._leases.items():
            self._schedule_checkpoint(lease_id, lease, now_s)

    def demote(self) -> None:
        """Stop being primary: no lease expires here any more."""
        self._primary = False
        self._in_flight.clear()
        self._heap = []
        self._checkpoint_heap = []
        for lease in self._leases.values():
            lease.expiry_s = lease.queued_s = inf
            lease.checkpoint_due_s = lease.checkpoint_queued_s = inf

    def expiries(self) -> list[tuple[float, LeaseId]]:
        """List when each lease expires, in no order: sorting a hundred thousand is nothing for this thread."""
        return [(lease.expiry_s, lease_id) for lease_id, lease in self._leases.items()]

    def _requeue_unanswered(self, now_s: float) -> None:
        while self._in_flight:
            lease_id, retry_s = next(iter(self._in_flight.items()))
            if retry_s > now_s:
                return
            del self._in_flight[lease_id]
            self._queue(lease_id, self._leases[lease_id])

    def _queue(self, lease_id: LeaseId, lease: _Lease) -> None:
        lease.queued_s = lease.expiry_s
        heappush(self._heap, (lease.expiry_s, lease_id))
        if len(self._heap) > 2 * len(self._leases) + _STALE_ENTRIES_MAX:
            self._heap = [(lease.queued_s, id_) for id_, lease in self._leases.items() if lease.queued_s != inf]
            heapify(self._heap)

    def _schedule_checkpoint(self, lease_id: LeaseId, lease: _Lease, now_s: float) -> None:
        if lease.expiry_s - now_s > self._checkpoint_interval_s:
            lease.checkpoint_due_s = now_s + self._checkpoint_interval_s
            self._queue_checkpoint(lease_id, lease)
        else:
            lease.checkpoint_due_s = lease.checkpoint_queued_s = inf

    def _queue_checkpoint(self, lease_id: LeaseId, lease: _Lease) -> None:
        lease.checkpoint_queued_s = lease.checkpoint_due_s
        heappush(self._checkpoint_heap, (lease.checkpoint_due_s, lease_id))
        if len(self._checkpoint_heap) > 2 * len(self._leases) + _STALE_ENTRIES_MAX:
            leases = self._leases.items()
            self._checkpoint_heap = [
                (it.checkpoint_queued_s, id_) for id_, it in leases if it.checkpoint_queued_s != inf
            ]
            heapify(self._checkpoint_heap)
