"""Channels of grpcio to the members, with and without TLS.

grpcio cannot leave out the verification of a certificate.  Where that is asked for, the certificate that the member
shows when the channel is made is taken as the authority, whatever its names are: a member that changes it later is not
reached before the proxy has been started again, and an expired one is refused.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from grpcproxy.settings import Upstream
    from grpcproxy.upstream import MakeChannel

LOOK_TIMEOUT_S = 5.0
"""For a member to show its certificate."""


def channels(settings: Upstream) -> MakeChannel:
    """Return what makes channels by *settings*."""

    async def make(endpoint: str) -> grpc.aio.Channel:
        chosen = options(settings)
        tls = settings.tls
        if tls is None:
            return grpc.aio.insecure_channel(endpoint, options=chosen)
        authority = tls.authority
        if not tls.verify:
            authority, name = await asyncio.get_running_loop().run_in_executor(None, look, endpoint)
            chosen.append(("grpc.ssl_target_name_override", name))
        credentials = grpc.ssl_channel_credentials(authority, tls.key, tls.certificate)
        return grpc.aio.secure_channel(endpoint, credentials, options=chosen)

    return make


def options(settings: Upstream) -> list[tuple[str, Any]]:
    """Return what all channels are made with."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", settings.receive_bytes_max if settings.receive_bytes_max > 0 else -1),
        ("grpc.max_metadata_size", 1 << 20),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3000),
    ]
    if settings.keepalive_time_s > 0:
        chosen += [
            ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
            ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", int(settings.keepalive_when_idle)),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return chosen


def look(endpoint: str) -> tuple[bytes, str]:
    """Return the certificate that *endpoint* shows, as PEM, and a name that stands in it; raises OSError."""
    host, _, port = endpoint.rpartition(":")
    if not port.isdigit():
        raise OSError(f"{endpoint} has no port to look at")
    pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=LOOK_TIMEOUT_S)
    return pem.encode(), name_in(x509.load_pem_x509_certificate(pem.encode()))


def name_in(certificate: x509.Certificate) -> str:
    """Return a name for which *certificate* is good."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        subject = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(subject[0].value) if subject else ""
    dns = names.get_values_for_type(x509.DNSName)
    if dns:
        return dns[0].replace("*", "any", 1)
    addresses = names.get_values_for_type(x509.IPAddress)
    return str(addresses[0]) if addresses else ""
