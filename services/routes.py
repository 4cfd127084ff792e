"""Every method that a client listener serves, by its full path: the one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from net.rpc import Routes
from services.auth import AuthService
from services.cluster import ClusterService
from services.composed import composed_streams, composed_unary
from services.health import Health
from services.identity import is_known, is_root, only, only_stream
from services.kv import KvService
from services.lease import KeepAliveStream, LeaseService
from services.maintenance import MaintenanceService
from services.range_stream import RangeStream
from services.snapshot import SnapshotStream
from services.standing import standing_routes
from services.watch import WatchStream

if TYPE_CHECKING:
    from services.node import Node


def client_routes(node: Node, health: Health | None = None) -> Routes:
    """Return the routes of one client listener of *node*, which says that it is as *health* is.

    What only some may call while auth is on is marked here, unless the method judges by what it is asked, or the log
    does: keys where they are read, watched or written, alarms by their action, members by their URLs, and
    administration of auth.
    """
    health = health or Health()
    kv, lease = KvService(node), LeaseService(node)
    cluster, maintenance = ClusterService(node), MaintenanceService(node, health)
    routes = Routes(
        unary={
            "/etcdserverpb.KV/Range": kv.range,
            "/etcdserverpb.KV/Put": kv.put,
            "/etcdserverpb.KV/DeleteRange": kv.delete_range,
            "/etcdserverpb.KV/Txn": kv.txn,
            "/etcdserverpb.KV/Compact": only(node, is_root, kv.compact),
            "/etcdserverpb.Lease/LeaseGrant": only(node, is_known, lease.grant),
            "/etcdserverpb.Lease/LeaseRevoke": only(node, is_known, lease.revoke),
            "/etcdserverpb.Lease/LeaseTimeToLive": only(node, is_known, lease.time_to_live),
            "/etcdserverpb.Lease/LeaseLeases": only(node, is_known, lease.leases),
            "/etcdserverpb.Cluster/MemberList": only(node, is_known, cluster.member_list),
            "/etcdserverpb.Cluster/MemberAdd": cluster.member_add,
            "/etcdserverpb.Cluster/MemberRemove": only(node, is_root, cluster.member_remove),
            "/etcdserverpb.Cluster/MemberUpdate": only(node, is_root, cluster.member_update),
            "/etcdserverpb.Cluster/MemberPromote": only(node, is_root, cluster.member_promote),
            "/etcdserverpb.Maintenance/MoveLeader": only(node, is_root, cluster.move_leader),
            "/etcdserverpb.Maintenance/Status": only(node, is_known, maintenance.status),
            "/etcdserverpb.Maintenance/Alarm": maintenance.alarm,
            "/etcdserverpb.Maintenance/Defragment": only(node, is_root, maintenance.defragment),
            "/etcdserverpb.Maintenance/Hash": only(node, is_root, maintenance.hash),
            "/etcdserverpb.Maintenance/HashKV": only(node, is_root, maintenance.hash_kv),
            "/etcdserverpb.Maintenance/Downgrade": only(node, is_root, maintenance.downgrade),
            **AuthService(node).methods(),
            "/grpc.health.v1.Health/Check": health.check,
            "/grpc.health.v1.Health/List": health.list_all,
        },
        streams={
            "/etcdserverpb.KV/RangeStream": lambda stream: RangeStream(node, stream),
            "/etcdserverpb.Watch/Watch": lambda stream: WatchStream(node, stream),
            "/etcdserverpb.Lease/LeaseKeepAlive": lambda stream: KeepAliveStream(node, stream),
            "/etcdserverpb.Maintenance/Snapshot": only_stream(
                node, is_root, lambda stream: SnapshotStream(node, stream)
            ),
            "/grpc.health.v1.Health/Watch": health.watch,
        },
    )
    composed = Routes(
        {**routes.unary, **composed_unary(routes)},
        {**routes.streams, **composed_streams(routes)},
    )
    return standing_routes(node, composed)
