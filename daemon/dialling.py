"""How this member dials the others: how long it waits for them, and from which of its addresses.

Owns nothing that lives; what peers say to each other is net.rafthttp's.  Spec: etcd's ``--raft-read-timeout``,
``--raft-write-timeout`` and its gate SetMemberLocalAddr.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from config.gates import is_on
from net.rafthttp.client import PeerClient

if TYPE_CHECKING:
    import structlog

    from config.schema import Config
    from net.tls import ClientTls

DIAL_TIMEOUT_S: Final = 1.0
"""Beside an election timeout (etcd's PeerDialTimeout)."""


def local_address(config: Config) -> str:
    """Return the IP from which peers are dialled; empty if the system is to pick one.

    It is the first that peers may dial this member by, if it is told to use it: peers that check the certificates'
    addresses, or firewalls between them, may know no other.
    """
    if not is_on(config.member.feature_gates, "SetMemberLocalAddr"):
        return ""
    for url in config.clustering.initial_advertise_peer_urls:
        try:
            address = ipaddress.ip_address(url.host)
        except ValueError:
            continue
        if not (address.is_loopback or address.is_unspecified):
            return str(address)
    return ""


def peer_client(config: Config, tls: ClientTls | None, logger: structlog.stdlib.BoundLogger) -> PeerClient:
    """Return what the running member dials with."""
    member, address = config.member, local_address(config)
    if address:
        logger.info("setting member local address", local_address=address)
    elif is_on(member.feature_gates, "SetMemberLocalAddr"):
        urls = [str(url) for url in config.clustering.initial_advertise_peer_urls]
        logger.warning(
            "unable to set a member local address due to lack of suitable local addresses", advertise_peer_urls=urls
        )
    return PeerClient(
        tls,
        DIAL_TIMEOUT_S + member.election_timeout_ms / 1000.0,
        read_timeout_s=member.raft_read_timeout_s,
        write_timeout_s=member.raft_write_timeout_s,
        local_address=address,
    )
