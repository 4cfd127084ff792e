"""Applying what concerns auth: administrative entries, and who may have an entry applied at all.

What is checked here decides, since it is checked on every member in the order of the log: who proposed an entry, and
with how old a token, stands in its header.  Buckets are etcd's: authUsers and authRoles hold authpb messages by name,
auth holds authEnabled (one byte) and authRevision (8 bytes, big-endian).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from core.auth.book import AuthBook
from core.auth.permissions import EVERYTHING, READ, WRITE, Permission
from core.auth.rules import ROOT_ROLE, Identity, Role, User
from core.auth.tokens import TokenAssigned, TokenEvent, TokensDropped, token_of
from core.errors import AuthFailed, AuthNotEnabled, NoPasswordUser, PermissionDenied, PermissionNotGiven, UserEmpty
from core.mvcc.keyspace import Bucket
from proto import auth_pb2
from proto.rpc_pb2 import (
    AuthenticateResponse,
    AuthRoleGetResponse,
    AuthRoleListResponse,
    AuthStatusResponse,
    AuthUserGetResponse,
    AuthUserListResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from google.protobuf.message import Message

    from core.auth.rules import Rules
    from core.mvcc.store import Store
    from core.types import LeaseId
    from proto.raft_internal_pb2 import InternalRaftRequest
    from proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RequestOp, TxnRequest

    Handler = Callable[[InternalRaftRequest], bytes]
    LeaseKeys = Callable[[LeaseId], Iterable[bytes]]
    """The keys attached to a lease; none if it is unknown."""

_ENABLED_KEY = b"authEnabled"
_REVISION_KEY = b"authRevision"
_REVISION_BYTES = 8

_ROOT_ONLY = (
    "auth_enable",
    "auth_disable",
    "auth_user_add",
    "auth_user_delete",
    "auth_user_change_password",
    "auth_user_grant_role",
    "auth_user_revoke_role",
    "auth_user_list",
    "auth_role_add",
    "auth_role_delete",
    "auth_role_grant_permission",
    "auth_role_revoke_permission",
    "auth_role_list",
)
"""Entries that only an administrator may have applied.  Compactions, alarms and members are checked by the member that
is asked, as in etcd: members propose those themselves too, in nobody's name."""


class AuthApplier:
    """Users, roles and permissions as entries change them.  Belongs to the store's thread."""

    def __init__(self, store: Store, header: Callable[[], bytes], lease_keys: LeaseKeys) -> None:
        """Read what *store* holds.  *header* encodes the header of an answer."""
        self._store = store
        self._header = header
        self._lease_keys = lease_keys
        self.book = AuthBook(
            _StoredRecords(store),
            enabled=store.bucket_get(Bucket.AUTH, _ENABLED_KEY) == b"\x01",
            revision=int.from_bytes(store.bucket_get(Bucket.AUTH, _REVISION_KEY) or b""),
            users=(decode_user(value) for _, value in store.bucket_items(Bucket.AUTH_USERS)),
            roles=(decode_role(value) for _, value in store.bucket_items(Bucket.AUTH_ROLES)),
        )
        self._token_events: list[TokenEvent] = []
        checked: dict[str, Handler] = {
            "auth_enable": self._enable,
            "auth_disable": self._disable,
            "auth_user_add": self._add_user,
            "auth_user_delete": self._delete_user,
            "auth_user_change_password": self._change_password,
            "auth_user_grant_role": self._grant_role,
            "auth_user_revoke_role": self._revoke_role,
            "auth_user_list": self._list_users,
            "auth_role_add": self._add_role,
            "auth_role_delete": self._delete_role,
            "auth_role_grant_permission": self._grant_permission,
            "auth_role_revoke_permission": self._revoke_permission,
            "auth_role_list": self._list_roles,
        }
        assert checked.keys() == set(_ROOT_ONLY)
        self.handlers: dict[str, Handler] = {
            **checked,
            "auth_status": self._status,
            "authenticate": self._authenticate,
            "auth_user_get": self._get_user,
            "auth_role_get": self._get_role,
        }
        """What applies each kind of entry, by its field's name."""

    def take_token_events(self) -> Sequence[TokenEvent]:
        """Return what happened to tokens since the last call, in order."""
        events, self._token_events = self._token_events, []
        return events

    def check(self, kind: str, request: InternalRaftRequest) -> None:
        """Raise what *request*, whose field is called *kind*, is refused for while auth is on."""
        rules, identity = self.book.rules, identity_of(request)
        match kind:
            case "put":
                check_put(rules, identity, request.put, self._lease_keys)
            case "delete_range":
                check_delete(rules, identity, request.delete_range)
            case "txn":
                check_txn(rules, identity, request.txn, self._lease_keys)
            case "range":
                rules.check_key(identity, request.range.key, request.range.range_end, READ)
            case "lease_revoke":
                rules.check_keys(identity, self._lease_keys(_lease(request.lease_revoke.ID)), WRITE)
            case "auth_user_get":
                if request.auth_user_get.name != identity.user:
                    rules.check_root(identity)
                elif not identity.user:
                    raise UserEmpty
            case "auth_role_get":
                if not rules.has_role(identity, request.auth_role_get.role):
                    rules.check_root(identity)
            case _ if kind in _ROOT_ONLY:
                rules.check_root(identity)

    # -- administration ----------------------------------------------------------------------------------------------

    def _enable(self, _request: InternalRaftRequest) -> bytes:
        self.book.enable()
        return self._header()

    def _disable(self, _request: InternalRaftRequest) -> bytes:
        if self.book.disable():
            self._token_events.append(TokensDropped(None))
        return self._header()

    def _status(self, _request: InternalRaftRequest) -> bytes:
        rules = self.book.rules
        return self._answer(AuthStatusResponse(enabled=rules.enabled, authRevision=rules.revision))

    def _authenticate(self, request: InternalRaftRequest) -> bytes:
        # The password was checked before this was proposed; who did so looks afterwards whether it still holds.
        asked = request.authenticate
        if not self.book.enabled:
            raise AuthNotEnabled
        user = self.book.rules.users.get(asked.name)
        if user is None or user.no_password:
            raise AuthFailed
        if not asked.simple_token:
            return self._header()  # whoever was asked signs a token of another kind
        token = token_of(asked.simple_token, self._store.applied_index + 1)
        self._token_events.append(TokenAssigned(token, user.name))
        return self._answer(AuthenticateResponse(token=token))

    def _add_user(self, request: InternalRaftRequest) -> bytes:
        asked = request.auth_user_add
        no_password = asked.options.no_password
        password = b"" if no_password else _password(asked.password, asked.hashedPassword)
        self.book.add_user(asked.name, password, no_password)
        return self._header()

    def _delete_user(self, request: InternalRaftRequest) -> bytes:
        name = request.auth_user_delete.name
        self.book.delete_user(name)
        self._token_events.append(TokensDropped(name))
        return self._header()

    def _change_password(self, request: InternalRaftRequest) -> bytes:
        asked = request.auth_user_change_password
        no_password = self.book.user(asked.name).no_password
        self.book.change_password(asked.name, b"" if no_password else _password(asked.password, asked.hashedPassword))
        self._token_events.append(TokensDropped(asked.name))
        return self._header()

    def _get_user(self, request: InternalRaftRequest) -> bytes:
        return self._answer(AuthUserGetResponse(roles=self.book.user(request.auth_user_get.name).roles))

    def _list_users(self, _request: InternalRaftRequest) -> bytes:
        return self._answer(AuthUserListResponse(users=self.book.user_names()))

    def _grant_role(self, request: InternalRaftRequest) -> bytes:
        self.book.grant_role(request.auth_user_grant_role.user, request.auth_user_grant_role.role)
        return self._header()

    def _revoke_role(self, request: InternalRaftRequest) -> bytes:
        self.book.revoke_role(request.auth_user_revoke_role.name, request.auth_user_revoke_role.role)
        return self._header()

    def _add_role(self, request: InternalRaftRequest) -> bytes:
        self.book.add_role(request.auth_role_add.name)
        return self._header()

    def _delete_role(self, request: InternalRaftRequest) -> bytes:
        self.book.delete_role(request.auth_role_delete.role)
        return self._header()

    def _get_role(self, request: InternalRaftRequest) -> bytes:
        role = self.book.role(request.auth_role_get.role)
        permissions = (EVERYTHING,) if role.name == ROOT_ROLE else role.permissions
        return self._answer(AuthRoleGetResponse(perm=[encoded_permission(each) for each in permissions]))

    def _list_roles(self, _request: InternalRaftRequest) -> bytes:
        return self._answer(AuthRoleListResponse(roles=self.book.role_names()))

    def _grant_permission(self, request: InternalRaftRequest) -> bytes:
        asked = request.auth_role_grant_permission
        if not asked.HasField("perm"):
            raise PermissionNotGiven
        self.book.grant_permission(asked.name, decoded_permission(asked.perm))
        return self._header()

    def _revoke_permission(self, request: InternalRaftRequest) -> bytes:
        asked = request.auth_role_revoke_permission
        self.book.revoke_permission(asked.role, asked.key, asked.range_end)
        return self._header()

    def _answer(self, answer: Message) -> bytes:
        return self._header() + answer.SerializeToString()


# -- permissions of requests -----------------------------------------------------------------------------------------


def identity_of(request: InternalRaftRequest) -> Identity:
    """Return who proposed an entry, as its header says."""
    return Identity(request.header.username, request.header.auth_revision)


def check_put(rules: Rules, identity: Identity, request: PutRequest, lease_keys: LeaseKeys) -> None:
    """Allow a put: write on its key and on all that its lease holds, since it may go with them, and read for prev_kv.

    Raises as Rules.check_key.
    """
    rules.check_key(identity, request.key, b"", WRITE)
    if request.lease:
        rules.check_keys(identity, lease_keys(_lease(request.lease)), WRITE)
    if request.prev_kv:
        rules.check_key(identity, request.key, b"", READ)


def check_delete(rules: Rules, identity: Identity, request: DeleteRangeRequest) -> None:
    """Allow a deletion: write on its range, and read for prev_kv.  Raises as Rules.check_key."""
    rules.check_key(identity, request.key, request.range_end, WRITE)
    if request.prev_kv:
        rules.check_key(identity, request.key, request.range_end, READ)


def check_txn(rules: Rules, identity: Identity, request: TxnRequest, lease_keys: LeaseKeys) -> None:
    """Allow a transaction: what it compares, and both branches whichever is taken, at every depth.

    A branch not taken tells as much as one taken.  Raises as Rules.check_key.
    """
    for compare in request.compare:
        rules.check_key(identity, compare.key, compare.range_end, READ)
    for branch in (request.success, request.failure):
        for op in branch:
            _check_operation(rules, identity, op, lease_keys)


def _check_operation(rules: Rules, identity: Identity, op: RequestOp, lease_keys: LeaseKeys) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            rules.check_key(identity, op.request_range.key, op.request_range.range_end, READ)
        case "request_put":
            check_put(rules, identity, op.request_put, lease_keys)
        case "request_delete_range":
            check_delete(rules, identity, op.request_delete_range)
        case "request_txn":
            check_txn(rules, identity, op.request_txn, lease_keys)
        case _:
            raise PermissionDenied  # an operation of a kind that nobody knows was let through by nobody here


def _lease(lease: int) -> LeaseId:
    return lease  # type: ignore[return-value]  # a LeaseId by its place in the message


def _password(password: str, hashed: str) -> bytes:
    """Return the hash that an entry carries.  NoPasswordUser if it carries none that can be read (etcd's word for it).

    Entries with a password in clear were written before etcd 3.5 only; they cannot be hashed alike on every member.
    """
    if password and not hashed:
        raise NoPasswordUser
    try:
        return base64.b64decode(hashed, validate=True)
    except (binascii.Error, ValueError):
        raise NoPasswordUser from None


# -- storage ---------------------------------------------------------------------------------------------------------


class _StoredRecords:
    """See core.auth.book.Records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put_user(self, user: User, /) -> None:
        self._store.bucket_put(Bucket.AUTH_USERS, user.name.encode(), encode_user(user))

    def delete_user(self, name: str, /) -> None:
        self._store.bucket_delete(Bucket.AUTH_USERS, name.encode())

    def put_role(self, role: Role, /) -> None:
        self._store.bucket_put(Bucket.AUTH_ROLES, role.name.encode(), encode_role(role))

    def delete_role(self, name: str, /) -> None:
        self._store.bucket_delete(Bucket.AUTH_ROLES, name.encode())

    def put_enabled(self, enabled: bool, /) -> None:
        self._store.bucket_put(Bucket.AUTH, _ENABLED_KEY, b"\x01" if enabled else b"\x00")

    def put_revision(self, revision: int, /) -> None:
        self._store.bucket_put(Bucket.AUTH, _REVISION_KEY, revision.to_bytes(_REVISION_BYTES, "big"))


def encode_user(user: User) -> bytes:
    """Return *user* as bucket authUsers holds it; etcd always writes the options, empty or not."""
    options = auth_pb2.UserAddOptions(no_password=user.no_password)
    stored = auth_pb2.User(name=user.name.encode(), password=user.password, roles=user.roles, options=options)
    return stored.SerializeToString()


def decode_user(value: bytes) -> User:
    """Undo encode_user()."""
    stored = auth_pb2.User.FromString(value)
    return User(stored.name.decode(), stored.password, tuple(stored.roles), stored.options.no_password)


def encode_role(role: Role) -> bytes:
    """Return *role* as bucket authRoles holds it."""
    permissions = [encoded_permission(each) for each in role.permissions]
    return auth_pb2.Role(name=role.name.encode(), keyPermission=permissions).SerializeToString()


def decode_role(value: bytes) -> Role:
    """Undo encode_role()."""
    stored = auth_pb2.Role.FromString(value)
    return Role(stored.name.decode(), tuple(decoded_permission(each) for each in stored.keyPermission))


def encoded_permission(permission: Permission) -> auth_pb2.Permission:
    """Return *permission* as a message."""
    return auth_pb2.Permission(
        permType=permission.type,  # type: ignore[arg-type]  # an open enum: any number is kept
        key=permission.key,
        range_end=permission.range_end,
    )


def decoded_permission(message: auth_pb2.Permission) -> Permission:
    """Undo encoded_permission()."""
    return Permission(int(message.permType), message.key, message.range_end)
