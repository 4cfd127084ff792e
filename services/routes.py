"""Every method that a client listener serves, by its full path: the one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.rpc import Routes
from services import health
from services.cluster import ClusterService
from services.health import HealthWatch
from services.kv import KvService
from services.lease import KeepAliveStream, LeaseService
from services.maintenance import MaintenanceService
from services.snapshot import SnapshotStream
from services.watch import WatchStream

if TYPE_CHECKING:
    from services.node import Node


def client_routes(node: Node) -> Routes:
    """Return the routes of one client listener of *node*."""
    kv, lease = KvService(node), LeaseService(node)
    cluster, maintenance = ClusterService(node), MaintenanceService(node)
    return Routes(
        unary={
            "/etcdserverpb.KV/Range": kv.range,
            "/etcdserverpb.KV/Put": kv.put,
            "/etcdserverpb.KV/DeleteRange": kv.delete_range,
            "/etcdserverpb.KV/Txn": kv.txn,
            "/etcdserverpb.KV/Compact": kv.compact,
            "/etcdserverpb.Lease/LeaseGrant": lease.grant,
            "/etcdserverpb.Lease/LeaseRevoke": lease.revoke,
            "/etcdserverpb.Lease/LeaseTimeToLive": lease.time_to_live,
            "/etcdserverpb.Lease/LeaseLeases": lease.leases,
            "/etcdserverpb.Cluster/MemberList": cluster.member_list,
            "/etcdserverpb.Maintenance/Status": maintenance.status,
            "/etcdserverpb.Maintenance/Alarm": maintenance.alarm,
            "/etcdserverpb.Maintenance/Defragment": maintenance.defragment,
            "/etcdserverpb.Maintenance/Hash": maintenance.hash,
            "/etcdserverpb.Maintenance/HashKV": maintenance.hash_kv,
            "/grpc.health.v1.Health/Check": health.check,
        },
        streams={
            "/etcdserverpb.Watch/Watch": lambda stream: WatchStream(node, stream),
            "/etcdserverpb.Lease/LeaseKeepAlive": lambda stream: KeepAliveStream(node, stream),
            "/etcdserverpb.Maintenance/Snapshot": lambda stream: SnapshotStream(node, stream),
            "/grpc.health.v1.Health/Watch": HealthWatch,
        },
    )
