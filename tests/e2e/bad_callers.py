"""Callers that send any bytes to any method or route, and what they were told."""

import http.client
import re
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

import proto.election_pb2
import proto.lock_pb2  # noqa: F401 - registers its services
from proto import rpc_pb2
from services.routes import client_routes
from tests.e2e.client import CHANNEL_OPTIONS, connect
from tests.e2e.harness import Server
from tests.fake_node import FakeNode

DEADLINE_S: Final = 30.0
SHORT_S: Final = 2.0
WAITS_FOR_EVER: Final = {"Campaign", "Observe", "Lock"}
"""Methods whose right answer may be none: they are given a short time, and what they did by then is compared."""
CHANGES_MEMBERS: Final = {"MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"}
NOT_IN_ETCD: Final = {"RangeStream"}

SERVICES: Final = ("KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth")


def path_of(method: MethodDescriptor) -> str:
    """The path of *method* in gRPC."""
    return f"/{method.containing_service.full_name}/{method.name}"


def methods() -> list[MethodDescriptor]:
    """Every method of etcd's API that is served; what is missing is told in docs/compatibility.md."""
    pool = descriptor_pool.Default()
    names = [f"etcdserverpb.{name}" for name in SERVICES] + ["v3electionpb.Election", "v3lockpb.Lock"]
    found = [method for name in names for method in pool.FindServiceByName(name).methods]
    served = client_routes(FakeNode())
    known = {*served.unary, *served.streams}
    return [method for method in found if method.name not in NOT_IN_ETCD and path_of(method) in known]


METHODS: Final = methods()
QUICK: Final = [method for method in METHODS if method.name not in WAITS_FOR_EVER]
GOOD_WATCH_ID: Final = 4242
GOOD_WATCH: Final = rpc_pb2.WatchRequest(
    create_request=rpc_pb2.WatchCreateRequest(key=b"good", watch_id=GOOD_WATCH_ID)
).SerializeToString()


class Said(NamedTuple):
    """How a call ended, and all that it answered before."""

    code: str
    text: str
    content: bytes = b""


class Caller:
    """Calls any method with any bytes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.channel = grpc.insecure_channel(server.endpoint, options=CHANNEL_OPTIONS)

    def call(self, method: MethodDescriptor, payload: bytes, metadata: tuple[tuple[str, str | bytes], ...]) -> Said:
        """Send *payload* and say how the call ended; a stream's answers are read to its end."""
        timeout_s = SHORT_S if method.name in WAITS_FOR_EVER | CHANGES_MEMBERS else DEADLINE_S
        kind = getattr(
            self.channel,
            f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}",
        )
        made = kind(path_of(method), request_serializer=bytes, response_deserializer=bytes)
        content = b""
        try:
            if method.name == "Watch":
                return self._watch(made(iter((payload, GOOD_WATCH)), timeout=timeout_s, metadata=metadata))
            answer = made(
                iter((payload,)) if method.client_streaming else payload, timeout=timeout_s, metadata=metadata
            )
            for message in answer if method.server_streaming else (answer,):
                content += message
        except grpc.RpcError as error:
            # Whoever notices first says it: the client's library, or the server, which calls it UNKNOWN as etcd does.
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED or error.details() == "context deadline exceeded":
                return Said(grpc.StatusCode.DEADLINE_EXCEEDED.name, "", content)
            return Said(error.code().name, str(error.details()), content)
        return Said("OK", "", content)

    def _watch(self, stream: Any) -> Said:
        """Say how the stream ended, or that it goes on: that a right watcher was created behind the wrong message."""
        for message in stream:
            answer = rpc_pb2.WatchResponse.FromString(message)
            if answer.watch_id == GOOD_WATCH_ID and answer.created:
                stream.cancel()
                return Said("OK", "goes on")
        return Said("OK", "")


UNREADABLE: Final = ("grpc: error unmarshalling request:", "grpc: failed to unmarshal the received message")


def comparable(said: Said) -> Said:
    """What must be equal: ids are the server's own, so is what its protobuf library says; content is not compared."""
    text = re.sub(r"\b[0-9a-f]{14,16}\b", "<id>", said.text)
    return Said(said.code, next((beginning for beginning in UNREADABLE if text.startswith(beginning)), text))


def message_in(method: MethodDescriptor, payload: bytes) -> Message | None:
    """What the protobuf library finds in *payload*; None for no message."""
    try:
        return GetMessageClass(method.input_type).FromString(payload)
    except DecodeError:
        return None


def alive(server: Server) -> None:
    """The server writes and reads as ever, and no actor of it has crashed."""
    with connect(server.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"alive", value=b"yes"), timeout=DEADLINE_S)
        (kv,) = client.kv.Range(rpc_pb2.RangeRequest(key=b"alive"), timeout=DEADLINE_S).kvs
    assert kv.value == b"yes"
    assert server.process is not None
    assert server.process.poll() is None
    assert "crashed" not in server.log_path.read_text(errors="replace")


class Page(NamedTuple):
    """A request over HTTP."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def ask(server: Server, page: Page) -> tuple[int, str]:
    """The status and body of the answer; 0 where the connection ends without one."""
    connection = http.client.HTTPConnection("127.0.0.1", server.client_port, timeout=DEADLINE_S)
    try:
        connection.request(page.method, page.path, page.body, page.headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()
