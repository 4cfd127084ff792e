"""Spans as a collector gets them: which calls, whose children, and that they carry nothing of what was asked."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from proto import rpc_pb2
from tests.e2e.client import connect
from tests.e2e.harness import Server, actcd, running, wait_for

pytestmark = pytest.mark.e2e

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(  # noqa: N802 - gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Take spans."""
        del context
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[trace_pb2.Span]:
        """All spans so far."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    """A collector, and its port."""
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, port
    server.stop(None)


def test_calls_are_spans_of_their_clients_traces(collector: tuple[Collector, int], tmp_path: Path) -> None:
    """A child of the client's span where that is sampled, nothing where it is not, and nothing of the request."""
    kept, port = collector
    settings = {
        "enable-distributed-tracing": True,
        "distributed-tracing-address": f"127.0.0.1:{port}",
        "distributed-tracing-service-name": "shop",
        "distributed-tracing-instance-id": "one",
        "distributed-tracing-sampling-rate": 0,
    }
    server = Server(actcd(), tmp_path, settings)
    with running(server), connect(server.endpoint) as client:
        request = rpc_pb2.PutRequest(key=b"unmistakable-key", value=b"unmistakable-value")
        client.kv.Put(request)
        client.kv.Put(request, metadata=[("traceparent", NOT_SAMPLED)])
        client.kv.Put(request, metadata=[("traceparent", "nonsense")])
        client.kv.Put(request, metadata=[("traceparent", SAMPLED), ("token", "unmistakable-token")])
        with pytest.raises(grpc.RpcError):
            client.kv.Put(rpc_pb2.PutRequest(), metadata=[("traceparent", SAMPLED)])
        user = rpc_pb2.AuthUserAddRequest(name="unmistakable-user", password="unmistakable-password")
        client.auth.UserAdd(user, metadata=[("traceparent", SAMPLED)])
        renewals = client.lease.LeaseKeepAlive(
            iter([rpc_pb2.LeaseKeepAliveRequest(ID=5)]), metadata=[("traceparent", SAMPLED)]
        )
        assert len(list(renewals)) == 1
        server.stop()  # sends the last of them
    wait_for(lambda: len(kept.spans()) == 4, 10.0, "the spans")
    spans = {(span.name, attribute(span, "rpc.grpc.status_code")): span for span in kept.spans()}
    assert spans.keys() == {
        ("etcdserverpb.KV/Put", 0),
        ("etcdserverpb.KV/Put", 3),
        ("etcdserverpb.Auth/UserAdd", 0),
        ("etcdserverpb.Lease/LeaseKeepAlive", 0),
    }
    for span in spans.values():
        assert span.trace_id.hex() == SAMPLED.split("-")[1]
        assert span.parent_span_id.hex() == SAMPLED.split("-")[2]
        assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
        assert span.end_time_unix_nano > span.start_time_unix_nano
    resource = {each.key: each.value.string_value for each in kept.requests[0].resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["service.instance.id"]) == ("shop", "one")
    assert not any(b"unmistakable" in request.SerializeToString() for request in kept.requests)


def attribute(span: trace_pb2.Span, key: str) -> int:
    """Return a number that the span carries."""
    return next(each.value.int_value for each in span.attributes if each.key == key)


def test_the_rate_samples_what_has_no_parent(collector: tuple[Collector, int], tmp_path: Path) -> None:
    """All of a million is every call; and a collector that is gone holds nobody up."""
    kept, port = collector
    settings = {
        "enable-distributed-tracing": True,
        "distributed-tracing-address": f"127.0.0.1:{port}",
        "distributed-tracing-sampling-rate": 1_000_000,
    }
    server = Server(actcd(), tmp_path, settings)
    with running(server), connect(server.endpoint) as client:
        for _ in range(3):
            client.kv.Put(rpc_pb2.PutRequest(key=b"k"))
        wait_for(lambda: sum(span.name == "etcdserverpb.KV/Put" for span in kept.spans()) == 3, 15.0, "three spans")
