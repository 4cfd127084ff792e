"""With which certificates the discovery service is reached, in gRPC's terms.

The scheme of an endpoint decides whether there is TLS; without a scheme the settings do.  Behaviour: etcd's client.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import grpc
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

PORT_WITHOUT = 443


class Secure(NamedTuple):
    """The settings below ``discovery-config.client.secure``; paths of PEM files."""

    cert: str = ""
    key: str = ""
    cacert: str = ""
    server_name: str = ""
    insecure_transport: bool = True
    insecure_skip_tls_verify: bool = False


class Credentials(NamedTuple):
    """What a secured channel is opened with."""

    channel: grpc.ChannelCredentials
    expected_name: str
    """Name to expect in the server's certificate in place of the endpoint's host; empty for none."""


def address_of(endpoint: str) -> str:
    """Return the ``host:port`` of *endpoint*."""
    return endpoint.partition("://")[2] or endpoint


def is_secure(endpoint: str, secure: Secure) -> bool:
    """Return whether TLS is spoken to *endpoint*."""
    scheme, separator, _ = endpoint.partition("://")
    if separator:
        return scheme in {"https", "unixs"}
    files = (secure.cert, secure.key, secure.cacert, secure.server_name)
    return any(files) or secure.insecure_skip_tls_verify or not secure.insecure_transport


def credentials_of(endpoint: str, secure: Secure, timeout_s: float) -> Credentials | None:
    """Return the credentials for *endpoint*, None for none; OSError where a file cannot be read.

    gRPC cannot be told to trust anybody, so where that is asked for, it trusts the certificate that the server shows.
    """
    if not is_secure(endpoint, secure):
        return None
    authority, name = _content(secure.cacert), secure.server_name
    if secure.insecure_skip_tls_verify:
        shown = _shown_certificate(address_of(endpoint), secure, timeout_s)
        authority, name = shown.encode(), _a_name_in(shown)
    return Credentials(grpc.ssl_channel_credentials(authority, _content(secure.key), _content(secure.cert)), name)


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _shown_certificate(address: str, secure: Secure, timeout_s: float) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if secure.cert:
        context.load_cert_chain(secure.cert, secure.key)
    parts = urlsplit(f"//{address}")
    host, port = parts.hostname or "", parts.port or PORT_WITHOUT
    with (
        socket.create_connection((host, port), timeout_s) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(certificate or b"")


def _a_name_in(certificate: str) -> str:
    """Return a name that the certificate is valid for."""
    try:
        parsed = x509.load_pem_x509_certificate(certificate.encode())
        extension = parsed.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""
    except ValueError as error:
        raise OSError(f"the server shows a certificate that cannot be read: {error}") from error
    alternatives = extension.value
    assert isinstance(alternatives, x509.SubjectAlternativeName), alternatives
    found = alternatives.get_values_for_type(x509.DNSName)
    found += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    return found[0].replace("*", "any") if found else ""
