"""Every method that the proxy passes on, by kind."""

from __future__ import annotations

from typing import Final

RANGE: Final = "/etcdserverpb.KV/Range"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE_RANGE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
MEMBER_LIST: Final = "/etcdserverpb.Cluster/MemberList"
WATCH: Final = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"

KV: Final = (RANGE, PUT, DELETE_RANGE, TXN, COMPACT)


def paths(service: str, names: str) -> tuple[str, ...]:
    """Return the full paths of a service's methods."""
    return tuple(f"/{service}/{name}" for name in names.split())


UNARY: Final = (
    *paths("etcdserverpb.Lease", "LeaseGrant LeaseRevoke LeaseTimeToLive LeaseLeases"),
    *paths("etcdserverpb.Cluster", "MemberAdd MemberRemove MemberUpdate MemberPromote"),
    *paths("etcdserverpb.Maintenance", "Alarm Status Defragment Hash HashKV MoveLeader Downgrade"),
    *paths(
        "etcdserverpb.Auth",
        "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete UserChangePassword "
        "UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission RoleRevokePermission",
    ),
    *paths("v3electionpb.Election", "Campaign Proclaim Leader Resign"),
    *paths("v3lockpb.Lock", "Lock Unlock"),
)
"""Passed on as they are, but for a namespace."""

STREAMS: Final = (
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Maintenance/Snapshot",
    "/v3electionpb.Election/Observe",
)
"""Streams of one client and one member each."""

READS: Final = frozenset(
    {
        RANGE,
        MEMBER_LIST,
        WATCH,
        HEALTH_CHECK,
        "/grpc.health.v1.Health/Watch",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Maintenance/Snapshot",
        "/v3electionpb.Election/Observe",
        "/v3electionpb.Election/Leader",
        *paths("etcdserverpb.Lease", "LeaseTimeToLive LeaseLeases"),
        *paths("etcdserverpb.Maintenance", "Status Hash HashKV"),
        *paths("etcdserverpb.Auth", "AuthStatus Authenticate UserGet UserList RoleGet RoleList"),
    }
)
"""What changes nothing: a proxy that only reads passes on these.  Transactions and alarms are looked at one by one."""

REPEATABLE: Final = READS - {WATCH, *STREAMS, "/etcdserverpb.Auth/Authenticate"}
"""Calls that may be made at two members."""

AUTH_CHANGES: Final = frozenset(path for path in UNARY if path.startswith("/etcdserverpb.Auth/") and path not in READS)
"""After these others may read what is cached."""
