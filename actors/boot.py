"""BootActor: what a member has to say to the cluster before it may serve clients.

It publishes this member's name and client URLs through raft, tries again until that is applied, and, while it leads,
settles the cluster's version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from actors.base import Home, NodeActor
from actors.messages.apply import ObserveOutcomes
from actors.messages.common import Tick
from actors.messages.raft import ObserveRole, Propose, RoleIs
from actors.messages.serve import Completed, Refused
from core.version import CLUSTER_VERSION
from proto.membership_pb2 import Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest
from proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader

if TYPE_CHECKING:
    from concurrent.futures import Future

    import structlog

    from actors.address import Address
    from actors.messages.apply import ApplyMessage
    from actors.messages.raft import RaftMessage
    from core.request_id import RequestIds
    from core.types import MemberId, RequestId

BootMessage = RoleIs | Completed | Refused | Tick


@final
class BootActor(NodeActor[BootMessage]):
    """Publishes this member.

    Owns: the requests it waits for.  Tells: RaftActor.  Resolves *published* once.  Fails when: never by itself.
    """

    def __init__(
        self,
        home: Home,
        *,
        member: MemberId,
        name: str,
        client_urls: tuple[str, ...],
        cluster_version: str,
        request_ids: RequestIds,
        retry_s: float,
        apply: Address[ApplyMessage],
        raft: Address[RaftMessage],
        published: Future[None],
        logger: structlog.stdlib.BoundLogger,
    ) -> None:
        """*cluster_version* is what the store knows already, empty if the cluster has not settled one."""
        super().__init__(home)
        self._attributes = ClusterMemberAttrSetRequest(
            member_ID=member, member_attributes=Attributes(name=name, client_urls=client_urls)
        )
        self._cluster_version = cluster_version
        self._ids = request_ids
        self._retry_s = retry_s
        self._apply = apply
        self._raft = raft
        self._published = published
        self._logger = logger
        self._attempt: RequestId | None = None
        self._now_s = self._attempted_s = 0.0
        self._version_attempt: RequestId | None = None

    def setup(self) -> None:
        """Ask to be told of outcomes and of who leads."""
        self._apply.tell(ObserveOutcomes(self._ids.owner, self.actor_ref))
        self._raft.tell(ObserveRole(self.actor_ref))

    def handle(self, message: BootMessage) -> None:
        """Take one message."""
        match message:
            case Tick():
                if not self._now_s:
                    self._attempted_s = message.now_s  # what was tried before the first tick
                self._now_s = message.now_s
                if self._attempt is not None and self._now_s - self._attempted_s > self._retry_s:
                    self._publish()
            case Completed():
                for request_id, _ in message.outcomes:
                    self._complete(request_id)
            case RoleIs():
                if message.leader and self._attempt is None:
                    self._publish()
                if message.is_leader and not self._cluster_version and self._version_attempt is None:
                    version = ClusterVersionSetRequest(ver=CLUSTER_VERSION)
                    self._version_attempt = self._propose(InternalRaftRequest(cluster_version_set=version))
            case Refused():
                if self._version_attempt in message.request_ids:
                    self._version_attempt = None

    def _publish(self) -> None:
        if not self._published.done():
            self._attempted_s = self._now_s
            self._attempt = self._propose(InternalRaftRequest(cluster_member_attr_set=self._attributes))

    def _propose(self, request: InternalRaftRequest) -> RequestId:
        request_id = self._ids.make()
        request.header.CopyFrom(RequestHeader(ID=request_id))
        self._raft.tell(Propose([(request_id, request.SerializeToString())], self.actor_ref))
        return request_id

    def _complete(self, request_id: RequestId) -> None:
        if request_id == self._attempt and not self._published.done():
            self._logger.info("published local member to cluster through raft")
            self._published.set_result(None)
        elif request_id == self._version_attempt:
            self._cluster_version = CLUSTER_VERSION
            self._logger.info("set cluster version", cluster_version=CLUSTER_VERSION)
