"""The numbers that belong to the process and its configuration, and how busy the actors are."""

from __future__ import annotations

import platform
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from config.gates import GATES
from core.metrics import Sample
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
                int(gate.supported and switched.get(gate.name, gate.default)),
                (gate.name, gate.stage.upper()),
            )
            for gate in GATES
        ),
        *(Sample(name, 0) for name in STAYING_ZERO),
        Sample("os_fd_limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        Sample("os_fd_used", sum(1 for _ in Path("/proc/self/fd").iterdir())),
        *host.samples(),
    ]
