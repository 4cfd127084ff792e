"""Lessor: when leases end, and what a change of leader does to them."""

from __future__ import annotations

from collections import Counter

import pytest

from core.errors import NotPrimaryLessor
from core.lease.lessor import EXPIRIES_PER_S_MAX, Checkpoint, Lessor
from core.types import LeaseId

A, B, C = LeaseId(1), LeaseId(2), LeaseId(3)


def primary(*leases: tuple[LeaseId, int], in_flight_max: int = 100, checkpoint_interval_s: float = 300) -> Lessor:
    lessor = Lessor(retry_s=7, in_flight_max=in_flight_max, checkpoint_interval_s=checkpoint_interval_s)
    lessor.promote(now_s=0, extend_s=1)
    for lease_id, ttl_s in leases:
        lessor.granted(lease_id, ttl_s, now_s=0)
    return lessor


def test_leases_expire_in_order_and_not_early() -> None:
    """A lease lives its whole TTL; the one that ended first is revoked first."""
    lessor = primary((A, 30), (B, 10), (C, 20))
    assert lessor.expired(9.9, 10) == []
    assert lessor.expired(25, 10) == [B, C]
    assert lessor.expired(30, 10) == [A]


def test_a_limit_leaves_the_later_ones_for_the_next_pass() -> None:
    """A mass expiry is worked off in bounded steps, losing none."""
    lessor = primary((A, 3), (B, 1), (C, 2))
    assert lessor.expired(10, 2) == [B, C]
    assert lessor.expired(10, 2) == [A]


def test_renewal_starts_the_ttl_anew() -> None:
    """The answer is the granted TTL, and the end moves to a full TTL from now."""
    lessor = primary((A, 10))
    assert lessor.renew(A, 8) == 10
    assert lessor.expired(17, 10) == []
    assert lessor.remaining_s(A, 17) == 1
    assert lessor.expired(18, 10) == [A]


def test_an_expired_lease_cannot_be_renewed() -> None:
    """Its revoke may be on the way already: bringing it back would acknowledge a lease that is about to go."""
    lessor = primary((A, 10))
    assert lessor.renew(A, 10) is None
    assert lessor.remaining_s(A, 10) is None
    assert A in lessor
    assert lessor.expired(10, 10) == [A]
    assert lessor.renew(A, 11) is None


def test_an_unknown_lease_has_no_time() -> None:
    """Keep-alive and time-to-live answer from None."""
    lessor = primary()
    assert lessor.renew(A, 0) is None
    assert lessor.remaining_s(A, 0) is None
    assert lessor.ttl_s(A) is None
    assert A not in lessor


def test_a_revoke_ends_all_of_it() -> None:
    """A lease revoked by a client does not expire any more, and its id may be granted again."""
    lessor = primary((A, 10))
    lessor.revoked(A)
    lessor.revoked(B)
    assert lessor.expired(100, 10) == []
    lessor.granted(A, 50, 5)
    assert lessor.expired(54, 10) == []
    assert lessor.expired(55, 10) == [A]
    assert lessor.expired(55, 10) == []


def test_an_unanswered_revoke_is_tried_again() -> None:
    """A proposal may be lost with a leader; until then the lease is not handed out twice."""
    lessor = primary((A, 10))
    assert lessor.expired(10, 10) == [A]
    assert lessor.expired(16.9, 10) == []
    assert lessor.expired(17, 10) == [A]
    lessor.revoked(A)
    assert lessor.expired(100, 10) == []


def test_in_flight_revokes_are_bounded() -> None:
    """A mass expiry must not flood the log; a revoke that was applied makes room for the next."""
    lessor = primary((A, 1), (B, 2), (C, 3), in_flight_max=2)
    assert lessor.expired(10, 10) == [A, B]
    assert lessor.expired(10, 10) == []
    lessor.revoked(A)
    assert lessor.expired(10, 10) == [C]
    assert lessor.expired(17, 10) == [B, C], "lost revokes make room for themselves"


def test_a_follower_expires_nothing() -> None:
    """Only the leader may end a lease; others would do it by a clock of their own."""
    lessor = Lessor(retry_s=7, in_flight_max=16)
    lessor.granted(A, 1, 0)
    assert not lessor.primary
    assert lessor.expired(1_000_000, 10) == []
    with pytest.raises(NotPrimaryLessor):
        lessor.renew(A, 0)
    with pytest.raises(NotPrimaryLessor):
        lessor.remaining_s(A, 0)
    assert lessor.ttl_s(A) == 1


def test_promotion_extends_every_lease() -> None:
    """Renewals that the former leader acknowledged are unknown here, so each lease gets its whole TTL and more."""
    lessor = Lessor(retry_s=7, in_flight_max=16)
    lessor.granted(A, 10, 0)
    lessor.promote(now_s=100, extend_s=1)
    assert lessor.expired(110.9, 10) == []
    assert lessor.expired(111, 10) == [A]


def test_promotion_takes_up_a_checkpoint() -> None:
    """A long lease does not start over at each change of leader."""
    lessor = Lessor(retry_s=7, in_flight_max=16)
    lessor.granted(A, 3600, 0)
    lessor.granted(B, 3600, 0)
    lessor.checkpoint(A, 50)
    lessor.checkpoint(B, 50)
    lessor.checkpoint(B, 0)
    lessor.checkpoint(C, 50)
    lessor.promote(now_s=100, extend_s=1)
    assert lessor.expired(151, 10) == [A]
    assert lessor.remaining_s(B, 151) == 3550


def test_renewal_after_promotion_may_bring_the_end_nearer() -> None:
    """The extension is given once; a renewal counts from itself."""
    lessor = Lessor(retry_s=7, in_flight_max=16)
    lessor.granted(A, 10, 0)
    lessor.promote(now_s=0, extend_s=5)
    assert lessor.renew(A, 1) == 10
    assert lessor.expired(11, 10) == [A]
    assert lessor.expired(15, 10) == []


def test_demotion_stops_the_clock() -> None:
    """A deposed leader forgets what was in flight; the new one decides."""
    lessor = primary((A, 10), (B, 10))
    assert lessor.expired(10, 1) == [A]
    lessor.demote()
    assert lessor.expired(100, 10) == []
    lessor.promote(now_s=200, extend_s=1)
    assert lessor.expired(211, 10) == [A, B]


def test_promotion_spreads_a_mass_expiry() -> None:
    """Ten thousand leases that end together after a failover would drown the log in revokes."""
    lessor = Lessor(retry_s=7, in_flight_max=100_000)
    for number in range(1, 3001):
        lessor.granted(LeaseId(number), 10, 0)
    lessor.granted(LeaseId(5000), 100, 0)
    lessor.promote(now_s=0, extend_s=1)
    ends: Counter[int] = Counter()
    for second in range(11, 16):
        ends[second] = len(lessor.expired(second, 10_000))
    assert ends == {
        11: EXPIRIES_PER_S_MAX,
        12: EXPIRIES_PER_S_MAX,
        13: EXPIRIES_PER_S_MAX,
        14: EXPIRIES_PER_S_MAX,
        15: 0,
    }
    assert lessor.remaining_s(LeaseId(5000), 15) == 86


def test_a_list_says_when_each_lease_ends() -> None:
    """LeaseLeases shows what ends next at the top."""
    lessor = primary((A, 30), (B, 10), (C, 20))
    lessor.renew(B, 9)
    assert sorted(lessor.expiries()) == [(19, B), (20, C), (30, A)]
    lessor.renew(B, 11)
    assert sorted(lessor.expiries()) == [(20, C), (21, B), (30, A)]


def test_checkpoints_are_due_for_long_leases_once_an_interval() -> None:
    """Short leases are not worth a log entry; long ones tell what is left of them, in whole seconds rounded up."""
    lessor = primary((A, 3600), (B, 300))
    assert lessor.due_checkpoints(299, 10) == []
    assert lessor.due_checkpoints(300.5, 10) == [Checkpoint(A, 3300)]
    assert lessor.due_checkpoints(301, 10) == []
    assert lessor.due_checkpoints(600.5, 10) == [Checkpoint(A, 3000)]


def test_checkpoints_wait_for_leases_that_are_renewed() -> None:
    """A lease kept alive needs no checkpoint, and without one its renewals need no log entry."""
    lessor = primary((A, 3600))
    lessor.renew(A, 200)
    assert lessor.due_checkpoints(300, 10) == []
    assert lessor.due_checkpoints(500, 10) == [Checkpoint(A, 3300)]


def test_checkpoints_are_bounded_and_skip_the_gone() -> None:
    """One proposal carries a bounded batch; revoked and expired leases are left out."""
    lessor = primary((A, 1000), (B, 1000), (C, 1000))
    lessor.revoked(A)
    assert lessor.due_checkpoints(300, 1) == [Checkpoint(B, 700)]
    assert lessor.due_checkpoints(300, 1) == [Checkpoint(C, 700)]
    assert lessor.due_checkpoints(5000, 10) == []


def test_a_checkpointed_lease_says_so_until_cleared() -> None:
    """Its renewal may be acknowledged only after a checkpoint of 0, or the next leader would end it early."""
    lessor = primary((A, 3600))
    assert not lessor.checkpointed(A)
    assert not lessor.checkpointed(B)
    lessor.checkpoint(A, 3300)
    assert lessor.checkpointed(A)
    lessor.checkpoint(A, 0)
    assert not lessor.checkpointed(A)


def test_a_renewal_past_a_short_remainder_brings_checkpoints_back() -> None:
    """A lease promoted with little left has no checkpoint due; renewed to its whole TTL it has one again."""
    lessor = Lessor(retry_s=7, in_flight_max=16, checkpoint_interval_s=300)
    lessor.granted(A, 3600, 0)
    lessor.checkpoint(A, 50)
    lessor.promote(now_s=0, extend_s=1)
    assert lessor.due_checkpoints(40, 10) == []
    lessor.checkpoint(A, 0)
    assert lessor.renew(A, 40) == 3600
    assert lessor.due_checkpoints(340, 10) == [Checkpoint(A, 3300)]


def test_heaps_stay_near_the_number_of_leases() -> None:
    """Granting and revoking for ever must not grow memory by what is long gone."""
    lessor = primary(checkpoint_interval_s=300)
    for number in range(1, 10_000):
        lessor.granted(LeaseId(number), 1_000_000, 0)
        lessor.revoked(LeaseId(number))
    lessor.granted(A, 5, 0)
    assert len(lessor._heap) <= 1010
    assert len(lessor._checkpoint_heap) <= 1010
    assert lessor.expired(5, 10) == [A]
