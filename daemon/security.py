"""From the security section to TLS: what is served to clients and peers, and how peers are dialled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from config.tls import clients_side, openssl_suites, peers_side
from daemon.self_signed import self_signed
from net.tls import ClientTls, ServerTls, TlsFiles

if TYPE_CHECKING:
    from config.schema import Config
    from config.tls import Side
    from config.urls import Url

FIXTURES = "fixtures"
"""Where in the data directory certificates are kept that were made at the start."""


class Transport(NamedTuple):
    """The TLS of one member.  None where no listener speaks it."""

    clients: ServerTls | None
    peers: ServerTls | None
    dialling: ClientTls
    """For calls to peers whose URL wants TLS."""


def secure(config: Config, logger: structlog.stdlib.BoundLogger) -> Transport:
    """Read and check everything, and make the certificates that are to be made.

    Raises TlsConfigurationError or SelfSignedRefused.
    """
    member = config.member
    client_urls = (*member.listen_client_urls, *member.listen_client_http_urls)
    clients = clients_side(config)
    peers = peers_side(config)
    client_files = tls_files(config, clients)
    peer_files = tls_files(config, peers)
    if clients.self_signed:
        client_files = _with_made(config, client_files, "client", client_urls, logger)
    if peers.self_signed:
        peer_files = _with_made(config, peer_files, "peer", member.listen_peer_urls, logger)
    client_log, peer_log = logger.bind(tls="client"), logger.bind(tls="peer")
    for_clients = any(url.secure for url in (*client_urls, *config.metrics.listen_metrics_urls))
    for_peers = any(url.secure for url in member.listen_peer_urls)
    return Transport(
        ServerTls(client_files, client_log) if for_clients else None,
        ServerTls(peer_files, peer_log) if for_peers else None,
        ClientTls(replace(peer_files, server_name=_domain(config)), peer_log),
    )


def _domain(config: Config) -> str:
    """Return the domain that members found in DNS must prove to belong to; empty if a CA of their own vouches for them.

    Whoever forges DNS answers can name any host, and have a certificate for it.  Behaviour: etcd's ``discovery-srv``,
    which forgets of it at a restart.
    """
    return "" if config.security.peer_trusted_ca_file else config.clustering.discovery_srv


def check_files(config: Config) -> None:
    """Raise TlsConfigurationError where the files that are named make no TLS; makes none itself."""
    for side in (clients_side(config), peers_side(config)):
        if side.cert_file:
            files = tls_files(config, side)
            ServerTls(files, structlog.get_logger())
            ClientTls(files, structlog.get_logger())


def tls_files(config: Config, side: Side) -> TlsFiles:
    """Return what one *side* of the section names."""
    return TlsFiles(
        certificate=_path(side.cert_file),
        key=_path(side.key_file),
        client_certificate=_path(side.client_cert_file),
        client_key=_path(side.client_key_file),
        trusted_ca=_path(side.trusted_ca_file),
        revoked=_path(side.crl_file),
        client_certificate_required=side.client_cert_auth,
        common_names=side.allowed_cn,
        host_names=side.allowed_hostname,
        anonymous=side.self_signed,
        version_min=config.security.tls_min_version or "TLS1.2",
        version_max=config.security.tls_max_version,
        cipher_suites=openssl_suites(config),
    )


def _with_made(
    config: Config, files: TlsFiles, name: str, urls: tuple[Url, ...], logger: structlog.stdlib.BoundLogger
) -> TlsFiles:
    hosts = [url.host.rpartition(":")[0] if url.is_unix else url.host for url in urls]
    folder = Path(config.member.data_dir).absolute() / FIXTURES / name
    years = config.security.self_signed_cert_validity_years
    certificate, key = self_signed(folder, [host for host in hosts if host], years, logger)
    return files.with_certificate(certificate, key)


def _path(text: str) -> Path | None:
    return Path(text) if text else None
