"""The members of a new cluster, named by a domain's SRV records.

This member finds itself by its advertised addresses; the others get numbers for names, and tell their own later.
Behaviour and texts: etcd's ``discovery-srv``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from config.faults import BadValue
from config.urls import parse_initial_cluster
from net.srv import LookupFailed, service_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import structlog

    from config.urls import InitialMember, Url
    from net.srv import Lookup

    Resolve = Callable[[str], str]

SERVICE = "etcd-server"
SETTING_UP = "error setting up initial cluster"


class SrvRefused(Exception):  # noqa: N818 - named for what happened
    """The records make no cluster that this member belongs to; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Own:
    """What this member knows of itself."""

    name: str
    peer_urls: tuple[Url, ...]


def cluster_in_dns(
    domain: str, suffix: str, own: Own, lookup: Lookup, resolve: Resolve, logger: structlog.stdlib.BoundLogger
) -> tuple[InitialMember, ...]:
    """Return the cluster that *domain* tells of, members with TLS and without; SrvRefused.

    *resolve* returns the address of a host's name, or raises OSError.
    """
    try:
        addresses = {(resolve(url.host), url.port): url for url in own.peer_urls if not url.is_unix}
    except OSError as error:
        raise SrvRefused(f"{SETTING_UP}: failed to resolve the advertised peer URLs: {error}") from error
    found: list[str] = []
    failures: list[str] = []
    names = (name for name in map(str, count()) if name != own.name)
    for scheme in ("https", "http"):
        service = service_of(SERVICE, suffix, scheme)
        try:
            members = list(_members(domain, service, scheme, own.name, addresses, names, lookup, resolve))
        except LookupFailed as failure:
            members = []
            failures.append(f"error querying DNS SRV records for _{service} {failure}")
        found += members
        logger.info("got bootstrap from DNS for etcd-server", service=service, discovery_srv=domain, nodes=members)
    if not found:
        raise SrvRefused(f"{SETTING_UP}: {'; '.join(failures)}")
    return _cluster(found, own.name)


def _members(
    domain: str,
    service: str,
    scheme: str,
    name: str,
    own: dict[tuple[str, int], Url],
    names: Iterator[str],
    lookup: Lookup,
    resolve: Resolve,
) -> Iterator[str]:
    mismatch: str | None = None
    is_empty = True
    for srv in lookup(service, domain):
        try:
            url = own.get((resolve(srv.target), srv.port))
        except OSError as error:
            mismatch = f"lookup {srv.target}: {error.strerror or error}"
            continue
        member_name = next(names) if url is None else name
        if url is not None and url.scheme != scheme:
            mismatch = (
                f"bootstrap at {scheme}://{srv.address} from DNS for {service} has scheme mismatch with expected peer "
                f"{url}"
            )
            continue
        is_empty = False
        yield f"{member_name}={scheme}://{srv.address}"
    if is_empty and mismatch is not None:
        raise LookupFailed(mismatch)


def _cluster(found: Sequence[str], name: str) -> tuple[InitialMember, ...]:
    try:
        cluster = parse_initial_cluster(",".join(found))
    except BadValue as error:
        raise SrvRefused(f"{SETTING_UP}: {error}") from error
    if name not in {member.name for member in cluster}:
        raise SrvRefused(f'{SETTING_UP}: cannot find local etcd member "{name}" in SRV records')
    return cluster
