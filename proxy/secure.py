"""Whether endpoints that DNS named are who they say: each must show a certificate of the domain before it is used.

DNS answers can be forged, a certificate cannot.  Blocks while it connects.  Behaviour: etcd's check of discovered
endpoints, which in etcd goes no further than connecting.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from net.srv import Found

CONNECT_TIMEOUT_S = 5.0


class Checked(NamedTuple):
    """What the check has left, and what it has found wrong with the others."""

    endpoints: tuple[Found, ...]
    faults: tuple[str, ...]


def check_endpoints(endpoints: Iterable[Found], domain: str, trusted_ca_file: str) -> Checked:
    """Return those of *endpoints* that show a certificate for *domain*; OSError where the authority cannot be read.

    An empty *trusted_ca_file* stands for the authorities that this machine trusts.
    """
    context = ssl.create_default_context(cafile=trusted_ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    good: list[Found] = []
    faults: list[str] = []
    for endpoint in endpoints:
        fault = _fault(endpoint, domain, context)
        if fault is None:
            good.append(endpoint)
        else:
            faults.append(f'"{endpoint.url}" {fault}')
    return Checked(tuple(good), tuple(faults))


def _fault(endpoint: Found, domain: str, context: ssl.SSLContext) -> str | None:
    if not endpoint.url.startswith("https://"):
        return "is insecure"
    try:
        with (
            socket.create_connection((endpoint.srv.target, endpoint.srv.port), CONNECT_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=domain),
        ):
            return None
    except OSError as error:  # SSLError is one
        return f"failed to dial ({error})"
