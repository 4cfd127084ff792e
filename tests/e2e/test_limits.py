"""Limits on clients, from the configuration to the wire, with both engines."""

import socket
import struct
from collections.abc import Iterator
from itertools import count
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from proto import rpc_pb2
from tests.e2e.client import CALL_TIMEOUT_S, CHANNEL_OPTIONS, Stubs, stubs
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import Server, actcd, wait_for

pytestmark = pytest.mark.e2e

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
MAX_CONCURRENT_STREAMS = 3

LIMITS = {
    "max-concurrent-streams": 3,
    "max-request-bytes": 1000,
    "max-txn-ops": 4,
    "grpc-keepalive-min-time": 1_000_000_000,
    "grpc-keepalive-interval": 1_000_000_000,
    "grpc-keepalive-timeout": 1_000_000_000,
    "watch-progress-notify-interval": 200_000_000,
    "enable-grpc-reflection": True,
}
"""Times in the nanoseconds of a file.  Reflection is no limit: it is here because its test needs both engines too."""


@pytest.fixture(scope="module", params=["native", "grpcio"])
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits."""
    server = Server(actcd(), tmp_path_factory.mktemp("limits"), {**LIMITS, "engine": request.param})
    try:
        server.launch()  # not start(), since grpcio serves no /health
        with grpc.insecure_channel(server.endpoint, options=CHANNEL_OPTIONS) as channel:
            up = rpc_pb2.RangeRequest(key=b"up")
            stubs(channel).kv.Range(up, wait_for_ready=True, timeout=CALL_TIMEOUT_S)
        yield server
    finally:
        server.close()


@pytest.fixture
def client(limited: Server) -> Iterator[Stubs]:
    """A client of its own."""
    with grpc.insecure_channel(limited.endpoint, options=CHANNEL_OPTIONS) as channel:
        yield stubs(channel)


class Wire:
    """HTTP/2 by hand: what no library sends on purpose."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.client_port), 10.0)
        self._socket.sendall(PREFACE + self.frame(SETTINGS, b""))
        self._buffer = b""

    def frame(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        """Encode a frame of the connection."""
        return struct.pack(">I", len(payload) << 8 | kind) + bytes((flags,)) + bytes(4) + payload

    def ping(self) -> None:
        """Send a ping."""
        self._socket.sendall(self.frame(PING, b"pingpong"))

    def answer(self, payload: bytes) -> None:
        """Answer a ping."""
        self._socket.sendall(self.frame(PING, payload, 1))

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and payload of what comes, until the connection ends."""
        while True:
            while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(self._buffer[:3], "big"):
                piece = self._socket.recv(65536)
                if not piece:
                    return
                self._buffer += piece
            size = int.from_bytes(self._buffer[:3], "big")
            kind, flags, payload = self._buffer[3], self._buffer[4], self._buffer[9 : 9 + size]
            self._buffer = self._buffer[9 + size :]
            yield kind, flags, payload

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@pytest.fixture
def wire(limited: Server) -> Iterator[Wire]:
    """A connection of its own."""
    made = Wire(limited)
    yield made
    made.close()


def test_streams_are_as_many_as_announced(wire: Wire) -> None:
    """A client that respects SETTINGS keeps to it by itself."""
    settings = next(payload for kind, _, payload in wire.frames() if kind == SETTINGS)
    assert dict(struct.iter_unpack(">HI", settings))[MAX_CONCURRENT_STREAMS] == 3


def test_further_streams_wait_for_their_turn(client: Stubs) -> None:
    """Calls of one connection beyond the limit come when others have ended."""
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k"))
    watches = [client.watch.Watch(iter([create])) for _ in range(3)]
    assert all(next(watch).created for watch in watches)
    with pytest.raises(grpc.RpcError) as waited:
        client.kv.Range(rpc_pb2.RangeRequest(key=b"k"), timeout=0.5)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    watches[0].cancel()
    client.kv.Range(rpc_pb2.RangeRequest(key=b"k"), timeout=CALL_TIMEOUT_S)


def test_requests_are_bounded_as_in_etcd(client: Stubs) -> None:
    """By etcd's words above max-request-bytes, by gRPC's 512 KiB above that; transactions by their operations."""

    def code_of(size: int) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as refused:
            client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=bytes(size)), timeout=CALL_TIMEOUT_S)
        return refused.value.code().name, str(refused.value.details())

    client.kv.Put(rpc_pb2.PutRequest(key=b"k", value=bytes(900)))
    assert code_of(1001) == ("INVALID_ARGUMENT", "etcdserver: request is too large")
    assert code_of(1000 + 500 * 1024)[0] == "INVALID_ARGUMENT"
    assert code_of(1000 + 513 * 1024)[0] == "RESOURCE_EXHAUSTED"
    gets = [rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"k"))] * 5
    client.kv.Txn(rpc_pb2.TxnRequest(success=gets[:4]))
    with pytest.raises(grpc.RpcError, match="too many operations in txn request"):
        client.kv.Txn(rpc_pb2.TxnRequest(success=gets))


def test_ranges_come_in_parts_of_a_requests_size(client: Stubs) -> None:
    """Put together they are what Range answers."""
    for number in range(12):
        client.kv.Put(rpc_pb2.PutRequest(key=b"part/%02d" % number, value=bytes(700)))
    request = rpc_pb2.RangeRequest(key=b"part/", range_end=b"part0")
    whole, merged, sizes = client.kv.Range(request), rpc_pb2.RangeResponse(), []
    for part in client.kv.RangeStream(request, timeout=CALL_TIMEOUT_S):
        sizes.append(len(part.range_response.kvs))
        merged.MergeFrom(part.range_response)
    assert merged == whole
    assert sizes == [2] * 6


def test_too_many_pings_end_the_connection(wire: Wire) -> None:
    """Those that come more often than grpc-keepalive-min-time, and without calls nearly all, as grpc-go counts."""
    for _ in range(5):
        wire.ping()
    goaway = next(payload for kind, _, payload in wire.frames() if kind == GOAWAY)
    assert int.from_bytes(goaway[4:8], "big") == 11
    assert goaway[8:] == b"too_many_pings"


def test_clients_that_do_not_answer_are_let_go(wire: Wire) -> None:
    """Each is pinged after grpc-keepalive-interval, also while it makes no call; who answers stays."""
    answered = count()
    for kind, flags, payload in wire.frames():
        if kind == PING and not flags and next(answered) == 0:
            wire.answer(payload)
    assert next(answered) == 2


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_a_tool_that_knows_nothing_learns_to_call(limited: Server, version: str) -> None:
    """Google's own client of reflection finds every service, and enough of their messages to make calls with."""
    with grpc.insecure_channel(limited.endpoint, options=CHANNEL_OPTIONS) as channel:
        known = ProtoReflectionDescriptorDatabase(cast("grpc.Channel", Renamed(channel, version)))
        services = {"KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth"}
        wanted = {*(f"etcdserverpb.{name}" for name in services), "v3lockpb.Lock", "v3electionpb.Election"}
        assert wanted | {f"grpc.reflection.{version}.ServerReflection"} <= set(known.get_services())
        pool = DescriptorPool(known)
        counts = {name: len(pool.FindServiceByName(name).methods) for name in wanted}
        assert counts == {name: len(Default().FindServiceByName(name).methods) for name in wanted}
        put, got = (pool.FindMethodByName(f"etcdserverpb.KV.{name}") for name in ("Put", "Range"))
        for method, request in ((put, {"key": b"reflected", "value": version.encode()}), (got, {"key": b"reflected"})):
            call: Any = channel.unary_unary(
                f"/etcdserverpb.KV/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            answer = call(GetMessageClass(method.input_type)(**request), timeout=CALL_TIMEOUT_S)
        assert [kv.value for kv in answer.kvs] == [version.encode()]


class Renamed:
    """A channel on which Google's client, which knows the older name of the service alone, calls that of *version*."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self._channel = channel
        self._version = version

    def stream_stream(self, path: str, *arguments: Any, **options: Any) -> Any:
        """See grpc.Channel."""
        return self._channel.stream_stream(path.replace("v1alpha", self._version), *arguments, **options)


def test_watchers_hear_of_progress_as_often_as_set(client: Stubs) -> None:
    """Those that asked to."""
    create = rpc_pb2.WatchCreateRequest(key=b"quiet", progress_notify=True)
    watch = client.watch.Watch(iter([rpc_pb2.WatchRequest(create_request=create)]), timeout=CALL_TIMEOUT_S)
    assert next(watch).created
    assert [len(next(watch).events) for _ in range(2)] == [0, 0]
    watch.cancel()


def test_a_version_that_is_no_text_is_refused(make_server: MakeServer) -> None:
    """It becomes the label of a metric; such bytes once ended etcd (issue 13560)."""
    server = make_server()
    with socket.create_connection(("127.0.0.1", server.client_port), 10.0) as connection:
        fields = [
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/etcdserverpb.KV/Range"), (b":authority", b"a"),
            (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"client-api-version", b"\xff\xfe"),
        ]  # fmt: skip
        block = b"".join(b"\0" + bytes((len(n),)) + n + bytes((len(v),)) + v for n, v in fields)
        head = struct.pack(">I", len(block) << 8 | 1) + b"\x05" + (1).to_bytes(4, "big")
        connection.sendall(PREFACE + struct.pack(">I", SETTINGS) + bytes(5) + head + block)
        seen = b""
        while b"invalid client api version" not in seen:
            piece = connection.recv(65536)
            assert piece, seen
            seen += piece
    wait_for(lambda: server.process is not None and server.process.poll() is None, 1.0, "the server lives")
