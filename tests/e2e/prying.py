"""A store with secrets, tokens of every kind, and requests, seeded, that are after the secrets in every way there is.

No request contains MARK; all that is secret does.  So an answer to anybody but root that contains it is a leak.
"""

import json
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import jwt
from google.protobuf import json_format
from google.protobuf.message import Message

from proto import auth_pb2, election_pb2, lock_pb2
from proto import rpc_pb2 as pb
from tests.e2e.auth_client import PASSWORD, AuthClient
from tests.e2e.auth_table import delete, get, put

MARK: Final = b"hidden7f3a"
SECRET: Final = b"secret/"
LEASE_SECRET, LEASE_OWN, LEASE_FREE = 7001, 7002, 7003
JWT_KEY: Final = b"0123456789abcdef" * 4
FAR_S: Final = 1 << 32
"""The end of time, for tokens."""


def fill(client: AuthClient) -> None:
    """Give root something to hide, and the user's token company that is worth nothing."""

    def root(service: str, method: str, request: Message) -> Any:
        if service == "auth":
            client.log_in("root")  # signed tokens are over once users or roles have changed
        return client.call("root", service, method, request)

    for lease in (LEASE_SECRET, LEASE_OWN, LEASE_FREE):
        root("lease", "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=6000))
    value = b"value " + MARK
    for key in (b"plain", MARK, b"election/" + MARK, b"lock/" + MARK, b"a", b"b"):
        root("kv", "Put", pb.PutRequest(key=SECRET + key, value=value))
    root("kv", "Put", pb.PutRequest(key=SECRET + b"leased/" + MARK, value=value, lease=LEASE_SECRET))
    root("kv", "Put", pb.PutRequest(key=b"k/leased", lease=LEASE_OWN))
    root("kv", "DeleteRange", pb.DeleteRangeRequest(key=SECRET + b"b"))  # history is secret too
    mark = MARK.decode()
    root("auth", "RoleAdd", pb.AuthRoleAddRequest(name=f"role-{mark}"))
    permission = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=SECRET + MARK)
    root("auth", "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="spare", perm=permission))
    for name in (f"user-{mark}", "weak", "gone", "changed", "idle"):
        root("auth", "UserAdd", pb.AuthUserAddRequest(name=name, password=PASSWORD))
    root("auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="idle", role=f"role-{mark}"))
    for name in ("gone", "changed", "idle"):
        client.log_in(name)
    root("auth", "UserDelete", pb.AuthUserDeleteRequest(name="gone"))
    root("auth", "UserChangePassword", pb.AuthUserChangePasswordRequest(name="changed", password="other"))
    for name in ("root", "user", "weak"):
        client.log_in(name)


def simple_tokens(tokens: Mapping[str, str]) -> dict[str, str | None]:
    """What callers show where tokens are names for what the server remembers."""
    user, root = tokens["user"], tokens["root"]
    letters, _, index = user.partition(".")
    return {
        "nobody": None,
        "empty": "",
        "nonsense": "nonsense",
        "cut": user[:-2] if len(index) > 2 else letters,
        "letters": letters,
        "index": f".{index}",
        "another's index": f"{letters}.{int(root.partition('.')[2]) - 1}",
        "older index": f"{letters}.0",
        "no index": f"{letters}.x",
        "other case": user.swapcase(),
        "twice": f"{user},{user}",
        "longer": f"{user}.{index}",
        "long": user + "x" * 5000,
        "deleted user's": tokens["gone"],
        "changed password's": tokens["changed"],
        "idle for too long": tokens["idle"],
        "user without roles": tokens["weak"],
        "user": user,
    }


def signed(claims: Mapping[str, Any], key: bytes = JWT_KEY, algorithm: str = "HS256") -> str:
    return jwt.encode(dict(claims), key, algorithm)


def signed_tokens(tokens: Mapping[str, str]) -> dict[str, str | None]:
    """What callers show where tokens are signed: whoever has no key should get nowhere."""
    claims = jwt.decode(tokens["user"], JWT_KEY, ["HS256"])
    root = {**claims, "username": "root"}
    head, body, signature = tokens["user"].split(".")
    roots_body = signed(root).split(".")[1]
    return {
        "nobody": None,
        "empty": "",
        "nonsense": "nonsense",
        "cut": tokens["user"][:-4],
        "without its signature": f"{head}.{body}.",
        "root by the user's signature": f"{head}.{roots_body}.{signature}",
        "root unsigned": jwt.encode(root, "", "none"),
        "root by another key": signed(root, b"x" * 64),
        "root by another algorithm": signed(root, algorithm="HS512"),
        "expired": signed({**claims, "exp": 1}),
        "older revision": signed({**claims, "revision": 1}),
        "later revision": signed({**claims, "revision": FAR_S}),
        "no user": signed({**claims, "username": "nobody-there"}),
        "deleted user's": signed({**claims, "username": "gone"}),
        "long": tokens["user"] + "x" * 5000,
        "user without roles": signed({**claims, "username": "weak"}),
        "user": tokens["user"],
    }


VALID: Final = frozenset({"user", "user without roles"})
"""Who is known to the server, and may do next to nothing."""


class Prying:
    """Requests from one seed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._makers: dict[str, Callable[[], Message]] = {
            "Range": self._range,
            "RangeStream": self._range,
            "Put": self._put,
            "DeleteRange": self._delete,
            "Txn": self._txn,
            "Compact": lambda: pb.CompactionRequest(revision=random.choice((1, 3))),
            "Watch": self._watch,
            "LeaseGrant": lambda: pb.LeaseGrantRequest(TTL=100),
            "LeaseRevoke": lambda: pb.LeaseRevokeRequest(ID=self._lease()),
            "LeaseTimeToLive": lambda: pb.LeaseTimeToLiveRequest(ID=self._lease(), keys=True),
            "LeaseKeepAlive": lambda: pb.LeaseKeepAliveRequest(ID=self._lease()),
            "LeaseLeases": pb.LeaseLeasesRequest,
            "MemberAdd": lambda: pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True),
            "MemberRemove": lambda: pb.MemberRemoveRequest(ID=5),
            "MemberUpdate": lambda: pb.MemberUpdateRequest(ID=5, peerURLs=["http://127.0.0.1:1"]),
            "MemberPromote": lambda: pb.MemberPromoteRequest(ID=5),
            "MemberList": lambda: pb.MemberListRequest(linearizable=random.random() < 0.5),
            "MoveLeader": lambda: pb.MoveLeaderRequest(targetID=5),
            "Status": pb.StatusRequest,
            "Alarm": lambda: pb.AlarmRequest(
                action=random.choice(("GET", "GET", "ACTIVATE", "DEACTIVATE")),
                memberID=7,
                alarm=random.choice(("NONE", "NOSPACE", "CORRUPT")),
            ),
            "Defragment": pb.DefragmentRequest,
            "Hash": pb.HashRequest,
            "HashKV": pb.HashKVRequest,
            "Snapshot": pb.SnapshotRequest,
            "Downgrade": lambda: pb.DowngradeRequest(
                action=random.choice(("VALIDATE", "ENABLE", "CANCEL")), version="3.4.0"
            ),
            "AuthEnable": pb.AuthEnableRequest,
            "AuthDisable": pb.AuthDisableRequest,
            "AuthStatus": pb.AuthStatusRequest,
            "Authenticate": lambda: pb.AuthenticateRequest(
                name=random.choice(("root", "user", "", "idle")), password=random.choice(("", "guess", "x" * 100))
            ),
            "UserAdd": lambda: pb.AuthUserAddRequest(name="eve", password="p"),
            "UserGet": lambda: pb.AuthUserGetRequest(name=random.choice(("root", "idle", "user", "weak"))),
            "UserList": pb.AuthUserListRequest,
            "UserDelete": lambda: pb.AuthUserDeleteRequest(name=random.choice(("idle", "user", "root"))),
            "UserChangePassword": lambda: pb.AuthUserChangePasswordRequest(name="root", password="p"),
            "UserGrantRole": lambda: pb.AuthUserGrantRoleRequest(user="user", role=random.choice(("root", "spare"))),
            "UserRevokeRole": lambda: pb.AuthUserRevokeRoleRequest(name="root", role="root"),
            "RoleAdd": lambda: pb.AuthRoleAddRequest(name="eve"),
            "RoleGet": lambda: pb.AuthRoleGetRequest(role=random.choice(("root", "spare", "role"))),
            "RoleList": pb.AuthRoleListRequest,
            "RoleDelete": lambda: pb.AuthRoleDeleteRequest(role="spare"),
            "RoleGrantPermission": lambda: pb.AuthRoleGrantPermissionRequest(
                name="role", perm=auth_pb2.Permission(permType="READWRITE", key=b"a", range_end=b"z")
            ),
            "RoleRevokePermission": lambda: pb.AuthRoleRevokePermissionRequest(role="role", key=b"k/", range_end=b"k0"),
            "Lock": lambda: lock_pb2.LockRequest(name=SECRET + b"lock", lease=self._lease()),
            "Unlock": lambda: lock_pb2.UnlockRequest(key=SECRET + b"plain"),
            "Campaign": lambda: election_pb2.CampaignRequest(name=SECRET + b"election", lease=self._lease()),
            "Proclaim": lambda: election_pb2.ProclaimRequest(leader=self._leader(), value=b"eve"),
            "Leader": lambda: election_pb2.LeaderRequest(name=self._name()),
            "Observe": lambda: election_pb2.LeaderRequest(name=self._name()),
            "Resign": lambda: election_pb2.ResignRequest(leader=self._leader()),
        }

    def message(self, method: str) -> Message:
        """A sound request of *method* for what somebody else has."""
        return self._makers[method]()

    def _keys(self) -> tuple[bytes, bytes]:
        """A key or range that touches what is secret, or just does not."""
        return self._random.choice((
            (SECRET, b"secret0"),
            (SECRET + b"plain", b""),
            (SECRET + b"a", SECRET + b"z"),
            (b"a", b"z"),
            (b"k/", b"t"),
            (b"k/1", b"\0"),
            (b"\0", b"\0"),
            (b"", b"\0"),
            (b"k/1", b""),
            (b"k/", b"k0"),
            (b"r/1", b""),
            (b"w/1", b""),
            (SECRET, b"k/"),
            (b"x", b"\0"),
            (b"secret0", SECRET),
        ))  # fmt: skip

    def _lease(self) -> int:
        return self._random.choice((LEASE_SECRET, LEASE_SECRET, LEASE_FREE, 1234))

    def _name(self) -> bytes:
        return self._random.choice((SECRET + b"election", b"secret", b"s"))

    def _leader(self) -> Any:
        return election_pb2.LeaderKey(name=SECRET + b"election", key=SECRET + b"plain", rev=3, lease=LEASE_SECRET)

    def _range(self) -> pb.RangeRequest:
        key, range_end = self._keys()
        random = self._random
        return pb.RangeRequest(
            key=key,
            range_end=range_end,
            serializable=random.random() < 0.5,
            count_only=random.random() < 0.2,
            keys_only=random.random() < 0.2,
            limit=random.choice((0, 0, 1, 5)),
            sort_order=random.choice(("NONE", "ASCEND", "DESCEND")),
            sort_target=random.choice(("KEY", "VERSION", "CREATE", "MOD", "VALUE")),
        )

    def _put(self) -> pb.PutRequest:
        key, _ = self._keys()
        random = self._random
        return pb.PutRequest(
            key=key, prev_kv=random.random() < 0.5, lease=random.choice((0, 0, LEASE_SECRET, LEASE_FREE))
        )

    def _delete(self) -> pb.DeleteRangeRequest:
        key, range_end = self._keys()
        return pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=self._random.random() < 0.5)

    def _operation(self, depth: int) -> pb.RequestOp:
        random = self._random
        key, range_end = self._keys()
        match random.randrange(4 if depth < 2 else 3):
            case 0:
                return get(key, range_end)
            case 1:
                return put(key, prev_kv=random.random() < 0.3, lease=random.choice((0, 0, LEASE_SECRET)))
            case 2:
                return delete(key, range_end=range_end, prev_kv=random.random() < 0.5)
            case _:
                return pb.RequestOp(request_txn=self._txn(depth + 1))

    def _txn(self, depth: int = 0) -> pb.TxnRequest:
        random = self._random
        key, range_end = self._keys()
        compares = [pb.Compare(key=key, range_end=range_end, target=pb.Compare.VERSION, result=pb.Compare.GREATER)]
        branches = [[self._operation(depth) for _ in range(random.choice((0, 1, 1)))] for _ in range(2)]
        return pb.TxnRequest(
            compare=compares if random.random() < 0.5 else [], success=branches[0], failure=branches[1]
        )

    def _watch(self) -> pb.WatchRequest:
        key, range_end = self._keys()
        create = pb.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=self._random.choice((0, 1, 2)), prev_kv=True
        )
        return pb.WatchRequest(create_request=create)


def as_json(message: Message) -> bytes:
    """The body that stands for *message* at the gateway."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True).encode()


_TEXT: Final = re.compile(rb'"([A-Za-z0-9+/=]{8,})"')


def leaks(content: bytes) -> bool:
    """Whether *content*, of gRPC or as JSON, contains what is secret."""
    if MARK in content:
        return True
    for text in _TEXT.findall(content):
        try:
            if MARK in b64decode(text):
                return True
        except Base64Error:
            continue
    return False


assert leaks(json.dumps({"value": b64encode(b"a" + MARK).decode()}).encode())
