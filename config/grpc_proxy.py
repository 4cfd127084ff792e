"""The flags of ``actcd grpc-proxy start``, and etcd's rules for them.

Owns names, defaults, meanings and refusals; what they lead to is daemon/grpc_proxy.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from config.kinds import DURATION_S, SIGNED, SWITCH, TEXT, UNSIGNED, UNSIGNED_32, choice
from config.start_flags import FlagsRefused, flag, read_start, usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INT32_MAX = 0x7FFFFFFF
UINT32_MAX = 0xFFFFFFFF
VERSION = choice("TLS1.2", "TLS1.3", "", rule='unexpected TLS version "{value}" (must be one of: TLS1.2, TLS1.3)')

PROGRAM: Final = "grpc-proxy"
MEANING: Final = """\
Serves etcd's API in front of a cluster: ranges that have been read are cached for serializable reads, watchers of an
equal range share one at the members, keep-alives of a lease go there once."""


@dataclass(frozen=True, slots=True)
class ProxyFlags:
    """What the command line says."""

    listen_addr: str = flag("Address to listen on.", TEXT, "127.0.0.1:23790")
    endpoints: str = flag("Client addresses of the members, separated by commas.", TEXT, "127.0.0.1:2379", adds_up=True)
    endpoints_auto_sync_interval: float = flag(
        "How often to ask the members for their addresses; 0 for never.", DURATION_S, 0.0
    )
    discovery_srv: str = flag("Domain whose SRV records name the members, in place of --endpoints.", TEXT, "")
    discovery_srv_name: str = flag("Suffix of the service's name in those records.", TEXT, "")
    insecure_discovery: bool = flag(
        "Whether to use members that DNS names without checking their certificates first.", SWITCH, False
    )
    metrics_addr: str = flag("URL of a further listener that has the pages only.", TEXT, "")
    advertise_client_url: str = flag(
        "Address by which clients reach this proxy; it is listed in place of the members. Empty: the members are.",
        TEXT,
        "127.0.0.1:23790",
    )
    resolver_prefix: str = flag("Key below which proxies register themselves and are found by each other.", TEXT, "")
    resolver_ttl: int = flag("Seconds after which a proxy that is gone is forgotten there.", SIGNED, 0)
    namespace: str = flag("What all keys of the clients begin with at the members.", TEXT, "")
    data_dir: str = flag("Where certificates are kept that were made by --auto-tls.", TEXT, "default.proxy")
    enable_pprof: bool = flag("Whether to show profiles below /debug/pprof/.", SWITCH, False)
    max_send_bytes: int = flag("Largest message that is sent to a member; 0 for any.", SIGNED, 1_572_864)
    max_recv_bytes: int = flag("Largest message that is taken from a member; 0 for any.", SIGNED, INT32_MAX)
    dial_keepalive_time: float = flag("How often to ping the members; 0 for never.", DURATION_S, 0.0)
    dial_keepalive_timeout: float = flag("How long a member may take to answer a ping.", DURATION_S, 20.0)
    permit_without_stream: bool = flag("Whether to ping the members while there are no calls, too.", SWITCH, False)
    grpc_keepalive_min_time: float = flag("Clients that ping more often are sent away.", DURATION_S, 5.0)
    grpc_keepalive_interval: float = flag("How often to ping clients; 0 for never.", DURATION_S, 7200.0)
    grpc_keepalive_timeout: float = flag(
        "How long a client may take to answer a ping; 0 for any time.", DURATION_S, 20.0
    )
    max_concurrent_streams: int = flag("Calls that one connection may have open at once.", UNSIGNED_32, UINT32_MAX)
    cert: str = flag("Certificate to show to the members.", TEXT, "")
    key: str = flag("Key of that certificate.", TEXT, "")
    cacert: str = flag("Authority by which the members are known.", TEXT, "")
    insecure_skip_tls_verify: bool = flag(
        "Whether to trust the members' certificates whatever they are; for tests only.", SWITCH, False
    )
    cert_file: str = flag("Certificate to show to clients.", TEXT, "")
    key_file: str = flag("Key of that certificate.", TEXT, "")
    trusted_ca_file: str = flag("Authority by which clients are known; they must then show a certificate.", TEXT, "")
    client_crl_file: str = flag("List of revoked certificates of clients.", TEXT, "")
    listen_cipher_suites: str = flag("Cipher suites for clients, separated by commas.", TEXT, "")
    auto_tls: bool = flag("Whether to make a certificate to show to clients.", SWITCH, False)
    self_signed_cert_validity: int = flag("Years for which that one is good.", UNSIGNED, 1)
    tls_min_version: str = flag("Oldest version of TLS for clients: TLS1.2 or TLS1.3.", VERSION, "TLS1.2")
    tls_max_version: str = flag("Newest version of TLS for clients; empty for the newest there is.", VERSION, "")
    experimental_serializable_ordering: bool = flag(
        "Whether serializable reads through this proxy never go back in time.", SWITCH, False
    )
    experimental_leasing_prefix: str = flag(
        "Prefix of keys by which this proxy owns those that are read through it, and answers them itself.", TEXT, ""
    )
    experimental_enable_grpc_logging: bool = flag("Whether to log every call.", SWITCH, False)
    debug: bool = flag("Whether to log more.", SWITCH, False)


def read_flags(arguments: Sequence[str]) -> ProxyFlags:
    """Read the command line behind the word `grpc-proxy`.  Raises FlagsRefused and HelpWanted."""
    flags = read_start(ProxyFlags, PROGRAM, arguments)
    refusal = next(refusals(flags), None)
    if refusal is not None:
        raise FlagsRefused(refusal)
    return flags


def help_text() -> str:
    """Return the text of ``--help``."""
    return usage(ProxyFlags, PROGRAM, MEANING)


def refusals(flags: ProxyFlags) -> Iterator[str]:
    """Yield what is wrong with *flags* together, in etcd's words where etcd says so."""
    if flags.resolver_prefix and flags.resolver_ttl < 1:
        yield f"invalid resolver-ttl {flags.resolver_ttl}"
    if not flags.resolver_prefix and flags.resolver_ttl > 0:
        yield f'invalid resolver-prefix "{flags.resolver_prefix}"'
    if flags.resolver_prefix and not flags.advertise_client_url:
        yield f'invalid advertise-client-url "{flags.advertise_client_url}"'
    if flags.auto_tls and not flags.self_signed_cert_validity:
        yield "selfSignedCertValidity is invalid,it should be greater than 0"
    if flags.tls_max_version and (flags.tls_min_version or "TLS1.2") > flags.tls_max_version:
        yield f"min version ({flags.tls_min_version}) is greater than max version ({flags.tls_max_version})"
    if flags.tls_min_version == "TLS1.3" and flags.listen_cipher_suites:
        yield "cipher suites cannot be configured when only TLS1.3 is enabled"
    for name in ("endpoints_auto_sync_interval", "dial_keepalive_time", "dial_keepalive_timeout"):
        if getattr(flags, name) < 0:
            yield f"--{name.replace('_', '-')} must not be negative"
    for name in ("max_send_bytes", "max_recv_bytes"):
        if not 0 <= getattr(flags, name) <= INT32_MAX:
            yield f"--{name.replace('_', '-')} must be between 0 and {INT32_MAX}"
    if bool(flags.cert) != bool(flags.key):
        yield "--cert and --key belong together"
    if bool(flags.cert_file) != bool(flags.key_file):
        yield "--cert-file and --key-file belong together"
    if (flags.trusted_ca_file or flags.client_crl_file) and not (flags.cert_file or flags.auto_tls):
        yield "--trusted-ca-file and --client-crl-file need --cert-file or --auto-tls"
    if not any(endpoint for endpoint in flags.endpoints.split(",")) and not flags.discovery_srv:
        yield "no endpoints found"
