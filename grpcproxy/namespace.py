"""A namespace: every key that clients name lies below a prefix that they never see.  Pure.

Owns how requests enter the namespace and answers leave it.  Rules are those of etcd's client package ``namespace``, but
for two: keys are looked at in every operation of a transaction, and the names of locks and elections enter too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from core.errors import EmptyKey
from proto import election_pb2, lock_pb2, rpc_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

FROM_KEY: Final = b"\x00"
"""As range_end: all keys from the first one on."""

Change = Callable[[Any], None]
"""Changes a message in place; of a request it may raise EmptyKey."""


class Passage(NamedTuple):
    """How one method passes the border of a namespace."""

    request: type[Message]
    enter: Change
    response: type[Message]
    leave: Change


class Namespace:
    """All keys that begin with *prefix*, which is not empty."""

    def __init__(self, prefix: bytes) -> None:
        self.prefix: Final = prefix
        self._end: Final = prefix_end(prefix)
        self.passages: Final = self._passages()

    def interval(self, key: bytes, end: bytes) -> tuple[bytes, bytes]:
        """Return the range [key, end) as the members know it."""
        if not end:
            return self.prefix + key, b""
        return self.prefix + key, self._end if end == FROM_KEY else self.prefix + end

    def outside(self, key: bytes) -> bytes:
        """Return a member's *key* as clients know it."""
        return key[len(self.prefix) :]

    def _passages(self) -> dict[str, Passage]:
        election, lock, rpc = election_pb2, lock_pb2, rpc_pb2
        ranged = Passage(rpc.RangeRequest, self._enter_range, rpc.RangeResponse, self._leave_range)
        names = (self._enter_name, self._nothing)
        return {
            "/etcdserverpb.KV/Range": ranged,
            "/etcdserverpb.KV/RangeStream": ranged._replace(
                response=rpc.RangeStreamResponse, leave=lambda answer: self._leave_range(answer.range_response)
            ),
            "/etcdserverpb.KV/Put": Passage(rpc.PutRequest, self._enter_key, rpc.PutResponse, self._leave_put),
            "/etcdserverpb.KV/DeleteRange": Passage(
                rpc.DeleteRangeRequest, self._enter_range, rpc.DeleteRangeResponse, self._leave_delete
            ),
            "/etcdserverpb.KV/Txn": Passage(rpc.TxnRequest, self._enter_txn, rpc.TxnResponse, self._leave_txn),
            "/etcdserverpb.Lease/LeaseTimeToLive": Passage(
                rpc.LeaseTimeToLiveRequest, self._nothing, rpc.LeaseTimeToLiveResponse, self._leave_lease
            ),
            "/v3lockpb.Lock/Lock": Passage(lock.LockRequest, names[0], lock.LockResponse, self._leave_key),
            "/v3lockpb.Lock/Unlock": Passage(lock.UnlockRequest, self._enter_key, lock.UnlockResponse, names[1]),
            "/v3electionpb.Election/Campaign": Passage(
                election.CampaignRequest, names[0], election.CampaignResponse, self._leave_leader
            ),
            "/v3electionpb.Election/Proclaim": Passage(
                election.ProclaimRequest, self._enter_leader, election.ProclaimResponse, names[1]
            ),
            "/v3electionpb.Election/Leader": Passage(
                election.LeaderRequest, names[0], election.LeaderResponse, self._leave_kv
            ),
            "/v3electionpb.Election/Observe": Passage(
                election.LeaderRequest, names[0], election.LeaderResponse, self._leave_kv
            ),
            "/v3electionpb.Election/Resign": Passage(
                election.ResignRequest, self._enter_leader, election.ResignResponse, names[1]
            ),
        }

    # -- requests ----------------------------------------------------------------------------------------------------

    def _nothing(self, message: Message) -> None:
        """Leave a message that holds no key as it is."""

    def _enter_key(self, request: Any) -> None:  # noqa: ANN401 - any message with a key
        if not request.key:
            raise EmptyKey
        request.key = self.prefix + request.key

    def _enter_range(self, request: Any) -> None:  # noqa: ANN401 - any message with key and range_end
        if not request.key:
            raise EmptyKey
        request.key, request.range_end = self.interval(request.key, request.range_end)

    def _enter_txn(self, request: rpc_pb2.TxnRequest) -> None:
        for compare in request.compare:
            self._enter_range(compare)
        for operation in (*request.success, *request.failure):
            match operation.WhichOneof("request"):
                case "request_range":
                    self._enter_range(operation.request_range)
                case "request_put":
                    self._enter_key(operation.request_put)
                case "request_delete_range":
                    self._enter_range(operation.request_delete_range)
                case "request_txn":
                    self._enter_txn(operation.request_txn)

    def _enter_name(self, request: Any) -> None:  # noqa: ANN401 - any message with a name
        request.name = self.prefix + request.name

    def _enter_leader(self, request: Any) -> None:  # noqa: ANN401 - any message with a leader
        if request.HasField("leader"):
            request.leader.name = self.prefix + request.leader.name
            request.leader.key = self.prefix + request.leader.key

    # -- answers -----------------------------------------------------------------------------------------------------

    def _leave_key(self, answer: Any) -> None:  # noqa: ANN401 - any message with a key
        answer.key = self.outside(answer.key)

    def _leave_range(self, answer: rpc_pb2.RangeResponse) -> None:
        for pair in answer.kvs:
            pair.key = self.outside(pair.key)

    def _leave_put(self, answer: rpc_pb2.PutResponse) -> None:
        if answer.HasField("prev_kv"):
            self._leave_key(answer.prev_kv)

    def _leave_delete(self, answer: rpc_pb2.DeleteRangeResponse) -> None:
        for pair in answer.prev_kvs:
            self._leave_key(pair)

    def _leave_txn(self, answer: rpc_pb2.TxnResponse) -> None:
        for response in answer.responses:
            match response.WhichOneof("response"):
                case "response_range":
                    self._leave_range(response.response_range)
                case "response_put":
                    self._leave_put(response.response_put)
                case "response_delete_range":
                    self._leave_delete(response.response_delete_range)
                case "response_txn":
                    self._leave_txn(response.response_txn)

    def _leave_lease(self, answer: rpc_pb2.LeaseTimeToLiveResponse) -> None:
        inside = [self.outside(key) for key in answer.keys if key.startswith(self.prefix)]
        del answer.keys[:]
        answer.keys.extend(inside)

    def _leave_leader(self, answer: election_pb2.CampaignResponse) -> None:
        if answer.HasField("leader"):
            answer.leader.name = self.outside(answer.leader.name)
            answer.leader.key = self.outside(answer.leader.key)

    def _leave_kv(self, answer: election_pb2.LeaderResponse) -> None:
        if answer.HasField("kv"):
            self._leave_key(answer.kv)


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all those that begin with *prefix*; FROM_KEY where there is none."""
    short = prefix.rstrip(b"\xff")
    return short[:-1] + bytes((short[-1] + 1,)) if short else FROM_KEY
