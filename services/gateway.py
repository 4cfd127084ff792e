"""The JSON gateway: every RPC of etcd that has a route below /v3/, as an HTTP POST of a JSON object.

A request becomes a call of the very services that gRPC reaches, without a second connection.  Spec: the JSON gateway
in etcd's documentation; routes are those of rpc.proto's HTTP options.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

import proto.election_pb2
import proto.lock_pb2
import proto.rpc_pb2  # noqa: F401 - these register the descriptors that are looked up here
from net.rpc import Code, RefusedCall, Status, message_too_large
from net.websocket import wants_websocket
from services.gateway_calls import DEADLINE, GatewayCall, GatewayStream, refuse
from services.gateway_json import JsonFault, fill, values
from services.gateway_socket import GatewaySession, token_in_protocols

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from net.rpc import HttpRequest, HttpResponder, Routes
    from net.tally import Tally
    from services.node import Node

    Outcome = list[bytes] | JsonFault

PREFIX: Final = "/v3/"
OLD_PREFIXES: Final = ("/v3beta/", "/v3alpha/")
"""Of clients older than etcd 3.4; what they ask for is the same."""

PATHS: Final[Mapping[str, Mapping[str, str]]] = {
    "etcdserverpb.KV": {
        "kv/range": "Range",
        "kv/put": "Put",
        "kv/deleterange": "DeleteRange",
        "kv/txn": "Txn",
        "kv/compaction": "Compact",
    },
    "etcdserverpb.Watch": {"watch": "Watch"},
    "etcdserverpb.Lease": {
        "lease/grant": "LeaseGrant",
        "lease/keepalive": "LeaseKeepAlive",
        "lease/revoke": "LeaseRevoke",
        "kv/lease/revoke": "LeaseRevoke",
        "lease/timetolive": "LeaseTimeToLive",
        "kv/lease/timetolive": "LeaseTimeToLive",
        "lease/leases": "LeaseLeases",
        "kv/lease/leases": "LeaseLeases",
    },
    "etcdserverpb.Cluster": {
        "cluster/member/add": "MemberAdd",
        "cluster/member/remove": "MemberRemove",
        "cluster/member/update": "MemberUpdate",
        "cluster/member/list": "MemberList",
        "cluster/member/promote": "MemberPromote",
    },
    "etcdserverpb.Maintenance": {
        "maintenance/alarm": "Alarm",
        "maintenance/status": "Status",
        "maintenance/defragment": "Defragment",
        "maintenance/hash": "Hash",
        "maintenance/hashkv": "HashKV",
        "maintenance/snapshot": "Snapshot",
        "maintenance/transfer-leadership": "MoveLeader",
        "maintenance/downgrade": "Downgrade",
    },
    "etcdserverpb.Auth": {
        "auth/enable": "AuthEnable",
        "auth/disable": "AuthDisable",
        "auth/status": "AuthStatus",
        "auth/authenticate": "Authenticate",
        "auth/user/add": "UserAdd",
        "auth/user/get": "UserGet",
        "auth/user/list": "UserList",
        "auth/user/delete": "UserDelete",
        "auth/user/changepw": "UserChangePassword",
        "auth/user/grant": "UserGrantRole",
        "auth/user/revoke": "UserRevokeRole",
        "auth/role/add": "RoleAdd",
        "auth/role/get": "RoleGet",
        "auth/role/list": "RoleList",
        "auth/role/delete": "RoleDelete",
        "auth/role/grant": "RoleGrantPermission",
        "auth/role/revoke": "RoleRevokePermission",
    },
    "v3electionpb.Election": {
        "election/campaign": "Campaign",
        "election/proclaim": "Proclaim",
        "election/leader": "Leader",
        "election/observe": "Observe",
        "election/resign": "Resign",
    },
    "v3lockpb.Lock": {"lock/lock": "Lock", "lock/unlock": "Unlock"},
}

PERMANENT_HEADERS: Final = frozenset(
    (
        "accept",
        "accept-charset",
        "accept-language",
        "accept-ranges",
        "authorization",
        "cache-control",
        "content-type",
        "cookie",
        "date",
        "expect",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-schedule-tag-match",
        "if-unmodified-since",
        "max-forwards",
        "origin",
        "pragma",
        "referer",
        "user-agent",
        "via",
        "warning",
    )
)
"""Headers that services see under ``grpcgateway-`` and their name."""

INLINE_BYTES_MAX: Final = 64 * 1024
"""Larger bodies are read by a worker: small objects take a microsecond each, and others wait on the loop."""

MESSAGES_MAX: Final = 10_000
"""Messages of one body that are passed on; what comes after them is not read."""

TIMEOUT_UNITS_S: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
TIMEOUT_MIN_S: Final = 1e-6
"""Shorter ones are over before anything can be done."""


class _Route:
    """Where a path leads."""

    __slots__ = ("answer", "method", "request", "streaming")

    def __init__(self, service: str, name: str) -> None:
        method = descriptor_pool.Default().FindMethodByName(f"{service}.{name}")
        self.method = f"/{service}/{name}"
        self.request: type[Message] = GetMessageClass(method.input_type)
        self.answer: type[Message] = GetMessageClass(method.output_type)
        self.streaming: bool = method.client_streaming
        """Whether the client sends a stream of messages."""


class Gateway:
    """Answers the requests below /v3/ on one client listener."""

    def __init__(self, node: Node, routes: Routes, message_bytes_max: int) -> None:
        self._node = node
        self._message_bytes_max = message_bytes_max
        self._unary = routes.unary
        self._streams = routes.streams
        self._tallies = routes.tallies
        self._on_refused = routes.on_refused
        self._routes = {
            PREFIX + path: _Route(service, name)
            for service, paths in PATHS.items()
            for path, name in paths.items()
            if f"/{service}/{name}" in routes.unary or f"/{service}/{name}" in routes.streams
        }

    @property
    def paths(self) -> Sequence[str]:
        """The paths that lead somewhere."""
        return tuple(self._routes)

    def handle(self, path: str, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request for *path*, which begins with PREFIX."""
        if wants_websocket(request.headers):
            self._open_session(path, request, responder)
            return
        route = self._routes.get(path)
        if route is None:
            responder.reply(404, PLAIN_HEADERS, b"Not Found\n")
        elif request.method != "POST":
            refuse(responder, Status(Code.UNIMPLEMENTED, "Method Not Allowed"))
        else:
            self._call(route, request, responder)

    def _open_session(self, path: str, request: HttpRequest, responder: HttpResponder) -> None:
        route = self._routes.get(path)
        conversation = _Conversation(self, route, request)
        session = GatewaySession(conversation.go_on)
        if session.begin(request, responder) and route is None:
            session.reply(404, PLAIN_HEADERS, b"Not Found\n")

    def begin_live(
        self, route: _Route, request: HttpRequest, session: GatewaySession, message: bytes
    ) -> GatewayStream | None:
        """Begin the call of a session with its first *message*; return the stream that takes more."""
        timeout_s = timeout_in(request.headers)
        if timeout_s is None or 0 < timeout_s < TIMEOUT_MIN_S:
            self._call(route, request, session)  # which refuses it
            return None
        if not route.streaming:
            self._begin(route, request, session, timeout_s, [message])
            return None
        metadata, tally = metadata_in(request.headers), self._tallies.find(route.method)
        stream = self._stream(route, metadata, request, timeout_s, tally, session)
        stream.open(self._streams[route.method](stream), [message], live=True)
        return stream

    def _stream(
        self,
        route: _Route,
        metadata: Mapping[str, Sequence[str]],
        request: HttpRequest,
        timeout_s: float,
        tally: Tally,
        responder: HttpResponder,
    ) -> GatewayStream:
        return GatewayStream(
            self._node,
            route.method,
            metadata,
            request,
            timeout_s,
            tally,
            responder,
            route.answer,
            message_bytes_max=self._message_bytes_max,
        )

    def decode(self, route: _Route, text: bytes, session: GatewaySession, then: Callable[[Outcome], None]) -> None:
        """Give *then* the messages of *text*: at once, or from a worker if it is large."""
        if len(text) <= INLINE_BYTES_MAX:
            then(outcome(route, text))
            return
        found: list[Outcome] = []

        def job() -> bytes:
            found.append(outcome(route, text))
            return b""

        self._node.work(_Decoded(session, lambda: then(found[0])), job)

    def _call(self, route: _Route, request: HttpRequest, responder: HttpResponder) -> None:
        timeout_s = timeout_in(request.headers)
        if timeout_s is None:
            text = f"invalid grpc-timeout: {request.headers['grpc-timeout']}"
            self.refuse(route, request, responder, Status(Code.INVALID_ARGUMENT, text))
            return
        if 0 < timeout_s < TIMEOUT_MIN_S:
            self.refuse(route, request, responder, DEADLINE)
            return
        if len(request.body) <= INLINE_BYTES_MAX:
            self._begin(route, request, responder, timeout_s, outcome(route, request.body))
            return
        found: list[Outcome] = []

        def job() -> bytes:
            found.append(outcome(route, request.body))
            return b""

        def then() -> None:
            self._begin(route, request, responder, timeout_s, found[0])

        self._node.work(_Decoded(responder, then), job)

    def _begin(
        self, route: _Route, request: HttpRequest, responder: HttpResponder, timeout_s: float, messages: Outcome
    ) -> None:
        if isinstance(messages, JsonFault):
            self.refuse(route, request, responder, fault_of(route, messages))
            return
        metadata = metadata_in(request.headers)
        tally = self._tallies.find(route.method)
        unary = self._unary.get(route.method)
        if unary is not None:
            if len(messages[0]) > self._message_bytes_max:
                self.refuse(route, request, responder, message_too_large(len(messages[0]), self._message_bytes_max))
                return
            call = GatewayCall(self._node, route.method, metadata, request, timeout_s, tally, responder, route.answer)
            tally.received_bytes += len(messages[0])
            unary(call, messages[0])
        else:
            stream = self._stream(route, metadata, request, timeout_s, tally, responder)
            stream.open(self._streams[route.method](stream), messages)

    def refuse(self, route: _Route, request: HttpRequest, responder: HttpResponder, status: Status) -> None:
        """Answer with *status* a request that does not reach its method."""
        if self._on_refused is not None:
            self._on_refused(RefusedCall(route.method, metadata_in(request.headers), request.peer), status)
        refuse(responder, status)


class _Conversation:
    """What the messages of one session are to its call."""

    def __init__(self, gateway: Gateway, route: _Route | None, request: HttpRequest) -> None:
        token = token_in_protocols(request)
        if token is not None and "authorization" not in request.headers:
            request = replace(request, headers={**request.headers, "authorization": token})
        self._gateway = gateway
        self._route = route
        self._request = request
        self._begun = False
        self._decoding = False
        self._going = False
        self._stream: GatewayStream | None = None

    def go_on(self, session: GatewaySession) -> None:
        """Take the messages that wait, in their order."""
        route = self._route
        if self._going:
            return
        self._going = True
        while route is not None and not self._decoding and not session.done and self._takes_more():
            text = session.next_text()
            if text is None:
                break
            self._decoding = True
            self._gateway.decode(route, text, session, partial(self._decoded, route, session))
        self._going = False

    def _takes_more(self) -> bool:
        """Whether the call takes messages: its first one, or further ones if it is a stream that keeps up."""
        return not self._begun or (self._stream is not None and not self._stream.is_full)

    def _decoded(self, route: _Route, session: GatewaySession, messages: Outcome) -> None:
        self._decoding = False
        if session.done:
            return
        if isinstance(messages, JsonFault):
            if self._begun:
                refuse(session, fault_of(route, messages))
            else:
                self._gateway.refuse(route, self._request, session, fault_of(route, messages))
            return
        for message in messages:
            if self._begun:
                if self._stream is not None:
                    self._stream.more(message)
            else:
                self._begun = True
                self._stream = self._gateway.begin_live(route, self._request, session, message)
                if self._stream is not None:
                    self._stream.on_room = partial(self.go_on, session)
        self.go_on(session)


class _Decoded:
    """Hears from the worker that a body has been read."""

    def __init__(self, responder: HttpResponder, then: Callable[[], None]) -> None:
        self._responder = responder
        self._then = then

    @property
    def done(self) -> bool:
        """See Answerable."""
        return self._responder.done

    def reply(self, _nothing: bytes) -> None:
        """See Answerable."""
        self._then()

    def fail(self, status: Status) -> None:
        """See Answerable; what is wrong with a body is no failure of the worker."""
        refuse(self._responder, status)


def fault_of(route: _Route, fault: JsonFault) -> Status:
    """Return how *fault* in a message is told: a stream's is read where no code says whose fault it is."""
    return Status(Code.UNKNOWN if route.streaming else Code.INVALID_ARGUMENT, str(fault))


def outcome(route: _Route, body: bytes) -> Outcome:
    """Return the messages of *body*, or what is wrong with it; on any thread."""
    try:
        return decoded(route.request, body, many=route.streaming)
    except JsonFault as fault:
        return fault


PLAIN_HEADERS: Final = (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"))


def decoded(kind: type[Message], body: bytes, *, many: bool) -> list[bytes]:
    """Return the messages of *body*, encoded: all its values, or its first, where none is an empty message.

    Raises JsonFault.  Of several values, a broken one after the first ends the client's half of the stream, no more.
    """
    messages: list[bytes] = []
    try:
        for value in values(body):
            message = kind()
            fill(message, value)
            messages.append(message.SerializeToString())
            if not many or len(messages) == MESSAGES_MAX:
                break
    except (JsonFault, RecursionError) as error:
        if not messages:
            raise (error if isinstance(error, JsonFault) else JsonFault("exceeded max depth")) from None
    return messages if messages or many else [b""]


def metadata_in(headers: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Return what services see of *headers*."""
    metadata: dict[str, Sequence[str]] = {"grpcgateway-accept": ("",)}
    for name, value in headers.items():
        if name in PERMANENT_HEADERS:
            metadata[f"grpcgateway-{name}"] = (value,)
        bare = "authorization" if name == "authorization" else name.removeprefix("grpc-metadata-")
        if bare != name or name == "authorization":
            metadata[bare] = (value,)
    return metadata


def timeout_in(headers: Mapping[str, str]) -> float | None:
    """Return how long the client waits, in seconds: 0 for ever, None if what it says is no time."""
    text = headers.get("grpc-timeout", "")
    if not text:
        return 0.0
    digits, unit = text[:-1], text[-1]
    if unit not in TIMEOUT_UNITS_S or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    return max(int(digits) * TIMEOUT_UNITS_S[unit], TIMEOUT_MIN_S / 2)
