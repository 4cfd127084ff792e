"""CompactorActor: what the schedule decides becomes an entry, once, while this member leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.compactor import CompactorActor
from actors.messages.apply import Inspect, ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.raft import Propose, RoleIs
from actors.messages.serve import Completed, Refused
from core.errors import Compacted, ProposalDropped
from core.mvcc.auto_compaction import RevisionSchedule
from core.request_id import RequestIds
from core.types import MemberId, RequestId, Term
from proto.raft_internal_pb2 import InternalRaftRequest
from tests.actors.home import TestHome
from tests.entries import make_applier
from tests.fakes import Told

if TYPE_CHECKING:
    from core.apply.applier import Applier

MEMBER = MemberId(1)
FOLLOWS = RoleIs(Term(2), MemberId(9), is_leader=False)
LEADS = RoleIs(Term(3), MEMBER, is_leader=True)


class Compactor:
    """A CompactorActor that keeps ten revisions of a store that stands where the test says."""

    def __init__(self) -> None:
        self.home = TestHome()
        self.apply, self.raft = Told(), Told()
        self.applier: Applier = make_applier()
        self.actor = self.home.spawn(
            CompactorActor,
            schedule=RevisionSchedule(10),
            request_ids=RequestIds(MEMBER, 3, 1),
            timeout_s=7.0,
            clock=self.home.clock,
            apply=self.apply,
            raft=self.raft,
            logger=self.home.logger,
        )
        assert self.apply.take() == [ObserveOutcomes(3, self.actor.actor_ref)]

    def look(self, revision: int, after_s: float = 300.0) -> list[Propose]:
        """Let time pass until the schedule is asked, the store being at *revision*; return what is proposed."""
        self.home.clock.now_s += after_s
        self.applier.store.revision = revision
        self.raft.take()
        self.home.tell(self.actor, Tick(self.home.clock.now_s))
        for asked in self.apply.take():
            assert isinstance(asked, Inspect)
            asked.question(self.applier)
        self.home.run()
        return self.raft.of(Propose)


def decoded(propose: Propose) -> tuple[RequestId, InternalRaftRequest]:
    [(request_id, data)] = propose.proposals
    return request_id, InternalRaftRequest.FromString(data)


def test_a_leader_proposes_what_is_due_for_its_term_alone() -> None:
    """Compaction goes through the log, so that all members do it; a successor decides for itself."""
    compactor = Compactor()
    compactor.home.tell(compactor.actor, FOLLOWS)
    assert compactor.look(50) == []
    compactor.home.tell(compactor.actor, LEADS)
    [proposed] = compactor.look(50)
    request_id, request = decoded(proposed)
    assert request.compaction.revision == 40
    assert not request.compaction.physical
    assert request_id == request.header.ID
    assert proposed.led_term == LEADS.term


def test_one_is_under_way_at_a_time_and_one_that_is_done_is_not_repeated() -> None:
    """A slow cluster is not asked for more of what it has not managed yet."""
    compactor = Compactor()
    compactor.home.tell(compactor.actor, LEADS)
    [proposed] = compactor.look(50)
    assert compactor.look(60, after_s=1.0) == []
    compactor.home.tell(compactor.actor, Completed([(decoded(proposed)[0], b"done")]))
    assert compactor.look(50) == []
    assert [decoded(each)[1].compaction.revision for each in compactor.look(51)] == [41]


def test_a_client_that_compacted_further_is_as_good() -> None:
    """The history is gone, which is what was wanted."""
    compactor = Compactor()
    compactor.home.tell(compactor.actor, LEADS)
    [proposed] = compactor.look(50)
    compactor.home.tell(compactor.actor, Completed([(decoded(proposed)[0], Compacted())]))
    assert compactor.home.logged("completed auto compaction")
    assert compactor.look(50) == []


def test_what_was_refused_or_never_answered_is_tried_again() -> None:
    """A change of leaders in the wrong moment must not leave the store to grow."""
    compactor = Compactor()
    compactor.home.tell(compactor.actor, LEADS)
    [proposed] = compactor.look(50)
    compactor.home.tell(compactor.actor, Refused((decoded(proposed)[0],), ProposalDropped()))
    [again] = compactor.look(50)
    assert decoded(again)[1].compaction.revision == 40
    [overdue] = compactor.look(50)  # no answer came in all that time
    assert decoded(overdue)[1].compaction.revision == 40
    assert len(compactor.home.logged("failed auto compaction; it is tried again at the next interval")) == 2
