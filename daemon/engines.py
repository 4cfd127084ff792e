"""The engines of the listeners, made from the configuration."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from actors.messages.extension import RoutesAre
from daemon.logs import newest_lines
from daemon.open_files import connections_max
from daemon.profiles import PROFILES
from daemon.sockets import bind_host, file_of, remove_file
from net.door import Security
from net.listener import NativeListener
from net.rpc import Limits, Routes
from services.access import HttpOptions, Serves

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import structlog

    from actors.address import Address
    from actors.base import FatalHook
    from actors.serve import Engine
    from config.schema import Config
    from config.urls import Url
    from daemon.security import Transport
    from net.commons import TakeOver
    from net.grpcio_engine import GrpcioListener
    from net.rpc import HttpHandler

GRPC_OVERHEAD_BYTES = 512 * 1024
"""A message may exceed max-request-bytes by this before gRPC itself refuses it (etcd's allowance)."""


JSON_FACTOR = 2
"""How much more room the JSON of a message may take than the message itself: base64 takes a third more."""

PEER_BODY_BYTES_MAX = 64 * 1024 * 1024
"""Of one raft message that comes as a post; snapshots and streams have no bound here."""


class ClientListener(NamedTuple):
    """Where clients are listened for."""

    urls: tuple[Url, ...]
    """One, or two at the same address: with TLS and without."""
    socket: socket.socket | None
    """Bound and listening; None with the grpcio engine, which cannot take one over."""
    serves: Serves = Serves.ALL
    security: Security | None = None
    """None without TLS."""


class PeerListener(NamedTuple):
    """Where peers are listened for."""

    socket: socket.socket
    security: Security | None


def client_places(config: Config) -> list[tuple[tuple[Url, ...], Serves]]:
    """Return where to listen for clients, and for whom; URLs of one address together."""
    member = config.member
    main = Serves.GRPC if member.listen_client_http_urls else Serves.ALL
    wanted = [
        *((url, main) for url in member.listen_client_urls),
        *((url, Serves.HTTP) for url in member.listen_client_http_urls),
        *((url, Serves.METRICS) for url in config.metrics.listen_metrics_urls),
    ]
    places: dict[tuple[object, Serves], list[Url]] = {}
    for url, serves in wanted:
        places.setdefault((url.address, serves), []).append(url)
    return [(tuple(urls), serves) for (_, serves), urls in places.items()]


def client_security(config: Config, urls: Sequence[Url], serves: Serves, transport: Transport) -> Security | None:
    """Return how clients at *urls* are secured; None without TLS.

    Only where metrics are served is a client's address compared with its certificate, as in etcd.
    """
    if transport.clients is None or not any(url.secure for url in urls):
        return None
    compared = serves is Serves.METRICS and not config.security.client_skip_client_san_verification
    return Security(transport.clients, plain_too=not all(url.secure for url in urls), address_must_fit=compared)


def peer_security(config: Config, url: Url, transport: Transport) -> Security | None:
    """Return how peers at *url* are secured; None without TLS."""
    if transport.peers is None or not url.secure:
        return None
    compared = not config.security.peer_skip_client_san_verification
    return Security(transport.peers, address_must_fit=compared, for_peers=True)


def http_options(config: Config, serves: Serves, logger: structlog.stdlib.BoundLogger) -> HttpOptions:
    """Return what a client listener offers over HTTP."""
    return HttpOptions(
        serves=serves,
        gateway=config.member.enable_grpc_gateway,
        origins=frozenset(config.security.cors),
        hosts=frozenset(config.security.host_whitelist),
        profiles=PROFILES if config.metrics.enable_pprof or config.logging.log_level == "debug" else {},
        lines=partial(newest_lines, logger) if config.logging.log_level == "debug" else None,
        timed=config.metrics.metrics == "extensive",
        client_cert_auth=config.security.client_cert_auth,
        message_bytes_max=config.member.max_request_bytes + GRPC_OVERHEAD_BYTES,
        reflection=config.own.enable_grpc_reflection,
    )


class GrpcioEngine:
    """A grpcio listener, which binds its port itself, as the actors' Engine."""

    delivering = False

    def __init__(self, listener: GrpcioListener, address: str) -> None:
        self._listener = listener
        self._address = address

    async def start(self) -> None:
        """See Engine."""
        await self._listener.start(self._address)

    def flush(self) -> None:
        """See Engine; grpcio does so itself."""

    async def drain(self, timeout_s: float) -> None:
        """See Engine."""
        await self._listener.drain(timeout_s)

    async def close(self) -> None:
        """See Engine."""
        await self._listener.close()


class NativeEngine:
    """Native listeners and the socket that each serves, as the actors' Engine."""

    def __init__(self, listeners: Sequence[tuple[NativeListener, socket.socket]]) -> None:
        self._listeners = listeners
        self._files = [file_of(listening) for _, listening in listeners]

    async def start(self) -> None:
        """See Engine."""
        for listener, listening in self._listeners:
            await listener.start([listening])

    @property
    def delivering(self) -> bool:
        """See Engine."""
        for listener, _ in self._listeners:  # noqa: SIM110 - asked for every batch
            if listener.delivering:
                return True
        return False

    def flush(self) -> None:
        """See Engine."""
        for listener, _ in self._listeners:
            listener.flush()

    async def drain(self, timeout_s: float) -> None:
        """See Engine."""
        await asyncio.gather(*(listener.drain(timeout_s) for listener, _ in self._listeners))

    async def close(self) -> None:
        """See Engine."""
        for path in self._files:
            remove_file(path)
        await asyncio.gather(*(listener.close() for listener, _ in self._listeners))


class InsideEngine:
    """The engine of the listener that extensions call: it has no socket, and hands its routes to *gate*."""

    delivering = False

    def __init__(self, gate: Address[RoutesAre], routes: Routes) -> None:
        gate.tell(RoutesAre(routes))

    async def start(self) -> None:
        """See Engine."""

    def flush(self) -> None:
        """See Engine: answers are messages, and have left."""

    async def drain(self, timeout_s: float) -> None:
        """See Engine; extensions have been stopped before."""

    async def close(self) -> None:
        """See Engine."""


def client_limits(config: Config) -> Limits:
    """Return what a client listener accepts."""
    message_bytes_max = config.member.max_request_bytes + GRPC_OVERHEAD_BYTES
    return Limits(
        receive_message_bytes_max=message_bytes_max,
        http_body_bytes_max=max(Limits().http_body_bytes_max, JSON_FACTOR * message_bytes_max),
        concurrent_streams_max=config.member.max_concurrent_streams,
        keepalive_min_time_s=config.member.grpc_keepalive_min_time_s,
        keepalive_interval_s=config.member.grpc_keepalive_interval_s,
        keepalive_timeout_s=config.member.grpc_keepalive_timeout_s,
        connections_max=connections_max(listener_count(config)),
    )


def listener_count(config: Config) -> int:
    """Return how many places are listened at."""
    return len(client_places(config)) + len(config.member.listen_peer_urls)


def make_client_engine(
    config: Config,
    listening: ClientListener,
    routes: Routes,
    http: HttpHandler,
    on_batch_end: Callable[[], None],
    fatal: FatalHook,
    logger: structlog.stdlib.BoundLogger,
) -> Engine:
    """Return the engine of one client listener."""
    limits = client_limits(config)

    def crashed(error: BaseException) -> None:
        fatal("ServeActor", error)

    security = listening.security
    if listening.socket is None:
        from net.grpcio_engine import GrpcioListener  # noqa: PLC0415 - members start faster without it
        from net.grpcio_tls import credentials  # noqa: PLC0415 - see above

        grpcio = GrpcioListener(
            routes,
            limits,
            fatal=crashed,
            on_batch_end=on_batch_end,
            credentials=None if security is None else credentials(security.tls.files, logger),
            reuse_port=config.member.socket_reuse_port,
        )
        return GrpcioEngine(grpcio, grpcio_address(listening.urls[0]))
    native = NativeListener(routes, http, limits, logger, fatal=crashed, on_batch_end=on_batch_end, security=security)
    return NativeEngine([(native, listening.socket)])


def grpcio_address(url: Url) -> str:
    """Return *url* as grpcio takes it."""
    if url.is_unix:
        return f"unix:{url.host}{url.path}"
    host = bind_host(url)
    return f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"


def make_peer_engine(
    config: Config,
    http: HttpHandler,
    take_over: TakeOver,
    listeners: Sequence[PeerListener],
    fatal: FatalHook,
    logger: structlog.stdlib.BoundLogger,
) -> Engine:
    """Return the engine of the peer listeners, which serve pages, streams and no gRPC."""
    return NativeEngine(
        [
            (
                NativeListener(
                    Routes(unary={}, streams={}),
                    http,
                    Limits(
                        http_body_bytes_max=PEER_BODY_BYTES_MAX,
                        connections_max=connections_max(listener_count(config)),
                    ),
                    logger,
                    fatal=lambda error: fatal("PeerTransportActor", error),
                    take_over=take_over,
                    security=listener.security,
                ),
                listener.socket,
            )
            for listener in listeners
        ]
    )
