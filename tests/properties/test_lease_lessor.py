"""Lessor against a model that looks at every lease every time."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.lease.lessor import Lessor
from core.types import LeaseId

RETRY_S = 7
IDS = st.integers(1, 6).map(LeaseId)


class LessorMachine(RuleBasedStateMachine):
    """Grants, renewals, revokes, time and changes of leader in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lessor = Lessor(retry_s=RETRY_S, in_flight_max=3)
        self.now_s = 0.0
        self.primary = False
        self.ttl_s: dict[LeaseId, int] = {}
        self.remaining_s: dict[LeaseId, int] = {}
        self.expiry_s: dict[LeaseId, float] = {}
        self.retry_s: dict[LeaseId, float] = {}

    @rule(lease_id=IDS, ttl_s=st.integers(1, 20))
    def grant(self, lease_id: LeaseId, ttl_s: int) -> None:
        if lease_id in self.ttl_s:
            return
        self.lessor.granted(lease_id, ttl_s, self.now_s)
        self.ttl_s[lease_id] = ttl_s
        self.expiry_s[lease_id] = self.now_s + ttl_s

    @rule(lease_id=IDS)
    def revoke(self, lease_id: LeaseId) -> None:
        self.lessor.revoked(lease_id)
        for table in (self.ttl_s, self.remaining_s, self.expiry_s, self.retry_s):
            table.pop(lease_id, None)

    @rule(lease_id=IDS, remaining_s=st.integers(0, 20))
    def checkpoint(self, lease_id: LeaseId, remaining_s: int) -> None:
        self.lessor.checkpoint(lease_id, remaining_s)
        if lease_id in self.ttl_s:
            self.remaining_s[lease_id] = remaining_s

    @rule(lease_id=IDS)
    def renew(self, lease_id: LeaseId) -> None:
        if not self.primary:
            return
        alive = lease_id in self.ttl_s and self.expiry_s[lease_id] > self.now_s
        assert self.lessor.renew(lease_id, self.now_s) == (self.ttl_s[lease_id] if alive else None)
        if alive:
            self.expiry_s[lease_id] = self.now_s + self.ttl_s[lease_id]

    @rule(seconds=st.integers(0, 10))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(extend_s=st.integers(0, 5))
    def promote(self, extend_s: int) -> None:
        self.lessor.promote(self.now_s, extend_s)
        self.primary = True
        self.retry_s.clear()
        for lease_id, ttl_s in self.ttl_s.items():
            self.expiry_s[lease_id] = self.now_s + extend_s + (self.remaining_s.get(lease_id) or ttl_s)

    @rule()
    def demote(self) -> None:
        self.lessor.demote()
        self.primary = False
        self.retry_s.clear()

    @rule(limit=st.integers(0, 6))
    def expire(self, limit: int) -> None:
        in_flight = {lease_id for lease_id, retry_s in self.retry_s.items() if retry_s > self.now_s}
        due = sorted(
            (expiry_s, lease_id)
            for lease_id, expiry_s in self.expiry_s.items()
            if self.primary and expiry_s <= self.now_s and lease_id not in in_flight
        )
        expected = [lease_id for _, lease_id in due][: max(0, min(limit, 3 - len(in_flight)))]
        assert self.lessor.expired(self.now_s, limit) == expected
        self.retry_s = {lease_id: retry_s for lease_id, retry_s in self.retry_s.items() if lease_id in in_flight}
        self.retry_s.update(dict.fromkeys(expected, self.now_s + RETRY_S))

    @invariant()
    def same_leases(self) -> None:
        ids = [lease_id for _, lease_id in sorted(self.lessor.expiries())]
        assert sorted(ids) == sorted(self.ttl_s)
        if self.primary:
            assert ids == sorted(ids, key=lambda lease_id: (self.expiry_s[lease_id], lease_id))


TestLessor = LessorMachine.TestCase
