"""Reflection: what tools need to call a service that they know nothing of, and nothing else."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1.health_pb2 import HealthListResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from net.rpc import OK
from services.health import Health
from services.reflection import SERVICES, reflected
from services.routes import client_routes
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeStream


def ask(request: ServerReflectionRequest, service: str = SERVICES[0]) -> ServerReflectionResponse:
    """Ask one question."""
    stream = FakeStream()
    handler = reflected(client_routes(FakeNode())).streams[f"/{service}/ServerReflectionInfo"](stream)
    handler.on_message(request.SerializeToString())
    handler.on_half_close()
    handler.on_closed(OK)
    assert stream.status == OK
    (sent,) = stream.sent
    answer = ServerReflectionResponse.FromString(sent)
    assert answer.original_request == request
    return answer


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_listed(service: str) -> None:
    """And each can be described, with all that its description builds on."""
    names = [
        each.name for each in ask(ServerReflectionRequest(list_services="*"), service).list_services_response.service
    ]
    assert {"etcdserverpb.KV", "v3lockpb.Lock", "v3electionpb.Election", "grpc.health.v1.Health", *SERVICES} <= set(
        names
    )
    for name in names:
        files = ask(ServerReflectionRequest(file_containing_symbol=name)).file_descriptor_response
        pool = descriptor_pool.DescriptorPool()
        left = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in files.file_descriptor_proto]
        known: set[str] = set()
        while left:  # whatever the order, nothing is missing
            ready = [each for each in left if known.issuperset(each.dependency)]
            assert ready, name
            for each in ready:
                pool.Add(each)
                known.add(each.name)
                left.remove(each)
        if name != SERVICES[0]:
            assert pool.FindServiceByName(name).full_name == name


def test_what_is_not_there_is_not_found() -> None:
    """Symbols, files, and kinds of questions that are not answered here."""
    for request in (
        ServerReflectionRequest(file_containing_symbol="no.such.Thing"),
        ServerReflectionRequest(file_by_filename="none.proto"),
        ServerReflectionRequest(all_extension_numbers_of_type="etcdserverpb.PutRequest"),
        ServerReflectionRequest(),
    ):
        assert ask(request).error_response.error_code == 5
    assert ask(
        ServerReflectionRequest(file_by_filename="proto/kv.proto")
    ).file_descriptor_response.file_descriptor_proto


def test_it_is_off_by_default() -> None:
    """As it is missing in etcd."""
    assert not any("reflection" in path for path in client_routes(FakeNode()).streams)


def test_health_lists_the_server_as_a_whole() -> None:
    """The one service whose health is known."""
    call = FakeCall()
    Health().list_all(call, b"")
    assert call.answer is not None
    assert list(HealthListResponse.FromString(call.answer).statuses) == [""]
