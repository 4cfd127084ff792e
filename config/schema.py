"""Every setting, declared once: the field, its flag, kind, default, meaning and check.

Flags, ``ETCD_*`` variables, file keys, ``--help`` and config/actcd.sample.yaml are all made from this table, so adding
a setting means adding a field here.  Frozen: the tree is read by many threads.  Names, defaults and meanings are those
of etcd 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from config import checks
from config.kinds import (
    ALLOWED,
    DURATION_S,
    EXTENSIONS,
    GATES,
    INITIAL_CLUSTER,
    LIST,
    OPTIONAL_URLS,
    PROXY,
    SIGNED,
    SWITCH,
    TEXT,
    UNSIGNED,
    UNSIGNED_32,
    URLS,
    choice,
)
from config.setting import Setting, declared_in, setting
from config.urls import InitialMember, Url, parse_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config.extensions import ExtensionEntry
    from config.gates import GateSwitch

DEFAULT_NAME = "default"
DEFAULT_PEER_URLS = parse_urls("http://localhost:2380")
DEFAULT_CLIENT_URLS = parse_urls("http://localhost:2379")
DEFAULT_ROTATION = '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}'

_NOT_IN_LEVELDB = "tunes etcd's bbolt; LevelDB needs no such setting, so it has no effect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Member."""

    name: str = setting("name", TEXT, DEFAULT_NAME, "Human-readable name of this member.")
    data_dir: str = setting("data-dir", TEXT, "", "Path to the data directory.", shown_default="${name}.etcd")
    wal_dir: str = setting(
        "wal-dir", TEXT, "", "Path to a WAL directory of its own; if empty, member/wal in the data directory."
    )
    snapshot_count: int = setting(
        "snapshot-count", UNSIGNED, 10_000, "Applied entries between two snapshots to disk.", zero_means=10_000
    )
    snapshot_catchup_entries: int = setting(
        "snapshot-catchup-entries",
        UNSIGNED,
        5_000,
        "Entries that stay in memory behind a snapshot, for a slow follower to catch up.",
        zero_means=5_000,
    )
    heartbeat_interval_ms: int = setting(
        "heartbeat-interval",
        UNSIGNED,
        100,
        "Time between the leader's heartbeats, in milliseconds; also the length of a raft tick.",
        check=checks.above_zero_ms("heartbeat-interval"),
    )
    election_timeout_ms: int = setting(
        "election-timeout",
        UNSIGNED,
        1_000,
        "Time without a heartbeat before an election, in milliseconds; at least five heartbeats.",
        check=checks.above_zero_ms("election-timeout"),
    )
    initial_election_tick_advance: bool = setting(
        "initial-election-tick-advance",
        SWITCH,
        True,
        "Accepted for etcd's sake; a member that is alone stands for election at once, another waits its timeout.",
        note="the first election is the same either way, so it has no effect",
    )
    listen_peer_urls: tuple[Url, ...] = setting(
        "listen-peer-urls",
        URLS,
        DEFAULT_PEER_URLS,
        "URLs to listen on for other members.",
        check=checks.bindable,
    )
    listen_client_urls: tuple[Url, ...] = setting(
        "listen-client-urls",
        URLS,
        DEFAULT_CLIENT_URLS,
        "URLs to listen on for clients, gRPC and HTTP alike.",
        check=checks.bindable,
    )
    listen_client_http_urls: tuple[Url, ...] = setting(
        "listen-client-http-urls",
        OPTIONAL_URLS,
        (),
        "URLs for the clients' HTTP requests alone; listen-client-urls then serve only gRPC.",
        check=checks.bindable,
    )
    max_snapshots: int = setting("max-snapshots", UNSIGNED, 5, "Snapshot files to keep (0 keeps all).")
    max_wals: int = setting("max-wals", UNSIGNED, 5, "WAL files to keep (0 keeps all).")
    memory_mlock: bool = setting("memory-mlock", SWITCH, False, "Whether to lock the process's memory in RAM.")
    quota_backend_bytes: int = setting(
        "quota-backend-bytes",
        SIGNED,
        0,
        "Size of the store at which the NOSPACE alarm is raised (0 means 2 GiB, less than 0 means never).",
        zero_means=2 * 1024**3,
    )
    backend_bbolt_freelist_type: str = setting(
        "backend-bbolt-freelist-type",
        choice("array", "map"),
        "map",
        "Accepted for etcd's sake; LevelDB has no freelist.",
        note=_NOT_IN_LEVELDB,
    )
    backend_batch_interval_s: float = setting(
        "backend-batch-interval",
        DURATION_S,
        0.0,
        "Accepted for etcd's sake; actcd batches by itself.",
        note=_NOT_IN_LEVELDB,
    )
    backend_batch_limit: int = setting(
        "backend-batch-limit", SIGNED, 0, "Accepted for etcd's sake; actcd batches by itself.", note=_NOT_IN_LEVELDB
    )
    max_txn_ops: int = setting("max-txn-ops", UNSIGNED, 128, "Operations that one transaction may hold.")
    max_request_bytes: int = setting(
        "max-request-bytes", UNSIGNED, 1_572_864, "Size of the largest request that clients may send, in bytes."
    )
    max_concurrent_streams: int = setting(
        "max-concurrent-streams",
        UNSIGNED_32,
        0xFFFFFFFF,
        "Calls that one client connection may have open at the same time.",
    )
    grpc_keepalive_min_time_s: float = setting(
        "grpc-keepalive-min-time",
        DURATION_S,
        5.0,
        "Shortest time between two pings of a client; one that pings more often is disconnected.",
        check=checks.not_negative_s("grpc-keepalive-min-time"),
    )
    grpc_keepalive_interval_s: float = setting(
        "grpc-keepalive-interval",
        DURATION_S,
        7200.0,
        "Time without traffic after which a client is pinged (0 means never).",
        check=checks.not_negative_s("grpc-keepalive-interval"),
    )
    grpc_keepalive_timeout_s: float = setting(
        "grpc-keepalive-timeout",
        DURATION_S,
        20.0,
        "Time to wait for the answer before the connection is closed (0 means for ever).",
        check=checks.not_negative_s("grpc-keepalive-timeout"),
    )
    socket_reuse_port: bool = setting(
        "socket-reuse-port",
        SWITCH,
        False,
        "Whether to set SO_REUSEPORT on listeners, so that several processes may share a port.",
        file="socket-options.reuse-port",
    )
    socket_reuse_address: bool = setting(
        "socket-reuse-address",
        SWITCH,
        False,
        "Accepted for etcd's sake; SO_REUSEADDR is always set on listeners, as Go does.",
        file="socket-options.reuse-address",
    )
    enable_grpc_gateway: bool = setting(
        "enable-grpc-gateway",
        SWITCH,
        True,
        "Whether to offer the JSON gateway below /v3/.",
    )
    raft_read_timeout_s: float = setting(
        "raft-read-timeout", DURATION_S, 5.0, "Longest read from a peer, at least 5s.", file=None
    )
    raft_write_timeout_s: float = setting(
        "raft-write-timeout", DURATION_S, 5.0, "Longest write to a peer, at least 5s.", file=None
    )
    feature_gates: tuple[GateSwitch, ...] = setting(
        "feature-gates",
        GATES,
        (),
        "Behaviours to switch on or off, as A=true,B=false; AllAlpha and AllBeta switch whole stages.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """Clustering."""

    initial_advertise_peer_urls: tuple[Url, ...] = setting(
        "initial-advertise-peer-urls",
        URLS,
        DEFAULT_PEER_URLS,
        "URLs at which the other members reach this one.",
        check=checks.advertisable_to_peers,
    )
    initial_cluster: tuple[InitialMember, ...] = setting(
        "initial-cluster",
        INITIAL_CLUSTER,
        (),
        "Members of a new cluster, as name=url,name=url; if empty, this member alone.",
        shown_default="default=http://localhost:2380",
    )
    initial_cluster_state: str = setting(
        "initial-cluster-state",
        choice("new", "existing", rule='unexpected clusterState "{value}"'),
        "new",
        "Whether the cluster is new or existing.",
    )
    initial_cluster_token: str = setting(
        "initial-cluster-token",
        TEXT,
        "etcd-cluster",
        "Goes into the ids of a new cluster and its members, which keeps clusters apart.",
    )
    advertise_client_urls: tuple[Url, ...] = setting(
        "advertise-client-urls",
        URLS,
        DEFAULT_CLIENT_URLS,
        "URLs at which clients reach this member.",
        check=checks.advertisable_to_clients,
    )
    discovery: str = setting(
        "discovery",
        TEXT,
        "",
        "URL of a token at a discovery service of etcd 3.5 and before, at which the members of a new cluster meet.",
        check=checks.discovery_url,
    )
    discovery_proxy: str = setting(
        "discovery-proxy",
        TEXT,
        "",
        "HTTP proxy on the way to that service.",
        check=checks.proxy_url,
    )
    discovery_token: str = setting(
        "discovery-token",
        TEXT,
        "",
        "Name under which the members of a new cluster find each other.",
        file="discovery-config.token",
    )
    discovery_endpoints: tuple[str, ...] = setting(
        "discovery-endpoints",
        LIST,
        (),
        "Endpoints of the etcd cluster that serves discovery.",
        file="discovery-config.client.endpoints",
        check=checks.no_empty_endpoint,
    )
    discovery_dial_timeout_s: float = setting(
        "discovery-dial-timeout",
        DURATION_S,
        2.0,
        "Longest dial to the discovery service.",
        file="discovery-config.client.dial-timeout",
        check=checks.not_negative_s("discovery-dial-timeout"),
    )
    discovery_request_timeout_s: float = setting(
        "discovery-request-timeout",
        DURATION_S,
        5.0,
        "Longest request to the discovery service.",
        file="discovery-config.client.request-timeout",
        check=checks.not_negative_s("discovery-request-timeout"),
    )
    discovery_keepalive_time_s: float = setting(
        "discovery-keepalive-time",
        DURATION_S,
        2.0,
        "Time between pings to the discovery service.",
        file="discovery-config.client.keepalive-time",
        check=checks.not_negative_s("discovery-keepalive-time"),
    )
    discovery_keepalive_timeout_s: float = setting(
        "discovery-keepalive-timeout",
        DURATION_S,
        6.0,
        "Longest wait for the answer to such a ping.",
        file="discovery-config.client.keepalive-timeout",
        check=checks.not_negative_s("discovery-keepalive-timeout"),
    )
    discovery_max_request_bytes: int = setting(
        "discovery-config.client.max-request-bytes",
        SIGNED,
        0,
        "Size of the largest request to the discovery service.",
        flag=False,
        file="discovery-config.client.max-request-bytes",
        check=checks.not_negative("discovery-config.client.max-request-bytes"),
    )
    discovery_max_receive_bytes: int = setting(
        "discovery-config.client.max-recv-bytes",
        SIGNED,
        0,
        "Size of the largest answer of the discovery service.",
        flag=False,
        file="discovery-config.client.max-recv-bytes",
        check=checks.not_negative("discovery-config.client.max-recv-bytes"),
    )
    discovery_insecure_transport: bool = setting(
        "discovery-insecure-transport",
        SWITCH,
        True,
        "Whether the discovery service is reached without TLS.",
        file="discovery-config.client.secure.insecure-transport",
    )
    discovery_insecure_skip_tls_verify: bool = setting(
        "discovery-insecure-skip-tls-verify",
        SWITCH,
        False,
        "Whether to trust any certificate of the discovery service.",
        file="discovery-config.client.secure.insecure-skip-tls-verify",
    )
    discovery_server_name: str = setting(
        "discovery-config.client.secure.server-name",
        TEXT,
        "",
        "Name that the discovery service's certificate must have.",
        flag=False,
        file="discovery-config.client.secure.server-name",
    )
    discovery_cert: str = setting(
        "discovery-cert",
        TEXT,
        "",
        "Certificate to show to the discovery service.",
        file="discovery-config.client.secure.cert",
    )
    discovery_key: str = setting(
        "discovery-key",
        TEXT,
        "",
        "Key of that certificate.",
        file="discovery-config.client.secure.key",
    )
    discovery_cacert: str = setting(
        "discovery-cacert",
        TEXT,
        "",
        "Authority to verify the discovery service by.",
        file="discovery-config.client.secure.cacert",
    )
    discovery_user: str = setting(
        "discovery-user",
        TEXT,
        "",
        "User of the discovery service, as user[:password].",
        file="discovery-config.client.auth.username",
        secret=True,
    )
    discovery_password: str = setting(
        "discovery-password",
        TEXT,
        "",
        "That user's password.",
        file="discovery-config.client.auth.password",
        secret=True,
    )
    discovery_auth_token: str = setting(
        "discovery-config.client.auth.token",
        TEXT,
        "",
        "Token to show to the discovery service.",
        flag=False,
        file="discovery-config.client.auth.token",
        secret=True,
    )
    discovery_fallback: str = setting(
        "discovery-fallback",
        choice("exit", "proxy", rule="invalid value"),
        "exit",
        "What to do when discovery fails; only exit is left.",
        file=None,
        check=checks.exit_on_fallback,
    )
    discovery_srv: str = setting(
        "discovery-srv", TEXT, "", "Domain whose SRV records name the members of a new cluster."
    )
    discovery_srv_name: str = setting("discovery-srv-name", TEXT, "", "Suffix of the service's name in those records.")
    strict_reconfig_check: bool = setting(
        "strict-reconfig-check", SWITCH, True, "Whether to refuse member changes that would lose the quorum."
    )
    pre_vote: bool = setting("pre-vote", SWITCH, True, "Whether to ask for votes on trial before an election.")
    auto_compaction_retention: str = setting(
        "auto-compaction-retention",
        TEXT,
        "0",
        "History to keep when compacting by itself: hours or a duration, or a number of revisions (0 means off).",
    )
    auto_compaction_mode: str = setting(
        "auto-compaction-mode",
        TEXT,
        "periodic",
        "How to read auto-compaction-retention: periodic or revision.",
        check=checks.known_compaction_mode,
    )
    v2_deprecation: str = setting(
        "v2-deprecation",
        choice("not-yet", "write-only", "write-only-drop-data", "gone", rule="invalid value"),
        "write-only",
        "Accepted for etcd's sake; there is no v2 store.",
        note="there is no v2 store here, so it has no effect",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Security."""

    cert_file: str = setting(
        "cert-file",
        TEXT,
        "",
        "Certificate to show to clients.",
        file="client-transport-security.cert-file",
    )
    key_file: str = setting(
        "key-file",
        TEXT,
        "",
        "Key of that certificate.",
        file="client-transport-security.key-file",
    )
    client_cert_auth: bool = setting(
        "client-cert-auth",
        SWITCH,
        False,
        "Whether clients must show a certificate.",
        file="client-transport-security.client-cert-auth",
    )
    client_cert_file: str = setting(
        "client-cert-file",
        TEXT,
        "",
        "Accepted for etcd's sake: for calls of the server to its own client URLs, which actcd makes in itself.",
        file="client-transport-security.client-cert-file",
        note="the gateway calls the server within the process and shows no certificate, so it has no effect",
    )
    client_key_file: str = setting(
        "client-key-file",
        TEXT,
        "",
        "Key of that certificate.",
        file="client-transport-security.client-key-file",
    )
    client_crl_file: str = setting(
        "client-crl-file", TEXT, "", "List of revoked client certificates.", file="client-transport-security.crl-file"
    )
    client_cert_allowed_cn: tuple[str, ...] = setting(
        "client-transport-security.allowed-cn",
        LIST,
        (),
        "Common names that clients' certificates may have.",
        flag=False,
        file="client-transport-security.allowed-cn",
    )
    client_cert_allowed_hostname: tuple[str, ...] = setting(
        "client-cert-allowed-hostname",
        LIST,
        (),
        "Host names that clients' certificates may have.",
        file="client-transport-security.allowed-hostname",
    )
    client_skip_client_san_verification: bool = setting(
        "client-transport-security.skip-client-san-verification",
        SWITCH,
        False,
        "Whether not to compare clients' certificates with their addresses.",
        flag=False,
        file="client-transport-security.skip-client-san-verification",
    )
    trusted_ca_file: str = setting(
        "trusted-ca-file",
        TEXT,
        "",
        "Authority to verify clients by; they must show a certificate then.",
        file="client-transport-security.trusted-ca-file",
    )
    auto_tls: bool = setting(
        "auto-tls",
        SWITCH,
        False,
        "Whether to serve clients with a certificate made at the start.",
        file="client-transport-security.auto-tls",
    )
    peer_cert_file: str = setting(
        "peer-cert-file",
        TEXT,
        "",
        "Certificate to show to peers.",
        file="peer-transport-security.cert-file",
    )
    peer_key_file: str = setting(
        "peer-key-file",
        TEXT,
        "",
        "Key of that certificate.",
        file="peer-transport-security.key-file",
    )
    peer_client_cert_auth: bool = setting(
        "peer-client-cert-auth",
        SWITCH,
        False,
        "Whether peers must show a certificate.",
        file="peer-transport-security.client-cert-auth",
    )
    peer_client_cert_file: str = setting(
        "peer-client-cert-file",
        TEXT,
        "",
        "Certificate for calls to peers; if empty, peer-cert-file.",
        file="peer-transport-security.client-cert-file",
    )
    peer_client_key_file: str = setting(
        "peer-client-key-file",
        TEXT,
        "",
        "Key of that certificate.",
        file="peer-transport-security.client-key-file",
    )
    peer_trusted_ca_file: str = setting(
        "peer-trusted-ca-file",
        TEXT,
        "",
        "Authority to verify peers by.",
        file="peer-transport-security.trusted-ca-file",
    )
    peer_cert_allowed_cn: tuple[str, ...] = setting(
        "peer-cert-allowed-cn",
        LIST,
        (),
        "Common names that peers' certificates may have.",
        file="peer-transport-security.allowed-cn",
    )
    peer_cert_allowed_hostname: tuple[str, ...] = setting(
        "peer-cert-allowed-hostname",
        LIST,
        (),
        "Host names that peers' certificates may have.",
        file="peer-transport-security.allowed-hostname",
    )
    peer_auto_tls: bool = setting(
        "peer-auto-tls",
        SWITCH,
        False,
        "Whether to serve peers with a certificate made at the start.",
        file="peer-transport-security.auto-tls",
    )
    peer_crl_file: str = setting(
        "peer-crl-file", TEXT, "", "List of revoked peer certificates.", file="peer-transport-security.crl-file"
    )
    peer_skip_client_san_verification: bool = setting(
        "peer-skip-client-san-verification",
        SWITCH,
        False,
        "Whether not to compare peers' certificates with their addresses.",
        file="peer-transport-security.skip-client-san-verification",
    )
    self_signed_cert_validity_years: int = setting(
        "self-signed-cert-validity",
        UNSIGNED,
        1,
        "Years that certificates made at the start are valid.",
    )
    cipher_suites: tuple[str, ...] = setting(
        "cipher-suites",
        LIST,
        (),
        "TLS cipher suites to offer, by IANA's names (empty means the usual ones).",
        check=checks.known_cipher_suites,
    )
    tls_min_version: str = setting(
        "tls-min-version",
        TEXT,
        "TLS1.2",
        "Oldest TLS version to speak.",
        check=checks.known_tls_version,
    )
    tls_max_version: str = setting(
        "tls-max-version",
        TEXT,
        "",
        "Newest TLS version to speak (empty means the newest there is).",
        check=checks.known_tls_version,
    )
    cors: tuple[str, ...] = setting("cors", ALLOWED, ("*",), "Origins from which browsers may call (* means all).")
    host_whitelist: tuple[str, ...] = setting(
        "host-whitelist",
        ALLOWED,
        ("*",),
        "Host names that HTTP requests without TLS may name (* means all).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Auth."""

    auth_token: str = setting(
        "auth-token",
        TEXT,
        "simple",
        "Type of the clients' tokens and its options: simple or jwt.",
        check=checks.known_token_options,
    )
    bcrypt_cost: int = setting("bcrypt-cost", UNSIGNED, 10, "Cost of hashing a password with bcrypt, from 4 to 31.")
    auth_token_ttl_s: int = setting("auth-token-ttl", UNSIGNED, 300, "Life of a simple token, in seconds.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Profiling and Monitoring."""

    enable_pprof: bool = setting("enable-pprof", SWITCH, False, "Whether to offer profiles below /debug/pprof/.")
    metrics: str = setting("metrics", TEXT, "basic", "Detail of the metrics; extensive adds histograms of calls.")
    listen_metrics_urls: tuple[Url, ...] = setting(
        "listen-metrics-urls",
        OPTIONAL_URLS,
        (),
        "Further URLs for metrics and health.",
        check=checks.bindable,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """Logging."""

    logger: str = setting(
        "logger",
        TEXT,
        "zap",
        "Accepted for etcd's sake; only zap, whose format the log has.",
        check=checks.known_logger,
    )
    log_outputs: tuple[str, ...] = setting(
        "log-outputs",
        LIST,
        ("default",),
        "Where the log goes: default and stderr, stdout, systemd/journal, and paths of files.",
        check=checks.usable_outputs,
    )
    log_level: str = setting(
        "log-level",
        choice("debug", "info", "warn", "error", "dpanic", "panic", "fatal", rule='unrecognized level: "{value}"'),
        "info",
        "Least level that is logged: debug, info, warn, error, panic or fatal.",
    )
    log_format: str = setting(
        "log-format",
        choice("", "json", "console", rule='unknown log format "{value}", supported are json and console'),
        "",
        "json or console.",
        shown_default="json, or console on a terminal",
    )
    enable_log_rotation: bool = setting(
        "enable-log-rotation", SWITCH, False, "Whether to rotate the one log file among the outputs."
    )
    log_rotation_config_json: str = setting(
        "log-rotation-config-json",
        TEXT,
        DEFAULT_ROTATION,
        "When to rotate: maxsize in MB, maxage in days, maxbackups, localtime, compress.",
    )
    warning_unary_request_duration_s: float = setting(
        "warning-unary-request-duration", DURATION_S, 0.3, "Time from which on a request is logged as slow."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Distributed tracing."""

    enable_distributed_tracing: bool = setting("enable-distributed-tracing", SWITCH, False, "Whether to send traces.")
    distributed_tracing_address: str = setting(
        "distributed-tracing-address", TEXT, "localhost:4317", "Address of the collector."
    )
    distributed_tracing_service_name: str = setting(
        "distributed-tracing-service-name", TEXT, "etcd", "Name of the service, equal on all members."
    )
    distributed_tracing_instance_id: str = setting(
        "distributed-tracing-instance-id", TEXT, "", "Name of the instance, different on each member."
    )
    distributed_tracing_sampling_rate: int = setting(
        "distributed-tracing-sampling-rate",
        SIGNED,
        0,
        "Requests to trace out of a million.",
        check=checks.sampling_rate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features."""

    corrupt_check_time_s: float = setting(
        "corrupt-check-time",
        DURATION_S,
        14_400.0,
        "Time between the leader's comparisons of all members' keys (0 means none).",
    )
    compact_hash_check_time_s: float = setting(
        "compact-hash-check-time",
        DURATION_S,
        60.0,
        "Time between comparisons of compaction hashes.",
        check=checks.above_zero_s("compact-hash-check-time"),
    )
    compaction_batch_limit: int = setting(
        "compaction-batch-limit",
        SIGNED,
        0,
        "Revisions removed in one batch of a compaction (0 means 1000).",
        zero_means=1_000,
        check=checks.not_negative("compaction-batch-limit"),
    )
    compaction_sleep_interval_s: float = setting(
        "compaction-sleep-interval",
        DURATION_S,
        0.0,
        "Pause between two batches of a compaction (0 means 10ms).",
        zero_means=0.01,
        check=checks.not_negative_s("compaction-sleep-interval"),
    )
    warning_apply_duration_s: float = setting(
        "warning-apply-duration", DURATION_S, 0.1, "Time from which on applying an entry is logged as slow."
    )
    watch_progress_notify_interval_s: float = setting(
        "watch-progress-notify-interval",
        DURATION_S,
        0.0,
        "Time between the progress notices of a watch (0 means 10m; at least 100ms).",
        zero_means=600.0,
        check=checks.not_negative_s("watch-progress-notify-interval"),
    )
    bootstrap_defrag_threshold_megabytes: int = setting(
        "bootstrap-defrag-threshold-megabytes",
        UNSIGNED,
        0,
        "Unused megabytes in the store from which on it is defragmented at the start (0 means never).",
    )
    max_learners: int = setting(
        "max-learners",
        SIGNED,
        1,
        "Learners that the cluster may have; the same for all members.",
        check=checks.not_negative("max-learners"),
    )
    downgrade_check_time_s: float = setting(
        "downgrade-check-time", DURATION_S, 5.0, "Time between checks on a downgrade that is going on."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsafe:
    """Unsafe feature."""

    force_new_cluster: bool = setting(
        "force-new-cluster",
        SWITCH,
        False,
        "Whether to make a cluster of one member from its data: what others may not have agreed to is dropped.",
    )
    unsafe_no_fsync: bool = setting(
        "unsafe-no-fsync",
        SWITCH,
        False,
        "Accepted for etcd's sake; actcd always waits for the disk.",
        note="actcd waits for the disk all the same, so it has no effect",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """Beyond etcd."""

    engine: str = setting(
        "engine",
        choice("native", "grpcio"),
        "native",
        "What serves clients: native is actcd's own HTTP/2, grpcio is Google's library.",
    )
    enable_grpc_reflection: bool = setting(
        "enable-grpc-reflection", SWITCH, False, "Whether gRPC tools such as grpcurl may ask which services there are."
    )
    auth_password_characters_min: int = setting(
        "auth-password-characters-min", UNSIGNED, 1, "Shortest password that a user may be given, in characters."
    )
    proxy: str = setting(
        "proxy",
        PROXY,
        "off",
        "Of etcd up to 3.5: run a gRPC proxy before the initial cluster, and no member (readonly: for reads only).",
        note="etcd's v2 proxy is gone: the gRPC proxy runs in its place, and serves API 3; see actcd grpc-proxy --help",
    )
    log_sync: str = setting(
        "log-sync",
        choice("kernel", "thread"),
        "kernel",
        "What makes the log durable while several clients write: the kernel (io_uring or Linux AIO) where it can, or a"
        " thread.",
    )
    extensions: tuple[ExtensionEntry, ...] = setting(
        "extensions",
        EXTENSIONS,
        (),
        'Actors to add, as a list of {actor: "package.module:Class", options: {...}}.',
        flag=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one member, read once at the start and never changed."""

    member: Member = Member()
    clustering: Clustering = Clustering()
    security: Security = Security()
    auth: Auth = Auth()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()
    tracing: Tracing = Tracing()
    features: Features = Features()
    unsafe: Unsafe = Unsafe()
    own: Own = Own()


SECTION_TYPES: dict[str, Any] = {each.name: type(each.default) for each in fields(Config)}


class Declared(NamedTuple):
    """A setting and the field that declares it."""

    setting: Setting
    section: str
    """The attribute of Config."""
    title: str
    """The section's heading in help and in the sample."""
    attribute: str


def declarations() -> Iterator[Declared]:
    """Yield every setting, in the order of this page."""
    for section, section_type in SECTION_TYPES.items():
        title = section_type.__doc__.rstrip(".")
        for each in fields(section_type):
            yield Declared(declared_in(each.metadata), section, title, each.name)


DECLARED: tuple[Declared, ...] = tuple(declarations())
BY_NAME: dict[str, Declared] = {each.setting.name: each for each in DECLARED}
