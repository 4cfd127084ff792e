"""Every RPC and every route with input that is wrong: actcd and etcd 3.5.1 give the same codes and texts.

Seeded: a failure names its seed, ACTCD_SEEDS=<seed> runs it again, `make fuzz` runs many new ones.  Where later rules
win, or the two read wrong bytes in different words, EXCEPTIONS says so.
"""

import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

import proto.election_pb2
import proto.lock_pb2  # noqa: F401 - registers its services
from proto import rpc_pb2
from services.gateway import PATHS
from services.routes import client_routes
from tests.e2e.bad_requests import BadBytes, BadJson, is_harmless
from tests.e2e.client import CHANNEL_OPTIONS, connect
from tests.e2e.differential import seeds
from tests.e2e.harness import Server, actcd, real_etcd, running
from tests.fake_node import FakeNode

pytestmark = pytest.mark.e2e

CALLS_PER_SEED: Final = 200
PAGES_PER_SEED: Final = 200
SETTINGS: Final = {"auth-password-characters-min": 0}
DEADLINE_S: Final = 30.0
SHORT_S: Final = 2.0
WAITS_FOR_EVER: Final = {"Campaign", "Observe", "Lock"}
"""Methods whose right answer may be none: they are given a short time, and what they did by then is compared."""
CHANGES_MEMBERS: Final = {"MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"}
NOT_IN_ETCD: Final = {"RangeStream"}

EXCEPTIONS: Final = {
    "what is no message": "3.5.1 reads with gogo/protobuf, which refuses a known field of another wire type and takes "
    "groups without an end; Go's own library (3.7) and ours do not: where either side finds no message, ours must be "
    "the judgement of the protobuf library, in grpc-go's words up to the library's own",
    "tokens while auth is off": "3.5.1 refuses a token that it does not know even then, 3.6 and later look at none: a "
    "bad token is sent where both refuse, with auth on, in test_auth.py",
    "HashKV at or below the compact revision": "see differential.py",
    "unknown alarm actions and sort orders": "3.5.1 panics: sent to actcd alone, which must live",
    "members that are not there": "3.5.1 sometimes drops such a change without a word, and the caller waits",
    "methods other than POST": "grpc-gateway answers 501 since its second version, which etcd 3.6 has; 405 before",
    "bodies with several faults": "the one that is named first may differ; also how deep JSON may be nested differs",
    "base64 without padding or in the alphabet for URLs": "taken since etcd 3.6, refused by 3.5.1: never sent",
    "routes of 3.6": "maintenance/hashkv and others are not known to 3.5.1, or not by that name",
    "a role that is not there, and a range that is none": "3.6 looks at the range first",
    "hashes of passwords": "actcd takes one in the place of a password, for users that move in: never sent",
    "empty passwords": "actcd wants a character at least (CVE-2020-15115): switched off for the comparison",
}

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
METADATA: Final = (
    (),
    (),
    (),
    (("hasleader", "true"),),
    (("hasleader", "perhaps"),),
    (("client-api-version", "x" * 500),),
    (("client-api-version", ""),),
    (("x-bin", b"\x00\xff"),),
)


GOOD_WATCH_ID: Final = 4242
GOOD_WATCH: Final = rpc_pb2.WatchRequest(
    create_request=rpc_pb2.WatchCreateRequest(key=b"good", watch_id=GOOD_WATCH_ID)
).SerializeToString()


class Said(NamedTuple):
    """How a call ended."""

    code: str
    text: str


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
        try:
            if method.name == "Watch":
                return self._watch(made(iter((payload, GOOD_WATCH)), timeout=timeout_s, metadata=metadata))
            answer = made(
                iter((payload,)) if method.client_streaming else payload, timeout=timeout_s, metadata=metadata
            )
            if method.server_streaming:
                for _ in answer:
                    pass
        except grpc.RpcError as error:
            waited = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Said(error.code().name, "" if waited else str(error.details()))
        return Said("OK", "")

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
    """What must be equal: ids are the server's own, and so is what its protobuf library says."""
    text = re.sub(r"\b[0-9a-f]{14,16}\b", "<id>", said.text)
    return Said(said.code, next((beginning for beginning in UNREADABLE if text.startswith(beginning)), text))


def message_in(method: MethodDescriptor, payload: bytes) -> Message | None:
    """What the protobuf library finds in *payload*; None for no message."""
    try:
        return GetMessageClass(method.input_type).FromString(payload)
    except DecodeError:
        return None


def agree(method: MethodDescriptor, payload: bytes, theirs: Said, ours: Said) -> bool:
    """Whether the two answers are as like as they must be; see EXCEPTIONS."""
    if theirs == ours:
        return True
    if (theirs.text in UNREADABLE) != (ours.text in UNREADABLE):
        return (ours.text in UNREADABLE) is (message_in(method, payload) is None)
    if method.name in CHANGES_MEMBERS and theirs.code == "DEADLINE_EXCEEDED":
        return ours.code in {"NOT_FOUND", "INVALID_ARGUMENT"}
    if method.name == "RoleGrantPermission":
        return (theirs.text, ours.text) == ("etcdserver: role name not found", "etcdserver: invalid auth management")
    return method.name == "HashKV" and theirs.text == "etcdserver: mvcc: required revision has been compacted"


def alive(server: Server) -> None:
    """The server writes and reads as ever, and no actor of it has crashed."""
    with connect(server.endpoint) as client:
        client.kv.Put(rpc_pb2.PutRequest(key=b"alive", value=b"yes"), timeout=DEADLINE_S)
        (kv,) = client.kv.Range(rpc_pb2.RangeRequest(key=b"alive"), timeout=DEADLINE_S).kvs
    assert kv.value == b"yes"
    assert server.process is not None
    assert server.process.poll() is None
    assert "crashed" not in server.log_path.read_text(errors="replace")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The subject, without the rules of its own that EXCEPTIONS names."""
    with running(Server(actcd(), tmp_path / "actcd", SETTINGS)) as started:
        yield started


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Server]:
    """The reference, as empty as the subject: leases and revisions of other tests would be told of."""
    with running(Server(real_etcd(), tmp_path / "etcd", {})) as started:
        yield started


@pytest.mark.parametrize("seed", seeds([1, 2]))
def test_every_method_refuses_alike(server: Server, etcd: Server, seed: int) -> None:
    """A client's bug must look the same on either server, and no bytes may harm one."""
    random = Random(seed)
    ours, theirs = Caller(server), Caller(etcd)
    different = []
    for _ in range(CALLS_PER_SEED):
        method = random.choice(METHODS if random.random() < 0.05 else QUICK)
        payload = BadBytes(random).message(method.input_type)
        metadata = random.choice(METADATA)
        message = message_in(method, payload)
        if message is not None and not is_harmless(message):
            ours.call(method, payload, metadata)
            continue
        wanted = comparable(theirs.call(method, payload, metadata))
        got = comparable(ours.call(method, payload, metadata))
        assert wanted.code != "UNAVAILABLE", (method.name, payload, wanted)
        if not agree(method, payload, wanted, got):
            sent = f"{payload[:120]!r}{'...' if len(payload) > 120 else ''}"
            different.append(f"{method.name} {sent} {metadata}\n  etcd:  {wanted}\n  actcd: {got}")
    assert not different, f"seed {seed}:\n" + "\n".join(different)
    alive(server)


class Page(NamedTuple):
    """A request over HTTP."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def routes() -> Iterator[tuple[str, Descriptor]]:
    """Every route of the gateway with the message that it takes; not the streams, whose bodies never end."""
    pool = descriptor_pool.Default()
    for service, paths in PATHS.items():
        for path, name in paths.items():
            method = pool.FindServiceByName(service).FindMethodByName(name)
            if not method.server_streaming and name not in WAITS_FOR_EVER:
                yield path, method.input_type


ROUTES: Final = tuple(routes())
NEW_ROUTES: Final = {"maintenance/hashkv", "maintenance/transfer-leadership", "maintenance/downgrade"}
JSON_FAULTS: Final = (
    "illegal base64 data",
    "json: cannot unmarshal",
    "unknown value",
    "unexpected EOF",
    "exceeded max depth",
    "invalid character",
)


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


def comparable_page(status: int, body: str) -> tuple[int, str]:
    """What must be equal of an answer: nothing of one that is right, whose content other tests compare."""
    if status == 200:
        return status, ""
    return status, re.sub(r"\b[0-9a-f]{14,16}\b", "<id>", body).strip()


def pages_agree(page: Page, theirs: tuple[int, str], ours: tuple[int, str]) -> bool:
    """Whether the two answers are as like as they must be; see EXCEPTIONS."""
    if theirs == ours:
        return True
    route = re.sub(r"^/v3(beta)?/", "", page.path).partition("?")[0]
    if route in NEW_ROUTES:
        return ours[0] in {200, 400, 404, 501}
    if theirs[0] == 405:
        return ours[0] == 501 and '"code":12' in ours[1]
    if "role name not found" in theirs[1]:
        return route == "auth/role/grant" and "invalid auth management" in ours[1]
    faults = [next((fault for fault in JSON_FAULTS if f'"error":"{fault}' in body), "") for _, body in (theirs, ours)]
    return theirs[0] == ours[0] == 400 and all(faults)


def bad_page(random: Random) -> Page:
    """A request to the gateway that is likely to be wrong."""
    path, descriptor = random.choice(ROUTES)
    prefix = random.choice(("/v3/", "/v3/", "/v3/", "/v3beta/", "/v4/", "/v3//"))
    suffix = random.choice(("", "", "", "", "/", "?x=y", "/x"))
    method = random.choice(("POST",) * 12 + ("GET", "PUT", "DELETE", "OPTIONS"))
    headers = random.choice(
        ({}, {}, {}, {"Content-Type": "text/plain"}, {"Grpc-Timeout": "x"}, {"Grpc-Timeout": "S"}, {"X": "y" * 9_000})
    )  # fmt: skip
    return Page(method, f"{prefix}{path}{suffix}", BadJson(random).body(descriptor), headers)


@pytest.mark.parametrize("seed", seeds([1, 2]))
def test_every_route_refuses_alike(server: Server, etcd: Server, seed: int) -> None:
    """The same for callers with curl: statuses and the sentences in their bodies."""
    random = Random(seed)
    different = []
    for _ in range(PAGES_PER_SEED):
        page = bad_page(random)
        wanted, got = comparable_page(*ask(etcd, page)), comparable_page(*ask(server, page))
        if not pages_agree(page, wanted, got):
            sent = f"{page.body[:160]!r}{'...' if len(page.body) > 160 else ''}"
            different.append(f"{page.method} {page.path} {page.headers} {sent}\n  etcd:  {wanted}\n  actcd: {got}")
    assert not different, f"seed {seed}:\n" + "\n".join(different)
    alive(server)
