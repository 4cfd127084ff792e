"""The numbers that belong to the process and its configuration, and how busy the actors are."""

from __future__ import annotations

import platform
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from config.gates import GATES
from core.metrics import INDEX_BOUNDS_MS, SYNC_BOUNDS_S, Histogram, Sample
from core.version import SERVER_VERSION

if TYPE_CHECKING:
    from config.schema import Config
    from core.types import MemberId
    from daemon.host import ThreadHost

QUOTA_DEFAULT_BYTES = 2 << 30

STAYING_ZERO = (
    "etcd_debugging_store_expires_total",
    "etcd_debugging_store_watch_requests_total",
    "etcd_debugging_store_watchers",
    "etcd_grpc_proxy_cache_hits_total",
    "etcd_grpc_proxy_cache_keys_total",
    "etcd_grpc_proxy_cache_misses_total",
    "etcd_grpc_proxy_events_coalescing_total",
    "etcd_grpc_proxy_watchers_coalescing_total",
)
"""Of what a member does not have, the second API's store and the proxy's cache; etcd shows them so, too."""

STAYING_ZERO_BY_ACTION = {
    "etcd_debugging_store_reads_total": ("get", "getRecursive"),
    "etcd_debugging_store_reads_failed_total": ("get", "getRecursive"),
    "etcd_debugging_store_writes_total": ("create", "set", "update", "delete"),
    "etcd_debugging_store_writes_failed_total": ("create", "set", "update", "delete"),
}
"""Likewise, by what was done to that store."""

STAYING_EMPTY = {
    "etcd_debugging_disk_backend_commit_rebalance_duration_seconds": SYNC_BOUNDS_S,
    "etcd_debugging_disk_backend_commit_spill_duration_seconds": SYNC_BOUNDS_S,
    "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds": INDEX_BOUNDS_MS,
    "etcd_debugging_snap_save_marshalling_duration_seconds": SYNC_BOUNDS_S,
}
"""Steps that there are not: a commit here writes and does no more, the index is a part of the store, and a raft
snapshot's file is put together in no time."""


def _address_space_bytes_max() -> int:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return (1 << 64) - 1 if limit == resource.RLIM_INFINITY else limit


def process_samples(config: Config, member: MemberId, host: ThreadHost) -> list[Sample]:
    """Return the numbers of this process; from any thread."""
    quota = config.member.quota_backend_bytes
    switched = {switch.name: switch.on for switch in config.member.feature_gates}
    return [
        Sample("etcd_server_version", 1, (SERVER_VERSION,)),
        Sample(
            "etcd_server_go_version", 1, (f"{platform.python_implementation().lower()}{platform.python_version()}",)
        ),
        Sample("etcd_server_id", 1, (f"{member:x}",)),
        Sample("etcd_server_quota_backend_bytes", QUOTA_DEFAULT_BYTES if quota == 0 else max(quota, 0)),
        *(
            Sample(
                "etcd_server_feature_enabled",
                int(switched.get(gate.name, gate.default)),
                (gate.name, gate.stage.upper()),
            )
            for gate in GATES
        ),
        *(Sample(name, 0) for name in STAYING_ZERO),
        *(Sample(name, 0, (action,)) for name, actions in STAYING_ZERO_BY_ACTION.items() for action in actions),
        *(Sample(name, Histogram(bounds).distribution()) for name, bounds in STAYING_EMPTY.items()),
        Sample("process_virtual_memory_max_bytes", _address_space_bytes_max()),
        Sample("os_fd_limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        Sample("os_fd_used", sum(1 for _ in Path("/proc/self/fd").iterdir())),
        *host.samples(),
    ]
