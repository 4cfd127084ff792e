"""The rules of etcd's security section: which settings belong together, and which cipher suites there are.

``tls_faults`` and ``tls_warnings`` are asked by refusals.py.  What the files hold is looked at by whoever opens them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from config.faults import Fault
from config.notes import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from config.schema import Config
    from config.urls import Url

CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
"""IANA's names of suites for TLS 1.2, as etcd's flag wants them, to OpenSSL's."""

TLS_13_SUITES = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""Always offered with TLS 1.3, in Go as in OpenSSL; naming them says nothing of TLS 1.2."""

WEAK_SUITES = frozenset(
    {
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    }
)
"""Etcd takes them too; OpenSSL does not have them any more."""


class Side(NamedTuple):
    """One of the two halves of the section, clients' or peers', under one set of names."""

    prefix: str
    """Of its flags."""
    cert_file: str
    key_file: str
    client_cert_file: str
    client_key_file: str
    trusted_ca_file: str
    client_cert_auth: bool
    crl_file: str
    allowed_cn: tuple[str, ...]
    allowed_hostname: tuple[str, ...]
    skip_client_san_verification: bool
    auto: bool

    @property
    def self_signed(self) -> bool:
        """Whether the certificate is made at the start."""
        return self.auto and not self.cert_file and not self.key_file

    @property
    def has_certificate(self) -> bool:
        """Whether TLS can be served."""
        return self.auto or bool(self.cert_file or self.key_file)

    @property
    def demands_certificates(self) -> bool:
        """Whether whoever connects must show a certificate."""
        return self.client_cert_auth or bool(self.trusted_ca_file)


def clients_side(config: Config) -> Side:
    """Return the clients' half."""
    security = config.security
    return Side(
        "",
        security.cert_file,
        security.key_file,
        security.client_cert_file,
        security.client_key_file,
        security.trusted_ca_file,
        security.client_cert_auth,
        security.client_crl_file,
        security.client_cert_allowed_cn,
        security.client_cert_allowed_hostname,
        security.client_skip_client_san_verification,
        security.auto_tls,
    )


def peers_side(config: Config) -> Side:
    """Return the peers' half."""
    security = config.security
    return Side(
        "peer-",
        security.peer_cert_file,
        security.peer_key_file,
        security.peer_client_cert_file,
        security.peer_client_key_file,
        security.peer_trusted_ca_file,
        security.peer_client_cert_auth,
        security.peer_crl_file,
        security.peer_cert_allowed_cn,
        security.peer_cert_allowed_hostname,
        security.peer_skip_client_san_verification,
        security.peer_auto_tls,
    )


def openssl_suites(config: Config) -> tuple[str, ...] | None:
    """Return the suites for TLS 1.2 by OpenSSL's names: None for the usual ones, an empty tuple for no TLS 1.2."""
    names = config.security.cipher_suites
    return tuple(CIPHER_SUITES[name] for name in names if name in CIPHER_SUITES) if names else None


def tls_faults(config: Config) -> Iterator[Fault]:
    """Yield what is wrong with the security section."""
    security = config.security
    oldest, newest = security.tls_min_version or "TLS1.2", security.tls_max_version
    if newest and oldest > newest:
        rule = f"min version ({oldest}) is greater than max version ({newest})"
        yield Fault("--tls-min-version", oldest, rule)
    if security.cipher_suites and oldest == "TLS1.3":
        rule = "cipher suites cannot be configured when only TLS1.3 is enabled"
        yield Fault("--cipher-suites", ",".join(security.cipher_suites), rule)
    elif security.cipher_suites and newest == "TLS1.2" and not openssl_suites(config):
        rule = "none of these cipher suites can be used with TLS1.2, which is the newest version that is allowed"
        yield Fault("--cipher-suites", ",".join(security.cipher_suites), rule)
    for side in (clients_side(config), peers_side(config)):
        yield from _side(side, security.self_signed_cert_validity_years)
    yield from _places(config)
    if config.own.engine == "grpcio":
        yield from _grpcio(config)


def _side(side: Side, validity_years: int) -> Iterator[Fault]:
    prefix = side.prefix
    if bool(side.cert_file) != bool(side.key_file):
        rule = f"KeyFile and CertFile must both be present[key: {side.key_file}, cert: {side.cert_file}]"
        yield Fault(f"--{prefix}cert-file", side.cert_file, rule)
    if bool(side.client_cert_file) != bool(side.client_key_file):
        rule = (
            "ClientKeyFile and ClientCertFile must both be present or both absent: "
            f"key: {side.client_key_file}, cert: {side.client_cert_file}]"
        )
        yield Fault(f"--{prefix}client-cert-file", side.client_cert_file, rule)
    if side.allowed_cn and side.allowed_hostname:
        names, hosts = (" ".join(f'"{name}"' for name in each) for each in (side.allowed_cn, side.allowed_hostname))
        rule = f"AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{names}], hostnames=[{hosts}])"
        yield Fault(f"--{prefix}cert-allowed-hostname", ",".join(side.allowed_hostname), rule)
    if not side.self_signed:
        return
    if validity_years == 0:
        yield Fault("--self-signed-cert-validity", "0", "selfSignedCertValidity is invalid,it should be greater than 0")
    if side.demands_certificates or side.crl_file or side.allowed_cn or side.allowed_hostname:
        rule = (
            "a certificate made at the start is vouched for by nobody, and etcd would then verify nobody either, "
            f"whatever the other settings say: give --{prefix}cert-file and --{prefix}key-file, or leave out what "
            "verifies certificates (client-cert-auth, trusted CA, revocation list, allowed names)"
        )
        yield Fault(f"--{prefix}auto-tls", "true", rule)


def _places(config: Config) -> Iterator[Fault]:
    """Yield the URLs that want TLS where there is no certificate."""
    member = config.member
    if not clients_side(config).has_certificate:
        for name, urls in (
            ("--listen-client-urls", member.listen_client_urls),
            ("--listen-client-http-urls", member.listen_client_http_urls),
        ):
            for url in _secure(urls):
                rule = f"TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
                yield Fault(name, str(url), rule)
        for url in _secure(config.metrics.listen_metrics_urls):
            rule = "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
            yield Fault("--listen-metrics-urls", str(url), rule)
    if not peers_side(config).has_certificate:
        for url in _secure(member.listen_peer_urls):
            rule = f"cannot listen on TLS for {url}: KeyFile and CertFile are not presented (--peer-cert-file)"
            yield Fault("--listen-peer-urls", str(url), rule)


def _grpcio(config: Config) -> Iterator[Fault]:
    """Yield what Google's library cannot do."""
    urls = config.member.listen_client_urls
    side = clients_side(config)
    if {url.address for url in _secure(urls)} & {url.address for url in urls if not url.secure}:
        rule = "the engine grpcio cannot serve clients with and without TLS at one address; the native one can"
        yield Fault("engine", "grpcio", rule)
    if not _secure(urls):
        return
    security = config.security
    if side.client_cert_auth and not side.trusted_ca_file:
        rule = "the engine grpcio verifies clients only by an authority of their own: give --trusted-ca-file"
        yield Fault("engine", "grpcio", rule)
    given = {
        "client-crl-file": bool(side.crl_file),
        "allowed-cn": bool(side.allowed_cn),
        "client-cert-allowed-hostname": bool(side.allowed_hostname),
        "cipher-suites": bool(security.cipher_suites),
        "tls-min-version": security.tls_min_version == "TLS1.3",
        "tls-max-version": security.tls_max_version == "TLS1.2",
    }
    if names := ", ".join(name for name, is_given in given.items() if is_given):
        yield Fault("engine", "grpcio", f"the engine grpcio knows nothing of {names}; the native one does")


def tls_warnings(config: Config) -> Iterator[Note]:
    """Yield what looks safer than it is."""
    for side, auto_key, names_key, urls in (
        (clients_side(config), "auto-tls", "client-transport-security", config.member.listen_client_urls),
        (peers_side(config), "peer-auto-tls", "peer-transport-security", config.member.listen_peer_urls),
    ):
        if side.auto and not side.self_signed:
            yield Note("warning", "a certificate is given, so none is made at the start", {"key": auto_key})
        if (side.crl_file or side.allowed_cn or side.allowed_hostname) and not side.demands_certificates:
            text = "names and revocations are compared only with certificates, which nobody is asked for"
            yield Note("warning", text, {"key": names_key})
        for url in urls:
            if not url.secure and (side.cert_file or side.demands_certificates):
                text = "the scheme of a URL is without TLS, so certificate and client authentication are not for it"
                yield Note("warning", text, {"url": str(url)})
    for url in (*config.member.listen_client_urls, *config.member.listen_client_http_urls):
        if not url.secure and not url.is_loopback:
            text = "clients are listened for without TLS beyond this machine: anybody on the network reads and writes"
            yield Note("warning", text, {"url": str(url)})
    for url in config.member.listen_peer_urls:
        if not url.secure and not url.is_loopback:
            text = "members are listened for without TLS beyond this machine: anybody on the network can pose as one"
            yield Note("warning", text, {"url": str(url)})


def _secure(urls: tuple[Url, ...]) -> list[Url]:
    return [url for url in urls if url.secure]
