"""TLS for the listeners: contexts from files, certificates that may be replaced while running, names of clients.

A context looks at its files at each handshake and reads them again when they have changed, so that rotating a
certificate needs no restart.  The rules are etcd's: h2 is the only protocol offered by ALPN, and a client that offers
none of it is served in HTTP/1.1.  Does not know where the paths come from.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

VERSIONS: Final = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}

CIPHER_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
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
"""IANA's names, as etcd's flag wants them, to OpenSSL's.  Those of TLS 1.3 cannot be chosen, in Go as in OpenSSL."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a TLS listener is made of."""

    certificate: Path
    key: Path
    trusted_ca: Path | None = None
    """With it, clients must show a certificate that it has signed."""
    revoked: Path | None = None
    """Revocation list of that CA."""
    client_certificate_required: bool = False
    """Without a CA of its own, client certificates are verified against the system's."""
    version_min: str = "TLS1.2"
    version_max: str = ""
    cipher_suites: Sequence[str] = ()
    """IANA's names; empty: OpenSSL's choice."""


class TlsConfigurationError(Exception):
    """The files or settings make no TLS server; the text says which and why."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Build the context of a listener.  Raises TlsConfigurationError."""
    current = [(_stamps(files), _read(files))]

    def renew(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        stamps = _stamps(files)
        if stamps != current[0][0]:
            try:
                current[0] = (stamps, _read(files))
            except TlsConfigurationError:
                # Half-written or removed: this handshake fails, and the next one looks again.
                return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = current[0][1]
        return None

    context = _read(files)
    context.sni_callback = renew
    return context


def client_allowed(certificate: Mapping[str, Any], common_names: Collection[str], host_names: Collection[str]) -> bool:
    """Whether a client certificate (as `getpeercert` returns it) is on the allow-lists; empty ones allow all."""
    if common_names:
        subject = (pair for relative_name in certificate.get("subject", ()) for pair in relative_name)
        return any(key == "commonName" and value in common_names for key, value in subject)
    if host_names:
        alternatives = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
        return any(_matches(pattern, name) for pattern in alternatives for name in host_names)
    return True


def _matches(pattern: str, name: str) -> bool:
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and bool(name.partition(".")[0])
    return pattern == name


def _read(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.minimum_version = _version(files.version_min)
        if files.version_max:
            context.maximum_version = _version(files.version_max)
        if files.cipher_suites:
            context.set_ciphers(":".join(_cipher(name) for name in files.cipher_suites))
        context.load_cert_chain(files.certificate, files.key)
        if files.trusted_ca is not None:
            context.load_verify_locations(files.trusted_ca)
        elif files.client_certificate_required:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        if files.revoked is not None:
            context.load_verify_locations(files.revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ValueError) as error:
        # ssl.SSLError is an OSError.
        raise TlsConfigurationError(f"{files.certificate}, {files.key}: {error}") from error
    if files.trusted_ca is not None or files.client_certificate_required:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _version(name: str) -> ssl.TLSVersion:
    if name not in VERSIONS:
        raise TlsConfigurationError(f'unexpected TLS version "{name}" (must be one of: TLS1.2, TLS1.3)')
    return VERSIONS[name]


def _cipher(name: str) -> str:
    if name not in CIPHER_SUITES:
        raise TlsConfigurationError(f'unexpected TLS cipher suite "{name}"')
    return CIPHER_SUITES[name]


def _stamps(files: TlsFiles) -> tuple[tuple[int, int] | None, ...]:
    """Return what changes when a file is replaced."""
    paths = [files.certificate, files.key, files.trusted_ca, files.revoked]
    return tuple(_stamp(path) for path in paths if path is not None)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
