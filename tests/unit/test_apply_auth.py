"""Auth where entries are applied: who may have which entry applied, what is stored, and what becomes of tokens."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from core.auth.rules import Identity, Role, User
from core.auth.tokens import TokenAssigned, TokensDropped
from core.errors import (
    AuthFailed,
    AuthNotEnabled,
    AuthOldRevision,
    CorruptCluster,
    EtcdError,
    NoPasswordUser,
    NoSpace,
    PermissionDenied,
    PermissionNotGiven,
    RoleNotFound,
    UserEmpty,
    UserNotFound,
)
from core.mvcc.backend import MemoryBackend
from core.mvcc.keyspace import Bucket
from core.types import Term
from proto import auth_pb2
from proto import rpc_pb2 as pb
from proto.raft_internal_pb2 import InternalAuthenticateRequest, InternalRaftRequest, RequestHeader
from tests.entries import Log, make_applier

if TYPE_CHECKING:
    from core.apply.applier import Applier

HASH = b"$2a$04$abcdefghijklmnopqrstuu"
HASHED = base64.b64encode(HASH).decode()
NOBODY = Identity("", 0)
CURRENT = -1
"""As an identity's revision: the one at that moment."""
ROOT, USER = Identity("root", CURRENT), Identity("user", CURRENT)
READ, WRITE, READWRITE = auth_pb2.Permission.READ, auth_pb2.Permission.WRITE, auth_pb2.Permission.READWRITE


class Member:
    """An applier and the log that it applies."""

    def __init__(self, backend: MemoryBackend | None = None) -> None:
        self.backend = backend or MemoryBackend()
        self.applier: Applier = make_applier(self.backend)
        self.log = Log(first=self.applier.store.applied_index + 1)

    def apply(self, identity: Identity = NOBODY, **fields: Any) -> bytes | EtcdError:
        """Apply one request in this name; return how it ended."""
        revision = self.applier.auth.book.rules.revision if identity.revision == CURRENT else identity.revision
        header = RequestHeader(ID=self.log.ids.make(), username=identity.user, auth_revision=revision)
        data = InternalRaftRequest(header=header, **fields).SerializeToString()
        self.applier.apply([self.log.entry(data)], Term(1))
        outcomes = self.applier.take_effects().outcomes
        return outcomes[-1][1] if outcomes else b""

    def done(self, identity: Identity = NOBODY, **fields: Any) -> bytes:
        """Do as apply, and demand that it was not refused."""
        outcome = self.apply(identity, **fields)
        assert isinstance(outcome, bytes), outcome
        return outcome

    def ended(self, identity: Identity = NOBODY, **fields: Any) -> type | None:
        """Do as apply; return the class of its error, None where there is none."""
        outcome = self.apply(identity, **fields)
        return None if isinstance(outcome, bytes) else type(outcome)

    def set_up(self, *, enabled: bool = True) -> None:
        """Make root, and a user who may read and write k, read r and write w; put keys on leases."""
        for name in ("root", "user"):
            self.done(auth_user_add=pb.AuthUserAddRequest(name=name, hashedPassword=HASHED))
        self.done(auth_role_add=pb.AuthRoleAddRequest(name="role"))
        for kind, key in ((READWRITE, b"k"), (READ, b"r"), (WRITE, b"w")):
            permission = auth_pb2.Permission(permType=kind, key=key)
            grant = pb.AuthRoleGrantPermissionRequest(name="role", perm=permission)
            self.done(auth_role_grant_permission=grant)
        self.done(auth_user_grant_role=pb.AuthUserGrantRoleRequest(user="user", role="role"))
        self.done(auth_user_grant_role=pb.AuthUserGrantRoleRequest(user="root", role="root"))
        for lease, key in ((1, b"k"), (2, b"other")):
            self.done(lease_grant=pb.LeaseGrantRequest(ID=lease, TTL=600))
            self.done(put=pb.PutRequest(key=key, value=b"v", lease=lease))
        self.done(lease_grant=pb.LeaseGrantRequest(ID=3, TTL=600))
        if enabled:
            self.done(auth_enable=pb.AuthEnableRequest())


@pytest.fixture
def member() -> Member:
    """A member with auth on."""
    made = Member()
    made.set_up()
    return made


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def delete(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, **fields))


def get(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end))


def txn(*success: pb.RequestOp, failure: tuple[pb.RequestOp, ...] = ()) -> pb.TxnRequest:
    return pb.TxnRequest(success=success, failure=failure)


def nested(*success: pb.RequestOp, failure: tuple[pb.RequestOp, ...] = ()) -> pb.RequestOp:
    return pb.RequestOp(request_txn=txn(*success, failure=failure))


DATA: dict[str, tuple[dict[str, Any], bool]] = {
    "own key": ({"put": pb.PutRequest(key=b"k")}, True),
    "other key": ({"put": pb.PutRequest(key=b"other")}, False),
    "only readable": ({"put": pb.PutRequest(key=b"r")}, False),
    "prev_kv of own": ({"put": pb.PutRequest(key=b"k", prev_kv=True)}, True),
    "prev_kv of only writable": ({"put": pb.PutRequest(key=b"w", prev_kv=True)}, False),
    "own lease": ({"put": pb.PutRequest(key=b"k", lease=1)}, True),
    "lease of others": ({"put": pb.PutRequest(key=b"k", lease=2)}, False),
    "empty lease": ({"put": pb.PutRequest(key=b"k", lease=3)}, True),
    "range": ({"range": pb.RangeRequest(key=b"r")}, True),
    "range of others": ({"range": pb.RangeRequest(key=b"a", range_end=b"z")}, False),
    "delete": ({"delete_range": pb.DeleteRangeRequest(key=b"w")}, True),
    "delete of others": ({"delete_range": pb.DeleteRangeRequest(key=b"a", range_end=b"\0")}, False),
    "delete, prev_kv of only writable": ({"delete_range": pb.DeleteRangeRequest(key=b"w", prev_kv=True)}, False),
    "txn": ({"txn": txn(put(b"k"), get(b"r"), delete(b"w"))}, True),
    "txn, failure branch": ({"txn": txn(put(b"k"), failure=(put(b"other"),))}, False),
    "txn, prev_kv": ({"txn": txn(put(b"w", prev_kv=True))}, False),
    "txn, deleted values": ({"txn": txn(delete(b"w", prev_kv=True))}, False),
    "txn, lease of others": ({"txn": txn(put(b"k", lease=2))}, False),
    "txn, nested twice": ({"txn": txn(nested(nested(put(b"k"))))}, True),
    "txn, nested twice, others": ({"txn": txn(nested(failure=(nested(get(b"other")),)))}, False),
    "txn, compare": ({"txn": pb.TxnRequest(compare=[pb.Compare(key=b"other")], success=[put(b"k")])}, False),
    "revoke": ({"lease_revoke": pb.LeaseRevokeRequest(ID=1)}, True),
    "revoke of others": ({"lease_revoke": pb.LeaseRevokeRequest(ID=2)}, False),
    "revoke of an empty one": ({"lease_revoke": pb.LeaseRevokeRequest(ID=3)}, True),
}
"""Requests on data, and whether the user may."""


@pytest.mark.parametrize("name", DATA)
def test_who_may_change_what(name: str) -> None:
    """The same for every way to say it; root may all of it, nobody and old tokens none where keys are concerned."""
    fields, allowed = DATA[name]
    # In this order no request takes away what the next one needs.
    for identity, error in (
        (Identity("user", 1), AuthOldRevision),
        (Identity("gone", CURRENT), PermissionDenied),
        (NOBODY, UserEmpty),
        (USER, None if allowed else PermissionDenied),
    ):
        member = Member()
        member.set_up()
        has_no_key = fields.get("lease_revoke") == pb.LeaseRevokeRequest(ID=3)
        assert member.ended(identity, **fields) == (None if has_no_key else error), identity
    member = Member()
    member.set_up()
    assert member.ended(ROOT, **fields) is None


@pytest.mark.parametrize("name", [name for name, (_, allowed) in DATA.items() if not allowed])
def test_what_is_refused_leaves_nothing(member: Member, name: str) -> None:
    """A refusal is an entry without effect."""
    before = member.applier.store.revision
    member.apply(USER, **DATA[name][0])
    assert member.applier.store.revision == before


ADMINISTRATION: dict[str, Any] = {
    "auth_enable": pb.AuthEnableRequest(),
    "auth_user_add": pb.AuthUserAddRequest(name="new", hashedPassword=HASHED),
    "auth_user_delete": pb.AuthUserDeleteRequest(name="user"),
    "auth_user_change_password": pb.AuthUserChangePasswordRequest(name="user", hashedPassword=HASHED),
    "auth_user_grant_role": pb.AuthUserGrantRoleRequest(user="user", role="root"),
    "auth_user_revoke_role": pb.AuthUserRevokeRoleRequest(name="user", role="role"),
    "auth_user_list": pb.AuthUserListRequest(),
    "auth_role_list": pb.AuthRoleListRequest(),
    "auth_role_add": pb.AuthRoleAddRequest(name="new"),
    "auth_role_delete": pb.AuthRoleDeleteRequest(role="role"),
    "auth_role_grant_permission": pb.AuthRoleGrantPermissionRequest(name="role", perm=auth_pb2.Permission(key=b"x")),
    "auth_role_revoke_permission": pb.AuthRoleRevokePermissionRequest(role="role", key=b"k"),
    "auth_disable": pb.AuthDisableRequest(),
}


@pytest.mark.parametrize("alarm", [None, pb.NOSPACE, pb.CORRUPT])
@pytest.mark.parametrize("kind", ADMINISTRATION)
def test_only_root_administers_whatever_alarm_there_is(member: Member, kind: str, alarm: pb.AlarmType | None) -> None:
    """No alarm takes auth out of the way (etcd issue 22386), nor keeps root from setting things right."""
    if alarm is not None:
        member.done(alarm=pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=alarm))
    request = {kind: ADMINISTRATION[kind]}
    before = member.applier.auth.book.rules
    assert member.ended(NOBODY, **request) is UserEmpty
    assert member.ended(USER, **request) is PermissionDenied
    assert member.ended(Identity("gone", CURRENT), **request) is UserNotFound
    assert member.applier.auth.book.rules is before
    assert member.ended(Identity("root", 1), **request) is None  # administration does not ask how old a token is


@pytest.mark.parametrize(("alarm", "error"), [(pb.NOSPACE, NoSpace), (pb.CORRUPT, CorruptCluster)])
def test_permissions_come_before_alarms(member: Member, alarm: pb.AlarmType, error: type[EtcdError]) -> None:
    """Who may not write learns nothing of the member's state."""
    member.done(alarm=pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=1, alarm=alarm))
    assert member.ended(NOBODY, put=pb.PutRequest(key=b"k")) is UserEmpty
    assert member.ended(USER, put=pb.PutRequest(key=b"other")) is PermissionDenied
    assert member.ended(USER, put=pb.PutRequest(key=b"k")) is error


def test_questions_about_oneself(member: Member) -> None:
    """Users may see their own account and the roles they hold."""
    own = pb.AuthUserGetRequest(name="user")
    answer = pb.AuthUserGetResponse.FromString(member.done(USER, auth_user_get=own))
    assert list(answer.roles) == ["role"]
    assert member.ended(NOBODY, auth_user_get=own) is UserEmpty
    assert member.ended(NOBODY, auth_user_get=pb.AuthUserGetRequest()) is UserEmpty
    assert member.ended(USER, auth_user_get=pb.AuthUserGetRequest(name="root")) is PermissionDenied
    role = pb.AuthRoleGetResponse.FromString(member.done(USER, auth_role_get=pb.AuthRoleGetRequest(role="role")))
    assert [(each.permType, each.key) for each in role.perm] == [(READWRITE, b"k"), (READ, b"r"), (WRITE, b"w")]
    assert member.ended(USER, auth_role_get=pb.AuthRoleGetRequest(role="root")) is PermissionDenied
    assert member.ended(ROOT, auth_role_get=pb.AuthRoleGetRequest(role="root")) is RoleNotFound
    member.done(ROOT, auth_role_add=pb.AuthRoleAddRequest(name="root"))
    root = pb.AuthRoleGetResponse.FromString(member.done(ROOT, auth_role_get=pb.AuthRoleGetRequest(role="root")))
    assert [(each.permType, each.key, each.range_end) for each in root.perm] == [(READWRITE, b"", b"\0")]


def test_lists_and_state(member: Member) -> None:
    """What there is, for root; the state for anybody who can be answered at all."""
    users = pb.AuthUserListResponse.FromString(member.done(ROOT, auth_user_list=pb.AuthUserListRequest()))
    roles = pb.AuthRoleListResponse.FromString(member.done(ROOT, auth_role_list=pb.AuthRoleListRequest()))
    assert (list(users.users), list(roles.roles)) == (["root", "user"], ["role"])
    status = pb.AuthStatusResponse.FromString(member.done(auth_status=pb.AuthStatusRequest()))
    assert (status.enabled, status.authRevision) == (True, member.applier.auth.book.rules.revision)
    assert status.header.revision == member.applier.store.revision
    missing = pb.AuthRoleGrantPermissionRequest(name="role")
    assert member.ended(ROOT, auth_role_grant_permission=missing) is PermissionNotGiven


def test_what_is_stored_is_what_etcd_stores(member: Member) -> None:
    """A backup is read by etcd, and etcd's by us: buckets, keys and bytes are etcd's."""
    store = member.applier.store
    store.flush()
    assert dict(store.bucket_items(Bucket.AUTH)) == {b"authEnabled": b"\x01", b"authRevision": bytes(7) + b"\x09"}
    users = dict(store.bucket_items(Bucket.AUTH_USERS))
    assert users[b"user"] == b"\x0a\x04user\x12%c%b\x1a\x04role\x22\x00" % (len(HASH), HASH)
    assert dict(store.bucket_items(Bucket.AUTH_ROLES)) == {
        b"role": b"\x0a\x04role\x12\x05\x08\x02\x12\x01k\x12\x03\x12\x01r\x12\x05\x08\x01\x12\x01w"
    }


def test_a_member_that_starts_again_knows_all_of_it(member: Member) -> None:
    """Users, roles, the switch and the revision are in the store, in the same batch as the applied index."""
    member.applier.store.flush()
    again = Member(member.backend)
    rules, before = again.applier.auth.book.rules, member.applier.auth.book.rules
    assert (rules.enabled, rules.revision) == (before.enabled, before.revision)
    assert (rules.users, rules.roles) == (before.users, before.roles)
    assert rules.users["user"] == User("user", HASH, ("role",))
    assert isinstance(rules.roles["role"], Role)
    assert again.ended(USER, put=pb.PutRequest(key=b"other")) is PermissionDenied
    again.done(ROOT, auth_disable=pb.AuthDisableRequest())
    again.applier.store.flush()
    assert Member(member.backend).ended(put=pb.PutRequest(key=b"other")) is None


def test_logins(member: Member) -> None:
    """The word that was proposed and the entry's index make the token, the same on every member."""

    def log_in(name: str, word: str = "word") -> bytes | EtcdError:
        return member.apply(authenticate=InternalAuthenticateRequest(name=name, simple_token=word))

    answer = log_in("user")
    assert isinstance(answer, bytes)
    token = f"word.{member.applier.store.applied_index}"
    assert pb.AuthenticateResponse.FromString(answer).token == token
    assert list(member.applier.auth.take_token_events()) == [TokenAssigned(token, "user")]
    signed_elsewhere = log_in("user", "")
    assert isinstance(signed_elsewhere, bytes)
    assert pb.AuthenticateResponse.FromString(signed_elsewhere).token == ""
    member.done(ROOT, auth_user_add=pb.AuthUserAddRequest(name="ghost", options={"no_password": True}))
    assert [type(log_in(name)) for name in ("ghost", "none")] == [AuthFailed, AuthFailed]
    assert list(member.applier.auth.take_token_events()) == []
    member.done(ROOT, auth_user_change_password=ADMINISTRATION["auth_user_change_password"])
    member.done(ROOT, auth_user_delete=pb.AuthUserDeleteRequest(name="user"))
    member.done(ROOT, auth_disable=pb.AuthDisableRequest())
    member.done(auth_disable=pb.AuthDisableRequest())
    dropped = [TokensDropped("user"), TokensDropped("user"), TokensDropped(None)]
    assert list(member.applier.auth.take_token_events()) == dropped
    assert isinstance(log_in("root"), AuthNotEnabled)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (pb.AuthUserAddRequest(name="new", password="in clear"), NoPasswordUser),
        (pb.AuthUserAddRequest(name="new", hashedPassword="no base64!"), NoPasswordUser),
        (pb.AuthUserAddRequest(name="new", hashedPassword="ä"), NoPasswordUser),
        (pb.AuthUserAddRequest(name="new", options={"no_password": True}), None),
    ],
)
def test_an_entry_must_bring_a_hash(request_: pb.AuthUserAddRequest, error: type[EtcdError] | None) -> None:
    """Hashing here would give every member another hash."""
    assert Member().ended(auth_user_add=request_) is error


def test_members_come_to_the_same_state() -> None:
    """Applying is a function of the log alone: two members that applied it alike hold the same bytes."""
    members = [Member(), Member()]
    for member in members:
        member.set_up()
        for fields, _ in DATA.values():
            for identity in (USER, NOBODY, ROOT, Identity("user", 2)):
                member.apply(identity, **fields)
        member.applier.store.flush()
    assert list(members[0].backend.scan(b"", b"\xff")) == list(members[1].backend.scan(b"", b"\xff"))
