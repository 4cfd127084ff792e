"""Who calls, and which methods let whom in: every route of a client listener has a rule."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from core.auth.permissions import READWRITE, Permission
from core.auth.rules import NOBODY, Identity, Role, Rules, User
from core.errors import InvalidAuthToken
from net.rpc import Code, Status
from proto import rpc_pb2 as pb
from proto.election_pb2 import LeaderKey, ProclaimRequest, ResignRequest
from services.identity import admit, admit_read, certified_name, is_known, is_root, only_stream, token_in
from services.routes import client_routes
from tests.fake_node import FakeNode
from tests.fakes import FakeCall, FakeContext, FakeStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from net.rpc import Call, Stream

OPEN = {
    "/etcdserverpb.Auth/Authenticate",
    "/etcdserverpb.Auth/AuthStatus",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
}
"""Methods that anybody may call."""
JUDGED_BY_THE_LOG = {"/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange", "/v3lockpb.Lock/Unlock"} | {
    f"/etcdserverpb.Auth/{name}"
    for name in (
        "AuthEnable", "AuthDisable", "UserDelete", "UserGet", "UserGrantRole", "UserRevokeRole", "UserList",
        "RoleList", "RoleAdd", "RoleDelete", "RoleGet", "RoleGrantPermission", "RoleRevokePermission",
    )
}  # fmt: skip
"""Methods that are proposed in the caller's name, and refused where they are applied (test_apply_auth.py)."""
REQUESTS: dict[str, Message] = {
    "/etcdserverpb.KV/Range": pb.RangeRequest(key=b"k"),
    "/etcdserverpb.KV/Put": pb.PutRequest(key=b"k"),
    "/etcdserverpb.KV/DeleteRange": pb.DeleteRangeRequest(key=b"k"),
    "/etcdserverpb.KV/Txn": pb.TxnRequest(
        success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k", serializable=True))]
    ),
    "/etcdserverpb.Cluster/MemberAdd": pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]),
    "/v3electionpb.Election/Proclaim": ProclaimRequest(leader=LeaderKey(key=b"k")),
    "/v3electionpb.Election/Resign": ResignRequest(leader=LeaderKey(key=b"k")),
}
"""Requests for methods that would refuse an empty one."""
RULES = Rules(
    True,
    5,
    {user.name: user for user in (User("root", b"", ("root",)), User("joe", b"", ("role",)))},
    {"role": Role("role", (Permission(READWRITE, b"k"),))},
)


class CallerNode(FakeNode):
    """A node with auth on, called by somebody."""

    def __init__(self, identity: Identity | InvalidAuthToken) -> None:
        super().__init__()
        self.auth, self.identity = RULES, identity


UNARY = sorted(client_routes(FakeNode()).unary)


@pytest.mark.parametrize("path", UNARY)
@pytest.mark.parametrize(
    ("identity", "text"),
    [(NOBODY, "etcdserver: user name is empty"), (InvalidAuthToken(), "etcdserver: invalid auth token")],
)
def test_no_method_answers_nobody(path: str, identity: Identity | InvalidAuthToken, text: str) -> None:
    """A method that forgets to ask who calls shows data to everybody: new ones need a rule to pass here."""
    node = CallerNode(identity)
    call = FakeCall()
    request = REQUESTS[path].SerializeToString() if path in REQUESTS else b""
    client_routes(node).unary[path](call, request)
    node.run_reads()
    while node.asked and not call.done:  # what it asks first, it may be told
        node.answer(())
    if path in OPEN or path in JUDGED_BY_THE_LOG:
        assert call.status is None or call.status.message != text
        assert all(proposed.as_caller for proposed in node.proposed)
    else:
        assert call.status is not None, "answered nobody"
        assert call.status.message == text
        assert not node.proposed
        assert not node.jobs


@pytest.mark.parametrize("identity", [NOBODY, InvalidAuthToken(), Identity("joe", 5)])
def test_what_is_no_request_is_said_to_be_none_to_anybody(identity: Identity | InvalidAuthToken) -> None:
    """As by etcd, which reads a request before it asks who sent it: a client's bug looks the same to all its users."""
    routes = client_routes(CallerNode(identity))
    for path in ("/etcdserverpb.Maintenance/Hash", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Cluster/MemberAdd"):
        call = FakeCall()
        call.method = path
        routes.unary[path](call, b"\x80")
        assert call.status is not None
        assert (call.status.code, call.status.message[:30]) == (Code.INTERNAL, "grpc: error unmarshalling requ")
    stream = FakeStream()
    stream.method = "/etcdserverpb.Maintenance/Snapshot"
    handler = routes.streams[stream.method](stream)
    early = stream.status
    handler.on_message(b"\x80")
    assert early is None  # what is asked for was not known yet
    assert stream.status is not None
    assert (stream.status.code, stream.status.message[:30]) == (Code.INTERNAL, "grpc: failed to unmarshal the ")


def test_nobody_may_ask_for_nothing() -> None:
    """An empty transaction tells its caller no more than how far the store is, as in etcd."""
    node = CallerNode(NOBODY)
    call = FakeCall()
    client_routes(node).unary["/etcdserverpb.KV/Txn"](call, b"")
    node.run_reads()
    assert call.answer is not None


@pytest.mark.parametrize("path", ["/etcdserverpb.Maintenance/Snapshot"])
def test_no_stream_answers_nobody(path: str) -> None:
    """Streams that send on their own are judged when they open (watches and renewals: request by request)."""
    for identity, text in (
        (NOBODY, "etcdserver: user name is empty"),
        (Identity("joe", 5), "etcdserver: permission denied"),
        (InvalidAuthToken(), "etcdserver: invalid auth token"),
    ):
        stream = FakeStream()
        handler = client_routes(CallerNode(identity)).streams[path](stream)
        handler.on_message(b"")
        assert stream.status is not None
        assert stream.status.message == text
        assert not stream.sent


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        ({}, None),
        ({"token": ["a"]}, "a"),
        ({"authorization": ["a"]}, "a"),
        ({"token": ["a"], "authorization": ["b"]}, "a"),
        ({"token": ["a", "b"]}, "a"),
        ({"authorization": ["Bearer a"]}, "a"),
        ({"token": ["Bearer a"]}, "a"),
        ({"authorization": ["bearer a"]}, "bearer a"),
        ({"token": [""]}, ""),
    ],
)
def test_where_a_token_stands(metadata: Mapping[str, Sequence[str]], token: str | None) -> None:
    """Clients send it as ``token``, gateways as ``authorization``."""
    assert token_in(metadata) == token


def test_a_gateways_certificate_names_nobody() -> None:
    """A call that came through a gateway shows the gateway's own certificate (CVE-2018-16886)."""
    context = FakeContext()
    assert certified_name(context) is None
    context.common_name = "joe"
    assert certified_name(context) == "joe"
    context.common_name = "\udcff"
    assert certified_name(context) is None
    context.common_name, context.metadata = "joe", {"grpcgateway-accept": ["*/*"]}
    assert certified_name(context) is None


@pytest.mark.parametrize(
    ("identity", "known", "root"),
    [
        (NOBODY, "etcdserver: user name is empty", "etcdserver: user name is empty"),
        (Identity("joe", 5), None, "etcdserver: permission denied"),
        (Identity("gone", 5), None, "etcdserver: user name not found"),
        (Identity("root", 1), None, None),
    ],
)
def test_admission(identity: Identity, known: str | None, root: str | None) -> None:
    """Some methods ask for a name, some for an administrator."""
    for check, text in ((is_known, known), (is_root, root)):
        call = FakeCall()
        admit(CallerNode(identity), call, check, partial(call.reply, b"done"))
        assert (call.status.message if call.answer is None and call.status else None) == text
        assert call.answer == (b"done" if text is None else None)


def test_while_auth_is_off_nobody_is_asked() -> None:
    """Then not even a wrong token matters, as in etcd."""
    node = FakeNode()
    node.identity = InvalidAuthToken()
    call = FakeCall()
    admit(node, call, is_root, partial(call.reply, b"done"))
    assert call.answer == b"done"


def test_an_answer_on_its_way_while_rules_change_is_withheld() -> None:
    """A large read takes a while on its thread; what may be seen must be decided by the newest rules."""
    node = CallerNode(Identity("joe", 5))
    calls: list[Call] = []
    first, second = FakeCall(), FakeCall()
    for call in (first, second):
        admit_read(node, call, lambda rules, identity: rules.check_key(identity, b"k", b"", 0), calls.append)
    calls[0].reply(b"answer")
    node.auth = Rules(True, 6, RULES.users, RULES.roles)
    calls[1].reply(b"answer")
    assert first.answer == b"answer"
    assert second.status is not None
    assert (second.status.code, second.status.message) == (
        Code.INVALID_ARGUMENT,
        "etcdserver: revision of auth store is old",
    )
    assert calls[1].done
    assert calls[1].method == second.method
    assert (calls[1].peer, calls[1].metadata, calls[1].common_name, calls[1].deadline_s) == (
        second.peer,
        {},
        None,
        None,
    )


class Echo:
    """A stream's handler that keeps what it was told."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.told: list[object] = []

    def on_message(self, message: bytes) -> None:
        """See StreamHandler."""
        self.told.append(message)

    def on_half_close(self) -> None:
        """See StreamHandler."""
        self.told.append("half closed")

    def on_drained(self) -> None:
        """See StreamHandler."""
        self.told.append("drained")

    def on_closed(self, status: Status) -> None:
        """See StreamHandler."""
        self.told.append(status.code)


def test_a_stream_waits_until_it_is_known_who_opened_it() -> None:
    """A token may come from an entry that this member has still to apply; what is sent meanwhile is not lost."""
    node = FakeNode()
    node.auth, node.identity = RULES, None
    made: list[Echo] = []

    def opened(stream: Stream) -> Echo:
        made.append(Echo(stream))
        return made[-1]

    stream = FakeStream()
    handler = only_stream(node, is_root, opened)(stream)
    handler.on_message(b"early")
    handler.on_half_close()
    assert not made
    node.tell_identity(Identity("root", 5))
    handler.on_drained()
    assert made[0].told == [b"early", "half closed", "drained"]
    gone = FakeStream()
    node.identity = None
    late = only_stream(node, is_root, opened)(gone)
    late.on_closed(Status(Code.CANCELLED))
    node.tell_identity(Identity("root", 5))
    assert len(made) == 1
