"""The security section: what is refused in etcd's words, what is warned of, and what becomes of the settings."""

from __future__ import annotations

import pytest

from config.faults import ConfigRefused
from config.flags import read_flags
from config.load import load, load_file
from config.tls import openssl_suites, peers_side
from tests.unit.test_config_refusals import MACHINE, refusal_of

CLIENT = ["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://127.0.0.1:1"]
CERTIFICATE = ["--cert-file=c", "--key-file=k"]
PEER_CERTIFICATE = ["--peer-cert-file=c", "--peer-key-file=k"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            CLIENT,
            (
                "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS "
                "scheme"
            ),
        ),
        (["--listen-metrics-urls=https://127.0.0.1:1"], "must be provided for metrics secure url"),
        (["--listen-client-http-urls=unixs://x:1"], "must be provided for client url unixs://x:1"),
        (["--listen-peer-urls=https://127.0.0.1:1"], "KeyFile and CertFile are not presented"),
        (["--cert-file=c"], "KeyFile and CertFile must both be present[key: , cert: c]"),
        (["--peer-key-file=k"], "KeyFile and CertFile must both be present[key: k, cert: ]"),
        (["--peer-client-cert-file=c"], "ClientKeyFile and ClientCertFile must both be present or both absent: key: ,"),
        (
            ["--peer-cert-allowed-cn=a,b", "--peer-cert-allowed-hostname=c"],
            'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a" "b"], hostnames=["c"])',
        ),
        (["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"], "min version (TLS1.3) is greater than max version"),
        (["--tls-min-version=TLS1.1"], 'unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)'),
        (["--cipher-suites=x"], 'unexpected TLS cipher suite "x"'),
        (["--cipher-suites=TLS_RSA_WITH_RC4_128_SHA"], "is too weak to be offered"),
        (
            ["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA", "--tls-min-version=TLS1.3"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (["--cipher-suites=TLS_AES_128_GCM_SHA256", "--tls-max-version=TLS1.2"], "none of these cipher suites"),
        (["--auto-tls", "--self-signed-cert-validity=0"], "selfSignedCertValidity is invalid,it should be greater"),
        (["--peer-auto-tls", "--peer-client-cert-auth"], "is vouched for by nobody"),
        (["--listen-client-urls=http://127.0.0.1:1", "--listen-client-http-urls=https://127.0.0.1:1"], "cannot bind"),
        (
            [*CLIENT, *CERTIFICATE, "--engine=grpcio", "--client-cert-allowed-hostname=a", "--tls-min-version=TLS1.3"],
            "the engine grpcio knows nothing of client-cert-allowed-hostname, tls-min-version; the native one does",
        ),
        ([*CLIENT, *CERTIFICATE, "--engine=grpcio", "--client-cert-auth"], "give --trusted-ca-file"),
        (
            ["--listen-client-urls=https://127.0.0.1:1,http://127.0.0.1:1", *CERTIFICATE, "--engine=grpcio"],
            "cannot serve clients with and without TLS at one address",
        ),
    ],
)
def test_refused(arguments: list[str], text: str) -> None:
    """What cannot be secured as it was asked for is refused before anything listens."""
    found = refusal_of(*arguments)
    assert any(text in line for line in found), found


@pytest.mark.parametrize(
    "arguments",
    [
        [*CLIENT, *CERTIFICATE, "--trusted-ca-file=ca", "--client-crl-file=crl", "--client-cert-allowed-hostname=a,b"],
        [*CLIENT, "--auto-tls", "--listen-metrics-urls=https://127.0.0.1:2,http://127.0.0.1:3"],
        ["--listen-peer-urls=https://127.0.0.1:1", *PEER_CERTIFICATE, "--peer-client-cert-auth"],
        ["--listen-client-urls=unix://localhost:1,http://127.0.0.1:1,https://127.0.0.1:1", CLIENT[1], *CERTIFICATE],
        ["--listen-peer-urls=unix:///run/x", "--cipher-suites=TLS_AES_128_GCM_SHA256", "--tls-max-version=TLS1.3"],
        [*CLIENT, *CERTIFICATE, "--engine=grpcio", "--trusted-ca-file=ca", "--client-cert-auth"],
        ["--socket-reuse-port", "--socket-reuse-address"],
    ],
)
def test_accepted(arguments: list[str]) -> None:
    """Schemes mix, on one address too, and either half of the section may be used alone."""
    assert refusal_of(*arguments) == []


@pytest.mark.parametrize(
    ("arguments", "text", "times"),
    [
        (["--listen-client-urls=http://0.0.0.0:1,http://127.0.0.1:2", CLIENT[1]], "anybody on the network reads", 1),
        (["--listen-peer-urls=http://[::]:1"], "anybody on the network can pose as one", 1),
        (["--listen-peer-urls=unix://0.0.0.0:1,http://[::1]:1"], "anybody on the network", 0),
        ([*CLIENT, *CERTIFICATE, "--auto-tls"], "a certificate is given, so none is made", 1),
        (["--peer-cert-allowed-cn=a"], "which nobody is asked for", 1),
        (["--trusted-ca-file=ca"], "the scheme of a URL is without TLS", 1),
        (["--client-cert-file=c", "--client-key-file=k"], "so it has no effect", 1),
    ],
)
def test_warned_of(arguments: list[str], text: str, times: int) -> None:
    """What is less safe than it may look is said out loud at each start (TOB-ETCD-015)."""
    notes = [note.text for note in load(read_flags(arguments), {}, MACHINE).notes]
    assert sum(text in note for note in notes) == times, notes


def test_the_file_has_both_halves() -> None:
    """Etcd's two objects, and beyond etcd the revocation lists, which its file cannot name."""
    text = """
peer-transport-security:
  cert-file: c
  key-file: k
  client-cert-file: cc
  client-key-file: ck
  client-cert-auth: true
  trusted-ca-file: ca
  crl-file: crl
  allowed-cn: [b, a]
  skip-client-san-verification: true
cipher-suites: [TLS_AES_128_GCM_SHA256]
"""
    machine = MACHINE.__class__(read_text=lambda _: text, default_host=lambda: None)
    config = load_file("x", machine).config
    assert peers_side(config) == ("peer-", "c", "k", "cc", "ck", "ca", True, "crl", ("a", "b"), (), True, False)
    assert openssl_suites(config) == ()
    with pytest.raises(ConfigRefused, match="invalid peer-transport-security"):
        load_file("x", MACHINE.__class__(lambda _: "peer-transport-security: x", lambda: None))
