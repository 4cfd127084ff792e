"""Who may do what: one row a request, and how it ends for nobody, for a user and for root.

The rules are those of etcd 3.7, which are stricter than those of 3.5.1 where an advisory made them so; such rows say
what 3.5.1 does and why.  The user may read and write [k/, k0), read [r/, r0), write [w/, w0), and read all from x on.
"""

from typing import Any, Final, NamedTuple

from proto import auth_pb2, election_pb2, lock_pb2
from proto import rpc_pb2 as pb

LEASE_OPEN, LEASE_CLOSED, LEASE_EMPTY, LEASE_NEW = 11, 12, 13, 14

OK = "OK"
EMPTY = "INVALID_ARGUMENT: etcdserver: user name is empty"
DENIED = "PERMISSION_DENIED: etcdserver: permission denied"
CREATED = "created"
ENDED = "ended"
"""A stream that was over before anything came."""


class Row(NamedTuple):
    """One request, and how it ends for each of the three.  Where 3.5.1 differs, *old* says so, with the reason."""

    name: str
    service: str
    method: str
    request: Any
    nobody: str = EMPTY
    user: str = DENIED
    root: str = OK
    old: tuple[str, str, str] | None = None
    why: str = ""


def alike(end: str) -> tuple[str, str, str]:
    """Return *end* for all three."""
    return end, end, end


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"v", **fields))


def get(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=range_end))


def delete(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, **fields))


def nested(*success: pb.RequestOp, failure: tuple[pb.RequestOp, ...] = ()) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=success, failure=failure))


def txn(*success: pb.RequestOp, failure: tuple[pb.RequestOp, ...] = (), compare: tuple[bytes, ...] = ()) -> Any:
    compares = [pb.Compare(key=key, target=pb.Compare.VERSION, version=-1) for key in compare]
    return pb.TxnRequest(compare=compares, success=success, failure=failure)


RANGES: Final = (
    Row("own key", "kv", "Range", pb.RangeRequest(key=b"k/1"), user=OK),
    Row("own key, serializable", "kv", "Range", pb.RangeRequest(key=b"k/1", serializable=True), user=OK),
    Row("own range", "kv", "Range", pb.RangeRequest(key=b"k/", range_end=b"k0"), user=OK),
    Row("readable key", "kv", "Range", pb.RangeRequest(key=b"r/1"), user=OK),
    Row("only writable", "kv", "Range", pb.RangeRequest(key=b"w/1")),
    Row("other key", "kv", "Range", pb.RangeRequest(key=b"other")),
    Row("range that sticks out", "kv", "Range", pb.RangeRequest(key=b"k/", range_end=b"k00")),
    Row("count of others", "kv", "Range", pb.RangeRequest(key=b"a", range_end=b"z", count_only=True)),
    Row("from own key on", "kv", "Range", pb.RangeRequest(key=b"k/1", range_end=b"\0")),
    Row("from x on", "kv", "Range", pb.RangeRequest(key=b"x", range_end=b"\0"), user=OK),
    Row("everything", "kv", "Range", pb.RangeRequest(key=b"\0", range_end=b"\0")),
    Row("without a key", "kv", "Range", pb.RangeRequest(), *alike("INVALID_ARGUMENT: etcdserver: key is not provided")),
)
_NO_STREAMS: Final = alike("UNIMPLEMENTED: unknown method RangeStream for service etcdserverpb.KV")


def streamed(name: str, key: bytes, range_end: bytes = b"", user: str = DENIED) -> Row:
    """Return a row of a range in parts, which must be judged as the whole."""
    request = pb.RangeRequest(key=key, range_end=range_end)
    return Row(name, "kv", "RangeStream", request, user=user, old=_NO_STREAMS, why="it is new in 3.7")


STREAMED: Final = (
    streamed("own key", b"k/1", user=OK),
    streamed("own range", b"k/", b"k0", user=OK),
    streamed("other key", b"other"),
    streamed("range that sticks out", b"k/", b"k00"),
    streamed("from own key on", b"k/1", b"\0"),
    streamed("from x on", b"x", b"\0", user=OK),
)
WRITES: Final = (
    Row("own key", "kv", "Put", pb.PutRequest(key=b"k/1"), user=OK),
    Row("own key and its former value", "kv", "Put", pb.PutRequest(key=b"k/1", prev_kv=True), user=OK),
    Row("writable key", "kv", "Put", pb.PutRequest(key=b"w/1"), user=OK),
    Row("only readable key", "kv", "Put", pb.PutRequest(key=b"r/1")),
    Row("former value of a key only writable", "kv", "Put", pb.PutRequest(key=b"w/1", prev_kv=True)),
    Row("lease that holds others' keys", "kv", "Put", pb.PutRequest(key=b"k/1", lease=LEASE_CLOSED)),
    Row("own lease", "kv", "Put", pb.PutRequest(key=b"k/leased", lease=LEASE_OPEN), user=OK),
    Row("own range", "kv", "DeleteRange", pb.DeleteRangeRequest(key=b"k/", range_end=b"k0", prev_kv=True), user=OK),
    Row("range that sticks out", "kv", "DeleteRange", pb.DeleteRangeRequest(key=b"k/", range_end=b"k00")),
    Row("values of keys only writable", "kv", "DeleteRange", pb.DeleteRangeRequest(key=b"w/1", prev_kv=True)),
    Row("keys only writable", "kv", "DeleteRange", pb.DeleteRangeRequest(key=b"w/", range_end=b"w0"), user=OK),
)
TXNS: Final = (
    Row("nothing", "kv", "Txn", txn(), *alike(OK)),
    Row("own keys", "kv", "Txn", txn(put(b"k/1"), get(b"k/2")), user=OK),
    Row("compare of others", "kv", "Txn", txn(compare=(b"other",))),
    Row("branch not taken", "kv", "Txn", txn(put(b"other"), compare=(b"k/1",))),
    Row("other branch not taken", "kv", "Txn", txn(put(b"k/1"), failure=(get(b"other"),))),
    Row("reads only", "kv", "Txn", txn(get(b"k/1"), failure=(get(b"r/1"),)), user=OK),
    Row("reads of others", "kv", "Txn", txn(get(b"k/1"), get(b"other"))),
    Row(
        "nested",
        "kv",
        "Txn",
        txn(nested(put(b"k/1"))),
        user=OK,
        old=(OK, OK, OK),
        why="3.5.1 does not look into nested transactions (CVE-2026-33343)",
    ),
    Row("nested put of others", "kv", "Txn", txn(nested(put(b"other"))), old=(OK, OK, OK), why="as above"),
    Row(
        "nested twice, branch not taken",
        "kv",
        "Txn",
        txn(nested(nested(get(b"k/1"), failure=(delete(b"other"),)))),
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "former value of a key only writable",
        "kv",
        "Txn",
        txn(put(b"w/1", prev_kv=True)),
        old=(EMPTY, OK, OK),
        why="3.5.1 checks prev_kv outside of transactions only (CVE-2026-44283)",
    ),
    Row(
        "lease that holds others' keys",
        "kv",
        "Txn",
        txn(put(b"k/1", lease=LEASE_CLOSED)),
        old=(EMPTY, OK, OK),
        why="3.5.1 checks leases outside of transactions only (CVE-2026-44283)",
    ),
    Row("deleted values of keys only writable", "kv", "Txn", txn(delete(b"w/1", prev_kv=True))),
)
LEASES: Final = (
    Row(
        "grant",
        "lease",
        "LeaseGrant",
        pb.LeaseGrantRequest(ID=LEASE_NEW, TTL=600),
        user=OK,
        old=(OK, OK, OK),
        why="3.5.1 lets anybody make leases (CVE-2026-33413)",
    ),
    Row(
        "time of a lease",
        "lease",
        "LeaseTimeToLive",
        pb.LeaseTimeToLiveRequest(ID=LEASE_CLOSED),
        user=OK,
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "keys of a lease",
        "lease",
        "LeaseTimeToLive",
        pb.LeaseTimeToLiveRequest(ID=LEASE_CLOSED, keys=True),
        old=(OK, OK, OK),
        why="3.5.1 shows them to anybody (CVE-2023-32082)",
    ),
    Row(
        "own keys of a lease",
        "lease",
        "LeaseTimeToLive",
        pb.LeaseTimeToLiveRequest(ID=LEASE_OPEN, keys=True),
        user=OK,
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "leases, one of others' keys",
        "lease",
        "LeaseLeases",
        pb.LeaseLeasesRequest(),
        old=(OK, OK, OK),
        why="3.5.1 lists them for anybody (CVE-2026-33413)",
    ),
    Row("revoke of others' keys", "lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=LEASE_CLOSED)),
    Row("revoke of own keys", "lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=LEASE_OPEN), user=OK),
    Row(
        "revoke of a lease without keys",
        "lease",
        "LeaseRevoke",
        pb.LeaseRevokeRequest(ID=LEASE_EMPTY),
        user=OK,
        old=(OK, OK, OK),
        why="as above: without keys 3.5.1 asks for no name",
    ),
    Row(
        "renewal of others' keys",
        "lease",
        "LeaseKeepAlive",
        pb.LeaseKeepAliveRequest(ID=LEASE_CLOSED),
        old=(OK, OK, OK),
        why="3.5.1 renews for anybody (CVE-2026-33413)",
    ),
    Row(
        "renewal of own keys",
        "lease",
        "LeaseKeepAlive",
        pb.LeaseKeepAliveRequest(ID=LEASE_OPEN),
        user=OK,
        old=(OK, OK, OK),
        why="as above",
    ),
)
NOBODYS_WATCH: Final = f"canceled: {EMPTY}"
DENIED_WATCH: Final = f"canceled: {DENIED}"
_NOBODY: Final = "3.5.1 says the same to nobody as to those who may not"
_FROM_KEY: Final = "3.5.1 checks the first key only (GHSA-xg4h-6gfc-h4m8), and " + _NOBODY


def watch(name: str, key: bytes, range_end: bytes, user: str, old_user: str = "", why: str = _NOBODY) -> Row:
    request = pb.WatchCreateRequest(key=key, range_end=range_end)
    old = (DENIED_WATCH, old_user or user, CREATED)
    return Row(name, "watch", "Watch", request, NOBODYS_WATCH, user, CREATED, old, why)


WATCHES: Final = (
    watch("own key", b"k/1", b"", CREATED),
    watch("own range", b"k/", b"k0", CREATED),
    watch("other key", b"other", b"", DENIED_WATCH),
    watch("range that sticks out", b"k/", b"k00", DENIED_WATCH),
    watch("from own key on", b"k/1", b"\0", DENIED_WATCH, CREATED, _FROM_KEY),
    watch("from x on", b"x", b"\0", CREATED),
    watch("everything", b"", b"\0", DENIED_WATCH),
)
_GET, _RAISE, _CLEAR = pb.AlarmRequest.GET, pb.AlarmRequest.ACTIVATE, pb.AlarmRequest.DEACTIVATE
MAINTENANCE: Final = (
    Row(
        "status",
        "maintenance",
        "Status",
        pb.StatusRequest(),
        user=OK,
        old=(OK, OK, OK),
        why="3.5.1 shows it to anybody",
    ),
    Row(
        "alarms",
        "maintenance",
        "Alarm",
        pb.AlarmRequest(action=_GET),
        user=OK,
        old=(OK, OK, OK),
        why="3.5.1 takes alarms from anybody (CVE-2026-33413)",
    ),
    Row(
        "alarm raised",
        "maintenance",
        "Alarm",
        pb.AlarmRequest(action=_RAISE, memberID=7, alarm=pb.NOSPACE),
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "alarm cleared",
        "maintenance",
        "Alarm",
        pb.AlarmRequest(action=_CLEAR, memberID=7, alarm=pb.NOSPACE),
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "defragmentation",
        "maintenance",
        "Defragment",
        pb.DefragmentRequest(),
        old=("UNKNOWN: auth: user name is empty", "UNKNOWN: auth: permission denied", OK),
        why="3.5.1 sends these without their codes",
    ),
    Row(
        "hash",
        "maintenance",
        "Hash",
        pb.HashRequest(),
        old=("UNKNOWN: auth: user name is empty", "UNKNOWN: auth: permission denied", OK),
        why="3.5.1 sends these without their codes",
    ),
    Row(
        "hash of keys",
        "maintenance",
        "HashKV",
        pb.HashKVRequest(),
        old=("UNKNOWN: auth: user name is empty", "UNKNOWN: auth: permission denied", OK),
        why="3.5.1 sends these without their codes",
    ),
    Row(
        "snapshot",
        "maintenance",
        "Snapshot",
        pb.SnapshotRequest(),
        old=("UNKNOWN: auth: user name is empty", "UNKNOWN: auth: permission denied", OK),
        why="3.5.1 sends these without their codes",
    ),
    Row(
        "members",
        "cluster",
        "MemberList",
        pb.MemberListRequest(),
        user=OK,
        old=(OK, OK, OK),
        why="3.5.1 shows them to anybody (CVE-2026-33413)",
    ),
    Row(
        "members, linearizable",
        "cluster",
        "MemberList",
        pb.MemberListRequest(linearizable=True),
        user=OK,
        old=(OK, OK, OK),
        why="as above",
    ),
    Row(
        "compaction",
        "kv",
        "Compact",
        pb.CompactionRequest(revision=2),
        old=(
            OK,
            "OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted",
            "OUT_OF_RANGE: etcdserver: mvcc: required revision has been compacted",
        ),
        why="3.5.1 compacts for anybody (CVE-2026-33413), and a second time there is nothing left",
    ),
)
_STRANGER: Final = 0x1234
_NOT_FOUND: Final = "NOT_FOUND: etcdserver: member not found"
_TARGET_VERSION: Final = "INVALID_ARGUMENT: etcdserver: invalid downgrade target version"
_TRANSFEREE: Final = "FAILED_PRECONDITION: etcdserver: bad leader transferee"
CLUSTER: Final = (
    Row("learner", "cluster", "MemberAdd", pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True)),
    Row("removal", "cluster", "MemberRemove", pb.MemberRemoveRequest(ID=_STRANGER), root=_NOT_FOUND),
    Row(
        "update",
        "cluster",
        "MemberUpdate",
        pb.MemberUpdateRequest(ID=_STRANGER, peerURLs=["http://127.0.0.1:2"]),
        root=_NOT_FOUND,
    ),
    Row("promotion", "cluster", "MemberPromote", pb.MemberPromoteRequest(ID=_STRANGER), root=_NOT_FOUND),
    Row(
        "leadership",
        "maintenance",
        "MoveLeader",
        pb.MoveLeaderRequest(targetID=_STRANGER),
        root=_TRANSFEREE,
        old=alike(_TRANSFEREE),
        why="3.5.1 lets anybody move it",
    ),
    Row(
        "downgrade",
        "maintenance",
        "Downgrade",
        pb.DowngradeRequest(action=pb.DowngradeRequest.VALIDATE, version="3.3.0"),
        root=_TARGET_VERSION,
        old=alike(_TARGET_VERSION),
        why="3.5.1 lets anybody ask for it",
    ),
)
_UNMAPPED_EMPTY: Final = "UNKNOWN: etcdserver: user name is empty"
_UNMAPPED_DENIED: Final = "UNKNOWN: etcdserver: permission denied"


def composed(name: str, service: str, method: str, request: Any, user: str = _UNMAPPED_DENIED, root: str = OK) -> Row:
    """Return a row of a service that is made of other calls, whose codes get lost on the way."""
    return Row(name, service, method, request, _UNMAPPED_EMPTY, user, root)


_LED_BY_OTHER: Final = election_pb2.LeaderKey(name=b"other", key=b"other/1", rev=1, lease=LEASE_OPEN)
_NO_LEADER: Final = "UNKNOWN: election: no leader"
COMPOSED: Final = (
    composed("own lock", "lock", "Lock", lock_pb2.LockRequest(name=b"k/lock", lease=LEASE_OPEN), OK),
    composed("own lock opened", "lock", "Unlock", lock_pb2.UnlockRequest(key=b"k/lock/b"), OK),
    composed("lock below others' keys", "lock", "Lock", lock_pb2.LockRequest(name=b"other", lease=LEASE_OPEN)),
    composed("others' lock opened", "lock", "Unlock", lock_pb2.UnlockRequest(key=b"other/1")),
    composed(
        "lock on a lease of others' keys", "lock", "Lock", lock_pb2.LockRequest(name=b"other", lease=LEASE_CLOSED)
    ),
    composed("nobody leads", "election", "Leader", election_pb2.LeaderRequest(name=b"k/e"), _NO_LEADER, _NO_LEADER),
    composed(
        "leader below others' keys", "election", "Leader", election_pb2.LeaderRequest(name=b"other"), root=_NO_LEADER
    ),
    composed("own election", "election", "Campaign", election_pb2.CampaignRequest(name=b"k/e", lease=LEASE_OPEN), OK),
    composed("others' election", "election", "Campaign", election_pb2.CampaignRequest(name=b"oth", lease=LEASE_OPEN)),
    composed(
        "others' value",
        "election",
        "Proclaim",
        election_pb2.ProclaimRequest(leader=_LED_BY_OTHER),
        root="UNKNOWN: election: not leader",
    ),
    composed("others' leadership", "election", "Resign", election_pb2.ResignRequest(leader=_LED_BY_OTHER)),
    Row("observation", "election", "Observe", election_pb2.LeaderRequest(name=b"k"), ENDED, OK),
    Row(
        "observation of others' keys",
        "election",
        "Observe",
        election_pb2.LeaderRequest(name=b"o"),
        ENDED,
        ENDED,
    ),
)
_FULL = auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=b"y")
AUTH: Final = (
    Row("own account", "auth", "UserGet", pb.AuthUserGetRequest(name="user"), user=OK),
    Row("other account", "auth", "UserGet", pb.AuthUserGetRequest(name="root")),
    Row(
        "no account",
        "auth",
        "UserGet",
        pb.AuthUserGetRequest(name="none"),
        root="FAILED_PRECONDITION: etcdserver: user name not found",
    ),
    Row("own role", "auth", "RoleGet", pb.AuthRoleGetRequest(role="role"), user=OK),
    Row("other role", "auth", "RoleGet", pb.AuthRoleGetRequest(role="spare")),
    Row(
        "root role",
        "auth",
        "RoleGet",
        pb.AuthRoleGetRequest(role="root"),
        root="FAILED_PRECONDITION: etcdserver: role name not found",
    ),
    Row("users", "auth", "UserList", pb.AuthUserListRequest()),
    Row("roles", "auth", "RoleList", pb.AuthRoleListRequest()),
    Row("enable again", "auth", "AuthEnable", pb.AuthEnableRequest()),
    Row("user added", "auth", "UserAdd", pb.AuthUserAddRequest(name="new", password="p")),
    Row(
        "user added twice",
        "auth",
        "UserAdd",
        pb.AuthUserAddRequest(name="new", password="p"),
        root="FAILED_PRECONDITION: etcdserver: user name already exists",
    ),
    Row(
        "user without name",
        "auth",
        "UserAdd",
        pb.AuthUserAddRequest(password="p"),
        root="INVALID_ARGUMENT: etcdserver: user name is empty",
    ),
    Row("password changed", "auth", "UserChangePassword", pb.AuthUserChangePasswordRequest(name="new", password="q")),
    Row(
        "password of nobody",
        "auth",
        "UserChangePassword",
        pb.AuthUserChangePasswordRequest(name="x", password="q"),
        root="FAILED_PRECONDITION: etcdserver: user name not found",
    ),
    Row("role given", "auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="new", role="spare")),
    Row("role given twice", "auth", "UserGrantRole", pb.AuthUserGrantRoleRequest(user="new", role="spare")),
    Row(
        "role that is none",
        "auth",
        "UserGrantRole",
        pb.AuthUserGrantRoleRequest(user="new", role="none"),
        root="FAILED_PRECONDITION: etcdserver: role name not found",
    ),
    Row("role taken", "auth", "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name="new", role="spare")),
    Row(
        "role not held",
        "auth",
        "UserRevokeRole",
        pb.AuthUserRevokeRoleRequest(name="new", role="spare"),
        root="FAILED_PRECONDITION: etcdserver: role is not granted to the user",
    ),
    Row(
        "root role of root",
        "auth",
        "UserRevokeRole",
        pb.AuthUserRevokeRoleRequest(name="root", role="root"),
        root="INVALID_ARGUMENT: etcdserver: invalid auth management",
    ),
    Row("user deleted", "auth", "UserDelete", pb.AuthUserDeleteRequest(name="new")),
    Row(
        "root deleted",
        "auth",
        "UserDelete",
        pb.AuthUserDeleteRequest(name="root"),
        root="INVALID_ARGUMENT: etcdserver: invalid auth management",
    ),
    Row("role added", "auth", "RoleAdd", pb.AuthRoleAddRequest(name="more")),
    Row(
        "role added twice",
        "auth",
        "RoleAdd",
        pb.AuthRoleAddRequest(name="more"),
        root="FAILED_PRECONDITION: etcdserver: role name already exists",
    ),
    Row(
        "role without name",
        "auth",
        "RoleAdd",
        pb.AuthRoleAddRequest(),
        root="INVALID_ARGUMENT: etcdserver: role name is empty",
    ),
    Row("permission", "auth", "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="more", perm=_FULL)),
    Row(
        "permission of no role",
        "auth",
        "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(name="none", perm=_FULL),
        root="FAILED_PRECONDITION: etcdserver: role name not found",
    ),
    Row(
        "permission that is none",
        "auth",
        "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(name="more"),
        root="INVALID_ARGUMENT: etcdserver: permission not given",
    ),
    Row(
        "permission on an empty range",
        "auth",
        "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(name="more", perm=auth_pb2.Permission(key=b"b", range_end=b"a")),
        root="INVALID_ARGUMENT: etcdserver: invalid auth management",
        old=(EMPTY, DENIED, OK),
        why="3.5.1 takes ranges that hold no key",
    ),
    Row("permission taken", "auth", "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role="more", key=b"y")),
    Row(
        "permission not there",
        "auth",
        "RoleRevokePermission",
        pb.AuthRoleRevokePermissionRequest(role="more", key=b"y"),
        root="FAILED_PRECONDITION: etcdserver: permission is not granted to the role",
    ),
    Row("role deleted", "auth", "RoleDelete", pb.AuthRoleDeleteRequest(role="more")),
    Row(
        "root role deleted",
        "auth",
        "RoleDelete",
        pb.AuthRoleDeleteRequest(role="root"),
        root="INVALID_ARGUMENT: etcdserver: invalid auth management",
    ),
    Row(
        "wrong password",
        "auth",
        "Authenticate",
        pb.AuthenticateRequest(name="root", password="wrong"),
        *alike("INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password"),
    ),
    Row(
        "unknown user",
        "auth",
        "Authenticate",
        pb.AuthenticateRequest(name="none", password="p"),
        *alike("INVALID_ARGUMENT: etcdserver: authentication failed, invalid user ID or password"),
    ),
    Row(
        "user without password",
        "auth",
        "Authenticate",
        pb.AuthenticateRequest(name="ghost", password="p"),
        *alike("UNKNOWN: auth: authentication failed, password was given for no password user"),
    ),
    Row("right password", "auth", "Authenticate", pb.AuthenticateRequest(name="user", password="secret"), OK, OK, OK),
    Row(
        "state of auth",
        "auth",
        "AuthStatus",
        pb.AuthStatusRequest(),
        OK,
        OK,
        OK,
        old=(EMPTY, DENIED, OK),
        why="3.5.1 shows it to root only",
    ),
)

TABLE: Final = {
    "ranges": RANGES,
    "streamed ranges": STREAMED,
    "writes": WRITES,
    "transactions": TXNS,
    "leases": LEASES,
    "watches": WATCHES,
    "maintenance": MAINTENANCE,
    "cluster": CLUSTER,
    "composed": COMPOSED,
    "auth": AUTH,
}
