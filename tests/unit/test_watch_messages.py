"""The hand-encoded WatchResponse against the generated protobuf classes."""

from __future__ import annotations

import pytest

from core.mvcc import watch_messages
from core.mvcc.event import Event, EventType
from proto import kv_pb2, rpc_pb2
from tests.fake_watch_history import put_kv

HEADER = b"\x0a\x04\x08\x05\x18\x07"  # cluster_id 5, revision 7
PUT = Event(EventType.PUT, b"k", put_kv(b"k", b"v" * 300, create=3, mod=7, version=2), b"")
DELETE = Event(EventType.DELETE, b"k", put_kv(b"k", b"", create=0, mod=8, version=0), PUT.kv)


def parse(message: bytes) -> rpc_pb2.WatchResponse:
    response = rpc_pb2.WatchResponse.FromString(message)
    assert (response.header.cluster_id, response.header.revision) == (5, 7)
    return response


@pytest.mark.parametrize("watch_id", [0, 1, 127, 128, 1000, 2**63 - 1, -1, -(2**63)])
def test_watch_id_field(watch_id: int) -> None:
    """Id 0 is left out, as every proto3 encoder does, so a message is byte for byte what etcd sends."""
    expected = rpc_pb2.WatchResponse(watch_id=watch_id).SerializeToString()
    assert watch_messages.watch_id_field(watch_id) == expected


@pytest.mark.parametrize("prev_kv", [False, True])
@pytest.mark.parametrize("event", [PUT, DELETE, PUT._replace(prev_kv=None)])
def test_event_field(event: Event, prev_kv: bool) -> None:
    """Events carry the stored bytes unchanged, with the previous value only for those who asked."""
    expected = kv_pb2.Event(type=event.type.name, kv=kv_pb2.KeyValue.FromString(event.kv))
    if prev_kv and event.prev_kv is not None:
        expected.prev_kv.ParseFromString(event.prev_kv)
    response = rpc_pb2.WatchResponse.FromString(watch_messages.event_field(event, prev_kv=prev_kv))
    assert list(response.events) == [expected]
    assert response.events[0].HasField("prev_kv") == (prev_kv and event.prev_kv is not None)


def test_control_answers() -> None:
    """Each answer sets exactly the fields that clients look at."""
    id_field = watch_messages.watch_id_field(9)
    created = parse(watch_messages.created(HEADER, id_field))
    assert (created.watch_id, created.created, created.canceled) == (9, True, False)
    refused = parse(watch_messages.refused(HEADER, "no"))
    assert (refused.watch_id, refused.created, refused.canceled, refused.cancel_reason) == (-1, True, True, "no")
    canceled = parse(watch_messages.canceled(HEADER, id_field))
    assert (canceled.watch_id, canceled.created, canceled.canceled) == (9, False, True)
    compacted = parse(watch_messages.compacted(HEADER, id_field, 400))
    assert (compacted.watch_id, compacted.canceled, compacted.compact_revision) == (9, True, 400)
    assert compacted.cancel_reason == ""
    progress = parse(watch_messages.progress(HEADER, id_field))
    assert (progress.watch_id, len(progress.events), progress.created, progress.canceled) == (9, 0, False, False)


def test_fragments_are_small_and_whole_together() -> None:
    """All pieces but the last announce another, each is below the limit, and no event is lost or cut."""
    events = [watch_messages.event_field(PUT, prev_kv=False)] * 10
    pieces = list(watch_messages.fragments(HEADER, b"\x10\x09", events, 800))
    assert [len(piece) < 800 for piece in pieces] == [True] * 5
    responses = [parse(piece) for piece in pieces]
    assert [response.fragment for response in responses] == [True, True, True, True, False]
    assert [len(response.events) for response in responses] == [2] * 5
    assert {response.watch_id for response in responses} == {9}


def test_an_event_above_the_limit_travels_alone() -> None:
    """A single event cannot be cut; it must still arrive."""
    events = [watch_messages.event_field(PUT, prev_kv=False)] * 3
    responses = [parse(piece) for piece in watch_messages.fragments(HEADER, b"", events, 10)]
    assert [len(response.events) for response in responses] == [1, 1, 1]
    assert [response.fragment for response in responses] == [True, True, False]
