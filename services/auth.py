"""The Auth service.

Everything goes through raft, where it is checked; here passwords are hashed and checked first, on another thread, so
that neither the log nor the loop ever waits for a hash or sees a password.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.errors import AuthFailed, AuthNotEnabled, EtcdError, NoPasswordUser, UserEmpty
from core.mvcc.varint import field, varint
from proto import rpc_pb2 as pb
from proto.raft_internal_pb2 import InternalAuthenticateRequest
from services.decode import decode, decode_entry
from services.errors import status_of
from services.identity import ForwardedCall, is_root, only

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from net.rpc import Call, UnaryMethod
    from services.node import Node

_PREFIX = "/etcdserverpb.Auth/"


def tag(number: int) -> bytes:
    """Return the wire tag of a message field of InternalRaftRequest."""
    return varint(number << 3 | 2)


AUTHENTICATE_TAG = tag(1012)
AUTH_STATUS_TAG = tag(1013)
USER_ADD_TAG = tag(1100)
USER_CHANGE_PASSWORD_TAG = tag(1103)

PROPOSED: Mapping[str, tuple[type[Message], int]] = {
    "AuthEnable": (pb.AuthEnableRequest, 1000),
    "AuthDisable": (pb.AuthDisableRequest, 1011),
    "AuthStatus": (pb.AuthStatusRequest, 1013),
    "UserDelete": (pb.AuthUserDeleteRequest, 1101),
    "UserGet": (pb.AuthUserGetRequest, 1102),
    "UserGrantRole": (pb.AuthUserGrantRoleRequest, 1104),
    "UserRevokeRole": (pb.AuthUserRevokeRoleRequest, 1105),
    "UserList": (pb.AuthUserListRequest, 1106),
    "RoleList": (pb.AuthRoleListRequest, 1107),
    "RoleAdd": (pb.AuthRoleAddRequest, 1200),
    "RoleDelete": (pb.AuthRoleDeleteRequest, 1201),
    "RoleGet": (pb.AuthRoleGetRequest, 1202),
    "RoleGrantPermission": (pb.AuthRoleGrantPermissionRequest, 1203),
    "RoleRevokePermission": (pb.AuthRoleRevokePermissionRequest, 1204),
}
"""Methods whose request is proposed as it came, with its field's number in InternalRaftRequest."""


class AuthService:
    """Handles etcdserverpb.Auth for one listener."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def methods(self) -> dict[str, UnaryMethod]:
        """Return every method by its full path."""
        proposed = {
            _PREFIX + name: partial(self._propose, kind, tag(number)) for name, (kind, number) in PROPOSED.items()
        }
        return {
            **proposed,
            _PREFIX + "Authenticate": self.authenticate,
            # Hashing costs so much that only those may ask for it whose request will count.
            _PREFIX + "UserAdd": only(self._node, is_root, self.user_add),
            _PREFIX + "UserChangePassword": only(self._node, is_root, self.user_change_password),
        }

    def _propose(self, kind: type[Message], field_tag: bytes, call: Call, payload: bytes) -> None:
        if decode_entry(call, kind, field_tag, payload) is not None:
            self._node.propose(call, field_tag, payload)

    # -- passwords ---------------------------------------------------------------------------------------------------

    def user_add(self, call: Call, payload: bytes) -> None:
        """Add a user, with or without a password."""
        request = decode_entry(call, pb.AuthUserAddRequest, USER_ADD_TAG, payload)
        if request is None:
            return
        if not request.name:
            call.fail(status_of(UserEmpty()))  # before anything is said of the password, as in etcd
        elif request.options.no_password:
            request.ClearField("password")
            request.ClearField("hashedPassword")
            self._node.propose(call, USER_ADD_TAG, request.SerializeToString())
        else:
            self._propose_hashed(call, USER_ADD_TAG, request)

    def user_change_password(self, call: Call, payload: bytes) -> None:
        """Give a user another password."""
        request = decode_entry(call, pb.AuthUserChangePasswordRequest, USER_CHANGE_PASSWORD_TAG, payload)
        if request is not None:
            self._propose_hashed(call, USER_CHANGE_PASSWORD_TAG, request)

    def _propose_hashed(
        self, call: Call, field_tag: bytes, request: pb.AuthUserAddRequest | pb.AuthUserChangePasswordRequest
    ) -> None:
        """Propose *request* with its password replaced by a hash; one that brings only a hash keeps it."""
        passwords, password = self._node.passwords, request.password
        if request.hashedPassword and not password:
            self._node.propose(call, field_tag, request.SerializeToString())
            return
        try:
            passwords.check_new(password)
        except EtcdError as error:
            call.fail(status_of(error))
            return
        request.ClearField("password")

        def with_hash(hashed: object) -> None:
            assert isinstance(hashed, str), type(hashed)
            request.hashedPassword = hashed
            self._node.propose(call, field_tag, request.SerializeToString())

        self._node.hash_password(call, lambda: passwords.hash(password), with_hash)

    # -- logging in --------------------------------------------------------------------------------------------------

    def authenticate(self, call: Call, payload: bytes) -> None:
        """Check a password, and answer with a token."""
        request = decode(call, pb.AuthenticateRequest, payload)
        if request is not None:
            # The newest password counts, whichever member is asked.
            self._node.read(call, lambda _view: self.check_password(call, request.name, request.password))

    def check_password(self, call: Call, name: str, password: str) -> None:
        """Log in whoever knows the password as it is now."""
        passwords, rules = self._node.passwords, self._node.auth
        user = rules.users.get(name)
        if not rules.enabled or user is None or user.no_password:
            error = AuthNotEnabled() if not rules.enabled else AuthFailed() if user is None else NoPasswordUser()
            call.fail(status_of(error))
            return
        hashed = user.password
        login = _Login(self, self._node, call, name, password, rules.revision)
        if passwords.is_known_right(password, hashed):
            login.propose()
            return

        def with_verdict(right: object) -> None:
            if right:
                login.propose()
            else:
                call.fail(status_of(AuthFailed()))

        self._node.hash_password(call, lambda: passwords.is_right(password, hashed), with_verdict)


class _Login(ForwardedCall):
    """A login whose password was right at one auth revision; takes the answer of its entry."""

    def __init__(self, service: AuthService, node: Node, call: Call, name: str, password: str, revision: int) -> None:
        super().__init__(call)
        self._service = service
        self._node = node
        self._name = name
        self._password = password
        self._revision = revision
        self._word = ""

    def propose(self) -> None:
        """Have the login take its place in the log."""
        self._word = self._node.tokens.make_word()
        body = InternalAuthenticateRequest(name=self._name, simple_token=self._word).SerializeToString()
        self._node.propose(self, AUTHENTICATE_TAG, body, as_caller=False)

    def reply(self, message: bytes) -> None:
        """Answer with the token, unless anything has changed since the password was checked: then check it again."""
        if self._node.auth.revision != self._revision:
            self._service.check_password(self._call, self._name, self._password)
        elif self._word:
            self._call.reply(message)
        else:
            self._sign(message)

    def _sign(self, header: bytes) -> None:
        def with_token(token: object) -> None:
            if isinstance(token, EtcdError):
                self._call.fail(status_of(token))
            else:
                assert isinstance(token, str), type(token)
                self._call.reply(header + field(b"\x12", token.encode()))

        self._node.hash_password(self._call, lambda: self._node.tokens.sign(self._name, self._revision), with_token)
