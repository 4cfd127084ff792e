"""A member's configuration with the old setting ``proxy: on`` or ``proxy: readonly``, led to the gRPC proxy.

As etcd's v2 proxy did, it asks the peers of initial-cluster where clients are served, and listens on
listen-client-urls; with peers' certificates it knows the members, with clients' it is known.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from daemon.engines import client_limits
from daemon.grpc_proxy import RECEIVE_BYTES_MAX, Plan, ProxyRefused, run_plan
from daemon.joining import find_cluster
from daemon.logs import make_logger, route_standard_library, write_notes
from daemon.profiles import PROFILES
from daemon.security import secure
from daemon.sockets import ListenRefused, listen
from grpcproxy.settings import Front, Upstream, UpstreamTls
from grpcproxy.upstream import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import structlog

    from config.notes import Note
    from config.schema import Config

EXIT_FAILED = 1
RETRY_S = 1.0
SYNC_S = 30.0
"""How often the members are asked for their addresses (the default of proxy-refresh-interval)."""


def run(config: Config, notes: Sequence[Note]) -> int:
    """Run the proxy until it is stopped, and return the exit code."""
    try:
        logger = make_logger(config.logging)
    except OSError as error:
        sys.stderr.write(f"cannot open a log output: {error}\n")
        return EXIT_FAILED
    route_standard_library(logger, config.logging)
    write_notes(logger, notes)
    return run_plan(lambda stopped: plan(config, logger, stopped), logger)


def plan(config: Config, logger: structlog.stdlib.BoundLogger, stopped: Callable[[], bool]) -> Plan | None:
    """Ask the peers, and bind; None if *stopped* said so before a peer has answered.  Raises ProxyRefused."""
    transport = secure(config, logger)
    peers = [str(url) for member in config.clustering.initial_cluster for url in member.peer_urls]
    told = False
    while True:
        found = find_cluster(peers, transport.dialling)
        urls = [] if found is None else [url for member in found.members for url in member.client_urls]
        if urls:
            break
        if stopped():
            return None
        if not told:
            told = True
            logger.warning("no peer tells where the members serve clients; asking on", peers=peers)
        time.sleep(RETRY_S)
    with ExitStack() as opened:
        try:
            sockets = tuple(opened.enter_context(listen(url)) for url in config.member.listen_client_urls)
            pages = tuple(opened.enter_context(listen(url)) for url in config.metrics.listen_metrics_urls)
        except ListenRefused as refused:
            raise ProxyRefused(str(refused)) from refused
        opened.pop_all()
    for url in config.member.listen_client_urls:
        logger.info("listening for client requests on", address=str(url))
    security = config.security
    secure_members = any(url.startswith(("https://", "unixs://")) for url in urls)
    tls = None
    if secure_members:
        tls = UpstreamTls(
            authority=content(security.peer_trusted_ca_file),
            certificate=content(security.peer_cert_file),
            key=content(security.peer_key_file),
        )
    return Plan(
        upstream=Upstream(endpoints=tuple(address_of(url) for url in urls), tls=tls, sync_interval_s=SYNC_S),
        front=Front(profiles=PROFILES if config.metrics.enable_pprof else {}, read_only=config.own.proxy == "readonly"),
        limits=replace(client_limits(config), receive_message_bytes_max=RECEIVE_BYTES_MAX),
        sockets=sockets,
        metrics_sockets=pages,
        pages_secure=any(url.secure for url in config.metrics.listen_metrics_urls),
        server_tls=transport.clients if any(url.secure for url in config.member.listen_client_urls) else None,
        fetching=transport.dialling.context() if secure_members else None,
    )


def content(path: str) -> bytes | None:
    """Return a file's content, None if there is no path.  Raises ProxyRefused."""
    if not path:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as it was given
            return file.read()
    except OSError as error:
        raise ProxyRefused(f"open {path}: {(error.strerror or str(error)).lower()}") from error
