"""Which cluster a member without data is to found or join, where the configuration leaves that to others.

Turns DNS and the discovery services into an initial cluster; a configuration that has one already passes unchanged.
Runs once, in the main thread, before any actor does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.membership.member import Member
from daemon.machine import resolve
from discovery.registry import DUPLICATE_ID, DUPLICATE_NAME, DiscoveryFailed, Meeting, Registry
from discovery.srv import Own, SrvRefused, cluster_in_dns
from net.srv import lookup_srv

if TYPE_CHECKING:
    import structlog

    from config.schema import Clustering, Config
    from discovery.patience import Patience
    from net.srv import Lookup


class FoundingRefused(Exception):  # noqa: N818 - named for what happened
    """There is no cluster for this member; the text is for the operator."""


def discovers(clustering: Clustering) -> bool:
    """Return whether a discovery service is to tell who the members are."""
    return bool(clustering.discovery_endpoints or clustering.discovery)


def in_dns(config: Config, logger: structlog.stdlib.BoundLogger, lookup: Lookup = lookup_srv) -> Config:
    """Return *config* with the cluster that the records of discovery-srv name; FoundingRefused."""
    clustering = config.clustering
    if not clustering.discovery_srv:
        return config
    own = Own(config.member.name, clustering.initial_advertise_peer_urls)
    try:
        cluster = cluster_in_dns(clustering.discovery_srv, clustering.discovery_srv_name, own, lookup, resolve, logger)
    except SrvRefused as refused:
        raise FoundingRefused(str(refused)) from refused
    return replace(config, clustering=replace(clustering, initial_cluster=cluster))


def met(config: Config, patience: Patience, logger: structlog.stdlib.BoundLogger) -> Config:
    """Return *config* with the cluster that has met at the discovery service, and the token for its ids.

    Waits until as many have come as are needed: FoundingRefused, and Stopped by *patience*.
    """
    clustering = config.clustering
    if not discovers(clustering):
        return config
    urls = sorted(str(url) for url in clustering.initial_advertise_peer_urls)
    registry, token = _registry(clustering, patience)
    own = Member.new(config.member.name, urls, token)
    logger.info("bootstrapping cluster using discovery", registry=registry.name)
    meeting = Meeting(registry, own.hex_id, patience, logger)
    try:
        cluster = meeting.join(",".join(f"{config.member.name}={url}" for url in urls))
    except DiscoveryFailed as failed:
        raise FoundingRefused(f"{failed}. {_advice(str(failed), config)}") from failed
    if config.member.name not in {member.name for member in cluster}:
        raise FoundingRefused(f"the discovery service does not list this member any more. {NEW_TOKEN}")
    return replace(config, clustering=replace(clustering, initial_cluster=cluster, initial_cluster_token=token))


NEW_TOKEN = "Do not reuse discovery token; generate a new one to bootstrap a cluster"  # noqa: S105 - advice


def _registry(clustering: Clustering, patience: Patience) -> tuple[Registry, str]:
    """Return where to meet, and what goes into the ids in place of initial-cluster-token (etcd's choice)."""
    if clustering.discovery:
        from discovery.v2 import V2Registry  # noqa: PLC0415 - most members start without a discovery service

        return V2Registry(clustering.discovery, clustering.discovery_proxy, patience), clustering.discovery
    from discovery.credentials import Secure  # noqa: PLC0415 - see above
    from discovery.v3 import Service, V3Registry  # noqa: PLC0415 - see above

    user, _, password = clustering.discovery_user.partition(":")
    service = Service(
        endpoints=clustering.discovery_endpoints,
        secure=Secure(
            clustering.discovery_cert,
            clustering.discovery_key,
            clustering.discovery_cacert,
            clustering.discovery_server_name,
            clustering.discovery_insecure_transport,
            clustering.discovery_insecure_skip_tls_verify,
        ),
        user=user,
        password=clustering.discovery_password or password,
        token=clustering.discovery_auth_token,
        dial_timeout_s=clustering.discovery_dial_timeout_s,
        request_timeout_s=clustering.discovery_request_timeout_s,
        keepalive_time_s=clustering.discovery_keepalive_time_s,
        keepalive_timeout_s=clustering.discovery_keepalive_timeout_s,
        send_bytes_max=clustering.discovery_max_request_bytes,
        receive_bytes_max=clustering.discovery_max_receive_bytes,
    )
    return V3Registry(service, clustering.discovery_token, patience), clustering.discovery_token


def _advice(failure: str, config: Config) -> str:
    if failure == DUPLICATE_ID:
        return (
            f"This member has registered before, but {config.member.data_dir} holds no data of it: check the data "
            "directory if it has started before, or else use a new discovery token"
        )
    if failure.startswith(DUPLICATE_NAME):
        return "Give every member a name of its own, and generate a new discovery token"
    return NEW_TOKEN
