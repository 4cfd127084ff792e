"""Calls made of other calls: inner calls act for the outer caller, and a client that gives up is cleaned up after."""

from __future__ import annotations

import pytest

from core.errors import Stopped
from net.rpc import OK, Code
from proto.election_pb2 import CampaignRequest, LeaderRequest, LeaderResponse
from proto.kv_pb2 import Event, KeyValue
from proto.rpc_pb2 import ResponseHeader, TxnRequest, TxnResponse, WatchRequest, WatchResponse
from services.errors import status_of
from services.kv import TXN_TAG
from services.routes import client_routes
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeStream

CAMPAIGN = CampaignRequest(name=b"e", lease=7, value=b"v").SerializeToString()
WON = TxnResponse(header=ResponseHeader(revision=9), succeeded=True).SerializeToString()


def campaign(node: FakeNode) -> FakeCall:
    """Begin a campaign; its first transaction is proposed."""
    call = FakeCall()
    call.metadata = {"token": ["t"]}
    client_routes(node).unary["/v3electionpb.Election/Campaign"](call, CAMPAIGN)
    return call


def proposals(node: FakeNode) -> list[TxnRequest]:
    """Return the transactions that were proposed."""
    assert {each.tag for each in node.proposed} == {TXN_TAG}
    return [TxnRequest.FromString(each.body) for each in node.proposed]


def test_inner_calls_are_made_in_the_name_of_the_caller() -> None:
    """With its token and address: it may do what it could do by itself, no more."""
    node = FakeNode()
    call = campaign(node)
    inner = node.proposed[0].call
    assert (inner.metadata, inner.peer, inner.method) == (call.metadata, call.peer, "/etcdserverpb.KV/Txn")
    assert not call.done


def test_who_gives_up_before_its_key_is_there_is_cleaned_up_after() -> None:
    """The put is on its way and cannot be called back; once it is answered the key is deleted again."""
    node = FakeNode()
    call = campaign(node)
    call.leave()
    assert len(node.proposed) == 1
    node.proposed[0].call.reply(WON)
    removal = proposals(node)[1]
    assert (removal.success[0].request_delete_range.key, removal.compare[0].create_revision) == (b"e/7", 9)
    node.proposed[1].call.reply(WON)
    assert call.answer is None
    assert not node.watched


def test_who_gives_up_while_waiting_watches_no_longer() -> None:
    """Neither key nor watch is left."""
    node = FakeNode()
    node.put(b"e/1")
    call = campaign(node)
    node.proposed[0].call.reply(WON)
    node.run_reads()
    opened, request = node.watched
    assert WatchRequest.FromString(request[2]).create_request.key == b"e/1"
    call.leave()
    assert node.watched[2:] == [("closed", 5)]
    assert proposals(node)[1].success[0].HasField("request_delete_range")
    opened[1].send(WatchResponse(events=[Event(type=Event.DELETE)]).SerializeToString())  # too late, and harmless


def test_the_servers_end_is_told_as_it_is() -> None:
    """A client that waits has to know that another member may serve it."""
    node = FakeNode()
    node.put(b"e/1")
    call = campaign(node)
    node.proposed[0].call.reply(WON)
    node.run_reads()
    node.watched[0][1].finish(status_of(Stopped()))
    assert call.status is not None
    assert call.status.code is Code.UNAVAILABLE


def test_an_observer_that_does_not_read_makes_the_watch_wait() -> None:
    """What is kept for it is seen by the node as unsent, which stops sending; read, it goes on."""
    node, stream = FakeNode(), FakeStream()
    node.put(b"e/1")
    handler = client_routes(node).streams["/v3electionpb.Election/Observe"](stream)
    handler.on_message(LeaderRequest(name=b"e").SerializeToString())
    node.run_reads()
    watch = node.watched[0][1]
    stream.unsent_bytes = 1
    for number in range(3):
        event = Event(kv=KeyValue(key=b"e/1", value=b"%d" % number))
        watch.send(WatchResponse(events=[event]).SerializeToString())
    assert len(stream.sent) == 2
    assert watch.unsent_bytes > 0
    stream.unsent_bytes = 0
    handler.on_drained()
    assert [LeaderResponse.FromString(sent).kv.value for sent in stream.sent] == [b"v", b"0", b"1", b"2"]
    assert watch.unsent_bytes == 0
    assert node.watched[-1] == ("drained", 5)
    handler.on_closed(OK)
    assert node.watched[-1] == ("closed", 5)


@pytest.mark.parametrize("learner", [True, False])
def test_neither_is_served_where_calls_are_turned_away(learner: bool) -> None:
    """By a learner, or where nobody leads and the client wants a leader."""
    node, call = FakeNode(), FakeCall()
    call.metadata = {"hasleader": ["true"]}
    node.is_learner = learner
    if not learner:
        node.leader = type(node.leader)(0)
    client_routes(node).unary["/v3electionpb.Election/Campaign"](call, CAMPAIGN)
    assert call.status is not None
    assert not node.proposed
