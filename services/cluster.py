"""The Cluster service, and Maintenance.MoveLeader: who belongs to the cluster, and who leads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import EtcdError
from core.membership.change import adding, removing, updating
from core.membership.member import Member
from core.mvcc.varint import field
from core.types import MemberId
from proto.rpc_pb2 import Member as ClientMember
from proto.rpc_pb2 import (
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
    MoveLeaderRequest,
)
from services.decode import decode
from services.errors import status_of
from services.identity import admit, is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from net.rpc import Call
    from services.node import Node

    WithMembers = Callable[[Sequence[bytes] | EtcdError], None]

_MEMBER_TAG = b"\x12"
"""Field 2 of MemberAddResponse; the members are its field 3, where the other answers have them as field 2."""

_ADDED_MEMBERS_TAG = b"\x1a"


class ClusterService:
    """Handles etcdserverpb.Cluster for one listener."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def member_list(self, call: Call, payload: bytes) -> None:
        """List the members, locally or with the certainty of a quorum."""
        request = decode(call, MemberListRequest, payload)
        if request is None:
            return
        with_members = self._answer(call)
        if request.linearizable:
            self._node.read(call, lambda _view: self._node.members(with_members))
        else:
            self._node.members(with_members)

    def member_add(self, call: Call, payload: bytes) -> None:
        """Add a voter or a learner."""
        request = decode(call, MemberAddRequest, payload)
        if request is None:
            return
        try:
            member = Member.added(request.peerURLs, is_learner=request.isLearner, now_s=self._node.wall_s())
        except EtcdError as error:
            call.fail(status_of(error))
            return

        def reply(members: Sequence[bytes] | EtcdError) -> None:
            if isinstance(members, EtcdError):
                call.fail(status_of(members))
                return
            added = ClientMember(ID=member.id, peerURLs=member.peer_urls, isLearner=member.is_learner)
            own = field(_MEMBER_TAG, added.SerializeToString())
            listed = b"".join(_ADDED_MEMBERS_TAG + encoded[1:] for encoded in members)
            call.reply(self._node.headers.encode(0, self._node.term) + own + listed)

        # Only here it is asked who calls: what is wrong with the URLs is told to anybody, as in etcd.
        admit(self._node, call, is_root, lambda: self._node.change_members(adding(member), reply))

    def member_remove(self, call: Call, payload: bytes) -> None:
        """Remove a member for ever."""
        request = decode(call, MemberRemoveRequest, payload)
        if request is not None:
            self._node.change_members(removing(MemberId(request.ID)), self._answer(call))

    def member_update(self, call: Call, payload: bytes) -> None:
        """Give a member other peer URLs."""
        request = decode(call, MemberUpdateRequest, payload)
        if request is not None:
            change = updating(MemberId(request.ID), tuple(request.peerURLs))
            self._node.change_members(change, self._answer(call))

    def member_promote(self, call: Call, payload: bytes) -> None:
        """Make a learner a voter."""
        request = decode(call, MemberPromoteRequest, payload)
        if request is not None:
            self._node.promote_member(MemberId(request.ID), self._answer(call))

    def move_leader(self, call: Call, payload: bytes) -> None:
        """Let another voter lead; its answer is empty."""
        request = decode(call, MoveLeaderRequest, payload)
        if request is None:
            return

        def reply(error: EtcdError | None) -> None:
            if error is None:
                call.reply(b"")
            else:
                call.fail(status_of(error))

        self._node.move_leader(MemberId(request.targetID), reply)

    def _answer(self, call: Call) -> WithMembers:
        def reply(members: Sequence[bytes] | EtcdError) -> None:
            if isinstance(members, EtcdError):
                call.fail(status_of(members))
            else:
                # Cluster answers leave the revision out.
                call.reply(self._node.headers.encode(0, self._node.term) + b"".join(members))

        return reply
