"""BootActor: a member publishes itself once, and settles the cluster's version while it leads."""

from __future__ import annotations

from concurrent.futures import Future

from actors.boot import BootActor
from actors.messages.common import Tick
from actors.messages.raft import Propose, RoleIs
from actors.messages.serve import Completed, Refused
from core.errors import ProposalDropped
from core.request_id import RequestIds
from core.types import MemberId, RequestId, Term
from core.version import CLUSTER_VERSION
from proto.raft_internal_pb2 import InternalRaftRequest
from tests.actors.home import TestHome
from tests.fakes import Told

MEMBER = MemberId(1)
RETRY_S = 7.0
FOLLOWS = RoleIs(Term(2), MemberId(9), is_leader=False)
LEADS = RoleIs(Term(2), MEMBER, is_leader=True)


class Boot:
    """A BootActor and what it proposed."""

    def __init__(self, cluster_version: str = CLUSTER_VERSION) -> None:
        self.home = TestHome()
        self.raft = Told()
        self.published: Future[None] = Future()
        self.actor = self.home.spawn(
            BootActor,
            member=MEMBER,
            name="infra1",
            client_urls=("http://127.0.0.1:2379",),
            cluster_version=cluster_version,
            request_ids=RequestIds(MEMBER, 1, 1),
            retry_s=RETRY_S,
            apply=Told(),
            raft=self.raft,
            published=self.published,
            logger=self.home.logger,
        )

    def tell(self, *messages: object) -> None:
        self.home.tell(self.actor, *messages)

    def proposed(self) -> list[tuple[RequestId, InternalRaftRequest]]:
        return [
            (request_id, InternalRaftRequest.FromString(data))
            for message in self.raft.of(Propose)
            for request_id, data in message.proposals
        ]


def test_a_member_publishes_itself_as_soon_as_somebody_leads() -> None:
    """Others learn its client addresses from the log; before there is a leader nobody would take the proposal."""
    boot = Boot()
    boot.tell(RoleIs(Term(1), MemberId(0), is_leader=False))
    assert boot.proposed() == []
    boot.tell(FOLLOWS)
    [(request_id, request)] = boot.proposed()
    assert request_id == request.header.ID
    assert request.cluster_member_attr_set.member_ID == MEMBER
    assert request.cluster_member_attr_set.member_attributes.name == "infra1"
    assert list(request.cluster_member_attr_set.member_attributes.client_urls) == ["http://127.0.0.1:2379"]


def test_published_is_resolved_when_it_is_applied() -> None:
    """Only then may clients be served: they find the member in its own list."""
    boot = Boot()
    boot.tell(FOLLOWS)
    [(request_id, _)] = boot.proposed()
    boot.tell(Completed([(RequestId(request_id + 16), b"other")]))
    assert not boot.published.done()
    boot.tell(Completed([(request_id, b"answer")]))
    assert boot.published.done()
    assert boot.home.logged("published local member to cluster through raft") != []


def test_an_attempt_without_an_answer_is_repeated() -> None:
    """A proposal may get lost with its leader."""
    boot = Boot()
    boot.tell(FOLLOWS, Tick(100.0), Tick(100.0 + RETRY_S))
    assert len(boot.proposed()) == 1
    boot.tell(Tick(100.1 + RETRY_S))
    assert len(boot.proposed()) == 2


def test_the_last_attempt_counts() -> None:
    """The answer to an earlier one may never come."""
    boot = Boot()
    boot.tell(FOLLOWS, Tick(100.0), Tick(200.0))
    boot.tell(Completed([(boot.proposed()[-1][0], b"answer")]))
    assert boot.published.done()
    boot.tell(Tick(300.0))
    assert len(boot.proposed()) == 2


def test_a_leader_settles_the_clusters_version_once() -> None:
    """Nobody else does it in a new cluster, and members count on it."""
    boot = Boot(cluster_version="")
    boot.tell(LEADS, LEADS)
    versions = [request for _, request in boot.proposed() if request.HasField("cluster_version_set")]
    assert [request.cluster_version_set.ver for request in versions] == [CLUSTER_VERSION]


def test_a_version_that_is_settled_stays() -> None:
    """It may only be changed by agreement."""
    boot = Boot(cluster_version="3.6.0")
    boot.tell(LEADS)
    assert [request.HasField("cluster_version_set") for _, request in boot.proposed()] == [False]


def test_a_follower_leaves_the_version_to_the_leader() -> None:
    """One proposal is enough."""
    boot = Boot(cluster_version="")
    boot.tell(FOLLOWS)
    assert [request.HasField("cluster_version_set") for _, request in boot.proposed()] == [False]


def test_a_refused_version_is_proposed_by_the_next_leadership() -> None:
    """Refused while leadership moves, it must not be forgotten."""
    boot = Boot(cluster_version="")
    boot.tell(LEADS)
    version_id = next(each for each, request in boot.proposed() if request.HasField("cluster_version_set"))
    boot.tell(Refused([version_id], ProposalDropped()), LEADS)
    assert sum(request.HasField("cluster_version_set") for _, request in boot.proposed()) == 2
    boot.tell(Completed([(boot.proposed()[-1][0], b"answer")]), LEADS)
    assert sum(request.HasField("cluster_version_set") for _, request in boot.proposed()) == 2
    assert boot.home.logged("set cluster version") != []
