"""MembershipActor: changes are checked, proposed once, asked of the leader where it must judge, and answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from actors.address import Delivery
from actors.membership import MembershipActor
from actors.messages.apply import Inspect
from actors.messages.common import ActivityIs, ClusterIs, Tick
from actors.messages.membership import ChangeMembers, MoveLeader, PromoteMember, StepDown
from actors.messages.peer_transport import AskMember, MemberAnswer
from actors.messages.raft import AdvanceElection, InspectRaft, Propose, ProposeConfChange, RoleIs, TransferLeader
from actors.messages.serve import Answered, Completed, Refused
from core.errors import (
    BadLeaderTransferee,
    EtcdError,
    LearnerNotReady,
    MemberNotFound,
    NotLeader,
    ProposalDropped,
    RequestTimeout,
    TimeoutLeaderTransfer,
    UnhealthyCluster,
)
from core.membership.change import adding, removing
from core.membership.cluster import Cluster
from core.membership.downgrade import Downgrade
from core.membership.member import Member
from core.request_id import RequestIds
from core.types import MemberId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from tests.actors.home import TestHome
from tests.fakes import Told
from wal.codec import decode_conf_change

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K")

LOCAL, SECOND, LEARNER = MemberId(1), MemberId(2), MemberId(3)
TIMEOUT_S = 7.0
MEMBERS = (
    Member(LOCAL, ("http://a:1",), name="a"),
    Member(SECOND, ("http://b:1",), name="b"),
    Member(LEARNER, ("http://c:1",), name="c", is_learner=True),
)
LEADS = RoleIs(Term(2), LOCAL, is_leader=True)
FOLLOWS = RoleIs(Term(2), SECOND, is_leader=False)


class FakeApplier:
    """The part of an applier that questions look at."""

    def __init__(self) -> None:
        self.cluster = Cluster(MEMBERS)

    def encoded_members(self) -> list[bytes]:
        """Return something that stands for the members."""
        return [b"members"]


DOWNGRADE_CHECK_S = 2.0


class FakeNode:
    """The part of a raft core that questions look at; the learner has so much of ten entries."""

    def __init__(self, learner_match: int) -> None:
        match = type("Progress", (), {"match": learner_match})()
        self.progress: Mapping[MemberId, Any] = {LEARNER: match}
        self.conf_state = type("ConfState", (), {"learners": (LEARNER,)})()
        self.log = type("Log", (), {"last": 10})()


class Kept(Told):
    """An address whose messages are taken kind by kind."""

    def pick(self, kind: type[K]) -> list[K]:
        """Remove and return the messages of one kind."""
        picked = self.of(kind)
        self.messages[:] = [message for message in self.messages if type(message) is not kind]
        return picked


class Membership:
    """A MembershipActor among addresses that keep what it says."""

    def __init__(self, role: RoleIs = LEADS, learner_match: int = 10) -> None:
        self.home = TestHome()
        self.apply, self.raft, self.peers, self.asker = Kept(), Kept(), Kept(), Kept()
        self.node: Any = FakeNode(learner_match)
        self.applier: Any = FakeApplier()
        self.seen = 0
        self.actor = self.home.spawn(
            MembershipActor,
            local=LOCAL,
            strict=True,
            request_ids=RequestIds(LOCAL, 2, 1),
            timeout_s=TIMEOUT_S,
            ticks_ahead=8,
            downgrade_check_s=DOWNGRADE_CHECK_S,
            clock=self.home.clock,
            apply=self.apply,
            raft=self.raft,
            peers=self.peers,
            logger=self.home.logger,
        )
        self.tell(role, ClusterIs(MEMBERS, (), "3.5.0"), ActivityIs({SECOND: 0.0, LEARNER: 0.0}))

    def tell(self, *messages: object) -> None:
        """Tell the actor, and have its questions answered."""
        self.home.tell(self.actor, *messages)
        while len(self.apply.of(Inspect)) + len(self.raft.of(InspectRaft)):
            inspections, asked = self.apply.pick(Inspect), self.raft.pick(InspectRaft)
            for inspection in inspections:
                inspection.question(self.applier)
            for question in asked:
                question.question(self.node)
            self.home.run()

    def pass_time(self, by_s: float) -> None:
        """Let time pass, with a tick at its end."""
        self.home.clock.now_s += by_s
        self.tell(Tick(self.home.clock.now_s))

    def proposals(self) -> list[ProposeConfChange]:
        """Return the changes proposed since the last look."""
        return self.raft.pick(ProposeConfChange)

    def outcomes(self) -> list[object]:
        """Return what the asker was told since the last look."""
        return [answered.outcome for answered in self.asker.pick(Answered)]


def test_a_change_is_proposed_and_answered_when_it_is_applied() -> None:
    """Until then nobody may believe that the member is gone."""
    membership = Membership()
    membership.tell(ChangeMembers(1, removing(LEARNER), membership.asker))
    [proposed] = membership.proposals()
    assert decode_conf_change(proposed.data).node_id == LEARNER
    assert membership.outcomes() == []
    membership.tell(Completed([(proposed.request_id, b"header")]))
    assert membership.outcomes() == [[b"members"]]


def test_what_does_not_fit_is_refused_before_it_is_proposed() -> None:
    """The log is not troubled with it."""
    membership = Membership()
    membership.tell(ChangeMembers(1, removing(MemberId(99)), membership.asker))
    assert [type(outcome) for outcome in membership.outcomes()] == [MemberNotFound]
    assert membership.proposals() == []


def test_a_change_that_would_endanger_the_quorum_is_refused() -> None:
    """A connection that has just come may go again: it does not count for five seconds."""
    membership = Membership()
    fourth = adding(Member(MemberId(4), ("http://d:1",)))
    membership.tell(ActivityIs({SECOND: membership.home.clock.now_s}), ChangeMembers(1, fourth, membership.asker))
    assert [type(outcome) for outcome in membership.outcomes()] == [UnhealthyCluster]


def test_a_dropped_proposal_is_tried_again_until_its_time_is_over() -> None:
    """Nobody may lead for a moment, or another change be under way: both pass."""
    membership = Membership()
    membership.tell(ChangeMembers(1, removing(LEARNER), membership.asker))
    [first] = membership.proposals()
    membership.tell(Refused((first.request_id,), ProposalDropped()))
    membership.pass_time(0.1)
    assert [again.request_id for again in membership.proposals()] == [first.request_id]
    membership.pass_time(TIMEOUT_S)
    assert [type(outcome) for outcome in membership.outcomes()] == [RequestTimeout]


def test_a_dropped_proposal_that_no_longer_fits_is_refused() -> None:
    """The change that was in its way may have done the same: it must not be proposed unchecked."""
    membership = Membership()
    membership.tell(ChangeMembers(1, removing(LEARNER), membership.asker))
    [first] = membership.proposals()
    membership.tell(Refused((first.request_id,), ProposalDropped()))
    membership.applier.cluster.apply(removing(LEARNER))
    membership.pass_time(0.1)
    assert membership.proposals() == []
    assert [type(outcome) for outcome in membership.outcomes()] == [MemberNotFound]


def test_the_leader_promotes_a_learner_that_is_in_step() -> None:
    """It will be needed for a quorum at once."""
    membership = Membership(learner_match=9)
    membership.tell(PromoteMember(1, LEARNER, membership.asker))
    assert len(membership.proposals()) == 1


def test_the_leader_does_not_promote_a_learner_that_lags() -> None:
    """Else the cluster might stand still until it has caught up."""
    membership = Membership(learner_match=8)
    membership.tell(PromoteMember(1, LEARNER, membership.asker))
    assert [type(outcome) for outcome in membership.outcomes()] == [LearnerNotReady]
    assert membership.proposals() == []


def test_a_follower_asks_the_leader_to_promote() -> None:
    """Only the leader knows how far the learner is; its members are the answer."""
    membership = Membership(FOLLOWS)
    membership.tell(PromoteMember(1, LEARNER, membership.asker))
    [asked] = membership.peers.pick(AskMember)
    assert (asked.member, asked.method, asked.path) == (SECOND, "POST", "/members/promote/3")
    body = json.dumps([member.fields() for member in MEMBERS]).encode()
    membership.tell(Answered(asked.token, MemberAnswer(200, body)))
    [members] = membership.outcomes()
    assert isinstance(members, list)
    assert len(members) == len(MEMBERS)


def test_a_follower_tries_another_time_when_the_leader_does_not_answer() -> None:
    """It may have changed meanwhile."""
    membership = Membership(FOLLOWS)
    membership.tell(PromoteMember(1, LEARNER, membership.asker))
    [asked] = membership.peers.pick(AskMember)
    membership.tell(Answered(asked.token, None))
    membership.pass_time(0.1)
    assert len(membership.peers.pick(AskMember)) == 1


def test_a_promotion_is_not_passed_on_twice() -> None:
    """Two members that take each other for the leader would ask each other for ever."""
    membership = Membership(FOLLOWS)
    membership.tell(PromoteMember(1, LEARNER, membership.asker, may_forward=False))
    assert [type(outcome) for outcome in membership.outcomes()] == [NotLeader]


@pytest.mark.parametrize(("role", "to", "error"), [(FOLLOWS, SECOND, NotLeader), (LEADS, LEARNER, BadLeaderTransferee)])
def test_leadership_that_cannot_be_moved(role: RoleIs, to: MemberId, error: type[EtcdError]) -> None:
    """Only the leader can hand over, and only to a voter."""
    membership = Membership(role)
    membership.tell(MoveLeader(1, to, membership.asker))
    assert [type(outcome) for outcome in membership.outcomes()] == [error]
    assert membership.raft.pick(TransferLeader) == []


def test_a_move_is_over_when_the_other_leads() -> None:
    """The asker may count on it."""
    membership = Membership()
    membership.tell(MoveLeader(1, SECOND, membership.asker))
    assert [asked.to for asked in membership.raft.pick(TransferLeader)] == [SECOND]
    assert membership.outcomes() == []
    membership.tell(RoleIs(Term(3), SECOND, is_leader=False))
    assert membership.outcomes() == [None]


def test_a_move_that_takes_too_long() -> None:
    """Raft has given it up long before."""
    membership = Membership()
    membership.tell(MoveLeader(1, SECOND, membership.asker))
    membership.pass_time(TIMEOUT_S)
    assert [type(outcome) for outcome in membership.outcomes()] == [TimeoutLeaderTransfer]


def test_stepping_down_hands_over_to_the_voter_connected_longest() -> None:
    """Who waits for the stop hears when another one leads."""
    membership = Membership()
    membership.tell(StepDown(5.0, Delivery(membership.asker, "go on")))
    assert [asked.to for asked in membership.raft.pick(TransferLeader)] == [SECOND]
    assert membership.asker.messages == []
    membership.tell(RoleIs(Term(3), SECOND, is_leader=False))
    assert membership.asker.messages == ["go on"]


@pytest.mark.parametrize("role", [LEADS, FOLLOWS])
def test_nothing_to_hand_over(role: RoleIs) -> None:
    """A stop waits for nobody who is not there."""
    membership = Membership(role)
    membership.tell(ActivityIs({}), StepDown(5.0, Delivery(membership.asker, "go on")))
    assert membership.asker.messages == ["go on"]


def test_the_first_election_is_hastened_once_when_the_others_are_there() -> None:
    """A start need not take a whole election timeout; later, silence has to be waited for."""
    membership = Membership(RoleIs(Term(1), MemberId(0), is_leader=False))
    assert [advance.ticks for advance in membership.raft.pick(AdvanceElection)] == [8]
    membership.tell(ActivityIs({SECOND: 0.0}), ActivityIs({SECOND: 0.0, LEARNER: 0.0}))
    assert membership.raft.pick(AdvanceElection) == []


def test_the_leader_raises_the_cluster_version_when_all_have_told_theirs() -> None:
    """What only some of the members know must not be used by any."""
    membership = Membership(FOLLOWS)
    membership.tell(ClusterIs(MEMBERS, (), "3.0.0"), LEADS)
    membership.pass_time(0.1)
    asked = membership.peers.pick(AskMember)
    assert [question.path for question in asked] == ["/version", "/version"]
    page = MemberAnswer(200, b'{"etcdserver":"3.5.1","etcdcluster":"3.0.0"}')
    membership.tell(*[Answered(question.token, page) for question in asked])
    [proposal] = membership.raft.pick(Propose)
    assert InternalRaftRequest.FromString(proposal.proposals[0][1]).cluster_version_set.ver == "3.5.0"


def proposed_by(membership: Membership) -> list[InternalRaftRequest]:
    """Return the requests that were proposed since the last look."""
    return [InternalRaftRequest.FromString(propose.proposals[0][1]) for propose in membership.raft.pick(Propose)]


def tell_versions(membership: Membership, version: bytes) -> None:
    """Let every other member say that it runs *version*."""
    for asked in membership.peers.pick(AskMember):
        page = MemberAnswer(200, b'{"etcdserver":"%b"}' % version)
        membership.tell(Answered(asked.token, page))


def test_while_a_downgrade_is_on_the_leader_lowers_the_version() -> None:
    """Members of the release before take part only in a cluster of their version."""
    membership = Membership()
    membership.tell(ClusterIs(MEMBERS, (), "3.5.0", Downgrade("3.4.0")))
    membership.pass_time(0.1)
    assert membership.peers.pick(AskMember) == [], "whoever asked may think better of it for so long"
    membership.pass_time(DOWNGRADE_CHECK_S)
    tell_versions(membership, b"3.5.9")
    assert [request.cluster_version_set.ver for request in proposed_by(membership)] == ["3.4.0"]


def test_a_downgrade_stays_on_until_the_last_member_runs_the_target() -> None:
    """This very member is one of them, so while it runs this release the downgrade is not over."""
    membership = Membership()
    membership.tell(ClusterIs(MEMBERS, (), "3.4.0", Downgrade("3.4.0")))
    membership.pass_time(0.1)
    membership.pass_time(DOWNGRADE_CHECK_S)
    tell_versions(membership, b"3.4.20")
    assert proposed_by(membership) == []


@pytest.mark.parametrize(("version", "proposed"), [("3.4.0", ["3.5.0"]), ("3.5.0", []), ("", [])])
def test_a_member_alone_raises_the_version_that_is_behind(version: str, proposed: list[str]) -> None:
    """After a downgrade that was called off, or a start on an older member's data; its first one another actor sets."""
    membership = Membership()
    membership.tell(ClusterIs(MEMBERS[:1], (), version))
    membership.pass_time(5.0)
    assert [request.cluster_version_set.ver for request in proposed_by(membership)] == proposed
