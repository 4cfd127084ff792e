"""Every RPC and every route with auth on, by callers with no token, a wrong one, or one that allows little.

Seeded, beside an etcd 3.5.1: the same codes and texts, unless RULES names the later rule that wins.  Whatever is asked
for, nobody sees what is not theirs; and root, beside all that, is served as ever.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple, Self

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from proto import rpc_pb2 as pb
from services.gateway import PATHS
from tests.e2e.auth_client import CHEAP, AuthClient, as_code_and_text
from tests.e2e.bad_callers import DEADLINE_S, METHODS, Caller, Page, Said, ask, comparable, message_in
from tests.e2e.bad_requests import BadBytes, BadJson, is_harmless
from tests.e2e.client import connect
from tests.e2e.differential import seeds
from tests.e2e.harness import Server, actcd, real_etcd, running, wait_for
from tests.e2e.prying import JWT_KEY, MARK, SECRET, VALID, Prying, as_json, fill, leaks, signed_tokens, simple_tokens
from tests.e2e.test_bad_input import NEW_ROUTES, PATIENT_ENDS, STREAM_ENDS, agree, comparable_page, pages_agree

pytestmark = pytest.mark.e2e

CALLS_PER_SEED: Final = 400
PAGES_PER_SEED: Final = 150
OPEN_PAGES: Final = (
    "/metrics",
    "/debug/vars",
    "/debug/requests",
    "/debug/events",
    "/health?serializable=true",
    "/version",
)
"""Pages that ask nobody who they are."""
CALLS_PER_BEAT: Final = 10
"""So often root writes."""
TOKEN_TTL_S: Final = 8
EXPIRY_S: Final = 2.0
"""How much later than that a token ends at most."""
FRESH_S: Final = 1.0
AWAITED_S: Final = 1.0
LATENCY_MAX_S: Final = 5.0


@contextmanager
def with_secrets(server: Server) -> Iterator[AuthClient]:
    """*server* with auth on, something to hide, and users whose tokens are worth little or nothing."""
    with running(server), connect(server.endpoint) as stubs:
        client = AuthClient(server, stubs)
        client.set_up()
        fill(client)
        yield client


@pytest.fixture(params=["simple", "jwt"])
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[AuthClient, AuthClient]]:
    """Both servers, with tokens of either kind."""
    settings: dict[str, object] = {**CHEAP, "auth-token-ttl": TOKEN_TTL_S}
    if request.param == "jwt":
        (tmp_path / "key").write_bytes(JWT_KEY)
        settings["auth-token"] = f"jwt,priv-key={tmp_path / 'key'},sign-method=HS256,ttl=10m"
    with ExitStack() as stack:
        ours = {**settings, "auth-password-characters-min": 0}
        yield (
            stack.enter_context(with_secrets(Server(actcd(), tmp_path / "actcd", ours))),
            stack.enter_context(with_secrets(Server(real_etcd(), tmp_path / "etcd", settings))),
        )


EMPTY: Final = "etcdserver: user name is empty"
DENIED: Final = "etcdserver: permission denied"
INVALID: Final = "etcdserver: invalid auth token"
OLD: Final = "etcdserver: revision of auth store is old"
NO_USER: Final = "etcdserver: user name not found"
REFUSALS: Final = frozenset({EMPTY, DENIED, INVALID, OLD, NO_USER})
UNMAPPED: Final = {
    "auth: user name is empty": EMPTY,
    "auth: permission denied": DENIED,
    "auth: invalid auth token": INVALID,
    "auth: revision in header is old": OLD,
    "auth: user not found": NO_USER,
}

OPEN_IN_3_5_1: Final = {
    **dict.fromkeys(
        ("LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases", "LeaseKeepAlive"), "CVE-2026-33413"
    ),
    **dict.fromkeys(("MemberList", "Alarm", "Compact"), "CVE-2026-33413"),
    **dict.fromkeys(("Lock", "Campaign", "Proclaim", "Resign"), "they begin with a lease, where none is named"),
    **dict.fromkeys(("Status", "MoveLeader", "Downgrade"), "later releases ask who calls"),
}
CHANGES_3_5_1: Final = {"Compact", "Alarm", "Downgrade", "LeaseRevoke", "LeaseGrant"}
"""Of these those that would leave the two stores different: sound requests are for ours alone, which must refuse."""


class Case(NamedTuple):
    """A call on both servers: as whom, of what, and how it ended."""

    who: str
    method: MethodDescriptor
    message: Message | None
    """None for what is no message."""
    theirs: Said
    ours: Said


def holds(message: Message | None, what: Callable[[str, Any], bool]) -> bool:
    """Whether a field of *message*, or of one in it, is *what* is looked for, by name and value."""
    return message is not None and any(
        what(field.name, each) or (field.message_type is not None and holds(each, what))
        for field, value in message.ListFields()
        for each in (value if field.is_repeated else (value,))
    )


def refused(case: Case) -> bool:
    """Whether ours says that this caller may not."""
    return any(refusal in case.ours.text for refusal in REFUSALS)


def from_key(case: Case) -> bool:
    return holds(case.message, lambda name, value: name == "range_end" and value == b"\0")


def unchecked_txn(case: Case) -> bool:
    return case.method.name == "Txn" and holds(
        case.message, lambda name, _value: name in {"request_txn", "prev_kv", "lease"}
    )


RULES: Final[dict[str, Callable[[Case], bool]]] = {
    "3.5.1 asks nobody who they are; see OPEN_IN_3_5_1": lambda case: (
        case.method.name in OPEN_IN_3_5_1 and refused(case)
    ),
    "3.5.1 checks the first key only (GHSA-xg4h-6gfc-h4m8)": lambda case: from_key(case) and refused(case),
    "3.5.1 does not look into nested transactions, nor at prev_kv and leases (CVE-2026-33343, CVE-2026-44283)": (
        lambda case: unchecked_txn(case) and refused(case)
    ),
    "3.5.1 sends these without their codes": lambda case: UNMAPPED.get(case.theirs.text) == case.ours.text,
    "later releases show to anybody whether auth is on": lambda case: (
        case.method.name == "AuthStatus" and case.ours.code == "OK"
    ),
    "3.5.1 says the same to nobody as to those who may not": lambda case: (
        case.method.name == "Watch" and DENIED in case.theirs.text and refused(case)
    ),
}


def verdict(case: Case, payload: bytes) -> bool:
    """Whether the two servers said the same, or a rule explains why not."""
    theirs, ours = comparable(case.theirs), comparable(case.ours)
    return agree(case.method, payload, theirs, ours) or any(rule(case) for rule in RULES.values())


class Beside:
    """Root, on a connection of its own: reads one key after the other, and watches all that is secret."""

    def __init__(self, client: AuthClient) -> None:
        self._client = client
        self._stop, self._created = threading.Event(), threading.Event()
        self.seen: list[bytes] = []
        self.slowest_s = 0.0
        self.fault: BaseException | None = None
        self._threads = [threading.Thread(target=target) for target in (self._read, self._watch)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        assert self._created.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _read(self) -> None:
        try:
            with connect(self._client.server.endpoint) as stubs:
                while not self._stop.wait(0.01):
                    started_s = time.monotonic()
                    request = pb.RangeRequest(key=SECRET + b"plain")
                    stubs.kv.Range(request, metadata=self._client.metadata("root"), timeout=DEADLINE_S)
                    self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        except grpc.RpcError as error:
            self.fault = error

    def _watch(self) -> None:
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=SECRET + b"beat"))
        with connect(self._client.server.endpoint) as stubs:
            stream = stubs.watch.Watch(iter((create,)), metadata=self._client.metadata("root"))
            threading.Thread(target=lambda: (self._stop.wait(), stream.cancel())).start()
            try:
                for answer in stream:
                    self._created.set()
                    self.seen += [event.kv.value for event in answer.events]
            except grpc.RpcError as error:
                if not self._stop.is_set():
                    self.fault = error


class Guests:
    """The tokens of everybody at one server, those of simple users kept alive by logging in anew."""

    def __init__(self, client: AuthClient) -> None:
        self.client = client
        self._signed = client.tokens["user"].count(".") == 2
        self._since_s = self._logged_in_s = time.monotonic()
        self.beaten: list[bytes] = []

    def tokens(self) -> dict[str, str | None]:
        """Every token, by what it is."""
        if not self._signed and time.monotonic() - self._logged_in_s > FRESH_S:
            for name in ("root", "user", "weak"):
                self.client.log_in(name)
            self._logged_in_s = time.monotonic()
        if self._signed:
            return signed_tokens(self.client.tokens)
        tokens = simple_tokens(self.client.tokens)
        if not self.idle_is_over():
            tokens["idle for too long"] = tokens["nonsense"]
        return tokens

    def idle_is_over(self) -> bool:
        """Whether a token that nobody has used has come to its end."""
        return self._signed or time.monotonic() - self._since_s > TOKEN_TTL_S + EXPIRY_S

    def beat(self) -> None:
        """Have root write something secret."""
        self.beaten.append(b"%d " % len(self.beaten) + MARK)
        put = pb.PutRequest(key=SECRET + b"beat", value=self.beaten[-1])
        self.client.call("root", "kv", "Put", put)


def metadata_of(token: str | None, name: str) -> tuple[tuple[str, str | bytes], ...]:
    return () if token is None else ((name, token),)


def watched(caller: Caller, payload: bytes, metadata: tuple[tuple[str, str | bytes], ...], *, answered: bool) -> Said:
    """What became of a request on a watch stream: its first answer, if one is due."""
    call = caller.channel.stream_stream(
        "/etcdserverpb.Watch/Watch", request_serializer=bytes, response_deserializer=bytes
    )
    stream = call(iter((payload,)), timeout=DEADLINE_S if answered else 0.3, metadata=metadata)
    try:
        content = next(stream)
    except StopIteration:
        return Said("OK", "ended")
    except grpc.RpcError as error:
        return Said(
            error.code().name, "" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else str(error.details())
        )
    finally:
        stream.cancel()
    answer = pb.WatchResponse.FromString(content)
    refused = answer.cancel_reason and as_code_and_text(answer.cancel_reason)
    return Said("OK", f"created: {answer.created}, canceled: {answer.canceled} {refused}", content)


def asks(caller: Caller, case_method: MethodDescriptor, payload: bytes, metadata: tuple[Any, ...]) -> Said:
    if case_method.name != "Watch":
        return caller.call(case_method, payload, metadata)
    message = message_in(case_method, payload)
    create = message is not None and message.WhichOneof("request_union") == "create_request"
    return watched(caller, payload, metadata, answered=message is None or create)


def test_no_token_and_no_request_gets_at_what_is_not_theirs(twins: tuple[AuthClient, AuthClient]) -> None:
    """Whatever is tried is refused in etcd's words, shows no secret, crashes nothing and holds up nobody else."""
    subject, reference = (Guests(client) for client in twins)
    assert secrets_are_noticed(subject.client)
    simple = subject.client.tokens["user"].count(".") == 1
    assert [is_awaited(client) for client in twins] == [simple, simple]
    for seed in seeds([1]):
        with Beside(subject.client) as beside:
            random = Random(seed)
            different = calls_that_differ(random, subject, reference)
            different += pages_that_differ(random, subject, reference)
            wait_for(lambda: beside.seen == subject.beaten, DEADLINE_S, "root's watch has seen what root wrote")
            wait_for(lambda: subject.idle_is_over() and reference.idle_is_over(), DEADLINE_S, "idle tokens are over")
        for path in OPEN_PAGES:
            assert not leaks(ask(subject.client.server, Page("GET", path, b"", {}))[1].encode()), path
        assert not different, f"seed {seed}:\n" + "\n".join(different)
        assert beside.fault is None
        assert beside.slowest_s < LATENCY_MAX_S
        subject.beaten.clear()
    server = subject.client.server
    assert server.process is not None
    assert server.process.poll() is None
    assert "crashed" not in server.log_path.read_text(errors="replace")


def is_awaited(client: AuthClient) -> bool:
    """Whether a token that this member may not know yet is waited for, as long as the client waits."""
    started_s = time.monotonic()
    request = pb.RangeRequest(key=b"k/1")
    with pytest.raises(grpc.RpcError):
        client.stubs.kv.Range(request, metadata=[("token", client.tokens["user"] + "000000")], timeout=AWAITED_S)
    # Whether the client or the server is the first to give up, the one with its own words, is chance.
    return time.monotonic() - started_s > AWAITED_S / 2


def secrets_are_noticed(client: AuthClient) -> bool:
    """Whether what root may see would be taken for a leak, over gRPC and as JSON."""
    request = pb.RangeRequest(key=SECRET + b"plain")
    answer = client.call("root", "kv", "Range", request)
    page = Page("POST", "/v3/kv/range", as_json(request), {"Authorization": client.tokens["root"]})
    return leaks(answer.SerializeToString()) and leaks(ask(client.server, page)[1].encode())


def calls_that_differ(random: Random, subject: Guests, reference: Guests) -> list[str]:
    """Call every method in every wrong way; return what each said where it must not."""
    callers = Caller(subject.client.server), Caller(reference.client.server)
    prying, bad = Prying(random), BadBytes(random)
    wrong = []
    for number in range(CALLS_PER_SEED):
        if number % CALLS_PER_BEAT == 0:
            subject.beat()
            reference.beat()
        tokens = subject.tokens(), reference.tokens()
        method, who = random.choice(METHODS), random.choice(list(tokens[0]))
        sound = random.random() < 0.7
        payload = prying.message(method.name).SerializeToString() if sound else bad.message(method.input_type)
        where = random.choice(("token", "authorization"))
        message = message_in(method, payload)
        ours = asks(callers[0], method, payload, metadata_of(tokens[0][who], where))
        sent = f"{method.name} by {who}: {str(message)[:150]!r} {payload[:60]!r}"
        if leaks(ours.content):
            wrong.append(f"{sent}\n  shows {ours.content[:200]!r}")
        if message is not None and not is_for_both(method.name, message, allowed=who in VALID and ours.code == "OK"):
            continue
        theirs = asks(callers[1], method, payload, metadata_of(tokens[1][who], where))
        case = Case(who, method, message, theirs, ours)
        if not verdict(case, payload):
            wrong.append(f"{sent}\n  etcd:  {theirs[:2]}\n  actcd: {ours[:2]}")
    return wrong


def is_for_both(method: str, message: Message, *, allowed: bool) -> bool:
    """Whether both servers may be asked: not for what 3.5.1 does though it should not, or does in another way."""
    if method == "RangeStream" or (method == "Watch" and not message.HasField("create_request")):
        return False
    return is_harmless(message) and (allowed or method not in CHANGES_3_5_1)


def routes() -> dict[str, MethodDescriptor]:
    """Every route of etcd 3.5.1's gateway and its method."""
    by_name = {method.full_name: method for method in METHODS}
    found = {path: by_name.get(f"{service}.{name}") for service, paths in PATHS.items() for path, name in paths.items()}
    return {path: method for path, method in found.items() if method is not None and path not in NEW_ROUTES}


ROUTES: Final = routes()


def told(body: str) -> str:
    """What a body says against its request: an error in either form, or why a watch was canceled."""
    try:
        said = json.loads(body.partition("\n")[0])
    except ValueError:
        return body
    if not isinstance(said, dict) or "error" not in said:
        reason = said.get("result", {}).get("cancel_reason", "") if isinstance(said, dict) else ""
        return as_code_and_text(reason) if reason else ""
    return str(said["error"]["message"] if isinstance(said["error"], dict) else said["error"])


def pages_that_differ(random: Random, subject: Guests, reference: Guests) -> list[str]:
    """Ask for every route in every wrong way; return what each said where it must not."""
    prying, bad = Prying(random), BadJson(random)
    wrong = []
    for number in range(PAGES_PER_SEED):
        if number % CALLS_PER_BEAT == 0:
            subject.beat()
            reference.beat()
        tokens = subject.tokens(), reference.tokens()
        path, who = random.choice(list(ROUTES)), random.choice(list(tokens[0]))
        method = ROUTES[path]
        message = prying.message(method.name) if random.random() < 0.7 else None
        body = bad.body(method.input_type) if message is None else as_json(message)
        if b"rogress" in body:
            continue
        name = random.choice(("Authorization", "authorization", "Grpc-Metadata-Token", "Grpc-Metadata-Authorization"))
        path = f"/v3/{path}"
        for ends in (STREAM_ENDS, PATIENT_ENDS) if method.server_streaming else ("",):
            timeout = {"Grpc-Timeout": ends} if ends else {}
            pages = [
                Page("POST", path, body, timeout if each[who] is None else {**timeout, name: str(each[who])})
                for each in tokens
            ]
            fault = page_fault(Asked(who, method, message), pages, subject.client.server, reference.client.server)
            if not fault:
                break
        if fault:
            wrong.append(f"{path} by {who} in {name}: {body[:150]!r}\n  {fault}")
    return wrong


class Asked(NamedTuple):
    """What is asked for in a page, and as whom."""

    who: str
    method: MethodDescriptor
    message: Message | None


def page_fault(asked: Asked, pages: list[Page], server: Server, etcd: Server) -> str:
    """Ask both servers, each for its page; return what is wrong with the answers, nothing if nothing is."""
    ours = ask(server, pages[0])
    if leaks(ours[1].encode()):
        return f"shows {ours[1][:200]}"
    if asked.method.name in CHANGES_3_5_1 and not (asked.who in VALID and ours[0] == 200):
        return ""
    theirs = ask(etcd, pages[1])
    ends = (Said("OK" if status == 200 else "", told(body)) for status, body in (theirs, ours))
    if pages_agree(pages[0], comparable_page(*theirs), comparable_page(*ours)):
        return ""
    case = Case(*asked, *ends)
    if any(rule(case) for rule in RULES.values()):
        return ""
    return f"etcd:  {theirs[0]} {theirs[1][:300]}\n  actcd: {ours[0]} {ours[1][:300]}"
