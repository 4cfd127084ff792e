"""Keys on their way into a namespace and out of it."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import EmptyKey
from grpcproxy.namespace import Namespace, prefix_end
from proto import election_pb2, kv_pb2, lock_pb2, rpc_pb2

KV = "/etcdserverpb.KV/"


def entered(method: str, request: Any) -> Any:
    """Return *request* as the members get it."""
    Namespace(b"ns/").passages[method].enter(request)
    return request


def left(method: str, answer: Any) -> Any:
    """Return *answer* as clients get it."""
    Namespace(b"ns/").passages[method].leave(answer)
    return answer


@pytest.mark.parametrize(
    ("key", "end", "inside"),
    [
        (b"a", b"", (b"ns/a", b"")),
        (b"a", b"c", (b"ns/a", b"ns/c")),
        (b"a", b"\0", (b"ns/a", b"ns0")),
        (b"\0", b"\0", (b"ns/\0", b"ns0")),
    ],
)
def test_ranges_stay_inside(key: bytes, end: bytes, inside: tuple[bytes, bytes]) -> None:
    """A range without end must end with the namespace: others' keys come after it."""
    request = entered(KV + "Range", rpc_pb2.RangeRequest(key=key, range_end=end))
    assert (request.key, request.range_end) == inside


def test_a_prefix_of_highest_bytes_has_no_end() -> None:
    """Nothing comes after such keys, so that the range has no end either."""
    assert [prefix_end(prefix) for prefix in (b"a\xff", b"\xff\xff")] == [b"b", b"\0"]


def test_transactions_enter_and_leave_at_every_depth() -> None:
    """A nested operation that is left as it is would read or write somebody else's keys."""
    inner = rpc_pb2.TxnRequest(
        compare=[rpc_pb2.Compare(key=b"c", range_end=b"\0")],
        failure=[rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=b"d"))],
    )
    request = entered(
        KV + "Txn",
        rpc_pb2.TxnRequest(
            compare=[rpc_pb2.Compare(key=b"a")],
            success=[
                rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"b")),
                rpc_pb2.RequestOp(request_txn=inner),
                rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"e")),
            ],
        ),
    )
    nested = request.success[1].request_txn
    assert [request.compare[0].key, request.success[0].request_put.key] == [b"ns/a", b"ns/b"]
    assert (nested.compare[0].key, nested.compare[0].range_end) == (b"ns/c", b"ns0")
    assert nested.failure[0].request_delete_range.key == b"ns/d"

    pair = kv_pb2.KeyValue(key=b"ns/k")
    answer = left(
        KV + "Txn",
        rpc_pb2.TxnResponse(
            responses=[
                rpc_pb2.ResponseOp(response_put=rpc_pb2.PutResponse(prev_kv=pair)),
                rpc_pb2.ResponseOp(
                    response_txn=rpc_pb2.TxnResponse(
                        responses=[
                            rpc_pb2.ResponseOp(response_delete_range=rpc_pb2.DeleteRangeResponse(prev_kvs=[pair])),
                            rpc_pb2.ResponseOp(response_range=rpc_pb2.RangeResponse(kvs=[pair])),
                        ]
                    )
                ),
            ]
        ),
    )
    inside = answer.responses[1].response_txn.responses
    assert answer.responses[0].response_put.prev_kv.key == b"k"
    assert inside[0].response_delete_range.prev_kvs[0].key == b"k"
    assert inside[1].response_range.kvs[0].key == b"k"


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Range", rpc_pb2.RangeRequest()),
        ("Put", rpc_pb2.PutRequest()),
        ("DeleteRange", rpc_pb2.DeleteRangeRequest(range_end=b"\0")),
        ("Txn", rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare()])),
        ("Txn", rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest())])),
    ],
)
def test_empty_keys_are_refused_before_they_get_a_prefix(method: str, request_: Any) -> None:
    """Behind the prefix a member could not tell any more, and would write the key that is the prefix itself."""
    with pytest.raises(EmptyKey):
        entered(KV + method, request_)


def test_leases_show_no_keys_of_others() -> None:
    """A lease may hold keys outside of the namespace, which its clients must not hear of."""
    answer = rpc_pb2.LeaseTimeToLiveResponse(keys=[b"ns/a", b"other", b"ns", b"ns/b"])
    assert list(left("/etcdserverpb.Lease/LeaseTimeToLive", answer).keys) == [b"a", b"b"]


def test_locks_and_elections_are_keys_too() -> None:
    """Two namespaces must not share a lock of the same name; and what the answer names is used in the next request."""
    lock, election = "/v3lockpb.Lock/", "/v3electionpb.Election/"
    assert entered(lock + "Lock", lock_pb2.LockRequest(name=b"l")).name == b"ns/l"
    assert left(lock + "Lock", lock_pb2.LockResponse(key=b"ns/l/1")).key == b"l/1"
    assert entered(lock + "Unlock", lock_pb2.UnlockRequest(key=b"l/1")).key == b"ns/l/1"
    outside = left(
        election + "Campaign",
        election_pb2.CampaignResponse(leader=election_pb2.LeaderKey(name=b"ns/e", key=b"ns/e/1")),
    )
    assert (outside.leader.name, outside.leader.key) == (b"e", b"e/1")
    resign = entered(election + "Resign", election_pb2.ResignRequest(leader=outside.leader))
    assert (resign.leader.name, resign.leader.key) == (b"ns/e", b"ns/e/1")
    assert left(election + "Leader", election_pb2.LeaderResponse(kv=kv_pb2.KeyValue(key=b"ns/e/1"))).kv.key == b"e/1"
