"""The gateway over WebSocket beside the real etcd 3.5.1's: what browsers do, message by message."""

import http.client
import json
import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

import pytest

from proto import rpc_pb2
from tests.e2e.auth_client import CHEAP, PASSWORD, AuthClient
from tests.e2e.client import connect
from tests.e2e.conftest import MakeServer
from tests.e2e.harness import Server, actcd, real_etcd, running

pytestmark = pytest.mark.e2e

LARGE_MIB: Final = 32

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of RFC 6455, section 1.3."""


class Socket:
    """A client of RFC 6455, as small as can be."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def shake(self, path: str, **headers: str) -> tuple[int, dict[str, str]]:
        """Ask for the upgrade; return status and headers of the answer."""
        asked = {
            "Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13", **headers,
        }  # fmt: skip
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items()), "", ""]
        self._connection.sendall("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        named = (line.partition(":") for line in rest)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in named}

    def send(self, payload: bytes, kind: int = TEXT, *, last: bool = True) -> None:
        """Send one masked frame."""
        size, mask = len(payload), os.urandom(4)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self._connection.sendall(bytes(((0x80 if last else 0) | kind,)) + length + mask + masked)

    def receive(self) -> tuple[int, bytes]:
        """Return kind and payload of the next frame."""
        kind, size = self._take(2)
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8), "big")
        return kind & 0x0F, self._take(size)

    def json(self) -> object:
        """Return the next text, without ids."""
        kind, payload = self.receive()
        assert kind == TEXT, (kind, payload)
        value = json.loads(payload)
        for part in (value, value.get("result", {})):
            if isinstance(part.get("header"), dict):
                part["header"] = part["header"].get("revision")
        return value

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        piece = self._connection.recv(65536)
        assert piece, "the server has gone"
        self._buffer += piece


@contextmanager
def opened(server: Server, path: str, **headers: str) -> Iterator[Socket]:
    """A socket on *path*."""
    with socket.create_connection(("127.0.0.1", server.client_port), 10.0) as connection:
        client = Socket(connection)
        status, answer = client.shake(path, **headers)
        assert status == 101
        assert answer["sec-websocket-accept"] == ACCEPT
        yield client


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Subject and reference."""
    directories = (tmp_path_factory.mktemp(name) for name in ("actcd", "etcd"))
    with (
        running(Server(actcd(), next(directories))) as subject,
        running(Server(real_etcd(), next(directories))) as reference,
    ):
        yield subject, reference


def put(server: Server, value: bytes) -> None:
    with connect(server.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"a", value=value))


def revision(server: Server) -> int:
    with connect(server.endpoint) as client:
        return int(client.kv.Range(rpc_pb2.RangeRequest(key=b"a")).header.revision)


def level(servers: tuple[Server, Server]) -> None:
    """Bring both stores to one revision, without the key, whatever other tests have written to one of them."""
    for server in servers:
        with connect(server.endpoint) as client:
            client.kv.DeleteRange(rpc_pb2.DeleteRangeRequest(key=b"a"))
    highest = max(revision(server) for server in servers)
    for server in servers:
        with connect(server.endpoint) as client:
            for _ in range(highest - revision(server)):
                client.kv.Put(rpc_pb2.PutRequest(key=b"level"))


def story(server: Server) -> list[object]:
    """Watches that come and go, renewals, a refusal."""
    told: list[object] = []
    with opened(server, "/v3/watch") as client:
        client.send(b'{"create_request":{"key":"YQ==","watch_id":"7"}}')
        told.append(client.json())
        put(server, b"one")
        told.append(client.json())
        client.send(b'{"create_request":{"key":"YQ==",', last=False)
        client.send(b'"watch_id":8}}', 0)
        told.append(client.json())
        client.send(b"hello", PING)
        assert client.receive() == (PONG, b"hello")
        client.send(b'{"cancel_request":{"watch_id":7}}')
        told.append(client.json())
        put(server, b"two")
        told.append(client.json())
    with opened(server, "/v3/watch") as client:
        client.send(b"nonsense")
        told.append(client.json())
    with connect(server.endpoint) as client_of_all:
        client_of_all.lease.LeaseGrant(rpc_pb2.LeaseGrantRequest(ID=5, TTL=100))
    with opened(server, "/v3/lease/keepalive") as client:
        for _ in range(2):
            client.send(b'{"ID":"5"}')
            told.append(client.json())
    return told


def test_sessions_go_as_in_etcd(servers: tuple[Server, Server]) -> None:
    """Each message of each session, field by field."""
    level(servers)
    subject, reference = (story(server) for server in servers)
    for number, (ours, theirs) in enumerate(zip(subject, reference, strict=True)):
        assert ours == theirs, number


def test_single_calls_are_answered_and_over(servers: tuple[Server, Server]) -> None:
    """Where etcd's proxy waits for an end of the request, which a WebSocket does not have."""
    for server in servers:
        put(server, b"one")
    for path, text, code in (
        ("/v3/kv/range", b'{"key":"YQ=="}', None),
        ("/v3/kv/put", b"{}", 3),
        ("/v3/kv/range", b'{"key":5}', 3),
    ):
        with opened(servers[0], path) as client:
            client.send(text)
            answer = client.json()
            assert isinstance(answer, dict)
            assert answer.get("code") == code
            assert client.receive() == (CLOSE, b"\x03\xe8")
    with opened(servers[0], "/v3/nothing") as client:
        assert client.receive() == (TEXT, b"Not Found")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Protocol": "Bearer, x"}, 101),
    ],
)
def test_handshakes_are_checked_as_in_etcd(
    servers: tuple[Server, Server], headers: dict[str, str], status: int
) -> None:
    """With the same statuses, and the same subprotocol in return."""
    answers = []
    for server in servers:
        with socket.create_connection(("127.0.0.1", server.client_port), 10.0) as connection:
            got, answer = Socket(connection).shake("/v3/watch", **headers)
            answers.append((got, answer.get("sec-websocket-protocol")))
    assert answers[0] == answers[1]
    assert answers[0][0] == status


def test_what_breaks_the_protocol_ends_the_session(servers: tuple[Server, Server]) -> None:
    """With the code that says so, and without harm to anybody else."""
    for piece, code in ((b"\x81\x01a", 1002), (b"\xf1\x80abcd", 1002), (b"\x81\xff" + b"\x7f" * 12, 1009)):
        with opened(servers[0], "/v3/watch") as client:
            client._connection.sendall(piece)
            kind, payload = client.receive()
            assert (kind, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
    with opened(servers[0], "/v3/watch") as client:
        client.send(b"\x03\xe8", CLOSE)
        assert client.receive() == (CLOSE, b"\x03\xe8")
    for server in servers:
        put(server, b"still there")


def test_a_token_may_come_as_a_subprotocol(make_server: MakeServer) -> None:
    """Browsers can set no other header; and pages of other origins are kept out where a list says so."""
    server = make_server(settings={**CHEAP, "cors": "https://ours.example"})
    with connect(server.endpoint) as stubs:
        client = AuthClient(server, stubs)
        client.set_up()
        token = client.log_in("user", PASSWORD)
    for protocol, created in ((f"Bearer, {token}", True), ("Bearer, nonsense", False), ("other", False)):
        with opened(server, "/v3/watch", **{"Sec-WebSocket-Protocol": protocol}) as session:
            session.send(b'{"create_request":{"key":"%b"}}' % b64encode(b"k/1"))
            answer = session.json()
            assert isinstance(answer, dict)
            assert ("cancel_reason" not in answer["result"]) is created, answer
    for origin, status in (("https://ours.example", 101), ("https://theirs.example", 403)):
        with socket.create_connection(("127.0.0.1", server.client_port), 10.0) as connection:
            assert Socket(connection).shake("/v3/watch", Origin=origin)[0] == status


def snapshot_in(texts: Iterator[bytes]) -> int:
    """Return the size of the snapshot in these lines, which must end with its digest."""
    digest, size, last = sha256(), 0, b""
    for text in texts:
        result = json.loads(text)["result"]
        digest.update(last)
        size += len(last)
        last = b64decode(result["blob"])
    assert "remaining_bytes" not in result
    assert digest.digest() == last
    return size


def test_a_large_snapshot_is_whole_and_costs_no_memory(servers: tuple[Server, Server]) -> None:
    """A backup script of the gateway may be slow: what it has not read waits in the file, not in the server."""
    subject, _ = servers
    with connect(subject.endpoint) as client:
        for number in range(LARGE_MIB):
            request = rpc_pb2.PutRequest(key=b"large/%d" % number, value=os.urandom(1 << 20))
            client.kv.Put(request, timeout=10.0)

        def texts(socket: Socket) -> Iterator[bytes]:
            while True:
                kind, payload = socket.receive()
                if kind == CLOSE:
                    return
                yield payload

        before = subject.memory_bytes("RssAnon")
        with opened(subject, "/v3/maintenance/snapshot") as socket:
            socket.send(b"{}")
            socket.receive()  # and no more for now
            for _ in range(20):
                client.kv.Put(rpc_pb2.PutRequest(key=b"beside", value=b"it"), timeout=10.0)
            grown = subject.memory_bytes("RssAnon") - before
            assert grown < (LARGE_MIB << 20) // 2
        with opened(subject, "/v3/maintenance/snapshot") as socket:
            socket.send(b"{}")
            by_websocket = snapshot_in(texts(socket))
        connection = http.client.HTTPConnection("127.0.0.1", subject.client_port, timeout=30.0)
        connection.request("POST", "/v3/maintenance/snapshot", "{}")
        by_http = snapshot_in(iter(connection.getresponse()))
        connection.close()
        assert min(by_websocket, by_http) > LARGE_MIB << 20
        assert subject.memory_bytes("RssAnon") - before < (LARGE_MIB << 20) // 2
