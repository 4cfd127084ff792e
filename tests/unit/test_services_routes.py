"""The table of methods: complete, and each entry leads to what it says; health and watch streams; maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import google_crc32c
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListResponse

from core.errors import Compacted
from core.mvcc.hashing import hash_kv
from core.types import MemberId
from core.version import SERVER_VERSION
from net.rpc import OK, Code
from proto import rpc_pb2
from proto.rpc_pb2 import (
    AlarmRequest,
    DefragmentRequest,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    StatusRequest,
    StatusResponse,
    WatchCreateRequest,
    WatchRequest,
)
from services.health import Health
from services.maintenance import ALARM_TAG, MaintenanceService
from services.routes import client_routes
from services.watch import WatchStream
from tests.fake_node import MEMBER, FakeNode
from tests.fakes import FakeCall, FakeStream

if TYPE_CHECKING:
    from google.protobuf.message import Message

NOT_A_MESSAGE = b"\xff"

NOT_SERVED: set[str] = set()
"""Methods of etcd that are answered as unimplemented, knowingly."""


def declared() -> dict[str, bool]:
    """Return every method of etcd's API by path, and whether it streams."""
    return {
        f"/{service.full_name}/{method.name}": bool(method.client_streaming or method.server_streaming)
        for service in rpc_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_every_method_of_the_api_is_served() -> None:
    """A method that is forgotten here would be unknown to clients; one that does not exist would never be called."""
    routes = client_routes(FakeNode())
    ours = {path for path in [*routes.unary, *routes.streams] if path.startswith("/etcdserverpb.")}
    assert ours == declared().keys() - NOT_SERVED


def test_streams_are_served_as_streams() -> None:
    """An engine hands a stream over before its first message, a call with its only one."""
    routes, streaming = client_routes(FakeNode()), declared()
    assert all(streaming[path] for path in routes.streams if path in streaming)
    assert not any(streaming[path] for path in routes.unary if path in streaming)


@pytest.mark.parametrize("path", sorted(client_routes(FakeNode()).unary))
def test_no_method_stumbles_over_any_bytes(path: str) -> None:
    """Bytes that are no message of its type end the call and nothing else."""
    node, call = FakeNode(), FakeCall()
    client_routes(node).unary[path](call, NOT_A_MESSAGE)
    assert call.status is not None
    assert call.status.code is Code.INTERNAL
    assert node.proposed == []


@pytest.mark.parametrize("path", sorted(client_routes(FakeNode()).streams))
def test_no_stream_stumbles_over_any_bytes(path: str) -> None:
    """Likewise: the stream ends, and its handler hears of it once."""
    node, stream = FakeNode(), FakeStream()
    handler = client_routes(node).streams[path](stream)
    handler.on_message(NOT_A_MESSAGE)
    assert stream.status is not None
    assert stream.status.code is Code.INTERNAL
    handler.on_closed(stream.status)


# Health.


def check(service: str = "") -> FakeCall:
    call = FakeCall()
    Health().check(call, HealthCheckRequest(service=service).SerializeToString())
    return call


def test_the_server_as_a_whole_is_serving() -> None:
    """As long as it answers at all."""
    call = check()
    assert call.answer is not None
    assert HealthCheckResponse.FromString(call.answer).status == HealthCheckResponse.SERVING


def test_no_other_service_has_a_health() -> None:
    """As in etcd."""
    assert check("etcdserverpb.KV").status is not None
    assert check("etcdserverpb.KV").status == check("nonsense").status


def test_health_is_watched_from_its_present_state_on() -> None:
    """And the stream stays, since there may be changes."""
    for service, expected in (("", HealthCheckResponse.SERVING), ("x", HealthCheckResponse.SERVICE_UNKNOWN)):
        stream = FakeStream()
        handler = Health().watch(stream)
        handler.on_message(HealthCheckRequest(service=service).SerializeToString())
        handler.on_half_close()
        handler.on_drained()
        assert [HealthCheckResponse.FromString(sent).status for sent in stream.sent] == [expected]
        assert stream.status is None
        handler.on_closed(OK)


def states(stream: FakeStream) -> list[int]:
    return [HealthCheckResponse.FromString(sent).status for sent in stream.sent]


@pytest.mark.parametrize("stops", [False, True])
def test_health_says_that_the_store_is_being_defragmented_if_it_is_to(stops: bool) -> None:
    """With the gate on balancers send calls elsewhere until the last of several has ended; else nothing changes."""
    node, health = FakeNode(), Health(stops_on_defragment=stops)
    routes = client_routes(node, health)
    stream, gone, idle = FakeStream(), FakeStream(), FakeStream()
    watch, left, _ = (routes.streams["/grpc.health.v1.Health/Watch"](each) for each in (stream, gone, idle))
    for each in (watch, left):
        each.on_message(HealthCheckRequest().SerializeToString())
    left.on_closed(OK)
    for _ in range(2):
        routes.unary["/etcdserverpb.Maintenance/Defragment"](FakeCall(), DefragmentRequest().SerializeToString())
    up, down = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
    during = down if stops else up
    call, listing = FakeCall(), FakeCall()
    routes.unary["/grpc.health.v1.Health/Check"](call, b"")
    routes.unary["/grpc.health.v1.Health/List"](listing, b"")
    assert call.answer is not None
    assert listing.answer is not None
    assert HealthCheckResponse.FromString(call.answer).status == during
    assert HealthListResponse.FromString(listing.answer).statuses[""].status == during
    node.answer(None)
    assert health.state.status == during
    node.answer(None)
    assert health.state.status == up
    assert states(stream) == ([up, down, up] if stops else [up])
    assert (states(gone), states(idle)) == ([up], [])


def test_a_slow_watcher_of_health_gets_the_last_state() -> None:
    """What it missed no longer matters, and nothing piles up for it."""
    health, stream = Health(stops_on_defragment=True), FakeStream()
    watch = health.watch(stream)
    watch.on_drained()
    watch.on_message(b"")
    stream.unsent_bytes = 7
    ended = health.defragmentation()
    assert states(stream) == [HealthCheckResponse.SERVING]
    stream.unsent_bytes = 0
    watch.on_drained()
    ended()
    stream.unsent_bytes = 7
    health.defragmentation()()
    stream.unsent_bytes = 0
    watch.on_drained()
    assert states(stream) == [1, 2, 1]


# Watch streams.


def test_a_watch_stream_carries_requests_and_its_end() -> None:
    """Deciding is WatchActor's."""
    node, stream = FakeNode(), FakeStream()
    handler = WatchStream(node, stream)
    request = WatchRequest(create_request=WatchCreateRequest(key=b"a")).SerializeToString()
    handler.on_message(request)
    handler.on_half_close()
    handler.on_drained()
    handler.on_closed(OK)
    assert node.watched == [("open", stream), ("request", 5, request), ("drained", 5), ("closed", 5)]
    assert stream.status is None


# Maintenance.


def maintain(node: FakeNode, method: str, request: Message) -> FakeCall:
    call = FakeCall()
    getattr(MaintenanceService(node), method)(call, request.SerializeToString())
    return call


def test_status_tells_how_the_member_is() -> None:
    """What dashboards and operators look at first."""
    node = FakeNode()
    node.put(b"a")
    call = maintain(node, "status", StatusRequest())
    node.answer([(MEMBER, 1)])
    node.answer((2000, 1500))
    assert call.answer is not None
    status = StatusResponse.FromString(call.answer)
    assert (status.version, status.dbSize, status.dbSizeInUse) == (SERVER_VERSION, 2000, 1500)
    assert (status.leader, status.raftTerm, status.raftIndex) == (MEMBER, 3, 9)
    assert list(status.errors) == ["memberID:161 alarm:NOSPACE"]
    assert status.header.revision == 2


def test_status_says_that_nobody_leads() -> None:
    """It is answered all the same: that is when it is needed."""
    node = FakeNode()
    node.leader = MemberId(0)
    call = maintain(node, "status", StatusRequest())
    node.answer([])
    node.answer((0, 0))
    assert call.answer is not None
    assert list(StatusResponse.FromString(call.answer).errors) == ["etcdserver: no leader"]


@pytest.mark.parametrize("action", [AlarmRequest.GET, AlarmRequest.ACTIVATE, AlarmRequest.DEACTIVATE])
def test_alarms_go_through_the_log(action: AlarmRequest.AlarmAction) -> None:
    """Even a list: it is then as new as the log."""
    node, request = FakeNode(), AlarmRequest(action=action)
    maintain(node, "alarm", request)
    assert [(each.tag, each.body) for each in node.proposed] == [(ALARM_TAG, request.SerializeToString())]


def test_a_defragmentation_is_answered_when_it_is_done() -> None:
    """It may take minutes."""
    node = FakeNode()
    call = maintain(node, "defragment", DefragmentRequest())
    assert not call.done
    node.answer(None)
    assert call.status == OK


def test_hashes_are_of_the_view_at_the_time_of_asking() -> None:
    """Whatever is written while a worker reads."""
    node = FakeNode()
    node.put(b"a")
    view = node.view
    asked = [maintain(node, "hash_kv", HashKVRequest()), maintain(node, "hash", HashRequest())]
    node.put(b"b")
    node.run_jobs()
    of_keys, of_all = asked
    assert of_keys.answer is not None
    answer = HashKVResponse.FromString(of_keys.answer)
    assert (answer.hash, answer.header.revision) == (hash_kv(view, 0, google_crc32c.extend).hash, 2)
    assert of_all.answer is not None
    assert HashResponse.FromString(of_all.answer).header.revision == 2


def test_a_hash_below_the_compaction_is_refused() -> None:
    """Its records are gone."""
    node = FakeNode()
    node.put(b"a", b"a", b"a")
    node.store.begin_compaction(3)
    node.publish()
    call = maintain(node, "hash_kv", HashKVRequest(revision=2))
    node.run_jobs()
    assert call.status is not None
    assert (call.status.code, call.status.message) == (Code.OUT_OF_RANGE, Compacted.text)
