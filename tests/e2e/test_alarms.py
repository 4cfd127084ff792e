"""What each alarm forbids: every call under NOSPACE, under CORRUPT and under none, here and on an etcd 3.5.1."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

import pytest

from proto import auth_pb2, election_pb2, lock_pb2
from proto import rpc_pb2 as pb
from tests.e2e.auth_client import CHEAP, AuthClient
from tests.e2e.auth_table import CREATED, OK, delete, get, put, txn
from tests.e2e.client import CALL_TIMEOUT_S, connect
from tests.e2e.harness import Program, Server, actcd, real_etcd, running, wait_for

pytestmark = pytest.mark.e2e

FULL: Final = "RESOURCE_EXHAUSTED: etcdserver: mvcc: database space exceeded"
CORRUPT: Final = "DATA_LOSS: etcdserver: corrupt cluster"
PHASES: Final = (pb.NOSPACE, pb.CORRUPT, pb.NONE)
"""The last one shows that each call is sound but for the alarm, and that one that is cleared forbids nothing more."""


class Ground(NamedTuple):
    """What a request of one row may use in one phase: a lease and a name of its own, and the ids there are."""

    lease: int
    name: str
    other: int
    """The member that was added; 0 before."""


class Row(NamedTuple):
    """One call, and how it ends under each of PHASES; where 3.5.1 differs, *old* says how, and *why* the reason."""

    service: str
    method: str
    make: Callable[[Ground], Any]
    ends: tuple[str, str, str] = (OK, OK, OK)
    old: tuple[str, str, str] | None = None
    why: str = ""


GROWS: Final = (FULL, CORRUPT, OK)
WRITES: Final = (OK, CORRUPT, OK)


def alike(end: str) -> tuple[str, str, str]:
    """Return *end* for each phase."""
    return end, end, end


def auth(method: str, make: Callable[[Ground], Any], end: str = OK) -> Row:
    """Return a row of the Auth service, which no alarm stops: it must stay possible to shut people out."""
    return Row("auth", method, make, alike(end))


def reads(method: str, request: Any, end: str = OK) -> Row:
    """Return a row of what tells or maintains, which no alarm stops."""
    return Row("maintenance", method, lambda _: request, alike(end))


def read_permission(key: bytes) -> auth_pb2.Permission:
    return auth_pb2.Permission(permType=auth_pb2.Permission.READ, key=key)


def url(ground: Ground, number: int) -> str:
    """Return an address that nobody has had: the id of a member is made from it and the second."""
    return f"http://127.0.0.1:{ground.lease // 1000 * 10 + number}"


def leads(ground: Ground) -> election_pb2.LeaderKey:
    return election_pb2.LeaderKey(name=b"e", key=b"e/none", rev=1, lease=ground.lease)


_NO_STREAMS: Final = alike("UNIMPLEMENTED: unknown method RangeStream for service etcdserverpb.KV")
_COMPOSED_FULL: Final = "UNKNOWN: etcdserver: mvcc: database space exceeded"
_COMPOSED_CORRUPT: Final = "UNKNOWN: etcdserver: corrupt cluster"
COMPOSED_GROWS: Final = (_COMPOSED_FULL, _COMPOSED_CORRUPT, OK)
COMPOSED_WRITES: Final = (OK, _COMPOSED_CORRUPT, OK)
"""Locks and elections are made of other calls, whose codes get lost on the way (in etcd, too)."""

TABLE: Final = (
    Row("kv", "Put", lambda _: pb.PutRequest(key=b"a", value=b"v"), GROWS),
    Row("kv", "Put", lambda ground: pb.PutRequest(key=b"a", value=b"v", lease=ground.lease), GROWS),
    Row("kv", "Range", lambda _: pb.RangeRequest(key=b"a")),
    Row("kv", "Range", lambda _: pb.RangeRequest(key=b"a", serializable=True)),
    Row("kv", "RangeStream", lambda _: pb.RangeRequest(key=b"a"), old=_NO_STREAMS, why="it is new in 3.7"),
    Row("kv", "DeleteRange", lambda _: pb.DeleteRangeRequest(key=b"a"), WRITES),
    Row("kv", "Txn", lambda _: txn(put(b"a")), GROWS),
    Row("kv", "Txn", lambda _: txn(get(b"a"), compare=(b"a",))),
    Row("kv", "Txn", lambda _: txn(delete(b"a")), WRITES),
    Row("kv", "Txn", lambda _: txn(get(b"a"), failure=(put(b"a"),)), GROWS),
    Row("kv", "Compact", lambda ground: pb.CompactionRequest(revision=ground.lease // 1000), WRITES),
    Row("watch", "Watch", lambda _: pb.WatchCreateRequest(key=b"a"), alike(CREATED)),
    Row("lease", "LeaseGrant", lambda ground: pb.LeaseGrantRequest(ID=ground.lease + 500, TTL=600), GROWS),
    Row("lease", "LeaseKeepAlive", lambda ground: pb.LeaseKeepAliveRequest(ID=ground.lease)),
    Row("lease", "LeaseTimeToLive", lambda ground: pb.LeaseTimeToLiveRequest(ID=ground.lease, keys=True)),
    Row("lease", "LeaseLeases", lambda _: pb.LeaseLeasesRequest()),
    Row("lease", "LeaseRevoke", lambda ground: pb.LeaseRevokeRequest(ID=ground.lease), WRITES),
    reads("Alarm", pb.AlarmRequest()),
    reads("Status", pb.StatusRequest()),
    reads("Defragment", pb.DefragmentRequest()),
    reads("Hash", pb.HashRequest()),
    reads("HashKV", pb.HashKVRequest()),
    reads("Snapshot", pb.SnapshotRequest()),
    reads("MoveLeader", pb.MoveLeaderRequest(targetID=7), "FAILED_PRECONDITION: etcdserver: bad leader transferee"),
    reads(
        "Downgrade",
        pb.DowngradeRequest(action=pb.DowngradeRequest.VALIDATE, version="3.3.0"),
        "INVALID_ARGUMENT: etcdserver: invalid downgrade target version",
    ),
    Row("cluster", "MemberList", lambda _: pb.MemberListRequest(linearizable=True)),
    Row("cluster", "MemberAdd", lambda g: pb.MemberAddRequest(peerURLs=[url(g, 1)], isLearner=True)),
    Row(
        "cluster",
        "MemberPromote",
        lambda ground: pb.MemberPromoteRequest(ID=ground.other),
        alike("FAILED_PRECONDITION: etcdserver: can only promote a learner member which is in sync with leader"),
    ),
    Row("cluster", "MemberUpdate", lambda g: pb.MemberUpdateRequest(ID=g.other, peerURLs=[url(g, 2)])),
    Row("cluster", "MemberRemove", lambda ground: pb.MemberRemoveRequest(ID=ground.other)),
    auth("UserAdd", lambda ground: pb.AuthUserAddRequest(name=ground.name, password="p")),
    auth("UserGet", lambda ground: pb.AuthUserGetRequest(name=ground.name)),
    auth("UserList", lambda _: pb.AuthUserListRequest()),
    auth("UserChangePassword", lambda g: pb.AuthUserChangePasswordRequest(name=g.name, password="q")),
    auth("RoleAdd", lambda ground: pb.AuthRoleAddRequest(name=ground.name)),
    auth("RoleGrantPermission", lambda g: pb.AuthRoleGrantPermissionRequest(name=g.name, perm=read_permission(b"a"))),
    auth("RoleGet", lambda ground: pb.AuthRoleGetRequest(role=ground.name)),
    auth("RoleList", lambda _: pb.AuthRoleListRequest()),
    auth("UserGrantRole", lambda ground: pb.AuthUserGrantRoleRequest(user=ground.name, role=ground.name)),
    auth("UserRevokeRole", lambda ground: pb.AuthUserRevokeRoleRequest(name=ground.name, role=ground.name)),
    auth("RoleRevokePermission", lambda ground: pb.AuthRoleRevokePermissionRequest(role=ground.name, key=b"a")),
    auth("RoleDelete", lambda ground: pb.AuthRoleDeleteRequest(role=ground.name)),
    auth("UserDelete", lambda ground: pb.AuthUserDeleteRequest(name=ground.name)),
    auth("AuthStatus", lambda _: pb.AuthStatusRequest()),
    auth("AuthEnable", lambda _: pb.AuthEnableRequest(), "FAILED_PRECONDITION: etcdserver: root user does not exist"),
    auth("AuthDisable", lambda _: pb.AuthDisableRequest()),
    auth(
        "Authenticate",
        lambda _: pb.AuthenticateRequest(name="x", password="y"),
        "FAILED_PRECONDITION: etcdserver: authentication is not enabled",
    ),
    Row("lock", "Lock", lambda ground: lock_pb2.LockRequest(name=b"l", lease=ground.lease), COMPOSED_GROWS),
    Row("lock", "Unlock", lambda _: lock_pb2.UnlockRequest(key=b"l/none"), COMPOSED_WRITES),
    Row("election", "Campaign", lambda g: election_pb2.CampaignRequest(name=b"e", lease=g.lease), COMPOSED_GROWS),
    Row(
        "election",
        "Proclaim",
        lambda ground: election_pb2.ProclaimRequest(leader=leads(ground)),
        (_COMPOSED_FULL, _COMPOSED_CORRUPT, "UNKNOWN: election: not leader"),
    ),
    Row("election", "Resign", lambda ground: election_pb2.ResignRequest(leader=leads(ground)), COMPOSED_WRITES),
    Row("election", "Leader", lambda _: election_pb2.LeaderRequest(name=b"f"), alike("UNKNOWN: election: no leader")),
)


@pytest.fixture(params=[actcd, real_etcd], ids=["actcd", "etcd"], scope="module")
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthClient]:
    """One server with auth off and a few revisions."""
    program: Program = request.param()
    settings = {**CHEAP, "strict-reconfig-check": False}
    with (
        running(Server(program, tmp_path_factory.mktemp("alarms"), settings)) as server,
        connect(server.endpoint) as stubs,
    ):
        for _ in range(8):
            stubs.kv.Put(pb.PutRequest(key=b"start", value=b"v"), timeout=CALL_TIMEOUT_S)
        # Before there is one, asking to go back a release fails for want of it, whatever else is wrong.
        wait_for(lambda: has_cluster_version(server), CALL_TIMEOUT_S, "the members agree on a version")
        yield AuthClient(server, stubs)


def has_cluster_version(server: Server) -> bool:
    """Whether the server knows the release that its cluster speaks."""
    with urlopen(f"http://{server.endpoint}/version", timeout=CALL_TIMEOUT_S) as page:
        return str(json.load(page)["etcdcluster"])[0].isdigit()


def switch(client: AuthClient, alarm: int, *, on: bool) -> None:
    """Raise or clear *alarm* for member 7."""
    if alarm != pb.NONE:
        action = pb.AlarmRequest.ACTIVATE if on else pb.AlarmRequest.DEACTIVATE
        client.call("", "maintenance", "Alarm", pb.AlarmRequest(action=action, memberID=7, alarm=alarm))  # type: ignore[arg-type]


def other_member(client: AuthClient) -> int:
    """Return the id of the member that is not the server itself; 0 without any."""
    answer = client.call("", "cluster", "MemberList", pb.MemberListRequest())
    return next((member.ID for member in answer.members if answer.header.member_id != member.ID), 0)


def test_what_each_alarm_forbids(client: AuthClient) -> None:
    """NOSPACE stops what makes the store grow, CORRUPT every write of keys and leases; the way out stays open."""
    ends: dict[int, list[str]] = {number: [] for number in range(len(TABLE))}
    for phase, alarm in enumerate(PHASES, 2):
        leases = [1000 * phase + number for number in ends]
        for lease in leases:
            client.call("", "lease", "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=600))
        switch(client, alarm, on=True)
        for number, row in enumerate(TABLE):
            other = other_member(client) if row.service == "cluster" else 0
            request = row.make(Ground(leases[number], f"n{phase}", other))
            end = client.end("", row.service, row.method, request)
            if end.startswith("DEADLINE"):  # etcd drops a change that comes too soon after the last, without a word
                end = client.end("", row.service, row.method, request)
            ends[number].append(end)
        switch(client, alarm, on=False)
    is_ours = client.server.program.name == "actcd"
    wrong = []
    for number, row in enumerate(TABLE):
        want = row.ends if is_ours else row.old or row.ends
        if tuple(ends[number]) != want:
            wrong.append(f"{number} {row.method}: {ends[number]}, not {want}")
    assert not wrong, "\n".join(wrong)


def test_no_method_is_left_out() -> None:
    """Whoever adds a method must say what alarms do to it.  Observe writes nothing, and waits while nobody leads."""
    rows = {(row.service, row.method.lower()) for row in TABLE}
    services = [
        *pb.DESCRIPTOR.services_by_name.values(),
        *lock_pb2.DESCRIPTOR.services_by_name.values(),
        *election_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    missing = {
        method.full_name
        for service in services
        for method in service.methods
        if (service.name.lower(), method.name.lower()) not in rows and method.name != "Observe"
    }
    assert not missing
