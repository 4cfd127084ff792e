"""Names that older etcd had: each leads to its successor, or to nothing, so that old launchers and files keep working.

Owns the table of retired flags of etcd 3.4 to 3.6 and of the older ones that etcd itself accepts without effect.  Where
going on without the old behaviour would do harm (a proxy that becomes a member), the value is refused instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.booleans import TRUE

if TYPE_CHECKING:
    from collections.abc import Callable

_OFF = frozenset({"", "off", "false", "0"})  # "off" in a YAML file is the boolean


@dataclass(frozen=True, slots=True)
class Retired:
    """One old name."""

    name: str
    successor: str | None
    """The setting that takes its value; None if there is none."""
    carry: Callable[[object], object | None]
    """Turns the old value, a flag's text or the file's data, into the successor's; None leaves the successor alone."""
    reason: str
    """What became of it, for the warning."""
    is_switch: bool = False
    refused_unless: frozenset[str] | None = None
    """The values that can be ignored without harm, if not all can."""
    file_only: bool = False

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return "ETCD_" + self.name.upper().replace("-", "_")

    def refuses(self, value: object) -> bool:
        """Return whether ignoring *value* would do harm."""
        return self.refused_unless is not None and str(value).lower() not in self.refused_unless


def _renamed(name: str, successor: str, *, is_switch: bool = False) -> Retired:
    return Retired(name, successor, lambda value: value, f"it is now called {successor}", is_switch=is_switch)


def _gate(name: str, gate: str) -> Retired:
    def carry(value: object) -> object:
        return f"{gate}={str(value).lower() if isinstance(value, bool) else value}"

    return Retired(name, "feature-gates", carry, f"it is now the feature gate {gate}", is_switch=True)


def _gone(name: str, reason: str, *, is_switch: bool = False, refused_unless: frozenset[str] | None = None) -> Retired:
    return Retired(name, None, lambda _: None, reason, is_switch=is_switch, refused_unless=refused_unless)


def _debug_level(value: object) -> object | None:
    return "debug" if str(value) in TRUE else None


_V2 = "etcd's v2 API and store are gone"
_PROXY = "etcd's v2 proxy is gone; `actcd grpc-proxy start` takes its place"
_LEGACY = "it has had no effect since etcd 2"

RETIRED: tuple[Retired, ...] = (
    _gate("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    _gate("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    _gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    _gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    _gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    _gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    _gate("experimental-set-member-localaddr", "SetMemberLocalAddr"),
    _renamed("experimental-corrupt-check-time", "corrupt-check-time"),
    _renamed("experimental-compact-hash-check-time", "compact-hash-check-time"),
    _renamed("experimental-compaction-batch-limit", "compaction-batch-limit"),
    _renamed("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    _renamed("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    _renamed("experimental-downgrade-check-time", "downgrade-check-time"),
    _renamed("experimental-warning-apply-duration", "warning-apply-duration"),
    _renamed("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    _renamed("experimental-bootstrap-defrag-threshold-megabytes", "bootstrap-defrag-threshold-megabytes"),
    _renamed("experimental-max-learners", "max-learners"),
    _renamed("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    _renamed("experimental-backend-bbolt-freelist-type", "backend-bbolt-freelist-type"),
    _renamed("experimental-memory-mlock", "memory-mlock", is_switch=True),
    _renamed("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification", is_switch=True),
    _renamed("experimental-enable-distributed-tracing", "enable-distributed-tracing", is_switch=True),
    _renamed("experimental-distributed-tracing-address", "distributed-tracing-address"),
    _renamed("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    _renamed("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    _renamed("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    _renamed("log-output", "log-outputs"),
    Retired("debug", "log-level", _debug_level, "it is now log-level=debug", is_switch=True),
    _gone("log-package-levels", "log levels hold for the whole process"),
    _gone("enable-v2", _V2, is_switch=True),
    _gone("experimental-enable-v2v3", _V2),
    _gone("proxy-failure-wait", _PROXY),
    _gone("proxy-refresh-interval", _PROXY),
    _gone("proxy-dial-timeout", _PROXY),
    _gone("proxy-write-timeout", _PROXY),
    _gone("proxy-read-timeout", _PROXY),
    Retired("discovery-fallback", None, lambda _: None, _PROXY, file_only=True),
    *(
        _gone(name, _LEGACY, is_switch=True)
        for name in (
            "cluster-active-size",
            "cluster-remove-delay",
            "cluster-sync-interval",
            "config",
            "force",
            "max-result-buffer",
            "max-retry-attempts",
            "peer-heartbeat-interval",
            "peer-election-timeout",
            "retry-interval",
            "snapshot",
            "v",
            "vv",
        )
    ),
)
RETIRED_FLAGS: dict[str, Retired] = {each.name: each for each in RETIRED if not each.file_only}
RETIRED_FILE_KEYS: dict[str, Retired] = {each.name: each for each in RETIRED}
