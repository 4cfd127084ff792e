"""Who a member may answer at all: not everything while it is a learner, not everybody while nobody leads.

A learner may serve stale reads and tell how it is; clients that ask for it (metadata ``hasleader``) are turned away
from a member that knows no leader, so that they go to another.  Behaviour: etcd's interceptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from core.errors import NoLeader, NotSupportedForLearner
from net.rpc import Routes
from proto.rpc_pb2 import RangeRequest
from services.errors import status_of

if TYPE_CHECKING:
    from core.errors import EtcdError
    from net.rpc import Call, Context, Status, Stream, StreamHandler, StreamMethod, UnaryMethod
    from services.node import Node

_STATUS: Final = "/etcdserverpb.Maintenance/Status"
_SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
_RANGE: Final = "/etcdserverpb.KV/Range"
_JUDGED: Final = ("/etcdserverpb.", "/v3electionpb.", "/v3lockpb.")


def standing_routes(node: Node, routes: Routes) -> Routes:
    """Return *routes* as *node* serves them while it is a learner or knows no leader; else they are as they were."""
    return Routes(
        {path: _unary(node, path, method) for path, method in routes.unary.items()},
        {path: _stream(node, path, method) for path, method in routes.streams.items()},
    )


def needs_leader(context: Context) -> bool:
    """Whether the client wants to be turned away where nobody is known to lead."""
    return "true" in context.metadata.get("hasleader", ())


def _unary(node: Node, path: str, method: UnaryMethod) -> UnaryMethod:
    if not path.startswith(_JUDGED):
        return method

    def standing(call: Call, payload: bytes) -> None:
        if node.is_learner or not node.leader:
            refusal = _refusal(
                node, call, may_learner=path == _STATUS or (path == _RANGE and _is_serializable(payload))
            )
            if refusal is not None:
                call.fail(status_of(refusal))
                return
        method(call, payload)

    return standing


def _stream(node: Node, path: str, method: StreamMethod) -> StreamMethod:
    if not path.startswith(_JUDGED):
        return method

    def standing(stream: Stream) -> StreamHandler:
        if node.is_learner or not node.leader:
            refusal = _refusal(node, stream, may_learner=path == _SNAPSHOT)
            if refusal is not None:
                stream.finish(status_of(refusal))
                return _Refused()
        return method(stream)

    return standing


def _refusal(node: Node, context: Context, *, may_learner: bool) -> EtcdError | None:
    if node.is_learner and not may_learner:
        return NotSupportedForLearner()
    if not node.leader and needs_leader(context):
        return NoLeader()
    return None


def _is_serializable(payload: bytes) -> bool:
    try:
        return RangeRequest.FromString(payload).serializable
    except DecodeError:
        return True  # refused for its bytes, where they are read


class _Refused:
    """The handler of a stream that has ended before it began."""

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""

    def on_half_close(self) -> None:
        """See StreamHandler."""

    def on_drained(self) -> None:
        """See StreamHandler."""

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
