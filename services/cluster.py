"""The Cluster service, as far as a single member needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proto.rpc_pb2 import MemberListRequest
from services.decode import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from net.rpc import Call
    from services.node import Node


class ClusterService:
    """Handles etcdserverpb.Cluster for one listener."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def member_list(self, call: Call, payload: bytes) -> None:
        """List the members, locally or with the certainty of a quorum."""
        request = decode(call, MemberListRequest, payload)
        if request is None:
            return

        def reply(members: Sequence[bytes]) -> None:
            # Cluster answers leave the revision out.
            call.reply(self._node.headers.encode(0, self._node.term) + b"".join(members))

        if request.linearizable:
            self._node.read(call, lambda _view: self._node.members(reply))
        else:
            self._node.members(reply)
