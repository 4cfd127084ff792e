"""The KV service: what is refused, what is proposed and under which field, and how reads are answered."""

from __future__ import annotations

import pytest

from core.mvcc.varint import field
from net.rpc import OK, Code
from proto.kv_pb2 import KeyValue
from proto.raft_internal_pb2 import InternalRaftRequest
from proto.rpc_pb2 import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from services import kv as kv_module
from services.kv import KvService
from tests.fake_node import MEMBER, FakeNode
from tests.fakes import FakeCall

NOT_A_MESSAGE = b"\xff"
WRITES = {
    "put": (PutRequest(key=b"k", value=b"v"), "put"),
    "delete_range": (DeleteRangeRequest(key=b"k"), "delete_range"),
    "compact": (CompactionRequest(revision=2), "compaction"),
    "txn": (TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"k"))]), "txn"),
}


@pytest.mark.parametrize("method", ["put", "delete_range", "compact", "range", "txn"])
def test_bytes_that_are_no_message_get_grpc_gos_answer(method: str) -> None:
    """A client must not learn of our parser but of its own mistake, in the words that other servers use."""
    node, call = FakeNode(), FakeCall()
    getattr(KvService(node), method)(call, NOT_A_MESSAGE)
    assert call.status is not None
    assert call.status.code is Code.INTERNAL
    assert call.status.message.startswith("grpc: error unmarshalling request: Error parsing message with type 'etcdser")
    assert "InternalRaftRequest" not in call.status.message
    assert not node.proposed


@pytest.mark.parametrize("method", sorted(WRITES))
def test_a_write_is_proposed_as_it_came(method: str) -> None:
    """The request's own bytes become the entry's field, so unknown fields reach members that know them."""
    node, call = FakeNode(), FakeCall()
    request, name = WRITES[method]
    payload = request.SerializeToString() + b"\xf8\x07\x01"  # and a field of the future
    getattr(KvService(node), method)(call, payload)
    [proposed] = node.proposed
    assert proposed.call is call
    assert proposed.body == payload
    assert InternalRaftRequest.FromString(field(proposed.tag, payload)).HasField(name)
    assert not call.done


@pytest.mark.parametrize(
    ("method", "request_", "text"),
    [
        ("put", PutRequest(), "etcdserver: key is not provided"),
        ("put", PutRequest(key=b"k", value=b"v", ignore_value=True), "etcdserver: value is provided"),
        ("put", PutRequest(key=b"k", lease=1, ignore_lease=True), "etcdserver: lease is provided"),
        ("delete_range", DeleteRangeRequest(), "etcdserver: key is not provided"),
        ("range", RangeRequest(), "etcdserver: key is not provided"),
        ("range", RangeRequest.FromString(b"\x0a\x01k\x28\x07"), "etcdserver: invalid sort option"),
        ("txn", TxnRequest(success=[RequestOp(request_put=PutRequest())]), "etcdserver: key is not provided"),
    ],
)
def test_a_faulty_request_is_refused_before_it_is_proposed(method: str, request_: PutRequest, text: str) -> None:
    """What every member would refuse must not take a place in the log."""
    node, call = FakeNode(), FakeCall()
    getattr(KvService(node), method)(call, request_.SerializeToString())
    assert call.status is not None
    assert (call.status.code, call.status.message) == (Code.INVALID_ARGUMENT, text)
    assert not node.proposed


def test_a_transaction_may_hold_as_many_operations_as_configured() -> None:
    """The limit is the operator's."""
    node, call = FakeNode(txn_ops_max=2), FakeCall()
    ops = [RequestOp(request_put=PutRequest(key=b"%d" % number)) for number in range(3)]
    KvService(node).txn(call, TxnRequest(success=ops).SerializeToString())
    assert call.status is not None
    assert call.status.message == "etcdserver: too many operations in txn request"


def deepest_transaction() -> bytes:
    """Return the most deeply nested transaction that can be read by itself."""
    payload = field(b"\x12", field(b"\x12", PutRequest(key=b"k").SerializeToString()))
    while True:
        deeper = field(b"\x12", field(b"\x22", payload))
        try:
            TxnRequest.FromString(deeper)
        except Exception:  # noqa: BLE001 - the bound is what is looked for
            return payload
        payload = deeper


def deepest_put() -> bytes:
    """Return a put with as many unknown groups in each other as can be read by itself."""
    put = PutRequest(key=b"k").SerializeToString()
    depth = 1
    while True:
        try:
            PutRequest.FromString(put + b"\x7b" * depth + b"\x7c" * depth)
        except Exception:  # noqa: BLE001 - the bound is what is looked for
            return put + b"\x7b" * (depth - 1) + b"\x7c" * (depth - 1)
        depth += 1


@pytest.mark.parametrize(("method", "payload"), [("txn", deepest_transaction()), ("put", deepest_put())])
def test_what_cannot_be_read_as_an_entry_is_refused(method: str, payload: bytes) -> None:
    """An entry lies one message deeper than its request: committed, it would stop every member at every start."""
    node, call = FakeNode(), FakeCall()
    getattr(KvService(node), method)(call, payload)
    assert not node.proposed
    assert call.status is not None
    assert call.status.code is Code.INTERNAL


def test_without_room_what_may_grow_is_refused_and_a_delete_is_not() -> None:
    """Deleting is how an operator makes room."""
    node = FakeNode()
    node.is_roomy = False
    service = KvService(node)
    calls = {name: FakeCall() for name in WRITES}
    for name, (request, _) in WRITES.items():
        getattr(service, name)(calls[name], request.SerializeToString())
    assert {name: call.done for name, call in calls.items()} == {
        "put": True,
        "txn": True,
        "delete_range": False,
        "compact": False,
    }


def test_a_put_counts_with_its_sizes_and_an_overhead() -> None:
    """The estimate, made only near the quota, is etcd's, so that both refuse at the same fill."""
    node = FakeNode()
    node.is_roomy = False
    KvService(node).put(FakeCall(), PutRequest(key=b"kk", value=b"vvv").SerializeToString())
    assert node.costs == [256 + 2 + 3]


def test_a_serializable_range_is_answered_at_once() -> None:
    """It needs nobody's word but this member's."""
    node, call = FakeNode(), FakeCall()
    node.put(b"a", b"b", b"c")
    KvService(node).range(call, RangeRequest(key=b"a", range_end=b"c", serializable=True).SerializeToString())
    assert call.answer is not None
    answer = RangeResponse.FromString(call.answer)
    assert [kv.key for kv in answer.kvs] == [b"a", b"b"]
    assert (answer.header.revision, answer.header.member_id, answer.header.raft_term) == (4, MEMBER, 3)
    assert not node.reads


def test_a_linearizable_range_waits_and_reads_what_is_there_then() -> None:
    """Writes acknowledged before it was asked must show in it."""
    node, call = FakeNode(), FakeCall()
    KvService(node).range(call, RangeRequest(key=b"a").SerializeToString())
    assert not call.done
    node.put(b"a")
    node.run_reads()
    assert call.answer is not None
    assert RangeResponse.FromString(call.answer).kvs[0].value == b"v"


@pytest.mark.parametrize(
    ("revision", "code"), [(9, "required revision is a future revision"), (1, "has been compacted")]
)
def test_a_range_at_a_revision_that_is_not_there_fails_the_call(revision: int, code: str) -> None:
    """The client learns which side of the store's history it fell off."""
    node, call = FakeNode(), FakeCall()
    node.put(b"a", b"a", b"a")
    node.store.begin_compaction(3)
    node.publish()
    KvService(node).range(call, RangeRequest(key=b"a", revision=revision, serializable=True).SerializeToString())
    assert call.status is not None
    assert call.status.code is Code.OUT_OF_RANGE
    assert code in call.status.message


def test_a_large_range_is_left_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client's scan must not hold up everybody on the loop."""
    monkeypatch.setattr(kv_module, "INLINE_KEYS_MAX", 2)
    node, small, large = FakeNode(), FakeCall(), FakeCall()
    node.put(b"a", b"b", b"c")
    service = KvService(node)
    service.range(small, RangeRequest(key=b"a", range_end=b"c", serializable=True).SerializeToString())
    service.range(large, RangeRequest(key=b"a", range_end=b"z", serializable=True).SerializeToString())
    assert small.done
    assert not large.done
    node.run_jobs()
    assert large.answer is not None
    assert RangeResponse.FromString(large.answer).count == 3


def test_while_keys_cannot_be_counted_every_range_is_taken_for_large() -> None:
    """Just after the start nobody knows how many keys a range holds."""
    node, call = FakeNode(), FakeCall()
    node.put(b"a")
    node.counts = False
    KvService(node).range(call, RangeRequest(key=b"a", range_end=b"z", serializable=True).SerializeToString())
    assert len(node.jobs) == 1
    node.run_jobs()
    assert call.status == OK


def test_a_page_of_a_large_range_is_answered_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small limit makes a range small, as long as neither order nor history makes it read all."""
    monkeypatch.setattr(kv_module, "INLINE_KEYS_MAX", 2)
    node = FakeNode()
    node.put(b"a", b"b", b"c")
    service = KvService(node)
    page, sorted_page, old_page = FakeCall(), FakeCall(), FakeCall()
    asked = RangeRequest(key=b"a", range_end=b"z", limit=1, serializable=True)
    service.range(page, asked.SerializeToString())
    asked.sort_target = RangeRequest.VALUE
    service.range(sorted_page, asked.SerializeToString())
    asked.sort_target, asked.revision = RangeRequest.KEY, 4
    service.range(old_page, asked.SerializeToString())
    assert (page.done, sorted_page.done, old_page.done) == (True, False, False)


def test_a_transaction_that_only_reads_is_no_proposal() -> None:
    """Reads need no place in the log: a serializable one is answered from here, another waits for its round."""
    node, serializable, linearizable = FakeNode(), FakeCall(), FakeCall()
    node.put(b"a")
    service = KvService(node)
    for call, flag in ((serializable, True), (linearizable, False)):
        read = RequestOp(request_range=RangeRequest(key=b"a", serializable=flag))
        service.txn(call, TxnRequest(success=[read]).SerializeToString())
    assert serializable.done
    assert not linearizable.done
    node.run_reads()
    assert linearizable.answer is not None
    answer = TxnResponse.FromString(linearizable.answer)
    assert answer.responses[0].response_range.kvs[0] == KeyValue(
        key=b"a", value=b"v", create_revision=2, mod_revision=2, version=1
    )
    assert not node.proposed


def test_a_comparison_over_a_range_is_left_to_a_worker() -> None:
    """It may have to look at every key."""
    node, call = FakeNode(), FakeCall()
    node.put(b"a")
    compare = Compare(key=b"a", range_end=b"z", target=Compare.VERSION, version=1)
    read = RequestOp(request_range=RangeRequest(key=b"a", serializable=True))
    KvService(node).txn(call, TxnRequest(compare=[compare], success=[read]).SerializeToString())
    assert len(node.jobs) == 1
    node.run_jobs()
    assert call.answer is not None
    assert TxnResponse.FromString(call.answer).succeeded


def test_a_reader_that_has_left_is_not_answered() -> None:
    """What waits for a round asks again whether somebody still listens."""
    node, call = FakeNode(), FakeCall()
    KvService(node).range(call, RangeRequest(key=b"a").SerializeToString())
    call.leave()
    node.run_reads()
    assert (call.ends, call.answer) == (1, None)
