"""RangeStream: its parts make up the answer of Range, whatever is written meanwhile, and each part is bounded."""

from __future__ import annotations

from typing import Any

import pytest

from core.auth.permissions import READ, Permission
from core.auth.rules import NOBODY, Identity, Role, Rules, User
from core.errors import FutureRevision
from net.rpc import OK, Code, Status
from proto.rpc_pb2 import RangeRequest, RangeResponse, RangeStreamResponse
from services.kv import KvService
from services.range_stream import NO_FILTERS, NO_ORDER, RangeStream
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeStream

PART_BYTES = 60
FUTURE = FutureRevision.text


def every(**fields: Any) -> RangeRequest:
    """Return a request for all keys."""
    return RangeRequest(key=b"\0", range_end=b"\0", **fields)


def asking(**fields: Any) -> RangeRequest:
    """Return a request for one key, with whatever a client may put into it."""
    return RangeRequest(key=b"a", **fields)


def filled(count: int) -> FakeNode:
    """Return a node with so many keys, whose parts are small."""
    node = FakeNode(request_bytes_max=PART_BYTES)
    node.put(*(b"k%03d" % number for number in range(count)))
    return node


def begin(node: FakeNode, request: RangeRequest) -> tuple[RangeStream, FakeStream]:
    """Ask; reads are answered, workers have not worked yet."""
    stream = FakeStream()
    handler = RangeStream(node, stream)
    handler.on_message(request.SerializeToString())
    handler.on_half_close()
    node.run_reads()
    return handler, stream


def finish(node: FakeNode, handler: RangeStream, stream: FakeStream) -> list[RangeResponse]:
    """Let workers work until the stream has ended well; return its parts."""
    while node.jobs:
        node.run_jobs()
    assert stream.status == OK
    handler.on_closed(OK)
    return [RangeStreamResponse.FromString(sent).range_response for sent in stream.sent]


def merged(parts: list[RangeResponse]) -> RangeResponse:
    """Put parts together as protobuf does."""
    whole = RangeResponse()
    for part in parts:
        whole.MergeFrom(part)
    return whole


def ranged(node: FakeNode, request: RangeRequest) -> RangeResponse:
    """Ask for the whole."""
    call = FakeCall()
    KvService(node).range(call, request.SerializeToString())
    node.run_reads()
    node.run_jobs()
    assert call.answer is not None
    return RangeResponse.FromString(call.answer)


@pytest.mark.parametrize(
    "request_",
    [
        every(),
        RangeRequest(key=b"k001"),
        RangeRequest(key=b"k001", range_end=b"k007"),
        RangeRequest(key=b"none"),
        RangeRequest(key=b"k9", range_end=b"k1"),
        every(limit=1),
        every(limit=17),
        every(limit=20),
        every(limit=-1),
        every(limit=100),
        every(keys_only=True),
        every(count_only=True),
        every(count_only=True, limit=3),
        every(revision=9),
        every(revision=9, limit=3),
        every(serializable=True),
        every(sort_order=RangeRequest.ASCEND),
    ],
    ids=str,
)
@pytest.mark.parametrize("counts", [True, False])
def test_the_parts_make_up_the_answer_of_range(request_: RangeRequest, counts: bool) -> None:
    """Merged as protobuf merges, and with header, more and count on the last part only."""
    node = filled(20)
    node.counts = counts
    whole = ranged(node, request_)
    parts = finish(node, *begin(node, request_))
    assert merged(parts) == whole
    assert [part.HasField("header") for part in parts] == [False] * (len(parts) - 1) + [True]
    assert not any(part.more or part.count for part in parts[:-1])
    if len(whole.kvs) > 10:
        assert len(parts) > 3
    assert all(sum(kv.ByteSize() for kv in part.kvs) <= 2 * PART_BYTES for part in parts)


@pytest.mark.parametrize("holds", [True, False], ids=["view held", "view let go"])
def test_all_parts_are_of_one_revision(holds: bool) -> None:
    """A list that mixes two moments is one that never was."""
    node = filled(20)
    whole = ranged(node, every())
    handler, stream = begin(node, every())
    assert len(stream.sent) == 1
    node.put(b"k000", b"k019", b"new", b"k0055")
    if not holds:
        node.deadlines[0][1]()
    assert merged(finish(node, handler, stream)) == whole


def test_a_compaction_ends_what_is_read_late() -> None:
    """As a range at that revision would be refused; a held view does not notice."""
    for holds in (True, False):
        node = filled(20)
        handler, stream = begin(node, every())
        node.put(b"k000")
        node.store.begin_compaction(node.view.revision)
        node.publish()
        if holds:
            assert len(merged(finish(node, handler, stream)).kvs) == 20
        else:
            node.deadlines[0][1]()
            while node.jobs:
                node.run_jobs()
            assert stream.status == Status(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")


def test_a_client_that_does_not_read_costs_one_part() -> None:
    """The next is read when the last has left; and when the client goes, nothing more."""
    node = filled(20)
    handler, stream = begin(node, every())
    stream.unsent_bytes = 1
    node.run_jobs()
    assert not node.jobs
    assert len(stream.sent) == 2
    stream.unsent_bytes = 0
    handler.on_drained()
    assert len(node.jobs) == 1
    handler.on_drained()
    assert len(node.jobs) == 1
    handler.on_closed(Status(Code.CANCELLED))
    node.run_jobs()
    assert len(stream.sent) == 2
    assert not node.jobs
    assert not node.deadlines


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (RangeRequest(), Code.INVALID_ARGUMENT, "etcdserver: key is not provided"),
        (asking(sort_order=7), Code.INVALID_ARGUMENT, "etcdserver: invalid sort option"),
        (asking(sort_order=2), Code.UNIMPLEMENTED, NO_ORDER.message),
        (
            asking(sort_order=1, sort_target=1),
            Code.UNIMPLEMENTED,
            NO_ORDER.message,
        ),
        (
            asking(min_mod_revision=1),
            Code.UNIMPLEMENTED,
            NO_FILTERS.message,
        ),
        (
            asking(revision=99),
            Code.OUT_OF_RANGE,
            FUTURE,
        ),
        (
            asking(revision=99, count_only=True),
            Code.OUT_OF_RANGE,
            FUTURE,
        ),
    ],
)
def test_what_is_refused(request_: RangeRequest, code: Code, text: str) -> None:
    """In etcd's words."""
    _, stream = begin(filled(2), request_)
    assert (stream.status, stream.sent) == (Status(code, text), [])


RULES = Rules(True, 5, {"joe": User("joe", b"", ("role",))}, {"role": Role("role", (Permission(READ, b"k", b"l"),))})


def test_only_who_may_read_the_range_gets_its_parts() -> None:
    """All of it, and only while the rules are what they were."""
    for identity, key, text in (
        (NOBODY, b"k", "etcdserver: user name is empty"),
        (Identity("joe", 5), b"a", "etcdserver: permission denied"),
        (Identity("joe", 4), b"k", "etcdserver: revision of auth store is old"),
    ):
        node = filled(20)
        node.auth, node.identity = RULES, identity
        _, stream = begin(node, RangeRequest(key=key, range_end=b"l"))
        assert stream.status is not None
        assert (stream.status.message, stream.sent) == (text, [])
    node = filled(20)
    node.auth, node.identity = RULES, Identity("joe", 5)
    _, stream = begin(node, RangeRequest(key=b"k", range_end=b"l"))
    assert len(stream.sent) == 1
    node.auth = Rules(True, 6, RULES.users, RULES.roles)
    node.run_jobs()
    assert len(stream.sent) == 1
    assert stream.status is not None
    assert stream.status.message == "etcdserver: revision of auth store is old"
