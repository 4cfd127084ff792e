"""Rules between settings, in etcd's words, and what is accepted only with a warning.

``refusals`` holds at every start.  ``bootstrap_refusals`` holds only where there is no data yet, since a member that
restarts ignores the initial-* settings; the daemon asks it once it has looked at the data directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from config.auth import BCRYPT_COST_DEFAULT, is_bcrypt_cost, parse_token_options
from config.compaction import parse_auto_compaction
from config.faults import BadValue, Fault
from config.gates import is_on, without_effect
from config.notes import Note
from config.rotation import parse_rotation
from config.schema import DEFAULT_NAME, Config
from config.tls import tls_faults, tls_warnings
from config.urls import InitialMember, Url

ELECTION_TIMEOUT_MS_MAX = 50_000
RECOMMENDED_QUOTA_BYTES_MAX = 8 * 1024**3
RECOMMENDED_REQUEST_BYTES_MAX = 10 * 1024**2
_NOT_FILES = frozenset({"default", "stdout", "stderr", "systemd/journal", "/dev/null"})

Resolve = Callable[[str], str]
"""Returns the IP address of a host name; raises OSError if it has none."""


def refusals(config: Config, explicit: Collection[str], unreadable: Collection[str]) -> Iterator[Fault]:
    """Yield what is wrong between settings.

    *explicit* names the settings that flags or variables gave, *unreadable* those whose value could not be read: a rule
    that needs one of these stays silent, since its default would be judged instead.
    """
    for involved, rule in _RULES:
        if involved.isdisjoint(unreadable):
            yield from rule(config)
    if "listen-client-urls" in explicit and "advertise-client-urls" not in {*explicit, *unreadable}:
        text = "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        yield Fault("--advertise-client-urls", None, text)


def warnings(config: Config) -> Iterator[Note]:
    """Yield what is accepted but better changed."""
    member = config.member
    if member.name == DEFAULT_NAME:
        yield Note("warning", "the name is the default one; members of one cluster need names of their own")
    if member.quota_backend_bytes > RECOMMENDED_QUOTA_BYTES_MAX:
        fields = {"key": "quota-backend-bytes", "recommended_bytes_max": RECOMMENDED_QUOTA_BYTES_MAX}
        yield Note("warning", "the quota exceeds what is recommended", fields)
    if member.max_request_bytes > RECOMMENDED_REQUEST_BYTES_MAX:
        fields = {"key": "max-request-bytes", "recommended_bytes_max": RECOMMENDED_REQUEST_BYTES_MAX}
        yield Note("warning", "the largest request exceeds what is recommended", fields)
    if not is_bcrypt_cost(config.auth.bcrypt_cost):
        fields = {"key": "bcrypt-cost", "used": BCRYPT_COST_DEFAULT}
        yield Note("warning", "the cost of hashing passwords is not from 4 to 31; the default is used", fields)
    yield from tls_warnings(config)
    for unknown in parse_token_options(config.auth.auth_token).unknown:
        yield Note("warning", "an option of auth-token means nothing", {"key": unknown})
    gates = member.feature_gates
    for gate in without_effect(gates):
        fields = {"key": gate}
        yield Note("warning", "tunes etcd's bbolt; LevelDB needs no such setting, so it has no effect", fields)
    if is_on(gates, "LeaseCheckpoint") and not is_on(gates, "LeaseCheckpointPersist"):
        yield Note("warning", "LeaseCheckpoint without LeaseCheckpointPersist loses checkpoints at a restart")


def bootstrap_refusals(config: Config, resolve: Resolve) -> tuple[Fault, ...]:
    """Return what keeps a member without data from starting; asks *resolve* only if advertised URLs differ in text."""
    return tuple(_bootstrap(config, resolve))


def _timing(config: Config) -> Iterator[Fault]:
    heartbeat, election = config.member.heartbeat_interval_ms, config.member.election_timeout_ms
    if not heartbeat or not election:
        return  # each has its own fault already
    if 5 * heartbeat > election:
        rule = f"should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        yield Fault("--election-timeout", str(election), f"--election-timeout[{election}ms] {rule}")
    if election > ELECTION_TIMEOUT_MS_MAX:
        rule = f"is too long, and should be set less than {ELECTION_TIMEOUT_MS_MAX}ms"
        yield Fault("--election-timeout", str(election), f"--election-timeout[{election}ms] {rule}")


def _clustering(config: Config) -> Iterator[Fault]:
    clustering = config.clustering
    if bool(clustering.discovery_token) != bool(clustering.discovery_endpoints):
        yield Fault("--discovery-token", None, "both --discovery-token and --discovery-endpoints must be set")
    services = (clustering.discovery_endpoints, clustering.discovery)
    ways = (clustering.initial_cluster, clustering.discovery_srv, *services)
    if sum(map(bool, ways)) > 1:
        service = "discovery" if clustering.discovery else "discovery-endpoints"
        rule = (
            "multiple discovery or bootstrap flags are set. "
            f'Choose one of "initial-cluster", "{service}" or "discovery-srv"'
        )
        yield Fault("--initial-cluster", None, rule)


def _listening(config: Config) -> Iterator[Fault]:
    # One address serves clients with and without TLS, but not gRPC alone and HTTP alone.
    taken = {url.address for url in config.member.listen_client_urls}
    for url in (url for url in config.member.listen_client_http_urls if url.address in taken):
        rule = f"cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        yield Fault("--listen-client-http-urls", str(url), rule)


def _compaction(config: Config) -> Iterator[Fault]:
    mode, retention = config.clustering.auto_compaction_mode, config.clustering.auto_compaction_retention
    try:
        parse_auto_compaction(mode, retention)
    except BadValue as error:
        yield Fault("auto-compaction-retention", retention, f"error parsing CompactionRetention: {error}")


def _logging(config: Config) -> Iterator[Fault]:
    logging = config.logging
    if not logging.enable_log_rotation:
        return
    if len(set(logging.log_outputs) - _NOT_FILES) != 1:
        rule = "--log-outputs requires a single file path when --log-rotate-config-json is defined"
        yield Fault("--log-outputs", ",".join(logging.log_outputs), rule)
    key, text = "--log-rotation-config-json", logging.log_rotation_config_json
    try:
        parse_rotation(text)
    except BadValue as error:
        yield Fault(key, text, str(error))


_LISTENED_ON = {"listen-client-urls", "listen-client-http-urls", "listen-metrics-urls", "listen-peer-urls"}

_RULES: tuple[tuple[frozenset[str], Callable[[Config], Iterator[Fault]]], ...] = (
    (frozenset({"heartbeat-interval", "election-timeout"}), _timing),
    (
        frozenset({"initial-cluster", "discovery", "discovery-token", "discovery-endpoints", "discovery-srv"}),
        _clustering,
    ),
    (frozenset({"listen-client-urls", "listen-client-http-urls"}), _listening),
    (frozenset({"auto-compaction-mode", "auto-compaction-retention"}), _compaction),
    (frozenset({"enable-log-rotation", "log-rotation-config-json", "log-outputs"}), _logging),
    (frozenset({"tls-min-version", "tls-max-version", "cipher-suites"} | _LISTENED_ON), tls_faults),
)
"""Each rule with the settings that it looks at."""


def _bootstrap(config: Config, resolve: Resolve) -> Iterator[Fault]:
    clustering, name = config.clustering, config.member.name
    is_existing = clustering.initial_cluster_state == "existing"
    if clustering.discovery_endpoints or clustering.discovery:
        # Who the others are is not known before they have met.
        if is_existing:
            rule = "discovery URL should not be set when joining existing initial cluster"
            yield Fault("--initial-cluster-state", "existing", rule)
        return
    members = {member.name: member for member in clustering.initial_cluster}
    if not members and clustering.discovery_srv:
        return  # DNS will tell
    if not members:
        yield Fault("--initial-cluster", None, "initial cluster unset and no discovery endpoints found")
        return
    urls = [url for member in clustering.initial_cluster for url in member.peer_urls]
    if len(set(urls)) != len(urls):
        rule = f"initial cluster {_shown(clustering.initial_cluster)} has duplicate url"
        yield Fault("--initial-cluster", None, rule)
    if name not in members:
        rule = f'couldn\'t find local name "{name}" in the initial cluster configuration'
        yield Fault("--name", name, rule)
        return
    if is_existing:
        return  # the cluster knows at which URLs it will be reached: it has added it with them
    yield from _advertise_matches(clustering.initial_advertise_peer_urls, members[name], resolve)


def _advertise_matches(advertised: tuple[Url, ...], member: InitialMember, resolve: Resolve) -> Iterator[Fault]:
    if set(advertised) == set(member.peer_urls):
        return
    own = InitialMember(member.name, advertised)
    reason = _difference(advertised, member.peer_urls, resolve)
    if reason is None:
        return
    advertised_text = ",".join(map(str, advertised))
    missing = [f"{member.name}={url}" for url in member.peer_urls if url not in advertised]
    if missing:
        rule = (
            f"--initial-cluster has {','.join(missing)} but missing from "
            f"--initial-advertise-peer-urls={advertised_text} ({reason})"
        )
    else:
        surplus = ",".join(str(url) for url in advertised if url not in member.peer_urls)
        rule = f"--initial-advertise-peer-urls has {surplus} but missing from --initial-cluster={_shown((own,))}"
    yield Fault("--initial-advertise-peer-urls", advertised_text, rule)


def _difference(advertised: tuple[Url, ...], initial: tuple[Url, ...], resolve: Resolve) -> str | None:
    """Return how the lists differ once host names are resolved, None if they do not."""
    if len(advertised) != len(initial):
        return "the numbers of URLs differ"
    try:
        left, right = (sorted(_resolved(url, resolve) for url in urls) for urls in (advertised, initial))
    except OSError as error:
        return f"failed to resolve: {error}"
    return None if left == right else "they resolve to different addresses"


def _resolved(url: Url, resolve: Resolve) -> tuple[str, str, int]:
    return (url.scheme, url.host + url.path if url.is_unix else resolve(url.host), url.port)


def _shown(members: tuple[InitialMember, ...]) -> str:
    return ",".join(f"{member.name}={url}" for member in members for url in member.peer_urls)
