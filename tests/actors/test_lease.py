"""LeaseActor: renewals, what has expired, and whose word counts."""

from __future__ import annotations

from math import inf

import pytest

from actors.caught_up import ASK_AGAIN_S
from actors.lease import EXPIRY_CHECK_S, REVOKES_PER_CHECK_MAX, LeaseActor
from actors.messages.apply import Inspect, ObserveAuth, ObserveLeases, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.lease import AppliedIs, Checkpointed, Granted, ListLeases, Promote, Renew, Revoked, TimeToLive
from actors.messages.raft import ObserveRole, Propose, ReadIndex, RoleIs
from actors.messages.serve import Answered, Completed, ReadIndexed, Refused, Renewed
from core.errors import NotPrimaryLessor, ProposalDropped
from core.lease.lessor import Lessor
from core.request_id import RequestIds, owner_of
from core.types import Index, LeaseId, MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from services.node import LeaseTimes
from tests.actors.home import TestHome
from tests.fakes import Told

MEMBER = MemberId(1)
EXTEND_S = 1.0
RETRY_S = 7.0
A, B = LeaseId(5), LeaseId(6)


class Leases:
    """A LeaseActor among addresses that keep what it says."""

    def __init__(self, *, checkpoint_s: float = inf, fast_renewals: bool = True) -> None:
        self.home = TestHome()
        self.raft = Told()
        self.apply = Told()
        self.asker = Told()
        self.actor = self.home.spawn(
            LeaseActor,
            lessor=Lessor(retry_s=RETRY_S, in_flight_max=500, checkpoint_interval_s=checkpoint_s),
            clock=self.home.clock,
            extend_s=EXTEND_S,
            apply=self.apply,
            raft=self.raft,
            request_ids=RequestIds(MEMBER, 0, 1),
            logger=self.home.logger,
            fast_renewals=fast_renewals,
        )

    def checkpoints(self) -> list[list[tuple[int, int]]]:
        """Return what was proposed to be checkpointed since the last call: leases and seconds, by entry."""
        entries = []
        for propose in self.raft.of(Propose):
            assert propose.led_term == Term(2), "held for another leader, it would shorten what that one has renewed"
            for _, data in propose.proposals:
                told = InternalRaftRequest.FromString(data).lease_checkpoint.checkpoints
                entries.append([(each.ID, each.remaining_TTL) for each in told])
        self.raft.take()
        return entries

    def lead(self, *leases: tuple[LeaseId, int]) -> None:
        """Make this member the primary, with these leases."""
        self.home.tell(self.actor, Granted(leases), role(is_leader=True), Promote(Term(2)))

    def catch_up(self, applied: int = 7, index: int = 7) -> None:
        """Let this member learn that up to *index* is committed, and that it has applied so far."""
        for read in self.raft.of(ReadIndex)[-1:]:
            self.home.tell(self.actor, ReadIndexed(read.context, Index(index)))
        self.home.tell(self.actor, AppliedIs(Index(applied)))

    def pass_time(self, by_s: float) -> None:
        self.home.clock.now_s += by_s
        self.home.tell(self.actor, Tick(self.home.clock.now_s))

    def renew(self, *asks: tuple[int, LeaseId]) -> None:
        self.home.tell(self.actor, Renew(asks, self.asker))

    def renewed(self) -> list[tuple[int, object]]:
        """Return all answers to renewals so far, errors as their classes."""
        answers = [answer for message in self.asker.of(Renewed) for answer in message.answers]
        return [(token, type(ttl) if isinstance(ttl, Exception) else ttl) for token, ttl in answers]

    def revoked(self) -> list[int]:
        """Return the leases whose revocation was proposed, in order."""
        return [
            InternalRaftRequest.FromString(data).lease_revoke.ID
            for message in self.raft.of(Propose)
            for _, data in message.proposals
        ]


def role(*, is_leader: bool, term: int = 2) -> RoleIs:
    return RoleIs(Term(term), MEMBER if is_leader else MemberId(9), is_leader)


@pytest.fixture
def leases() -> Leases:
    return Leases()


def test_it_asks_to_be_told(leases: Leases) -> None:
    """Leases that were there before the start come as an answer to this."""
    assert [type(message) for message in leases.apply.messages] == [ObserveOutcomes, ObserveLeases, ObserveAuth]
    assert [type(message) for message in leases.raft.messages] == [ObserveRole]


def test_a_renewal_starts_the_time_to_live_anew(leases: Leases) -> None:
    """A client that keeps its lease alive keeps it."""
    leases.lead((A, 10))
    leases.pass_time(10.5)
    leases.renew((1, A))
    leases.pass_time(9)
    assert leases.renewed() == [(1, 10)]
    assert leases.revoked() == []


def test_an_unknown_lease_has_no_time(leases: Leases) -> None:
    """0 is how a client learns that its lease is gone."""
    leases.lead()
    leases.renew((1, A))
    leases.catch_up()
    assert leases.renewed() == [(1, 0)]


def test_a_lease_whose_grant_is_not_applied_yet_is_not_gone(leases: Leases) -> None:
    """A leader with a slow disk applies later than those who have acknowledged the grant to its client."""
    leases.lead()
    leases.renew((1, A))
    leases.catch_up(applied=6)
    assert leases.renewed() == []
    leases.home.tell(leases.actor, Granted([(A, 10)]))
    leases.catch_up(applied=7)
    assert leases.renewed() == [(1, 10)]


def test_questions_that_come_during_a_round_wait_for_the_next(leases: Leases) -> None:
    """An index found for one question may lie before what was committed when another was asked."""
    leases.lead()
    leases.renew((1, A))
    leases.renew((2, B))
    leases.catch_up()
    assert leases.renewed() == [(1, 0)]
    leases.catch_up()
    assert leases.renewed() == [(1, 0), (2, 0)]


def test_what_got_lost_on_the_way_is_asked_again(leases: Leases) -> None:
    """A round may be lost with a message, and what is applied moves on."""
    leases.lead()
    leases.renew((1, A))
    leases.pass_time(ASK_AGAIN_S + 0.1)
    assert [read.context for read in leases.raft.of(ReadIndex)] == [1, 1]
    leases.catch_up(applied=6)
    asked = len(leases.apply.of(Inspect))
    leases.pass_time(0.1)
    assert len(leases.apply.of(Inspect)) == asked + 1


def test_a_member_that_leads_no_more_does_not_say_that_a_lease_is_gone(leases: Leases) -> None:
    """Another member leads by now and may have granted it."""
    leases.lead()
    leases.renew((1, A))
    leases.home.tell(leases.actor, role(is_leader=False, term=3))
    leases.catch_up()
    assert leases.renewed() == [(1, NotPrimaryLessor)]


def test_answers_keep_the_order_of_asking(leases: Leases) -> None:
    """Each of a stream's answers belongs to the request at its place."""
    leases.lead((A, 10), (B, 20))
    leases.renew((1, B), (2, A), (3, LeaseId(99)))
    leases.catch_up()
    assert leases.renewed() == [(1, 20), (2, 10), (3, 0)]


def test_only_the_primary_renews(leases: Leases) -> None:
    """Another member does not know until when the lease really runs."""
    leases.home.tell(leases.actor, Granted([(A, 10)]))
    leases.renew((1, A))
    assert leases.renewed() == [(1, NotPrimaryLessor)]


def test_what_has_expired_is_proposed_to_be_revoked(leases: Leases) -> None:
    """The end of a lease is an entry, so that its keys go at one revision on every member."""
    leases.lead((A, 10), (B, 100))
    leases.pass_time(10 + EXTEND_S)
    assert leases.revoked() == [A]
    [(request_id, data)] = leases.raft.last(Propose).proposals
    assert leases.raft.last(Propose).led_term == Term(2), "held for another leader it would end what that one renewed"
    assert request_id == InternalRaftRequest.FromString(data).header.ID
    assert owner_of(request_id, MEMBER) == 0


def test_expiry_is_looked_for_twice_a_second(leases: Leases) -> None:
    """Not at every tick: the look costs, and a lease lives in seconds."""
    leases.lead((A, 10))
    leases.pass_time(10 + EXTEND_S - 0.1)
    leases.pass_time(0.2)
    assert leases.revoked() == []
    leases.pass_time(EXPIRY_CHECK_S)
    assert leases.revoked() == [A]


def test_many_are_revoked_in_portions(leases: Leases) -> None:
    """A thousand leases that end together must not hold up the log."""
    leases.lead(*((LeaseId(lease), 10) for lease in range(1, REVOKES_PER_CHECK_MAX + 100)))
    leases.pass_time(12)
    assert len(leases.revoked()) == REVOKES_PER_CHECK_MAX


@pytest.mark.parametrize("end", ["nothing", "refused", "failed"])
def test_a_revoke_that_got_lost_is_tried_again(leases: Leases, end: str) -> None:
    """Whatever becomes of a proposal, in the end the lease is gone."""
    leases.lead((A, 10))
    leases.pass_time(12)
    [(request_id, _)] = leases.raft.last(Propose).proposals
    if end == "refused":
        leases.home.tell(leases.actor, Refused([request_id], ProposalDropped()))
    elif end == "failed":
        leases.home.tell(leases.actor, Completed([(request_id, ProposalDropped())]))
    leases.pass_time(RETRY_S - 0.1)
    assert leases.revoked() == [A]
    leases.pass_time(EXPIRY_CHECK_S)
    assert leases.revoked() == [A, A]


def test_a_late_renewal_waits_for_the_revoke(leases: Leases) -> None:
    """Until the revoke is applied the lease's keys are there, so nobody may be told that it is gone."""
    leases.lead((A, 10), (B, 100))
    leases.pass_time(12)
    leases.renew((1, A), (2, B))
    assert leases.renewed() == [(2, 100)]
    leases.home.tell(leases.actor, Revoked([A]))
    assert leases.renewed() == [(2, 100), (1, 0)]


def test_a_late_renewal_is_turned_away_when_another_leads(leases: Leases) -> None:
    """The next leader may let the lease live on, so the asker must ask there."""
    leases.lead((A, 10))
    leases.pass_time(12)
    leases.renew((1, A))
    leases.home.tell(leases.actor, role(is_leader=False, term=3))
    assert leases.renewed() == [(1, NotPrimaryLessor)]
    leases.home.tell(leases.actor, Revoked([A]))
    assert leases.renewed() == [(1, NotPrimaryLessor)]


def test_a_follower_that_applies_the_leaders_first_entry_stays_one(leases: Leases) -> None:
    """Every member applies that entry; two primaries would end leases that one of them has just renewed."""
    leases.home.tell(leases.actor, Granted([(A, 10)]), role(is_leader=False), Promote(Term(2)))
    leases.pass_time(100)
    leases.renew((1, A))
    assert leases.revoked() == []
    assert leases.renewed() == [(1, NotPrimaryLessor)]


def test_a_new_primary_gives_every_lease_its_whole_time_and_some(leases: Leases) -> None:
    """It cannot know which renewals its predecessor granted last."""
    leases.home.tell(leases.actor, Granted([(A, 10)]))
    leases.pass_time(100)
    leases.home.tell(leases.actor, role(is_leader=True), Promote(Term(2)))
    leases.pass_time(10 + EXTEND_S - 0.1)
    assert leases.revoked() == []
    leases.pass_time(1)
    assert leases.revoked() == [A]


def test_the_first_entry_of_an_older_term_makes_no_primary(leases: Leases) -> None:
    """After a restart the entries of former leaderships are applied again."""
    leases.home.tell(leases.actor, Granted([(A, 10)]), role(is_leader=True, term=3), Promote(Term(2)))
    leases.pass_time(100)
    assert leases.revoked() == []


@pytest.mark.parametrize("role_first", [True, False])
def test_role_and_first_entry_may_come_in_either_order(leases: Leases, *, role_first: bool) -> None:
    """They come from two actors."""
    both = [role(is_leader=True), Promote(Term(2))]
    leases.home.tell(leases.actor, Granted([(A, 10)]), *(both if role_first else reversed(both)))
    leases.renew((1, A))
    assert leases.renewed() == [(1, 10)]


def test_a_checkpoint_shortens_what_a_new_primary_gives(leases: Leases) -> None:
    """That is what checkpoints are for: a change of leader must not renew leases for ever."""
    leases.home.tell(leases.actor, Granted([(A, 100)]), Checkpointed([(A, 5)]), role(is_leader=True), Promote(Term(2)))
    leases.pass_time(5 + EXTEND_S)
    assert leases.revoked() == [A]


def test_remaining_time_is_told_in_whole_seconds(leases: Leases) -> None:
    """As etcd does, rounded down."""
    leases.lead((A, 10))
    leases.home.clock.now_s += 0.5
    leases.home.tell(leases.actor, TimeToLive(1, A, leases.asker), TimeToLive(2, B, leases.asker))
    leases.catch_up()
    assert leases.asker.of(Answered) == [Answered(1, LeaseTimes(10, 10)), Answered(2, LeaseTimes(None, 0))]


def test_remaining_time_is_the_primarys_to_tell(leases: Leases) -> None:
    """Elsewhere no time passes for the lease."""
    leases.home.tell(leases.actor, Granted([(A, 10)]), TimeToLive(1, A, leases.asker))
    assert isinstance(leases.asker.last(Answered).outcome, NotPrimaryLessor)


def test_leases_are_listed_with_when_they_end(leases: Leases) -> None:
    """As the time of the primary goes."""
    leases.lead((A, 20), (B, 10))
    leases.home.tell(leases.actor, ListLeases(1, leases.asker))
    token, expiries = leases.asker.last(Answered)
    assert isinstance(expiries, list)
    assert (token, [lease for _, lease in sorted(expiries)]) == (1, [B, A])


# What is left of long leases.

LONG_S = 1000
INTERVAL_S = 300.0


def long_lived(leases: tuple[tuple[LeaseId, int], ...] = ((A, LONG_S), (B, 10))) -> Leases:
    """A primary with a long lease and a short one, one interval after it began to lead."""
    made = Leases(checkpoint_s=INTERVAL_S)
    made.lead(*leases)
    made.raft.take()
    made.pass_time(INTERVAL_S)
    return made


def test_what_is_left_of_a_long_lease_is_told_to_all_once_an_interval() -> None:
    """A change of leaders would otherwise give it its whole time again, each time; a short lease is not worth it."""
    made = long_lived(((A, LONG_S), (B, 301)))
    assert made.checkpoints() == [[(A, 701), (B, 2)]]
    made.home.tell(made.actor, Checkpointed([(A, 701), (B, 2)]))
    made.pass_time(INTERVAL_S)
    assert [entry for entry in made.checkpoints() if entry != []] == [[(A, 401)]]


def test_many_checkpoints_share_entries() -> None:
    """A thousand in one, as in etcd: a cluster of many leases must not drown in them."""
    made = long_lived(tuple((LeaseId(number), LONG_S) for number in range(1, 2501)))
    assert [len(entry) for entry in made.checkpoints()] == [1000, 1000, 500]


def test_a_renewal_of_a_checkpointed_lease_waits_until_that_is_cleared() -> None:
    """The next leader would take up what was left before the renewal, and end the lease before its client expects."""
    made = long_lived()
    made.checkpoints()
    made.home.tell(made.actor, Checkpointed([(A, 701)]))
    made.renew((1, A), (2, A))
    assert made.checkpoints() == [[(A, 0)]]
    assert made.renewed() == []
    made.home.tell(made.actor, Checkpointed([(A, 0)]))
    assert made.renewed() == [(1, LONG_S), (2, LONG_S)]
    made.renew((3, A))
    assert made.renewed()[2:] == [(3, LONG_S)]


def test_a_checkpoint_that_is_still_on_its_way_is_cleared_too() -> None:
    """It would be applied after the renewal was acknowledged."""
    made = long_lived()
    made.checkpoints()
    made.renew((1, A))
    assert made.checkpoints() == [[(A, 0)]]
    made.home.tell(made.actor, Checkpointed([(A, 701)]))
    assert made.renewed() == []
    made.home.tell(made.actor, Checkpointed([(A, 0)]))
    assert made.renewed() == [(1, LONG_S)]


@pytest.mark.parametrize("how", ["refused", "demoted", "revoked"])
def test_a_renewal_that_cannot_be_cleared_is_not_acknowledged(how: str) -> None:
    """The client asks again, elsewhere if need be, and never hears of time that nobody gives it."""
    made = long_lived()
    made.raft.take()
    made.renew((1, A))
    [propose] = made.raft.of(Propose)
    if how == "refused":
        made.home.tell(made.actor, Refused([propose.proposals[0][0]], ProposalDropped()))
    elif how == "demoted":
        made.home.tell(made.actor, role(is_leader=False))
    else:
        made.home.tell(made.actor, Revoked([A]))
    assert made.renewed() == [(1, 0 if how == "revoked" else NotPrimaryLessor)]
    if how == "refused":
        made.raft.take()
        made.renew((2, A))
        assert made.checkpoints() == [[(A, 0)]]


def test_without_fast_renewals_all_that_is_committed_is_applied_first() -> None:
    """The gate FastLeaseKeepAlive, switched off."""
    made = Leases(fast_renewals=False)
    made.lead((A, 10))
    made.renew((1, A))
    assert made.renewed() == []
    made.catch_up()
    assert made.renewed() == [(1, 10)]
